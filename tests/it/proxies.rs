//! Proxies in front: what is believed of whom. What the log says of it is in `logs/proxies.rs`;
//! real proxies are in `tests/reload`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use resound::apps::{Counter, ProxyClaim, RequestRefusal};
use resound::config::Config;

use crate::support::client::tcp;
use crate::support::server::sources;
use crate::support::{Client, Http, KEY, Process, Signed, TestServer, body};
use crate::tls;

const TRUSTED: (&str, &str) = ("RESOUND_TRUSTED_PROXIES", "127.0.0.1");
const PROXY_PROTOCOL: (&str, &str) = ("RESOUND_PROXY_PROTOCOL", "on");

const TOO_MANY: &str = "Too many connections from this address";

fn refused(server: &TestServer) -> u64 {
    let counters = server.control.apps().unattributed();
    counters.of(Counter::RequestsRefused(RequestRefusal::ProxyHeader))
}

fn ignored(server: &TestServer, claim: ProxyClaim) -> u64 {
    let counters = server.control.apps().unattributed();
    counters.of(Counter::ProxyClaimsIgnored(claim))
}

/// A connection that begins with these bytes.
fn beginning(server: &TestServer, bytes: &[u8]) -> TcpStream {
    let mut stream = tcp(server);
    stream.write_all(bytes).unwrap();
    stream
}

fn page() -> String {
    format!("/app/{KEY}")
}

/// A WebSocket with a header field.
fn open(server: &TestServer, name: &'static str, value: &str) -> Client {
    Client::open(server, &page(), &[(name, value)])
}

/// A WebSocket on a connection that begins with these bytes.
fn open_after(server: &TestServer, bytes: &[u8]) -> Client {
    Client::over(Box::new(beginning(server, bytes)), &page(), &[])
}

fn expect_refused(mut client: Client) {
    client.expect_error(4100, TOO_MANY);
    client.closed_with(4100, TOO_MANY);
}

fn expect_let_in(mut client: Client) -> Client {
    client.established();
    client
}

fn v2(command: u8, family: u8, fields: &[u8]) -> Vec<u8> {
    let length = u16::try_from(fields.len()).unwrap().to_be_bytes();
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[command, family][..],
        &length,
        fields,
    ]
    .concat()
}

/// `PROXY` with a source address that ends with this number.
fn v2_from(number: u8) -> Vec<u8> {
    v2(0x21, 0x11, &[192, 0, 2, number, 127, 0, 0, 1, 1, 2, 3, 4])
}

fn v1_from(number: u8) -> Vec<u8> {
    format!("PROXY TCP4 192.0.2.{number} 127.0.0.1 4711 80\r\n").into_bytes()
}

fn is_served(stream: TcpStream) -> bool {
    let mut http = Http::over(stream);
    http.request("GET", "/up", "").status == 200
}

/// Reads until the server closes the connection; true if it said nothing before.
fn is_closed_silently(mut stream: TcpStream) -> bool {
    // Closing with bytes that were not read is a reset.
    !matches!(stream.read(&mut [0; 100]), Ok(1..))
}

#[test]
fn limits_on_connections_hold_for_each_client_of_a_proxy() {
    let server = TestServer::with(&[TRUSTED, ("RESOUND_MAX_CONNECTIONS_PER_ADDRESS", "2")]);
    let from = |number: u8| {
        open(
            &server,
            "x-forwarded-for",
            &format!("6.6.6.6, 192.0.2.{number}"),
        )
    };
    let mut held: Vec<Client> = [1, 1, 2, 2]
        .map(|number| expect_let_in(from(number)))
        .into();
    expect_refused(from(1));
    expect_refused(from(2));
    // The proxy's own, and those that it does not name.
    held.extend((0..20).map(|_| Client::connect(&server)));
    // Its requests are let in, whosever they are.
    let mut http = Http::connect(&server);
    for _ in 0..3 {
        http.write("GET /up HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
        assert_eq!(http.answer().status, 200);
    }
    drop(held.remove(0));
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // It is gone a little later than its client.
        let mut client = from(1);
        if client.next_json()["event"] == "pusher:connection_established" {
            break;
        }
        assert!(Instant::now() < deadline, "it is still counted");
    }
}

