//! Whatever is in a topic's hash.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| resound_fuzz::facts(bytes));
