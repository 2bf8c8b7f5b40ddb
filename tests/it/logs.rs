//! The log: what it says, and that it never stops, slows or ends the server.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{APP_ID, At, Client, Http, KEY, PATIENCE, SECRET};

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
        // The log need not tell which port it has.
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

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut server = Server::start("", &[], &[], full.into());
    server.expect_alive();
    server.expect_end();
}

/// Nor does it change how the program ends.
#[test]
fn what_cannot_be_told_is_still_the_exit_code() {
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

#[test]
fn lines_that_were_dropped_are_counted_when_somebody_reads_again() {
    let mut server = Server::start("", &["--debug"], &[], Stdio::piped());
    server.log_lines(30_000);
    let log = Log::of(&mut server);
    let told = log.wait_for(&["log lines were dropped"]);
    let dropped: usize = told
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap();
    server.expect_end();
    let pings = log
        .lines()
        .iter()
        .filter(|line| line.contains("pusher:ping"))
        .count();
    assert!(dropped > 1000, "{told}");
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
            "nothing is told after {} bytes",
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
fn a_full_disk_stops_nothing_and_its_recovery_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(dir.path()) else {
        return;
    };
    expect_recovery("", &disk.0.join("log"));
}

/// The system's answer to this is a signal that ends the process.
#[test]
fn a_log_file_at_its_limit_of_size_stops_nothing_and_its_recovery_is_told() {
    let dir = tempfile::tempdir().unwrap();
    // `ulimit -f` counts 512 bytes in dash, 1024 in bash.
    expect_recovery("ulimit -f 64;", &dir.path().join("log"));
}
