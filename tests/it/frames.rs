//! WebSocket frames, good and bad, and what each is answered with.

use crate::support::{Client, TestServer};
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// A masked frame with a mask of zeros, so that the payload is readable.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![
        first,
        0x80 | u8::try_from(payload.len()).unwrap(),
        0,
        0,
        0,
        0,
    ];
    bytes.extend_from_slice(payload);
    bytes
}

const PING: &[u8] = br#"{"event":"pusher:ping"}"#;
const PONG: &str = r#"{"event":"pusher:pong"}"#;

#[test]
fn pings_of_both_kinds_are_answered() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.expect_alive();
    client
        .socket
        .send(Message::Ping(Bytes::from_static(b"payload")))
        .unwrap();
    assert_eq!(client.next(), Message::Pong(Bytes::from_static(b"payload")));
    client
        .socket
        .send(Message::Pong(Bytes::from_static(b"unasked")))
        .unwrap();
    client.send(r#"{"event":"pusher:pong","data":{}}"#);
    client.expect_alive();
}

#[test]
fn text_in_a_binary_frame_counts_as_text() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client
        .socket
        .send(Message::Binary(Bytes::from_static(PING)))
        .unwrap();
    client.expect(PONG);
    client
        .socket
        .send(Message::Binary(Bytes::from_static(&[0xff])))
        .unwrap();
    client.expect_error(4200, "Invalid message format");
}

#[test]
fn messages_in_fragments_and_many_in_one_segment_are_read() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    let (head, tail) = PING.split_at(9);
    let fragments = [
        frame(0x01, head),
        frame(0x89, b"in between"),
        frame(0x80, tail),
    ]
    .concat();
    client.socket.get_mut().write_all(&fragments).unwrap();
    assert_eq!(
        client.next(),
        Message::Pong(Bytes::from_static(b"in between"))
    );
    client.expect(PONG);
    client
        .socket
        .get_mut()
        .write_all(&frame(0x81, PING).repeat(300))
        .unwrap();
    (0..300).for_each(|_| client.expect(PONG));
    for byte in frame(0x81, PING) {
        client.socket.get_mut().write_all(&[byte]).unwrap();
    }
    client.expect(PONG);
}

#[test]
fn a_message_that_makes_no_sense_is_answered_with_an_error_and_the_socket_stays_open() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    let deep = format!(
        r#"{{"event":"pusher:subscribe","data":{}{}}}"#,
        "[".repeat(1000),
        "]".repeat(1000)
    );
    for text in [
        "",
        "no json",
        "null",
        "{}",
        r#"{"event":"pusher:signin"}"#,
        r#"{"event":"pusher:nothing"}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":["a"]}}"#,
        &deep,
    ] {
        client.send(text);
        client.expect_error(4200, "Invalid message format");
    }
    client.send(r#"{"event":"message.sent","channel":"a","data":{}}"#);
    client.expect_alive();
}

#[test]
fn violations_of_rfc_6455_are_closed_with_their_code() {
    let server = TestServer::start();
    let unmasked = [&[0x81, 2][..], b"{}"].concat();
    for (what, bytes, code, reason) in [
        ("unmasked", unmasked, 1002, "WebSocket protocol error"),
        (
            "reserved bit",
            frame(0xc1, PING),
            1002,
            "WebSocket protocol error",
        ),
        (
            "reserved opcode",
            frame(0x83, PING),
            1002,
            "WebSocket protocol error",
        ),
        (
            "continuation of nothing",
            frame(0x80, PING),
            1002,
            "WebSocket protocol error",
        ),
        (
            "fragmented ping",
            frame(0x09, b""),
            1002,
            "WebSocket protocol error",
        ),
        (
            "close of one byte",
            frame(0x88, b"x"),
            1002,
            "WebSocket protocol error",
        ),
        (
            "invalid UTF-8",
            frame(0x81, &[0xc3, 0x28]),
            1007,
            "Text is not valid UTF-8",
        ),
    ] {
        let mut client = Client::connect(&server);
        client.subscribe("lobby");
        client.socket.get_mut().write_all(&bytes).unwrap();
        let Message::Close(Some(close)) = client.next() else {
            panic!("{what}")
        };
        assert_eq!(
            (u16::from(close.code), close.reason.as_str()),
            (code, reason),
            "{what}"
        );
    }
}

#[test]
fn a_message_over_the_limit_is_closed_with_1009() {
    let server = TestServer::with(&[("REVERB_APP_MAX_MESSAGE_SIZE", "100")]);
    let padded = |length: usize| {
        format!(
            "{}{}",
            String::from_utf8_lossy(PING),
            " ".repeat(length - PING.len())
        )
    };
    let mut client = Client::connect(&server);
    client.send(&padded(100));
    client.expect(PONG);
    client.send(&padded(101));
    client.closed_with(
        1009,
        "Maximum message size exceeded (max_message_size, REVERB_APP_MAX_MESSAGE_SIZE)",
    );
    let mut fragments = Client::connect(&server);
    let bytes = [frame(0x01, &[b'x'; 60]), frame(0x80, &[b'x'; 60])].concat();
    fragments.socket.get_mut().write_all(&bytes).unwrap();
    fragments.closed_with(
        1009,
        "Maximum message size exceeded (max_message_size, REVERB_APP_MAX_MESSAGE_SIZE)",
    );
    // Far over it, in several reads: what follows is not parsed.
    let mut far = Client::connect(&server);
    far.send(&padded(200_000));
    far.closed_with(
        1009,
        "Maximum message size exceeded (max_message_size, REVERB_APP_MAX_MESSAGE_SIZE)",
    );
    Client::connect(&server).expect_alive();
}

#[test]
fn the_clients_close_code_is_echoed() {
    let server = TestServer::start();
    for code in [1000, 1001, 4999] {
        let mut client = Client::connect(&server);
        client
            .socket
            .close(Some(CloseFrame {
                code: code.into(),
                reason: "bye".into(),
            }))
            .unwrap();
        client.closed_with(code, "bye");
    }
}
