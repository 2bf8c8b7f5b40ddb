//! Whatever a connection begins with, and whatever stands in `X-Forwarded-For` and `Forwarded`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resound::proxies::ForwardedHeader::{Forwarded, XForwardedFor};
use resound::proxies::header::{Beginning, Header};
use resound::proxies::{ForwardedHeader, Networks};

/// The header, read in pieces of this size, and what is left.
fn read(mut bytes: &[u8], piece: usize) -> Option<(Header, &[u8])> {
    let mut header = Header::default();
    while !header.is_whole() {
        let next = &bytes[..bytes.len().min(piece)];
        let own = header.own(next).ok().filter(|own| *own > 0)?;
        header.push(&next[..own]);
        bytes = &bytes[own..];
    }
    Some((header, bytes))
}

fn client(header: ForwardedHeader, bytes: &[u8]) {
    let trusted: Networks = "loopback, private".parse().expect("it is a list");
    let fields: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let client = header.client(fields.iter().copied(), &trusted);
    // What a proxy adds at the right is never hidden by what was there.
    let added: &[u8] = match header {
        XForwardedFor => b"192.0.2.1, 10.0.0.1",
        Forwarded => b"for=192.0.2.1;proto=https, for=\"[fd00::1]:80\"",
    };
    let with_line = fields.iter().copied().chain([added]);
    let expected = "192.0.2.1:0".parse().ok();
    assert_eq!(header.client(with_line, &trusted), expected);
    let line = [bytes, b", ", added].concat();
    assert_eq!(header.client([&*line].into_iter(), &trusted), expected);
    assert!(client.is_none_or(|client| client.ip() == client.ip().to_canonical()));
}

fuzz_target!(|bytes: &[u8]| {
    if Beginning::of(bytes) == Beginning::Header
        && let Some((header, rest)) = read(bytes, 4200)
    {
        let source = header.source();
        let (slow, slow_rest) = read(bytes, 1).expect("it is the same header");
        assert_eq!((slow.source(), slow_rest), (source, rest));
    }
    client(XForwardedFor, bytes);
    client(Forwarded, bytes);
});
