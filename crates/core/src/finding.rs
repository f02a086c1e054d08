//! Preflight findings: what was seen before anything is created, how bad it is, and what to do.

use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// A risk that the user takes by going on.
    Warning,
    /// The run is refused.
    Refusal,
}

/// One thing that preflight saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable short name, as `foreign-key-out`; documented in `docs/reference/findings.md`.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen, naming the object.
    pub message: String,
    /// What to do about it; empty where nothing is to be done.
    pub remedy: String,
}

impl Finding {
    /// A finding that refuses the run.
    pub fn refusal(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::with(code, Severity::Refusal, message, remedy)
    }

    /// A finding that warns.
    pub fn warning(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::with(code, Severity::Warning, message, remedy)
    }

    /// A finding worth knowing.
    pub fn note(code: &str, message: impl Into<String>) -> Self {
        Self::with(code, Severity::Note, message, "")
    }

    fn with(
        code: &str,
        severity: Severity,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { code: code.to_owned(), severity, message: message.into(), remedy: remedy.into() }
    }
}

/// True where at least one finding refuses the run.
pub fn is_refused(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Refusal)
}
