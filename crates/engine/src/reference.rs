//! Tests only: docs/reference/json.md, read so that what is sent and what is told can be held together.
//!
//! A section `` ## `EVENT` `` has a table whose rows begin with `` | `field` | type | ``. Fields of objects
//! are told as `outer.inner`, those of objects in a list as `list[].inner`.

use std::collections::BTreeMap;

use serde_json::Value;

/// Field → type, as the page tells them.
type Fields = BTreeMap<String, String>;

fn page() -> BTreeMap<String, Fields> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/json.md");
    let text = std::fs::read_to_string(path).expect(path);
    let mut page: BTreeMap<String, Fields> = BTreeMap::new();
    let mut event = None;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            event = heading.trim().strip_prefix('`').and_then(|it| it.strip_suffix('`'));
            if let Some(event) = event {
                page.entry(event.to_owned()).or_default();
            }
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let (Some(event), ["", field, kind, ..]) = (event, &cells[..])
            && let Some(field) = field.strip_prefix('`').and_then(|it| it.strip_suffix('`'))
        {
            page.entry(event.to_owned()).or_default().insert(field.to_owned(), (*kind).to_owned());
        }
    }
    page
}

/// The events that the page tells of.
pub(crate) fn events() -> Vec<String> {
    page().into_keys().collect()
}

/// Fails where the page and an object that is sent do not tell the same fields and types. Every field that
/// may be empty must be filled in it.
pub(crate) fn must_tell(event: &str, sent: &Value) {
    let page = page();
    let told = page.get(event).unwrap_or_else(|| panic!("docs/reference/json.md: no `{event}`"));
    let mut fields = Fields::new();
    collect("", sent, &mut fields);
    // These two are told once for all lines.
    for common in ["event", "schema"] {
        fields.remove(common);
    }
    for (field, kind) in &fields {
        let Some(told) = told.get(field) else {
            panic!("docs/reference/json.md: `{event}` lacks `{field}` ({kind})");
        };
        let told = told.trim_end_matches(" or null");
        assert_eq!(told, kind, "docs/reference/json.md: the type of `{field}` in `{event}`");
    }
    for field in told.keys() {
        assert!(fields.contains_key(field), "docs/reference/json.md: `{event}` has no `{field}`");
    }
}

fn collect(prefix: &str, value: &Value, fields: &mut Fields) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let name =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                fields.insert(name.clone(), kind(value).to_owned());
                collect(&name, value, fields);
            }
        }
        Value::Array(list) => {
            for value in list.iter().filter(|value| value.is_object()) {
                collect(&format!("{prefix}[]"), value, fields);
            }
        }
        _ => {}
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => panic!("a sample must fill every field"),
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}