/// One that would be let in only to be told why it is refused is kept for a while, too.
#[test]
fn far_over_its_limit_a_client_of_a_proxy_is_told_at_once() {
    let server = TestServer::with(&[TRUSTED, ("RESOUND_MAX_CONNECTIONS_PER_ADDRESS", "1")]);
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        page()
    );
    // Nobody answers the close frames.
    let held: Vec<TcpStream> = (0..17)
        .map(|_| beginning(&server, request.as_bytes()))
        .collect();
    for mut stream in &held {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
    }
    let mut http = Http::over(beginning(&server, request.as_bytes()));
    let answer = http.answer();
    assert_eq!(answer.status, 429);
    assert!(answer.body.contains("RESOUND_MAX_CONNECTIONS_PER_ADDRESS"));
    // The connection is the proxy's, who goes on with it for others.
    assert_eq!(http.request("GET", "/up", "").status, 200);
    http.write(&request.replace("192.0.2.1", "192.0.2.2"));
    assert_eq!(http.interim(), "HTTP/1.1 101 Switching Protocols");
}

#[test]
fn rates_of_new_connections_hold_for_each_client_of_a_proxy() {
    let server = TestServer::with(&[TRUSTED, ("RESOUND_MAX_CONNECTION_RATE", "2")]);
    for number in [1, 2] {
        let from = || open(&server, "x-forwarded-for", &format!("192.0.2.{number}"));
        let _held = [expect_let_in(from()), expect_let_in(from())];
        expect_refused(from());
    }
}

#[test]
fn nobody_else_is_believed_to_be_a_proxy() {
    let server = TestServer::with(&[
        ("RESOUND_TRUSTED_PROXIES", "192.0.2.0/24"),
        ("RESOUND_MAX_CONNECTION_RATE", "2"),
        PROXY_PROTOCOL,
    ]);
    let forged = |number: u8| open(&server, "x-forwarded-for", &format!("192.0.2.{number}"));
    let mut forged_with_header = open_after(&server, &v1_from(1));
    let _held = [expect_let_in(forged(1)), {
        forged_with_header.established();
        forged_with_header
    }];
    expect_refused(forged(3));
    expect_refused(open_after(&server, &v2_from(4)));
    expect_refused(open(&server, "forwarded", "for=192.0.2.5"));
    assert_eq!(ignored(&server, ProxyClaim::ProxyProtocol), 2);
    assert_eq!(ignored(&server, ProxyClaim::XForwardedFor), 2);
    assert_eq!(
        ignored(&server, ProxyClaim::Forwarded),
        0,
        "it is not looked at"
    );
    assert_eq!(refused(&server), 0);
    // Without a header, as everybody else comes.
    assert!(is_served(tcp(&server)));
}

#[test]
fn only_the_field_that_was_chosen_is_looked_at() {
    let server = TestServer::with(&[
        TRUSTED,
        ("RESOUND_FORWARDED_HEADER", "Forwarded"),
        ("RESOUND_MAX_CONNECTION_RATE", "1"),
    ]);
    let from = |value: &str| open(&server, "forwarded", value);
    expect_let_in(from("for=6.6.6.6, for=\"192.0.2.1:4711\";proto=https"));
    expect_refused(from("for=7.7.7.7;host=x, for=192.0.2.1, for=127.0.0.1"));
    expect_let_in(from("for=\"[2001:db8::1]:4711\""));
    expect_let_in(open(&server, "x-forwarded-for", "192.0.2.2"));
    expect_refused(open(&server, "x-forwarded-for", "192.0.2.3"));
}

