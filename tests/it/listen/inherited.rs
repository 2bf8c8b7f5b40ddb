//! Sockets that were opened for the server, as systemd does it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Place, Running, command, secure_client, unix};
use crate::support::{Client, Http};
use crate::tls::authority;

/// A server that gets sockets of these kinds, under these names.
struct Start<'a> {
    dir: &'a Path,
    names: &'a str,
    kinds: &'a [&'a str],
    arguments: &'a [&'a str],
    variables: &'a [(&'a str, &'a str)],
}

impl Start<'_> {
    fn command(&self, pid: &str) -> Command {
        let server = command(self.dir, self.arguments);
        let mut python = Command::new("python3");
        python
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/it/listen/inherit.py"
            ))
            .args([env!("CARGO_BIN_EXE_resound"), pid, self.names])
            .args(self.kinds)
            .arg("--")
            .args(server.get_args())
            .current_dir(self.dir)
            .envs(
                server
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .envs(self.variables.iter().copied());
        python
    }

    /// The server, and where its sockets are.
    fn start(&self, pid: &str) -> (Running, Vec<SocketAddr>) {
        let mut python = self.command(pid);
        python.stdout(Stdio::piped());
        let mut running = Running::start(python);
        let mut line = String::new();
        let out = running.child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let all = line.split_whitespace();
        (running, all.filter_map(|at| at.parse().ok()).collect())
    }

    /// What it says when it refuses them.
    fn refused(&self, code: i32) -> String {
        let output = self.command("own").output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Nobody may bind this: the sockets stand for it.
const HOST: [&str; 4] = ["--host", "192.0.2.1", "--port", "0"];

#[test]
fn what_was_opened_for_it_is_listened_on_instead_of_the_ports() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let unix = format!("unix:{}", path.display());
    for names in ["plain:http:unknown", "resound.socket::x.socket", "-"] {
        let start = Start {
            dir: dir.path(),
            names,
            kinds: &["tcp", "tcp", &unix],
            arguments: &HOST,
            variables: &[],
        };
        let (mut server, places) = start.start("own");
        let said = format!("server on {} and {} and {unix}", places[0], places[1]);
        assert!(server.said.contains(&said), "{}", server.said);
        let mut clients: Vec<Client> = places
            .iter()
            .map(|at| Client::connect(&Place(*at)))
            .collect();
        clients.push(unix::client(&path));
        clients
            .iter_mut()
            .for_each(|client| client.subscribe("lobby"));
        unix::http(&path).publish(&["lobby"], "ev", "x");
        for client in &mut clients {
            client.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
        }
        drop(clients);
        server.stop();
        assert!(path.exists(), "it belongs to whoever has made it");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn tls_and_metrics_have_their_own_and_the_main_one_speaks_what_its_port_would() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority();
    let [cert, key] = authority.settings();
    let tls = [(cert.0, &*cert.1), (key.0, &*key.1)];
    let start = Start {
        dir: dir.path(),
        names: "plain:tls:metrics:unknown",
        kinds: &["tcp"; 4],
        arguments: &HOST,
        variables: &tls,
    };
    let (mut server, places) = start.start("own");
    let [plain, tls, metrics, main] = places[..] else {
        panic!("{places:?}")
    };
    server.logged(&format!("Metrics on http://{metrics}/metrics"));
    Client::connect(&Place(plain)).expect_alive();
    for at in [tls, main] {
        secure_client(&authority, at).expect_alive();
    }
    let answer = Http::connect(&Place(metrics)).request("GET", "/ready", "");
    assert_eq!(answer.status, 200);
    server.stop();
}

#[test]
fn a_socket_for_metrics_alone_replaces_no_port_and_one_for_clients_no_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}/m.sock", dir.path().display());
    let mut start = Start {
        dir: dir.path(),
        names: "metrics",
        kinds: &[&unix],
        arguments: &["--host", "127.0.0.1", "--port", "0"],
        variables: &[],
    };
    let (mut server, _) = start.start("own");
    Client::connect(&Place(server.places()[0])).expect_alive();
    let answer = unix::http(&dir.path().join("m.sock")).request("GET", "/up", "");
    assert_eq!(answer.status, 200);
    server.stop();
    (start.names, start.kinds, start.arguments) = ("plain", &["tcp"], &HOST);
    start.variables = &[("RESOUND_METRICS_PORT", "0")];
    let (mut server, _) = start.start("own");
    server.logged("Metrics on http://127.0.0.1:");
    server.stop();
}

#[test]
fn the_unix_socket_of_the_settings_may_be_the_one_that_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.sock");
    let (unix, file) = (format!("unix:{}", path.display()), path.to_str().unwrap());
    let start = Start {
        dir: dir.path(),
        names: "-",
        kinds: &[&unix],
        arguments: &["--host", "off", "--socket", file],
        variables: &[],
    };
    let (mut server, _) = start.start("own");
    unix::client(&path).expect_alive();
    let (code, _, error) =
        crate::cli::run(dir.path(), &["health", "--host", "off", "--socket", file]);
    assert_eq!((code, &*error), (Some(0), ""));
    server.stop();
    assert!(path.exists());
}

