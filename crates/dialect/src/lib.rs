//! dialect (being built).
