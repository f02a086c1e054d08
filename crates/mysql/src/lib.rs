//! mysql (being built).
