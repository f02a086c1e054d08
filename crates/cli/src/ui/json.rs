//! Events as lines of JSON, for programs.
//!
//! Owns that there is exactly one object a line, and the version of their shape. The fields are the
//! engine's; docs/reference/json.md tells all of them, and a test holds the two together.

use serde::Serialize;
use serde_json::Value;
use underpin_engine::Report;

/// The version of the lines' shape (docs/reference/json.md). Fields and events are added without a new one.
const SCHEMA: u32 = 1;

/// A line: its own fields, then the version of their shape.
#[derive(Serialize)]
struct Line<'a, T> {
    #[serde(flatten)]
    fields: &'a T,
    schema: u32,
}

/// The line of a report.
pub(super) fn line(report: &Report) -> String {
    of(report)
}

/// A line about a run that is listed: `event` names what it is.
pub(crate) fn listed<T: Serialize>(event: &'static str, fields: &T) -> String {
    #[derive(Serialize)]
    struct Listed<'a, T> {
        event: &'static str,
        #[serde(flatten)]
        fields: &'a T,
    }
    of(&Listed { event, fields })
}

fn of<T: Serialize>(fields: &T) -> String {
    serde_json::to_string(&Line { fields, schema: SCHEMA }).unwrap_or_else(|error| {
        // Strings and numbers cannot fail to be written; a reader still deserves a line it can parse.
        Value::from_iter([("event", "error".to_owned()), ("message", error.to_string())])
            .to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::super::reading::samples::copying;
    use super::*;

    #[test]
    fn one_object_a_line_whatever_the_text() {
        let report = Report::Error {
            at_ms: 7,
            kind: "failed".into(),
            message: "two\nlines \"quoted\"".into(),
        };
        let line = line(&report);
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["message"], "two\nlines \"quoted\"");
    }

    #[test]
    fn progress_keeps_its_names() {
        assert_eq!(
            line(&copying(12)),
            "{\"event\":\"progress\",\"at_ms\":12,\"phase\":\"copy\",\"rows_copied\":1234000,\
             \"rows_estimate\":2000000,\"rows_verified\":0,\"backlog\":120,\"rows_per_s\":45210,\
             \"eta_s\":17,\"lag_ms\":340,\"chunk_ms\":390,\"captured\":5123,\"applied\":5003,\
             \"waiting\":null,\"waiting_kind\":null,\"waiting_ms\":0,\"eta_low_s\":12,\
             \"eta_high_s\":30,\"bytes_copied\":0,\"workers\":4,\"signals\":[],\"schema\":1}"
        );
    }
}