#[test]
fn both_versions_of_the_proxy_protocol_are_understood() {
    let server = TestServer::with(&[
        TRUSTED,
        PROXY_PROTOCOL,
        ("RESOUND_MAX_CONNECTIONS_PER_ADDRESS", "1"),
    ]);
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    let tlvs = [
        &[192, 0, 2, 5, 127, 0, 0, 1, 1, 2, 3, 4][..],
        &[4, 1, 0],
        &[0; 256],
    ]
    .concat();
    let mut held = Vec::new();
    for (first, second) in [
        (v1_from(1), v2_from(1)),
        (v2_from(2), v1_from(2)),
        (
            b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(),
            v2(0x21, 0x21, &v6),
        ),
        (v2(0x21, 0x11, &tlvs), v1_from(5)),
        (
            b"PROXY TCP4 127.0.0.9 127.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 127.0.0.9 127.0.0.1 2 2\r\n".to_vec(),
        ),
    ] {
        held.push(expect_let_in(open_after(&server, &first)));
        expect_refused(open_after(&server, &second));
        // What is over the limit is told so whatever it asks.
        let mut http = Http::over(beginning(&server, &first));
        assert_eq!(http.request("GET", "/up", "").status, 429);
    }
    // Its own connections count for nobody.
    for own in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ::1 ::1 1 2\r\n".to_vec(),
        v2(0x20, 0, b""),
        v2(0x20, 0x11, &[1, 2, 3]),
        v2(0x21, 0, b""),
        v2(0x21, 0x31, &[b'x'; 216]),
    ] {
        for _ in 0..3 {
            held.push(expect_let_in(open_after(&server, &own)));
            assert!(is_served(beginning(&server, &own)), "{own:?}");
        }
    }
    assert_eq!(refused(&server), 0);
}

