#![no_main]
//! See `properties::quoting`.

libfuzzer_sys::fuzz_target!(|text: &str| underpin_fuzz::properties::quoting(text));
