//! The log: what it says, and that it never stops, slows or ends the server.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{APP_ID, At, Client, Http, KEY, PATIENCE, SECRET, Signed, body};

/// The program with its log going somewhere.
struct Server {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Server {
    /// `limits` is a shell command that comes before it.
    fn start(limits: &str, flags: &[&str], settings: &[(&str, &str)], log: Stdio) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The log need not say which port it has.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let script = format!(
            "{limits} exec {} start --host 127.0.0.1 --port {} --workers 2 {}",
            env!("CARGO_BIN_EXE_resound"),
            address.port(),
            flags.join(" ")
        );
        let child = Command::new("sh")
            .args(["-c", &script])
            .current_dir(dir.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs([
                ("REVERB_APP_ID", APP_ID),
                ("REVERB_APP_KEY", KEY),
                ("REVERB_APP_SECRET", SECRET),
                ("RESOUND_METRICS_PORT", "off"),
            ])
            .envs(settings.iter().copied())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            address,
            _dir: dir,
        };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait().unwrap();
            assert_eq!(ended, None, "it ended");
            assert!(Instant::now() < deadline, "nothing listens");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// Refuses a request, takes a publish and a handshake, and answers `/up`.
    fn expect_alive(&self) {
        let mut http = Http::connect(self);
        assert_eq!(
            http.request("POST", "/apps/nobody/events", "{}").status,
            404
        );
        assert_eq!(http.request("GET", "/up", "").status, 200);
        let mut client = Client::connect(self);
        client.subscribe("lobby");
        http.publish(&["lobby"], "ev", "x");
        client.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
    }

    /// One SIGTERM ends it, with 0.
    fn expect_end(&mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "SIGTERM does not end it");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(0));
    }

    /// Has it log so many lines, with `--debug`.
    fn log_lines(&self, count: usize) {
        let mut client = Client::connect(self);
        let pings = r#"{"event":"pusher:ping"}"#;
        for _ in 0..count.div_ceil(500) {
            for _ in 0..500 {
                client.socket.write(pings.into()).unwrap();
            }
            client.socket.flush().unwrap();
            for _ in 0..500 {
                client.expect(r#"{"event":"pusher:pong"}"#);
            }
        }
    }
}

