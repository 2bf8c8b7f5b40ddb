//! Whatever a client sends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resound::protocol::{ClientFrame, Member, User};

fuzz_target!(|text: &str| {
    let _ = ClientFrame::parse(text);
    let _ = User::parse(text, 1 << 20);
    if let Ok(member) = Member::parse(text, 1 << 20) {
        assert!(!member.id.is_empty());
    }
});
