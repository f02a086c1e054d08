//! Which files are looked at.

/// Where the files are.
#[derive(Debug, Clone, Default)]
pub struct FileSearch {}
