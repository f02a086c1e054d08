#![no_main]
//! See `properties::option_file`.

use std::sync::OnceLock;

static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let dir = DIR.get_or_init(|| tempfile::tempdir().expect("making a directory"));
    underpin_fuzz::properties::option_file(bytes, dir.path());
});
