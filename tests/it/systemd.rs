//! What systemd is told, with the test in its place.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::support::{Client, PATIENCE, Process};

/// The socket that systemd listens on.
struct Systemd {
    socket: UnixDatagram,
    path: String,
    _dir: tempfile::TempDir,
}

impl Systemd {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            path: path.to_str().unwrap().to_owned(),
            _dir: dir,
        }
    }

    /// The lines of the next message.
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The next message that has this line, and how many of others came before.
    fn find(&self, line: &str) -> (Vec<String>, usize) {
        let mut others = 0;
        loop {
            let message = self.next();
            if message.iter().any(|said| said == line) {
                return (message, others);
            }
            others += 1;
        }
    }
}

#[test]
fn it_is_told_of_the_start_of_reloads_and_of_the_end() {
    let systemd = Systemd::new();
    let mut server = Process::with("", &[("NOTIFY_SOCKET", &systemd.path)]);
    let status = "STATUS=serving: 0 connections, 1 applications";
    assert_eq!(systemd.next(), ["READY=1", status]);
    let mut client = Client::connect(&server);
    let before = monotonic();
    server.signal("-HUP");
    let reloading = systemd.next();
    assert_eq!(reloading[0], "RELOADING=1");
    let at: u128 = reloading[1]
        .strip_prefix("MONOTONIC_USEC=")
        .unwrap()
        .parse()
        .unwrap();
    assert!((before..=monotonic()).contains(&at), "{at}");
    let status = "STATUS=serving: 1 connections, 1 applications";
    assert_eq!(systemd.next(), ["READY=1", status]);
    server.signal("-TERM");
    assert_eq!(systemd.next(), ["STOPPING=1", "STATUS=closing connections"]);
    client.closed_with(1001, "Server is shutting down");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

/// A reload that is refused is over, too: else systemd would wait for its end.
#[test]
fn it_is_ready_again_after_a_reload_that_is_refused() {
    let systemd = Systemd::new();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".env"), "").unwrap();
    let server = Process::within(dir, "", &[("NOTIFY_SOCKET", &systemd.path)]);
    systemd.find("READY=1");
    std::fs::write(
        server.dir.path().join(".env"),
        "RESOUND_WORKERS=x\nRESOUND_PONG_TIMEOUT=x\n",
    )
    .unwrap();
    server.signal("-HUP");
    assert_eq!(systemd.next()[0], "RELOADING=1");
    assert_eq!(systemd.next()[0], "READY=1");
}

#[test]
fn its_watchdog_is_told_as_long_as_the_workers_turn() {
    let systemd = Systemd::new();
    let settings = [
        ("NOTIFY_SOCKET", systemd.path.as_str()),
        ("WATCHDOG_USEC", "400000"),
    ];
    let server = Process::with("", &settings);
    systemd.find("READY=1");
    let begin = Instant::now();
    for _ in 0..5 {
        systemd.find("WATCHDOG=1");
    }
    // Each half of the time; the first is at once.
    assert!(
        begin.elapsed() >= Duration::from_millis(750),
        "{:?}",
        begin.elapsed()
    );
    server.signal("-STOP");
    std::thread::sleep(Duration::from_millis(300));
    systemd.socket.set_nonblocking(true).unwrap();
    while systemd.socket.recv(&mut [0; 4096]).is_ok() {}
    std::thread::sleep(Duration::from_millis(500));
    assert!(systemd.socket.recv(&mut [0; 4096]).is_err(), "nobody turns");
    server.signal("-CONT");
    systemd.socket.set_nonblocking(false).unwrap();
    systemd.find("WATCHDOG=1");
}

/// The variables are another process's: its own children inherit them.
#[test]
fn a_watchdog_of_another_process_is_not_told() {
    let systemd = Systemd::new();
    let settings = [
        ("NOTIFY_SOCKET", systemd.path.as_str()),
        ("WATCHDOG_USEC", "200000"),
        ("WATCHDOG_PID", "1"),
    ];
    let _server = Process::with("", &settings);
    systemd.find("READY=1");
    systemd
        .socket
        .set_read_timeout(Some(Duration::from_millis(600)))
        .unwrap();
    assert!(systemd.socket.recv(&mut [0; 4096]).is_err());
}

#[test]
fn an_abstract_address_is_told_and_an_empty_one_is_none() {
    let name = format!("resound-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _server = Process::with("", &[("NOTIFY_SOCKET", &format!("@{name}"))]);
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"READY=1\n"));
    let mut server = Process::with("", &[("NOTIFY_SOCKET", "")]);
    server.signal("-TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(!server.log.lock().unwrap().contains("notified"));
}

/// Nobody waits for one that does not read.
#[test]
fn a_socket_that_is_not_read_keeps_nobody_waiting() {
    let systemd = Systemd::new();
    let settings = [
        ("NOTIFY_SOCKET", systemd.path.as_str()),
        ("WATCHDOG_USEC", "20000"),
        ("RESOUND_CONTROL_SOCKET", "control.sock"),
    ];
    let mut server = Process::with("", &settings);
    server.logged("systemd cannot be notified (NOTIFY_SOCKET)");
    assert_eq!(server.command(&["status"], &settings[2..]).0, 0);
    server.signal("-TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

/// One that is not there ends nothing.
#[test]
fn a_socket_that_is_not_there_is_told_of() {
    let server = Process::with("", &[("NOTIFY_SOCKET", "/nowhere/notify")]);
    server.logged("systemd cannot be notified (NOTIFY_SOCKET)");
    Client::connect(&server).expect_alive();
}

/// Microseconds of the clock that MONOTONIC_USEC is of.
fn monotonic() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanoseconds = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u128::try_from(nanoseconds).unwrap() / 1000
}
