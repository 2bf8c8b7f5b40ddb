//! Whatever a client sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| resound_fuzz::client_frame(bytes));