/// A header in front of the proxy's, and a client's that it passes on.
#[test]
fn what_a_client_says_behind_a_proxy_header_is_not_believed() {
    let server = TestServer::with(&[
        TRUSTED,
        PROXY_PROTOCOL,
        ("RESOUND_MAX_CONNECTION_RATE", "1"),
    ]);
    let forged = |header: &[u8]| {
        let stream = beginning(&server, header);
        Client::over(
            Box::new(stream),
            &page(),
            &[("x-forwarded-for", "203.0.113.9")],
        )
    };
    expect_let_in(forged(&v1_from(1)));
    expect_refused(forged(&v1_from(1)));
    assert_eq!(ignored(&server, ProxyClaim::XForwardedFor), 2);
    // Another trusted proxy behind it says for whom it is there.
    expect_let_in(forged(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"));
    expect_refused(forged(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"));
    assert_eq!(ignored(&server, ProxyClaim::XForwardedFor), 2);
    // A second header is no HTTP.
    let twice = beginning(&server, &[v1_from(2), v1_from(2)].concat());
    let mut answer = String::new();
    let _ = { twice }.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn a_proxys_connection_without_a_valid_header_is_closed_and_counted() {
    let server = TestServer::with(&[TRUSTED, PROXY_PROTOCOL]);
    let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 5000]].concat();
    let malformed: Vec<Vec<u8>> = vec![
        b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"POST /up HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PROXYS TCP4 192.0.2.1 127.0.0.1 1 2\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 127.0.0.1 1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\n".to_vec(),
        b"PROXY TCP4 192.0.2.256 127.0.0.1 1 2\r\n".to_vec(),
        b"PROXY TCP6 192.0.2.1 127.0.0.1 1 2\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 127.0.0.1 65536 2\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.1 127.0.0.1 1 2\r\n".to_vec(),
        b"PROXY \xff\xfe\r\n".to_vec(),
        endless,
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x21, &[0; 35]),
        v2(0x2f, 0x11, &[0; 12]),
        v2(0x11, 0x11, &[0; 12]),
        v2(0x21, 0xf1, &[0; 12]),
        v2(0x21, 0x11, &[0; 5000]),
        b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
    ];
    for (count, bytes) in malformed.iter().enumerate() {
        assert_eq!(refused(&server), count as u64);
        let stream = beginning(&server, bytes);
        assert!(is_closed_silently(stream), "{bytes:?}");
    }
    let count = malformed.len() as u64;
    assert_eq!(refused(&server), count);
    // Cut off.
    for header in [v1_from(1), v2_from(1)] {
        for length in [1, 5, 7, header.len() - 1] {
            let before = refused(&server);
            let stream = beginning(&server, &header[..length]);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(is_closed_silently(stream));
            assert_eq!(refused(&server), before + 1, "{length}");
        }
    }
    // Who only looks whether the port is open says nothing wrong.
    let before = refused(&server);
    let stream = tcp(&server);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(is_closed_silently(stream));
    assert_eq!(refused(&server), before);
    assert!(is_served(beginning(&server, &v1_from(1))));
}

#[test]
fn a_header_may_come_in_pieces_and_with_what_follows_it() {
    let server = TestServer::with(&[TRUSTED, PROXY_PROTOCOL]);
    let request = "GET /up HTTP/1.1\r\nHost: x\r\n\r\n";
    for header in [v1_from(1), v2_from(1), v2(0x20, 0, &[1; 300])] {
        let together = [&header, request.as_bytes()].concat();
        let mut http = Http::over(beginning(&server, &together));
        assert_eq!(http.answer().status, 200);
        let mut stream = tcp(&server);
        for byte in &header[..30.min(header.len())] {
            stream.write_all(&[*byte]).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        stream.write_all(&header[30.min(header.len())..]).unwrap();
        assert!(is_served(stream));
    }
    // Of others, too: what could become a header and does not is the request.
    let server = TestServer::with(&[PROXY_PROTOCOL]);
    for start in ["P", "\r\n"] {
        let target = Signed::post("events", &body(&["a"], "ev", "x")).target();
        let event = body(&["a"], "ev", "x");
        let mut http = Http::connect(&server);
        http.write(start);
        std::thread::sleep(Duration::from_millis(20));
        let rest = if start == "P" { "OST" } else { "POST" };
        http.write(&format!(
            "{rest} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{event}",
            event.len()
        ));
        assert_eq!(http.answer().status, 200, "{start:?}");
    }
}

/// Neither does the wait keep a worker busy.
#[test]
fn a_header_that_does_not_come_is_given_up_as_any_first_request_is() {
    let server = TestServer::with(&[
        TRUSTED,
        PROXY_PROTOCOL,
        ("RESOUND_REQUEST_HEAD_TIMEOUT", "1"),
    ]);
    let begin = Instant::now();
    let starts: [&[u8]; 5] = [b"", b"P", b"PROXY TCP4 192", b"\r\n\r\n", &v2_from(1)[..20]];
    let streams = starts.map(|bytes| beginning(&server, bytes));
    let busy_before = cpu_time();
    std::thread::sleep(Duration::from_millis(500));
    let busy = cpu_time() - busy_before;
    assert!(busy < Duration::from_millis(200), "{busy:?}");
    for stream in streams {
        assert!(is_closed_silently(stream));
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(refused(&server), 0);
}

/// Of this process, which has the server in it.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|at| fields[*at].parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn tls_comes_behind_the_proxy_header() {
    let authority = tls::authority();
    let files = authority.settings();
    let files = files
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let settings = [
        &files[..],
        &[
            TRUSTED,
            PROXY_PROTOCOL,
            ("RESOUND_MAX_CONNECTION_RATE", "1"),
        ],
    ];
    let server = TestServer::with(&settings.concat());
    for header in [v1_from(1), v2_from(2), b"PROXY UNKNOWN\r\n".to_vec()] {
        let connect = || authority.open(beginning(&server, &header));
        let mut client = expect_let_in(connect());
        client.subscribe("private-a");
        expect_refused(connect());
    }
    assert!(is_closed_silently(beginning(
        &server,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    )));
    assert_eq!(refused(&server), 1);
}

#[test]
fn a_health_check_begins_as_a_server_wants_it_to() {
    for trusted in ["127.0.0.1", "192.0.2.1"] {
        let settings = [("RESOUND_TRUSTED_PROXIES", trusted), PROXY_PROTOCOL];
        let server = TestServer::with(&settings);
        let mut config = Config::load(&sources(&settings)).unwrap().server;
        config.port = server.address.port();
        resound::health::check(&config).unwrap();
        assert_eq!(refused(&server), 0);
        assert_eq!(ignored(&server, ProxyClaim::ProxyProtocol), 0);
    }
}

#[test]
fn a_wrong_entry_of_the_list_is_named() {
    for (entry, expected) in [
        ("10.0.0.0/8, 10.0.0.256", "\"10.0.0.256\" is none of them"),
        ("loopback,nginx", "\"nginx\" is none of them"),
        (
            "192.168.1.1/16",
            "\"192.168.1.1/16\" is an address in the network 192.168.0.0/16",
        ),
    ] {
        let error = Config::load(&sources(&[("RESOUND_TRUSTED_PROXIES", entry)])).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("server.trusted_proxies") && error.contains(expected),
            "{error}"
        );
    }
    let error = Config::load(&sources(&[("RESOUND_FORWARDED_HEADER", "x-real-ip")])).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("expected x-forwarded-for or forwarded"),
        "{error}"
    );
}

#[test]
fn connections_of_a_proxy_carry_publishes_of_several_clients() {
    let server = TestServer::with(&[TRUSTED, ("RESOUND_MAX_CONNECTIONS_PER_ADDRESS", "1")]);
    let mut client = expect_let_in(open(&server, "x-forwarded-for", "192.0.2.1"));
    client.subscribe("lobby");
    let mut http = Http::connect(&server);
    for number in 0..50 {
        let event = body(&["lobby"], "ev", &number.to_string());
        let target = Signed::post("events", &event).target();
        http.write(&format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.{number}\r\n\
             Content-Length: {}\r\n\r\n{event}",
            event.len()
        ));
        assert_eq!(http.answer().status, 200);
        client.expect(&format!(
            r#"{{"event":"ev","data":"{number}","channel":"lobby"}}"#
        ));
    }
    drop((client, http));
    server.expect_empty();
}

