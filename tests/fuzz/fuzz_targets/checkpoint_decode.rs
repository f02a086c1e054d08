#![no_main]
//! See `properties::checkpoint_decode`.

libfuzzer_sys::fuzz_target!(|text: &str| underpin_fuzz::properties::checkpoint_decode(text));