#[test]
fn what_is_meant_for_another_process_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let start = Start {
        dir: dir.path(),
        names: "plain",
        kinds: &["udp"],
        arguments: &["--host", "127.0.0.1", "--port", "0"],
        variables: &[],
    };
    let (mut server, _) = start.start("1");
    Client::connect(&Place(server.places()[0])).expect_alive();
    server.stop();
}

#[test]
fn what_cannot_be_listened_on_is_refused_with_its_number_and_name() {
    let dir = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}/s.sock", dir.path().display());
    for (names, kinds, expected) in [
        (
            "plain",
            &["udp"][..],
            "the inherited socket 3 (\"plain\" in LISTEN_FDNAMES): it is no stream socket (ListenStream=)",
        ),
        (
            "plain:plain",
            &["tcp", "bound"],
            "the inherited socket 4 (\"plain\" in LISTEN_FDNAMES): it does not listen (Accept=no)",
        ),
        (
            "-",
            &["file"],
            "the inherited socket 3 (\"\" in LISTEN_FDNAMES): it is no socket",
        ),
        (
            "stored",
            &["tcp"],
            "the name is none of plain, tls and metrics (FileDescriptorName=)",
        ),
        (
            "tls",
            &["tcp"],
            "for TLS a certificate is needed (RESOUND_TLS_CERT, RESOUND_TLS_KEY)",
        ),
        (
            "metrics:metrics",
            &["tcp", "tcp"],
            "there are two for metrics",
        ),
        (
            "plain",
            &["tcp", "tcp"],
            "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES: there are not as many names as sockets",
        ),
    ] {
        let start = Start {
            dir: dir.path(),
            names,
            kinds,
            arguments: &HOST,
            variables: &[],
        };
        let error = start.refused(64);
        assert!(error.contains(expected), "{error}");
    }
    let authority = authority();
    let [cert, key] = authority.settings();
    let tls = Start {
        dir: dir.path(),
        names: "tls",
        kinds: &[&unix],
        arguments: &HOST,
        variables: &[(cert.0, &cert.1), (key.0, &key.1)],
    };
    assert!(tls.refused(64).contains("a Unix socket does not speak TLS"));
}

/// Clients that come while nobody runs wait in the kernel, and whoever is started next serves
/// them: what a supervisor opens a socket for.
#[test]
fn connections_that_came_before_it_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let start = Start {
        dir: dir.path(),
        names: "plain",
        kinds: &["tcp"],
        arguments: &HOST,
        variables: &[],
    };
    let mut python = start.command("own");
    // It begins once the test has connected.
    python
        .env("WAIT", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = python.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let at = Place(line.trim().parse().unwrap());
    let mut early = Http::connect(&at);
    early.write("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
    drop(child.stdin.take());
    assert_eq!(early.answer().status, 200);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// During a drain whoever comes is served, and then waits in the kernel for the next server.
#[test]
fn a_drain_leaves_newcomers_to_the_next_server() {
    let dir = tempfile::tempdir().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = Place(held.local_addr().unwrap());
    let start = || {
        // As the third file: the shell has the listener as its input.
        let inherit = format!(
            "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec {} start",
            env!("CARGO_BIN_EXE_resound")
        );
        let own = command(dir.path(), &[]);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &inherit])
            .current_dir(dir.path())
            .envs(
                own.get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .envs([("RESOUND_DRAIN_SECONDS", "1"), ("RESOUND_DRAIN_PAUSE", "1")])
            .stdin(Stdio::from(OwnedFd::from(held.try_clone().unwrap())));
        Running::start(shell)
    };
    let mut old = start();
    let mut client = Client::connect(&at);
    // All the time, so that some are accepted and not served yet when it stops to accept.
    let is_over = AtomicBool::new(false);
    let ask = || {
        let mut asked = 0;
        while !is_over.load(Ordering::Relaxed) {
            let answer = Http::connect(&at).request("GET", "/live", "");
            assert_eq!(answer.status, 200);
            asked += 1;
        }
        asked
    };
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        let id = old.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        old.logged("closing connections");
        Client::connect(&at).expect_alive();
        client.closed_with(4200, "Server is going down, reconnect");
        assert_eq!(old.child.wait().unwrap().code(), Some(0));
        let mut waiting = Http::connect(&at);
        waiting.write("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut new = start();
        assert_eq!(waiting.answer().status, 200);
        Client::connect(&at).expect_alive();
        is_over.store(true, Ordering::Relaxed);
        for asking in asking {
            assert!(asking.join().unwrap() > 0);
        }
        new.stop();
    });
}
