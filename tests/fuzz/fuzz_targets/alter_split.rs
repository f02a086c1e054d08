#![no_main]
//! See `properties::alter_split`.

libfuzzer_sys::fuzz_target!(|text: &str| underpin_fuzz::properties::alter_split(text));
