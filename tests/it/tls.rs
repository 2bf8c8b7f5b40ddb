//! TLS: the same server, encrypted.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use resound::apps::{Counter, HandshakeRefusal};

use crate::support::client::tcp;
use crate::support::{Client, Http, KEY, TestServer};
use serde_json::json;

struct Authority {
    _dir: tempfile::TempDir,
    cert: PathBuf,
    key: PathBuf,
    client: Arc<ClientConfig>,
}

fn authority() -> Authority {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Authority {
        _dir: dir,
        cert,
        key,
        client: Arc::new(client),
    }
}

fn server(authority: &Authority) -> TestServer {
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (cert, key) = (text(&authority.cert), text(&authority.key));
    TestServer::with(&[
        ("RESOUND_TLS_CERT", &cert),
        ("RESOUND_TLS_KEY", &key),
        ("RESOUND_MAX_BACKLOG", "8000000"),
    ])
}

fn connect(server: &TestServer, authority: &Authority) -> Client {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::clone(&authority.client), name).unwrap();
    let stream = StreamOwned::new(session, tcp(server));
    let mut client = Client::over(Box::new(stream), &format!("/app/{KEY}"), &[]);
    client.established();
    client
}

#[test]
fn clients_subscribe_and_publish_over_tls() {
    let authority = authority();
    let server = server(&authority);
    let (mut one, mut two) = (connect(&server, &authority), connect(&server, &authority));
    one.subscribe("private-a");
    two.subscribe("private-a");
    one.send(r#"{"event":"client-typing","channel":"private-a","data":{}}"#);
    two.expect(r#"{"event":"client-typing","channel":"private-a","data":{}}"#);
    one.expect_silence();
}

/// Bigger than TLS records, rustls's buffers and the kernel's, to a client that
/// reads late.
#[test]
fn big_messages_to_a_late_reader_arrive_whole() {
    let authority = authority();
    let server = server(&authority);
    let (mut sender, mut other) = (connect(&server, &authority), connect(&server, &authority));
    other.subscribe("private-a");
    sender.subscribe("private-a");
    let data = json!("x".repeat(9_000)).to_string();
    const MESSAGES: usize = 700;
    for _ in 0..MESSAGES {
        sender.send(&format!(
            r#"{{"event":"client-a","channel":"private-a","data":{data}}}"#
        ));
    }
    sender.expect_alive();
    for _ in 0..MESSAGES {
        other.expect(&format!(
            r#"{{"event":"client-a","channel":"private-a","data":{data}}}"#
        ));
    }
    other.expect_silence();
}

#[test]
fn plain_text_on_a_tls_port_harms_nobody() {
    let authority = authority();
    let server = server(&authority);
    let mut plain = Http::connect(&server);
    plain.write("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut client = connect(&server, &authority);
    client.expect_alive();
}

#[test]
fn closes_carry_their_code_and_a_close_notify() {
    let authority = authority();
    let mut server = server(&authority);
    let mut client = connect(&server, &authority);
    server.begin_shutdown();
    client.closed_with(1001, "Server is shutting down");
    // rustls reports an end without close_notify as an error, with it as 0 bytes.
    assert_eq!(client.socket.get_mut().read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_handshake_that_does_not_come_is_given_up_as_any_first_request_is() {
    let authority = authority();
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let server = TestServer::with(&[
        ("RESOUND_TLS_CERT", &text(&authority.cert)),
        ("RESOUND_TLS_KEY", &text(&authority.key)),
        ("RESOUND_REQUEST_HEAD_TIMEOUT", "1"),
    ]);
    for hello in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut silent = tcp(&server);
        silent.write_all(hello).unwrap();
        assert_eq!(silent.read(&mut [0; 100]).unwrap(), 0, "{hello:?}");
    }
}

#[test]
fn a_check_of_the_port_is_no_refused_handshake_and_plain_http_is() {
    let authority = authority();
    let server = server(&authority);
    let refused = || {
        let counters = server.control.apps().unattributed();
        counters.of(Counter::HandshakesRefused(HandshakeRefusal::Tls))
    };
    for _ in 0..20 {
        drop(tcp(&server));
    }
    let mut plain = tcp(&server);
    plain
        .write_all(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    // It is closed, with an alert or without.
    let _ = plain.read_to_end(&mut Vec::new());
    connect(&server, &authority).expect_alive();
    assert_eq!(refused(), 1);
}
