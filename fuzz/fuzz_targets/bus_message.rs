//! Whatever comes through Redis: it is refused, or reads as what a node writes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resound::cluster::codec::Message;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::parse(bytes) {
        let text = message.encode();
        assert_eq!(Message::parse(text.as_bytes()), Ok(message));
    }
});