impl At for Server {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which the test has seen.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A log that is read as it comes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn of(server: &mut Server) -> Self {
        let log = Self::default();
        let (lines, pipe) = (log.clone(), server.child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
            }
        });
        log
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// Waits for a line that has all of `parts`.
    fn wait_for(&self, parts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines();
            let has_all = |line: &&String| parts.iter().all(|part| line.contains(part));
            if let Some(line) = lines.iter().find(has_all) {
                return line.clone();
            }
            assert!(Instant::now() < deadline, "no {parts:?} in {lines:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn start(flags: &[&str], settings: &[(&str, &str)]) -> (Server, Log) {
    let mut server = Server::start("", flags, settings, Stdio::piped());
    let log = Log::of(&mut server);
    log.wait_for(&["server on "]);
    (server, log)
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut server = Server::start("", &[], &[], full.into());
    server.expect_alive();
    server.expect_end();
}

/// Nor does it change how the program ends.
#[test]
fn what_cannot_be_logged_is_still_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let app = ["--app-id", "a", "--app-key", "k", "--app-secret", "s"];
    for (arguments, code) in [
        (&["start", "--nothing"][..], 64),
        (&["start", "--port", "http"], 64),
        (&["start", "--host", "127.0.0.1", "--port", &port], 1),
        (&["check", "--host", "127.0.0.1"], 0),
        (&["health", "--port", "1"], 1),
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_resound"))
            .args(arguments)
            .args(app)
            .current_dir(dir.path())
            .env_clear()
            .stdout(Stdio::null())
            .stderr(full)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_reader_of_the_log_that_goes_away_ends_nothing() {
    let mut server = Server::start("", &["--debug"], &[], Stdio::piped());
    let mut pipe = BufReader::new(server.child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("server on ") {
        pipe.read_line(&mut said).unwrap();
    }
    drop(pipe);
    for _ in 0..3 {
        server.expect_alive();
    }
    server.expect_end();
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let mut server = Server::start("", &["--debug"], &[], Stdio::piped());
    let mut http = Http::connect(&server);
    for _ in 0..600 {
        assert_eq!(
            http.request("POST", "/apps/nobody/events", "{}").status,
            404
        );
    }
    // Far more than the pipe and what may wait.
    server.log_lines(30_000);
    server.expect_alive();
    server.expect_end();
}

/// The second one, too, has to write what waits, and cannot.
#[test]
fn a_log_that_nobody_reads_does_not_keep_a_process_that_has_to_end_at_once() {
    let mut server = Server::start("", &["--debug"], &[], Stdio::piped());
    server.log_lines(10_000);
    // It does not answer its close frame, so that the server waits for it.
    let _idle = Client::connect(&server);
    for pause in [1500, 0] {
        let id = server.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(pause));
    }
    let started = Instant::now();
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn lines_that_were_dropped_are_counted_when_somebody_reads_again() {
    let mut server = Server::start("", &["--debug"], &[], Stdio::piped());
    server.log_lines(30_000);
    let log = Log::of(&mut server);
    let line = log.wait_for(&["log lines were dropped"]);
    let dropped: usize = line
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap();
    server.expect_end();
    let pings = log
        .lines()
        .iter()
        .filter(|line| line.contains("pusher:ping"))
        .count();
    assert!(dropped > 1000, "{line}");
    let all = pings + dropped;
    assert!((29_900..30_100).contains(&all), "{pings} and {dropped}");
}

/// A disk of 64 KiB, unmounted in the end.
struct Disk(PathBuf);

impl Disk {
    /// `None` if this user may not mount.
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is left is a mount in a directory of its own.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn expect_recovery(limits: &str, log: &Path) {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    let mut server = Server::start(limits, &["--debug"], &[], file.into());
    server.log_lines(30_000);
    let full = std::fs::metadata(log).unwrap().len();
    assert!((32 << 10..=64 << 10).contains(&full), "{full} bytes");
    server.expect_alive();
    // Somebody makes room, again and again: what waits is more than fits.
    let mut said = String::new();
    let deadline = Instant::now() + PATIENCE * 3;
    while !said.contains("log lines were dropped") {
        assert!(
            Instant::now() < deadline,
            "nothing is logged after {} bytes",
            said.len()
        );
        said.push_str(&std::fs::read_to_string(log).unwrap_or_default());
        File::options()
            .write(true)
            .open(log)
            .unwrap()
            .set_len(0)
            .unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::write(log, "").unwrap();
    let mut http = Http::connect(&server);
    http.publish(&["after"], "ev", "x");
    while !std::fs::read_to_string(log)
        .unwrap()
        .contains("channel=after")
    {
        assert!(Instant::now() < deadline, "later lines do not come");
        std::thread::sleep(Duration::from_millis(10));
    }
    server.expect_end();
}

#[test]
fn a_full_disk_stops_nothing_and_its_recovery_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(dir.path()) else {
        return;
    };
    expect_recovery("", &disk.0.join("log"));
}

/// The system's answer to this is a signal that ends the process.
#[test]
fn a_log_file_at_its_limit_of_size_stops_nothing_and_its_recovery_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    // `ulimit -f` counts 512 bytes in dash, 1024 in bash.
    expect_recovery("ulimit -f 64;", &dir.path().join("log"));
}

#[test]
fn a_flood_of_refused_requests_is_a_few_lines_that_say_how_many_more() {
    let (server, log) = start(&[], &[]);
    let started = Instant::now();
    let mut http = Http::connect(&server);
    let path = format!("/apps/nobody/{}", "x".repeat(15_000));
    for _ in 0..200 {
        assert_eq!(http.request("POST", &path, "{}").status, 404);
    }
    for _ in 0..3000 {
        assert_eq!(
            http.request("POST", "/apps/nobody/events", "{}").status,
            404
        );
    }
    // No further one comes, and those that were left out are reported all the same.
    log.wait_for(&["unknown application id (404): and ", " more"]);
    let seconds = started.elapsed().as_secs() as usize;
    let lines = log.lines();
    let most = 2 * (5 + seconds + 2);
    assert!(lines.len() <= most, "{} lines in {seconds} s", lines.len());
    assert!(lines.iter().all(|line| line.len() < 600), "{lines:#?}");
    let long: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("/nobody/xxxx"))
        .collect();
    assert!(
        !long.is_empty() && long.iter().all(|line| line.contains("x… ")),
        "{long:#?}"
    );
    let more = |line: &String| -> usize {
        let after = line.split("and ").nth(1);
        after
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .unwrap_or(0)
    };
    let of = |cause: &str| -> usize {
        let about = lines.iter().filter(|line| line.contains(cause));
        about
            .map(|line| more(line) + usize::from(line.contains("peer=")))
            .sum()
    };
    assert_eq!(of("no such address (404)"), 200);
    assert_eq!(of("unknown application id (404)"), 3000);
}

#[test]
fn a_client_cannot_talk_to_the_terminal_or_write_a_line_of_its_own() {
    let (server, log) = start(&["--debug"], &[]);
    let mut client = Client::connect(&server);
    client.send(
        r#"{"event":"pusher:subscribe","data":{"channel":"private-\u001b[31m\u202e\n2026 FAKE"}}"#,
    );
    client.next_text();
    let line = log.wait_for(&["private-"]);
    assert!(
        line.contains(r"private-\u{1b}[31m\u{202e}\n2026 FAKE"),
        "{line}"
    );
    let mut client = Client::open(
        &server,
        &format!("/app/{KEY}"),
        &[("origin", "http://\u{202e}x")],
    );
    client.established();
    let line = log.wait_for(&["connecting", "origin="]);
    assert!(!line.contains('\u{202e}'), "{line}");
    for line in log.lines() {
        assert!(
            !line.starts_with("2026 FAKE") && !line.contains('\u{1b}'),
            "{line}"
        );
    }
}

const LIMITS: &[(&str, &str)] = &[
    ("REVERB_ALLOWED_ORIGINS", "shop.example"),
    ("RESOUND_ALLOW_MISSING_ORIGIN", "true"),
    ("REVERB_APP_MAX_CONNECTIONS", "1"),
    ("REVERB_MAX_REQUEST_SIZE", "2000"),
    ("RESOUND_MAX_EVENT_SIZE", "1000"),
];

#[test]
fn a_refused_connection_is_one_line_with_who_and_why_and_what_to_do() {
    let (server, log) = start(&[], LIMITS);
    let page = format!("/app/{KEY}");
    let app = format!("app=\"{APP_ID}\"");
    let evil = [
        ("origin", "https://evil.example"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    Client::open(&server, "/app/wrong", &[]).next_text();
    log.wait_for(&[
        "unknown application key (4001)",
        "key=\"wrong\"",
        "peer=127.0.0.1:",
        "help=\"REVERB_APP_KEY",
    ]);
    Client::open(&server, &page, &evil).next_text();
    log.wait_for(&[
        "origin not allowed (4009)",
        &app,
        "origin=\"https://evil.example\"",
        "peer=127.0.0.1:",
        "forwarded_for=\"192.0.2.7\"",
        "REVERB_ALLOWED_ORIGINS",
    ]);
    let _first = Client::connect(&server);
    Client::open(&server, &page, &[]).next_text();
    log.wait_for(&[
        "over connection quota (4004)",
        &app,
        "peer=",
        "REVERB_APP_MAX_CONNECTIONS",
    ]);
    let mut http = Http::connect(&server);
    assert_eq!(http.request("GET", &page, "").status, 426);
    log.wait_for(&[
        "WebSocket handshake refused",
        &app,
        "peer=",
        "has to pass on the headers Upgrade and Connection",
    ]);
    let lines = log.lines();
    assert_eq!(
        lines.iter().filter(|line| line.contains("refused")).count(),
        4,
        "{lines:#?}"
    );
}

#[test]
fn a_refused_request_is_one_line_with_who_and_why_and_what_to_do() {
    let (server, log) = start(&[], LIMITS);
    let app = format!("app=\"{APP_ID}\"");
    let event = body(&["a"], "ev", "x");
    let wrong_secret = Signed {
        secret: "other",
        ..Signed::post("events", &event)
    };
    let large = body(&["a"], "ev", &"x".repeat(1500));
    let no_name = r#"{"channel":"a","data":"x"}"#;
    let huge = "x".repeat(5000);
    for (target, body, parts) in [
        (
            "/apps/other/events".to_owned(),
            &*event,
            vec![
                "unknown application id (404)",
                "path=\"/apps/other/events\"",
                "REVERB_APP_ID differs",
            ],
        ),
        (
            "/nothing".to_owned(),
            "",
            vec!["no such address (404)", "path=\"/nothing\""],
        ),
        (
            format!("/apps/{APP_ID}/nothing"),
            "",
            vec!["no such address (404)", &app],
        ),
        (
            wrong_secret.target(),
            &*event,
            vec!["bad signature (401)", &app, "REVERB_APP_SECRET differs"],
        ),
        (
            Signed::post("events", &event)
                .set("auth_key", "other")
                .target(),
            &*event,
            vec![
                "the key is not the application's (401)",
                &app,
                "key=\"other\"",
                "REVERB_APP_KEY differs",
            ],
        ),
        (
            Signed::post("events", &event)
                .set("auth_timestamp", "12")
                .target(),
            &*event,
            vec!["clocks differ (401)", &app, "behind this server's clock"],
        ),
        (
            Signed::post("events", "other").target(),
            &*event,
            vec!["body_md5 is not that of the body (401)", &app],
        ),
        (
            Signed::post("events", no_name).target(),
            no_name,
            vec!["invalid fields (422)", &app, "fields=[\"name\"]"],
        ),
        (
            Signed::post("events", &large).target(),
            &*large,
            vec![
                "event too large (413)",
                &app,
                "1500 bytes",
                "RESOUND_MAX_EVENT_SIZE",
            ],
        ),
        (
            Signed::post("events", &huge).target(),
            &*huge,
            vec![
                "body too large (413)",
                &app,
                "5000 bytes",
                "REVERB_MAX_REQUEST_SIZE",
            ],
        ),
    ] {
        log.clear();
        let status = Http::connect(&server).request("POST", &target, body).status;
        let mut all = vec![" INFO ", "peer=127.0.0.1:", "method=POST"];
        all.extend(parts);
        let line = log.wait_for(&all);
        assert!(line.contains(&format!("({status})")), "{line}");
        assert!(
            !line.contains("auth_signature=") && !line.contains("xxx"),
            "{line}"
        );
        assert_eq!(log.lines().len(), 1, "{:#?}", log.lines());
    }
}

#[test]
fn what_is_no_http_request_is_logged_with_what_it_seems_to_be() {
    let (server, log) = start(&[], &[]);
    let hello = "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{3}\u{3}";
    let large = format!(
        "GET /up HTTP/1.1\r\nHost: x\r\nx: {}\r\n\r\n",
        "y".repeat(40_000)
    );
    for (sent, parts) in [
        (hello, ["TLS on a plain port", "REVERB_SCHEME=http"]),
        (&*large, ["its head is too large (431)", "16 KiB"]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ["HTTP/2", "HTTP/1.1"]),
        ("garbage\r\n\r\n", ["not HTTP (400)", "error="]),
    ] {
        log.clear();
        let mut http = Http::connect(&server);
        http.write(sent);
        http.try_write("\r\n\r\n");
        log.wait_for(&[parts[0], parts[1], "peer=127.0.0.1:"]);
    }
}

#[test]
fn what_a_client_is_refused_is_one_line_with_the_channel() {
    let (server, log) = start(&[], &[]);
    let mut client = Client::connect(&server);
    let app = format!("app=\"{APP_ID}\"");
    let id = format!("socket_id={}", client.id);
    for (sent, parts) in [
        (
            format!(
                r#"{{"event":"pusher:subscribe","data":{{"channel":"private-a","auth":"{KEY}:00"}}}}"#
            ),
            [
                "subscription refused",
                "channel=\"private-a\" reason=\"The signature in auth is not valid",
                "REVERB_APP_SECRET",
            ],
        ),
        (
            r#"{"event":"pusher:subscribe","data":{"channel":"a b"}}"#.to_owned(),
            ["subscription refused", "channel=\"a b\"", "code=4200"],
        ),
        (
            format!(
                r#"{{"event":"pusher:signin","data":{{"auth":"{KEY}:00","user_data":"{{}}"}}}}"#
            ),
            ["sign-in refused", "code=4009", "REVERB_APP_SECRET"],
        ),
        (
            r#"{"event":"client-a","channel":"private-b","data":{}}"#.to_owned(),
            [
                "client event refused",
                "channel=\"private-b\"",
                "not a member",
            ],
        ),
        (
            "{".to_owned(),
            ["message refused", "Invalid message format", "code=4200"],
        ),
    ] {
        log.clear();
        client.send(&sent);
        let all = [&parts[..], &[" INFO ", &app, &id, "peer=127.0.0.1:"]].concat();
        log.wait_for(&all);
        assert_eq!(log.lines().len(), 1, "{:#?}", log.lines());
    }
}

#[test]
fn what_is_over_a_limit_is_one_line_with_the_setting() {
    let (server, log) = start(
        &[],
        &[
            ("RESOUND_MAX_CONNECTION_RATE", "1"),
            ("REVERB_APP_RATE_LIMITING_ENABLED", "true"),
            ("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "2"),
            ("REVERB_APP_RATE_LIMIT_TERMINATE", "true"),
        ],
    );
    let app = format!("app=\"{APP_ID}\"");
    let mut client = Client::connect(&server);
    Client::open(&server, &format!("/app/{KEY}"), &[]).next_text();
    let cause = "too many new connections from one address (4100)";
    log.wait_for(&[cause, &app, "peer=", "RESOUND_MAX_CONNECTION_RATE"]);
    (0..3).for_each(|_| client.unsubscribe("a"));
    let cause = "connection closed: rate limit exceeded (4100)";
    log.wait_for(&[cause, &app, "peer=", "REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS"]);
    assert_eq!(log.lines().len(), 3, "{:#?}", log.lines());
}

#[test]
fn a_check_of_the_port_is_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = [
        ("RESOUND_TLS_CERT", cert.to_str().unwrap()),
        ("RESOUND_TLS_KEY", key.to_str().unwrap()),
    ];
    for (settings, last) in [(&[][..], "not HTTP (400)"), (&tls, "no TLS on a TLS port")] {
        let (server, log) = start(&[], settings);
        log.clear();
        for _ in 0..5 {
            drop(TcpStream::connect(server.address).unwrap());
        }
        let mut plain = TcpStream::connect(server.address).unwrap();
        plain.write_all(b"garbage\r\n\r\n").unwrap();
        log.wait_for(&[last, "peer=127.0.0.1:"]);
        assert_eq!(log.lines().len(), 1, "{:#?}", log.lines());
    }
}

#[test]
fn debug_shows_every_connection_message_and_error() {
    let (server, log) = start(&["--debug"], &[]);
    let page = format!("/app/{KEY}");
    let mut client = Client::open(&server, &page, &[("origin", "https://shop.example")]);
    client.established();
    let app = format!("app=\"{APP_ID}\"");
    let id = format!("socket_id={}", client.id);
    log.wait_for(&[
        "connecting",
        &app,
        &format!("key=\"{KEY}\""),
        "origin=\"https://shop.example\"",
        "peer=127.0.0.1:",
    ]);
    log.wait_for(&["connected", &app, &id, "peer=127.0.0.1:"]);
    client.subscribe("private-a");
    log.wait_for(&["message", &id, "kind=\"pusher:subscribe\""]);
    log.wait_for(&["subscribed", &id, "channel=\"private-a\""]);
    client.send(r#"{"event":"client-a","channel":"private-a","data":{"secret":1}}"#);
    log.wait_for(&["client event", "channel=private-a", "event=\"client-a\""]);
    client.expect_alive();
    log.wait_for(&["message", &id, "kind=\"pusher:ping\""]);
    client.unsubscribe("private-a");
    log.wait_for(&["unsubscribed", &id, "channel=\"private-a\""]);
    client.send("{");
    log.wait_for(&["error sent", &id, "code=4200", "Invalid message format"]);
    let mut http = Http::connect(&server);
    http.publish(&["b"], "ev", "payload");
    log.wait_for(&["published", &app, "channel=b", "event=\"ev\""]);
    log.wait_for(&[
        "request",
        "method=POST",
        "path=\"/apps/my-app-id/events\"",
        "peer=",
    ]);
    log.wait_for(&["answered", "status=200", "peer="]);
    drop(client);
    log.wait_for(&["disconnected", &id, "reason=Gone", "peer="]);
    for line in log.lines() {
        assert!(
            !line.contains("payload") && !line.contains(SECRET),
            "{line}"
        );
        assert!(!line.contains("secret\\\":1"), "{line}");
    }
}
