//! What a runner makes known about its run once a second, in the database that is changed, so that
//! `underpin status` can show it anywhere.

use serde::{Deserialize, Serialize};
use underpin_dialect::Given;

use crate::report::Figures;
use crate::worst::Worst;

/// How a run fares, as its runner last said. Fields are added, never renamed: another version may read it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    /// Who runs it, as "user@machine".
    pub by: String,
    /// Version of the runner.
    pub version: String,
    /// The settings in force, as they would be set.
    pub settings: Vec<Given>,
    /// The worst that was read of each signal, by this runner and those before it.
    pub worst: Vec<Worst>,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
}

impl Live {
    /// Reads what was published; `None` where nothing was, or another version wrote what this one cannot
    /// read.
    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As it is published.
    pub(crate) fn write(&self) -> String {
        // Numbers and strings cannot fail to be written; numbers that are none (NaN) become null.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_missing_is_empty() {
        let figures = Figures { phase: "copy".into(), rows_copied: 7, ..Figures::default() };
        let live = Live { by: "ann@ops1".into(), figures, ..Live::default() };
        assert_eq!(Live::read(&live.write()), Some(live));
        let older = Live::read(r#"{"phase":"copy","unknown":[1]}"#).unwrap();
        assert_eq!((older.figures.phase.as_str(), older.by.as_str()), ("copy", ""));
        assert_eq!(Live::read(""), None);
    }
}