/// For who connects afterwards, and not for who is there.
#[test]
fn who_is_trusted_can_be_changed_by_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let limit = "RESOUND_MAX_CONNECTIONS_PER_ADDRESS=1\n";
    std::fs::write(dir.path().join(".env"), limit).unwrap();
    let socket = [("RESOUND_CONTROL_SOCKET", "control.sock")];
    let server = Process::within(dir, "", &socket);
    let from = |client| Client::open(&server, &page(), &[("x-forwarded-for", client)]);
    let reload = |trusted: &str| {
        let text = format!("{limit}RESOUND_TRUSTED_PROXIES={trusted}\n");
        std::fs::write(server.dir.path().join(".env"), text).unwrap();
        let (code, _, error) = server.command(&["reload"], &socket);
        (code, error)
    };
    // Connections from this machine are not limited.
    let mut before: Vec<Client> = (0..3).map(|_| expect_let_in(from("192.0.2.1"))).collect();
    let (code, error) = reload("nobody");
    assert_eq!(code, 64);
    assert!(error.contains("server.trusted_proxies"), "{error}");
    before.push(expect_let_in(from("192.0.2.1")));
    assert_eq!(reload("loopback"), (0, String::new()));
    let _first = expect_let_in(from("192.0.2.1"));
    let _second = expect_let_in(from("192.0.2.2"));
    expect_refused(from("192.0.2.2"));
    before.iter_mut().for_each(Client::expect_alive);
    assert_eq!(reload(""), (0, String::new()));
    expect_let_in(from("192.0.2.2"));
}
