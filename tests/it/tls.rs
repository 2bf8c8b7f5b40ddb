//! TLS: the same server, encrypted.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};

use resound::apps::{Counter, HandshakeRefusal};

use crate::support::client::tcp;
use crate::support::{Client, Http, KEY, TestServer};
use serde_json::json;

mod certificates;
pub(crate) mod openssl;
mod reload;
mod tickets;

pub(crate) struct Authority {
    _dir: tempfile::TempDir,
    cert: PathBuf,
    key: PathBuf,
    client: Arc<ClientConfig>,
    /// One that speaks TLS 1.2.
    old_client: Arc<ClientConfig>,
}

impl Authority {
    /// The file with the certificate.
    pub(crate) fn cert(&self) -> &str {
        self.cert.to_str().unwrap()
    }

    /// The file with its key.
    pub(crate) fn key(&self) -> &str {
        self.key.to_str().unwrap()
    }
}

pub(crate) fn authority() -> Authority {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let certificate = made.cert.der();
    Authority {
        _dir: dir,
        cert,
        key,
        client: speaking(certificate.clone(), &[&version::TLS13]),
        old_client: speaking(certificate.clone(), &[&version::TLS12]),
    }
}

/// A client that trusts this certificate.
fn trusting(certificate: CertificateDer<'static>) -> Arc<ClientConfig> {
    speaking(certificate, rustls::ALL_VERSIONS)
}

/// One that speaks these versions only.
fn speaking(
    certificate: CertificateDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(client)
}

impl Authority {
    /// Where its files are.
    pub(crate) fn settings(&self) -> [(&'static str, String); 2] {
        let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
        [
            ("RESOUND_TLS_CERT", text(&self.cert)),
            ("RESOUND_TLS_KEY", text(&self.key)),
        ]
    }

    /// A WebSocket over TLS, on a connection that something else may have been written to.
    pub(crate) fn open(&self, tcp: TcpStream) -> Client {
        let stream = StreamOwned::new(session(&self.client), tcp);
        Client::over(Box::new(stream), &format!("/app/{KEY}"), &[])
    }
}

fn server(authority: &Authority) -> TestServer {
    let [cert, key] = authority.settings();
    TestServer::with(&[
        (cert.0, &cert.1),
        (key.0, &key.1),
        ("RESOUND_MAX_BACKLOG", "8000000"),
    ])
}

fn connect(server: &TestServer, authority: &Authority) -> Client {
    connect_with(server, &authority.client)
}

fn connect_with(server: &TestServer, config: &Arc<ClientConfig>) -> Client {
    connect_over(tcp(server), config)
}

fn connect_over(tcp: impl Read + Write + Send + 'static, config: &Arc<ClientConfig>) -> Client {
    let stream = StreamOwned::new(session(config), tcp);
    let mut client = Client::over(Box::new(stream), &format!("/app/{KEY}"), &[]);
    client.established();
    client
}

fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::clone(config), name).unwrap()
}

/// Sends one byte at a time.
struct Slowly(TcpStream);

impl Read for Slowly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Slowly {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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

#[test]
fn clients_of_both_versions_and_of_single_bytes_understand_each_other() {
    let authority = authority();
    let server = server(&authority);
    let slow = tcp(&server);
    slow.set_nodelay(true).unwrap();
    let mut clients = [
        connect(&server, &authority),
        connect_over(tcp(&server), &authority.old_client),
        connect_over(Slowly(slow), &authority.client),
    ];
    for client in &mut clients {
        client.subscribe("private-a");
    }
    for speaker in 0..clients.len() {
        let event = format!(r#"{{"event":"client-a","channel":"private-a","data":{speaker}}}"#);
        clients[speaker].send(&event);
        for (number, client) in clients.iter_mut().enumerate() {
            if number != speaker {
                client.expect(&event);
            }
        }
    }
    clients.iter_mut().for_each(Client::expect_silence);
}

#[test]
fn http_ends_with_a_close_notify() {
    let authority = authority();
    let server = server(&authority);
    for config in [&authority.client, &authority.old_client] {
        let mut stream = StreamOwned::new(session(config), tcp(&server));
        let request = b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        // An end without close_notify is an error.
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// A stream that the test can reach while a client has it.
#[derive(Clone)]
struct Shared(Arc<Mutex<StreamOwned<ClientConnection, TcpStream>>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap().read(buffer)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().flush()
    }
}

#[test]
fn new_keys_are_used_and_a_close_notify_is_an_end() {
    let authority = authority();
    let server = server(&authority);
    let mut other = connect(&server, &authority);
    other.subscribe("private-a");
    let stream = StreamOwned::new(session(&authority.client), tcp(&server));
    let shared = Shared(Arc::new(Mutex::new(stream)));
    let mut client = Client::over(Box::new(shared.clone()), &format!("/app/{KEY}"), &[]);
    client.established();
    client.subscribe("private-a");
    for _ in 0..3 {
        let mut stream = shared.0.lock().unwrap();
        stream.conn.refresh_traffic_keys().unwrap();
        drop(stream);
        client.expect_alive();
        other.send(r#"{"event":"client-a","channel":"private-a","data":1}"#);
        client.expect(r#"{"event":"client-a","channel":"private-a","data":1}"#);
    }
    let event = r#"{"event":"client-a","channel":"private-a","data":"bye"}"#;
    client.send(event);
    let mut stream = shared.0.lock().unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    other.expect(event);
    // Its half of TCP is still open.
    while stream.sock.read(&mut [0; 1000]).unwrap() > 0 {}
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
