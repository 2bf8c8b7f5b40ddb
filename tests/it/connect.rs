//! The handshake, and who is let in.

use crate::support::client::tcp;
use crate::support::{Client, Http, KEY, TestServer};
use std::io::{Read, Write};

fn handshake(server: &TestServer, request: &str) -> String {
    let mut stream = tcp(server);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

const HEADERS: &str = "Host: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn the_handshake_of_rfc_6455_is_answered() {
    let server = TestServer::start();
    let answer = handshake(
        &server,
        &format!("GET /app/{KEY} HTTP/1.1\r\n{HEADERS}\r\n"),
    )
    .to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(
        answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
        "{answer}"
    );
    assert!(
        !answer.contains("extensions") && !answer.contains("sec-websocket-protocol"),
        "{answer}"
    );
}

#[test]
fn established_has_the_socket_id_and_the_activity_timeout() {
    let server = TestServer::with(&[("REVERB_APP_ACTIVITY_TIMEOUT", "45")]);
    let mut client = Client::open(&server, &format!("/app/{KEY}"), &[]);
    let text = client.next_text();
    let id = text
        .split('"')
        .find(|part| part.ends_with('\\') && part.contains('.'))
        .unwrap()
        .trim_end_matches('\\');
    let (high, low) = id.split_once('.').unwrap();
    assert!(high.parse::<u32>().unwrap() > 0 && low.parse::<u32>().unwrap() > 0);
    let expected = format!(
        r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"{id}\",\"activity_timeout\":45}}"}}"#
    );
    assert_eq!(text, expected);
}

/// As Reverb does: no version of the protocol is refused.
#[test]
fn any_or_no_protocol_version_is_accepted() {
    let server = TestServer::start();
    for query in [
        "",
        "?",
        "?protocol=7",
        "?protocol=4",
        "?protocol=99",
        "?protocol=abc",
        "?client=js",
    ] {
        let mut client = Client::open(&server, &format!("/app/{KEY}{query}"), &[]);
        client.established();
        client.expect_alive();
    }
}

#[test]
fn what_is_no_handshake_is_answered_with_what_is_missing() {
    let server = TestServer::start();
    for (request, status, text) in [
        (
            format!("GET /app/{KEY} HTTP/1.1\r\nHost: x\r\n\r\n"),
            426,
            "did not ask for one",
        ),
        (
            format!(
                "GET /app/{KEY} HTTP/1.1\r\n{}\r\n",
                HEADERS.replace("websocket", "h2c")
            ),
            426,
            "did not ask for one",
        ),
        (
            format!(
                "GET /app/{KEY} HTTP/1.1\r\n{}\r\n",
                HEADERS.replace(": 13", ": 8")
            ),
            426,
            "has to be 13",
        ),
        (
            format!(
                "GET /app/{KEY} HTTP/1.1\r\n{}\r\n",
                HEADERS.replace("dGhl", "")
            ),
            400,
            "Sec-WebSocket-Key",
        ),
        (
            format!(
                "GET /app/{KEY} HTTP/1.1\r\n{}\r\n",
                HEADERS.replace("dGhlIHNhbXBsZSBub25jZQ", &"!".repeat(22))
            ),
            400,
            "Sec-WebSocket-Key",
        ),
        (
            format!(
                "GET /app/{KEY} HTTP/1.1\r\n{HEADERS}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            ),
            400,
            "Sec-WebSocket-Key",
        ),
        (
            format!(
                "GET /app/{KEY} HTTP/1.1\r\n{}\r\n",
                HEADERS.replace("Host: x\r\n", "")
            ),
            400,
            "has one header Host",
        ),
        (
            format!("GET /app/{KEY} HTTP/1.1\r\n{HEADERS}Host: x\r\n\r\n"),
            400,
            "has one header Host",
        ),
        (
            format!("GET /app/{KEY} HTTP/1.0\r\n{HEADERS}\r\n"),
            400,
            "needs HTTP/1.1",
        ),
        (
            format!("POST /app/{KEY} HTTP/1.1\r\nContent-Length: 0\r\n{HEADERS}\r\n"),
            405,
            "opened with GET",
        ),
        (
            format!("GET /app/ HTTP/1.1\r\n{HEADERS}\r\n"),
            404,
            "Not found.",
        ),
        (
            format!("GET /app/{KEY}/ HTTP/1.1\r\n{HEADERS}\r\n"),
            404,
            "Not found.",
        ),
        (
            format!("GET /nothing HTTP/1.1\r\n{HEADERS}\r\n"),
            404,
            "Not found.",
        ),
    ] {
        let mut http = Http::connect(&server);
        http.write(&request);
        let answer = http.answer();
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.body.contains(text), "{request}: {}", answer.body);
        if status == 426 {
            assert!(
                answer
                    .header("upgrade")
                    .or(answer.header("sec-websocket-version"))
                    .is_some()
            );
        }
    }
}

