//! How a column of the key may change its type while it goes on telling rows apart.

use underpin_core::mapping::KeyFit;
use underpin_core::schema::Column;

/// Whole numbers from narrow to wide, then what holds them all.
const NUMBERS: [&str; 4] = ["int2", "int4", "int8", "numeric"];

/// How a source column fits its target as a column of the key; `None` where it does not.
pub(crate) fn key_fit(old: &Column, new: &Column) -> Option<KeyFit> {
    if old.full_type == new.full_type {
        // Other collations sort otherwise, and may hold other values for equal.
        return Some(if old.collation == new.collation {
            KeyFit::Same
        } else {
            KeyFit::Recollated
        });
    }
    let place = |column: &Column| NUMBERS.iter().position(|name| *name == column.base_type);
    if let (Some(from), Some(to)) = (place(old), place(new)) {
        // A numeric with a scale could round.
        let whole = to < 3 || new.full_type == "numeric";
        return (from <= to && whole).then_some(KeyFit::Wider);
    }
    let texts = ["varchar", "text"];
    let is_text = |column: &Column| texts.contains(&column.base_type.as_str());
    if is_text(old) && is_text(new) {
        let same = old.collation == new.collation;
        return Some(if same { KeyFit::Wider } else { KeyFit::Recollated });
    }
    if old.base_type == new.base_type && ["numeric", "bpchar"].contains(&old.base_type.as_str()) {
        // A value that does not fit stops the run; one that would be rounded must not be a key.
        return (old.base_type == "bpchar" || new.full_type == "numeric").then_some(KeyFit::Wider);
    }
    let printable = ["int2", "int4", "int8", "uuid", "bpchar", "date"];
    (is_text(new) && printable.contains(&old.base_type.as_str())).then_some(KeyFit::Recollated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(base: &str, full: &str, collation: Option<&str>) -> Column {
        Column {
            name: "a".into(),
            full_type: full.into(),
            base_type: base.into(),
            charset: None,
            collation: collation.map(str::to_owned),
            nullable: false,
            generated: false,
            auto_increment: false,
            volatile_default: false,
            has_default: false,
            srs_id: None,
        }
    }

    #[test]
    fn a_key_may_grow_but_not_shrink() {
        let int = column("int4", "integer", None);
        let big = column("int8", "bigint", None);
        assert_eq!(key_fit(&int, &int), Some(KeyFit::Same));
        assert_eq!(key_fit(&int, &big), Some(KeyFit::Wider));
        assert_eq!(key_fit(&big, &int), None);
        assert_eq!(key_fit(&int, &column("numeric", "numeric(8,2)", None)), None);
        let text = column("text", "text", Some("\"default\""));
        let other = column("text", "text", Some("\"C\""));
        assert_eq!(key_fit(&text, &other), Some(KeyFit::Recollated));
        assert_eq!(key_fit(&int, &text), Some(KeyFit::Recollated));
        assert_eq!(key_fit(&text, &int), None);
        assert_eq!(key_fit(&column("float8", "double precision", None), &text), None);
    }
}
