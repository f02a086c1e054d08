//! What must hold for any input. The fuzz targets throw bytes at it; `tests/properties.rs` the same
//! functions at what proptest draws.

pub mod properties;
