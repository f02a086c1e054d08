//! Events as lines of JSON, for programs.
//!
//! Owns that there is exactly one object a line. The fields are the engine's, documented there; those
//! of a listed run are made in `command::status`.

use serde_json::Value;
use underpin_engine::Report;

/// The line of a report.
pub(super) fn line(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_else(|error| {
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
             \"waiting\":null}"
        );
    }
}
