//! Whatever a connection begins with, and whatever a proxy says of a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| resound_fuzz::proxy_headers(bytes));
