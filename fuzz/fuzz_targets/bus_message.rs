//! Whatever comes through Redis.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| resound_fuzz::bus_message(bytes));