/// Reverb sends the error, then cuts the connection without a close frame.
#[test]
fn an_unknown_key_is_sent_an_error_and_closed_with_4001() {
    let server = TestServer::start();
    let mut client = Client::open(&server, "/app/wrong-key?protocol=7", &[]);
    client.expect_error(4001, "Application does not exist");
    client.closed_with(4001, "Application does not exist");
}

/// Reverb only says so and goes on serving the connection.
#[test]
fn a_refused_origin_is_sent_an_error_and_closed_with_4009() {
    let server = TestServer::with(&[("REVERB_ALLOWED_ORIGINS", "good.example, *.fine.example")]);
    for (origin, allowed) in [
        (Some("https://good.example"), true),
        (Some("http://good.example:3000"), true),
        (Some("http://a.b.fine.example"), true),
        (Some("http://evil.example"), false),
        (Some("null"), false),
        (None, false),
    ] {
        let headers: Vec<_> = origin
            .map(|origin| ("origin", origin))
            .into_iter()
            .collect();
        let mut client = Client::open(&server, &format!("/app/{KEY}"), &headers);
        if allowed {
            client.established();
        } else {
            client.expect_error(4009, "Origin not allowed");
            client.closed_with(4009, "Origin not allowed");
        }
    }
}

/// A second header, or bytes that are no text, must not count as none.
#[test]
fn an_origin_that_cannot_be_read_is_not_a_missing_one() {
    let server = TestServer::with(&[
        ("REVERB_ALLOWED_ORIGINS", "good.example"),
        ("RESOUND_ALLOW_MISSING_ORIGIN", "true"),
    ]);
    for (origins, allowed) in [
        (&b""[..], true),
        (b"Origin: https://good.example\r\n", true),
        (
            b"Origin: https://good.example\r\nOrigin: https://good.example\r\n",
            false,
        ),
        (b"Origin: https://\xffgood.example\r\n", false),
        (b"Origin:\r\n", false),
        (b"Origin: http://evil.example/.good.example\r\n", false),
    ] {
        let mut stream = tcp(&server);
        let head = format!("GET /app/{KEY} HTTP/1.1\r\n{HEADERS}");
        stream
            .write_all(&[head.as_bytes(), origins, b"\r\n"].concat())
            .unwrap();
        let mut answer = String::new();
        let mut piece = [0; 4096];
        while !answer.contains("\"pusher:") {
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "{answer}");
            answer.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        let refused = answer.contains("Origin not allowed");
        assert_eq!(!refused, allowed, "{}", String::from_utf8_lossy(origins));
    }
}

/// Reverb counts only sockets that are in a channel, and does not close.
#[test]
fn over_the_quota_is_sent_an_error_and_closed_with_4004_until_somebody_goes() {
    let server = TestServer::with(&[("REVERB_APP_MAX_CONNECTIONS", "2")]);
    let mut first = Client::connect(&server);
    let _second = Client::connect(&server);
    let mut third = Client::open(&server, &format!("/app/{KEY}"), &[]);
    third.expect_error(4004, "Application is over connection quota");
    third.closed_with(4004, "Application is over connection quota");
    first.socket.close(None).unwrap();
    while first.socket.read().is_ok() {}
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while server.app.connections() > 1 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    Client::connect(&server).expect_alive();
}

/// Reverb loses such a frame.
#[test]
fn a_frame_in_the_segment_of_the_handshake_is_not_lost() {
    let server = TestServer::start();
    let mut stream = tcp(&server);
    let ping = br#"{"event":"pusher:ping"}"#;
    let mut bytes = format!("GET /app/{KEY} HTTP/1.1\r\n{HEADERS}\r\n").into_bytes();
    bytes.extend_from_slice(&[0x81, 0x80 | u8::try_from(ping.len()).unwrap(), 0, 0, 0, 0]);
    bytes.extend_from_slice(ping);
    stream.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("pusher:pong") {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0);
        answer.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn a_prefix_holds_for_every_route_and_a_proxy_may_have_taken_it_off() {
    let server = TestServer::with(&[("REVERB_SERVER_PATH", "ws")]);
    for prefix in ["/ws", ""] {
        let mut client = Client::open(&server, &format!("{prefix}/app/{KEY}"), &[]);
        client.established();
        assert_eq!(
            Http::connect(&server)
                .request("GET", &format!("{prefix}/up"), "")
                .status,
            200
        );
    }
    assert_eq!(
        Http::connect(&server)
            .request("GET", "/other/up", "")
            .status,
        404
    );
    assert_eq!(
        Http::connect(&server).request("GET", "/wsup", "").status,
        404
    );
}
