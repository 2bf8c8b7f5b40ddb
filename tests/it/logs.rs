//! The log: what it says, and that it never stops, slows or ends the server.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{APP_ID, At, Client, Http, KEY, PATIENCE, SECRET, Signed, body, hmac};

mod access;
mod debug;
mod formats;
mod proxies;
mod refusals;
mod requests;
mod secrets;

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

/// The prose of a line of text, and the fields behind it.
fn parts_of(line: &str) -> (&str, BTreeMap<String, String>) {
    let spaces = line.match_indices(' ').map(|(at, _)| at);
    let all = |at: usize| Some((&line[..at], parse_fields(&line[at + 1..])?));
    let found = spaces.filter_map(all).next();
    found.unwrap_or_else(|| (line, BTreeMap::new()))
}

fn fields_of(line: &str) -> BTreeMap<String, String> {
    parts_of(line).1
}

/// `key=value key="val ue"`, and nothing else.
fn parse_fields(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut fields = BTreeMap::new();
    loop {
        let (name, rest) = text.split_once('=')?;
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(is_part) {
            return None;
        }
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = rest.find(' ').unwrap_or(rest.len());
                let value = &rest[..end];
                let is_bare = !value.is_empty() && !value.contains(['"', '=', '\\']);
                (is_bare.then(|| value.to_owned())?, &rest[end..])
            }
        };
        if fields.insert(name.to_owned(), value).is_some() {
            return None;
        }
        match rest.strip_prefix(' ') {
            Some(rest) => text = rest,
            None => return rest.is_empty().then_some(fields),
        }
    }
}

/// A value behind its first quote, and what follows the last. Other escapes than those of
/// quotes and backslashes are left.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                char @ ('"' | '\\') => value.push(char),
                char => value.extend(['\\', char]),
            },
            char => value.push(char),
        }
    }
    None
}

/// Everything that is logged happens once: who comes and goes, signs in, publishes and is
/// refused. Returns what must not be in the log, which is all signatures.
fn cause_all_lines(server: &Server) -> Vec<String> {
    let mut client = Client::open(server, &format!("/app/{KEY}"), &[("origin", "https://a b")]);
    client.established();
    let mut other = Client::connect(server);
    client.subscribe("private-a");
    let user = r#"{"user_id":"ana","user_info":{"name":"SENTINEL member"}}"#;
    let sign = |text: &str| hmac(SECRET, text);
    let joined = sign(&format!("{}:presence-a:{user}", client.id));
    let data =
        json!({ "channel": "presence-a", "auth": format!("{KEY}:{joined}"), "channel_data": user });
    client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
    client.next_text();
    let user = r#"{"id":"ana","name":"SENTINEL user"}"#;
    let signed_in = sign(&format!("{}::user::{user}", client.id));
    let data = json!({ "auth": format!("{KEY}:{signed_in}"), "user_data": user });
    client.send(&json!({ "event": "pusher:signin", "data": data }).to_string());
    client.next_text();
    client.send(r#"{"event":"client-a","channel":"private-a","data":{"a":"SENTINEL whisper"}}"#);
    let wrong = hmac("other", "x");
    let data = json!({ "channel": "private-b", "auth": format!("{KEY}:{wrong}") });
    other.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
    other.send("SENTINEL {");
    other.next_text();
    other.expect_error(4009, "Connection is unauthorized");
    other.expect_error(4200, "Invalid message format");
    let mut secrets = vec![
        joined,
        signed_in,
        wrong,
        client.auth("private-a")[KEY.len() + 1..].to_owned(),
    ];
    secrets.extend(cause_publish_lines(server));
    client.next_text();
    drop((client, other));
    Client::open(server, "/app/wrong", &[]).next_text();
    secrets
}

/// The same for publishes. Returns their signatures.
fn cause_publish_lines(server: &Server) -> Vec<String> {
    let event = body(&["private-a", "b"], "ev", "SENTINEL event");
    let events = json!({ "name": "ev", "channel": "c", "data": "SENTINEL batch" });
    let batch = json!({ "batch": [events, events] }).to_string();
    let mut signatures = Vec::new();
    for (signed, body, status) in [
        (Signed::post("events", &event), &*event, 200),
        (Signed::post("batch_events", &batch), &*batch, 200),
        (
            Signed::post("channels/c/events", "SENTINEL data").set("name", "ev"),
            "SENTINEL data",
            202,
        ),
        (
            Signed::post("events", "")
                .set("name", "ev")
                .set("channel", "d")
                .set("data", "SENTINEL"),
            "",
            200,
        ),
        (
            Signed {
                secret: "other",
                ..Signed::post("events", "").set("data", "SENTINEL")
            },
            "",
            401,
        ),
        (Signed::post("events", "SENTINEL"), "SENTINEL", 400),
        (
            Signed::post("events", &event).set("auth_key", "other"),
            &*event,
            401,
        ),
    ] {
        let answer = Http::connect(server).request("POST", &signed.target(), body);
        assert_eq!(answer.status, status, "{answer:?}");
        signatures.push(signed.signature());
    }
    signatures
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
    // One line for each message.
    let levels = [("RUST_LOG", "info,resound::ws=debug")];
    let mut server = Server::start("", &[], &levels, Stdio::piped());
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
