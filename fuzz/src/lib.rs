//! What the fuzz targets hold to be true, whatever the bytes are. `tests/it/fuzz.rs` runs the same on
//! the seeds and on changes of them.

use redis::Value;
use resound::cluster::codec::Message;
use resound::cluster::redis::snapshot;
use resound::protocol::{ClientFrame, Member, User};
use resound::proxies::ForwardedHeader::{Forwarded, XForwardedFor};
use resound::proxies::header::{Beginning, Header};
use resound::proxies::{ForwardedHeader, Networks};

/// Whatever comes through Redis: it is refused, or reads as what a node writes.
pub fn bus_message(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        let text = message.encode();
        assert_eq!(Message::parse(text.as_bytes()), Ok(message));
    }
}

/// Whatever a client sends.
pub fn client_frame(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let _ = ClientFrame::parse(text);
    let _ = User::parse(text, 1 << 20);
    if let Ok(member) = Member::parse(text, 1 << 20) {
        assert!(!member.id.is_empty());
    }
}

/// Whatever is in a topic's hash: lines are its fields and values in turn.
pub fn facts(bytes: &[u8]) {
    let fields: Vec<Value> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| Value::BulkString(line.to_vec()))
        .collect();
    let pairs = fields.len() / 2;
    let snapshot = snapshot::read(&Value::Array(fields)).expect("a list is a hash");
    let facts: usize = snapshot.nodes.iter().map(|node| node.facts.len()).sum();
    assert!(facts + snapshot.unreadable <= pairs);
}

/// Whatever a connection begins with, and whatever stands in `X-Forwarded-For` and `Forwarded`.
pub fn proxy_headers(bytes: &[u8]) {
    if Beginning::of(bytes) == Beginning::Header
        && let Some((header, rest)) = read(bytes, 4200)
    {
        let source = header.source();
        let (slow, slow_rest) = read(bytes, 1).expect("it is the same header");
        assert_eq!((slow.source(), slow_rest), (source, rest));
    }
    client(XForwardedFor, bytes);
    client(Forwarded, bytes);
}

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
