//! Where it listens: several addresses, ports that are shared, Unix sockets, and sockets that
//! were opened for it.

mod inherited;
mod unix;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use resound::config::Config;
use resound::server::{Server, StartError};

use crate::cli::{APP, resound, run};
use crate::support::client::tcp;
use crate::support::process::follow;
use crate::support::server::sources;
use crate::support::{APP_ID, At, Client, Http, KEY, PATIENCE, SECRET, TestServer};
use crate::tls::{Authority, authority};

/// An address of a server that has several.
pub(super) struct Place(pub(super) SocketAddr);

impl At for Place {
    fn address(&self) -> SocketAddr {
        self.0
    }
}

/// A server as a process, and what it says.
pub(super) struct Running {
    pub(super) child: Child,
    /// Its first line.
    pub(super) said: String,
    later: Arc<Mutex<String>>,
}

impl Running {
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (said, later) = follow(&mut child);
        Self { child, said, later }
    }

    /// Waits until it has logged this, and returns the line.
    pub(super) fn logged(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let later = self.later.lock().unwrap().clone();
            let all = format!("{}{later}", self.said);
            if let Some(line) = all.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "{text} is not in {all}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The addresses that its first line names.
    pub(super) fn places(&self) -> Vec<SocketAddr> {
        let words = self.said.split([' ', ',', '\n']);
        words.filter_map(|word| word.parse().ok()).collect()
    }

    /// Ends it as a supervisor does.
    pub(super) fn stop(&mut self) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(status.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which the test has seen.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with an application and without metrics.
pub(super) fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = resound(dir);
    command.args(["start"]).args(arguments).envs([
        ("REVERB_APP_ID", APP_ID),
        ("REVERB_APP_KEY", KEY),
        ("REVERB_APP_SECRET", SECRET),
        ("RESOUND_METRICS_PORT", "off"),
        ("RESOUND_WORKERS", "2"),
        // With a socket that was opened for it, it would take its time to end.
        ("RESOUND_DRAIN_SECONDS", "0"),
    ]);
    command
}

/// A client over TLS.
pub(super) fn secure_client(authority: &Authority, at: SocketAddr) -> Client {
    let mut client = authority.open(tcp(&Place(at)));
    client.established();
    client
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

fn bind(settings: &[(&str, &str)]) -> Result<Server, StartError> {
    Server::bind(&Config::load(&sources(settings)).unwrap(), false)
}

fn addresses(server: &Server) -> Vec<SocketAddr> {
    let listeners = server.listeners().iter();
    listeners.filter_map(|own| own.socket.address()).collect()
}

fn port_that_is_free() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

#[test]
fn all_hosts_are_listened_on_and_are_one_server() {
    let server = bind(&[("REVERB_SERVER_HOST", "127.0.0.1,127.0.0.2, 127.0.0.3")]).unwrap();
    let all = addresses(&server);
    let port = all[0].port();
    let expected = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let expected = expected.map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
    assert_eq!(all, expected, "port 0 is one port");
    assert!(!server.has_inherited_listener());
    let _running = TestServer::run(server);
    let connect = |at: &SocketAddr| Client::connect(&Place(*at));
    // More than one each, so that both workers have some of each.
    let mut clients: Vec<Client> = all.iter().chain(&all).map(connect).collect();
    clients
        .iter_mut()
        .for_each(|client| client.subscribe("lobby"));
    for at in all {
        Http::connect(&Place(at)).publish(&["lobby"], "ev", "x");
        for client in &mut clients {
            client.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
        }
    }
}

#[test]
fn the_ipv6_wildcard_takes_ipv4_too_and_both_wildcards_go_together() {
    if !has_ipv6() {
        return;
    }
    for (hosts, expected) in [
        ("::", &["::"][..]),
        ("[::],127.0.0.1,::1", &["::"]),
        ("::,0.0.0.0", &["0.0.0.0", "::"]),
        ("127.0.0.1,0.0.0.0,::1", &["0.0.0.0", "::1"]),
        ("127.0.0.1,::1", &["127.0.0.1", "::1"]),
    ] {
        let server = bind(&[("REVERB_SERVER_HOST", hosts)]).unwrap();
        let all = addresses(&server);
        let port = all[0].port();
        let ips: Vec<String> = all.iter().map(|at| at.ip().to_string()).collect();
        assert_eq!(ips, expected, "{hosts}");
        let _running = TestServer::run(server);
        for at in ["127.0.0.1", "::1"] {
            let at = SocketAddr::new(at.parse().unwrap(), port);
            Client::connect(&Place(at)).expect_alive();
        }
    }
}

#[test]
fn a_name_is_had_on_one_of_its_addresses_even_if_that_is_ours_already() {
    let server = bind(&[("REVERB_SERVER_HOST", "127.0.0.1,::1,localhost")]);
    if has_ipv6() {
        assert_eq!(addresses(&server.unwrap()).len(), 2);
    }
    let server = bind(&[("REVERB_SERVER_HOST", "localhost")]).unwrap();
    assert_eq!(addresses(&server).len(), 1);
}

#[test]
fn if_one_address_cannot_be_had_it_is_named_and_the_others_are_given_back() {
    let port = port_that_is_free();
    let text = port.to_string();
    let fails = |hosts: &str| {
        let settings = [
            ("REVERB_SERVER_HOST", hosts),
            ("REVERB_SERVER_PORT", &*text),
        ];
        let error = bind(&settings).map(drop).unwrap_err();
        assert!(!error.is_configuration());
        // They were had, and are free again.
        TcpListener::bind(("127.0.0.1", port)).unwrap();
        error.to_string()
    };
    let foreign = fails("127.0.0.1,192.0.2.1,127.0.0.2");
    assert!(
        foreign.starts_with(&format!("cannot listen on 192.0.2.1:{port}: "))
            && foreign.contains("this machine does not have that address"),
        "{foreign}"
    );
    let _taken = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let taken = fails("127.0.0.1,127.0.0.2");
    assert!(
        taken.starts_with(&format!("cannot listen on 127.0.0.2:{port}: "))
            && taken.contains("is Reverb or another Resound still running?"),
        "{taken}"
    );
}

#[test]
fn a_port_for_tls_is_on_the_same_hosts_and_the_main_port_is_plain_then() {
    let authority = authority();
    let [cert, key] = authority.settings();
    let hosts = ("REVERB_SERVER_HOST", "127.0.0.1,127.0.0.2");
    let settings = [hosts, (cert.0, &cert.1), (key.0, &key.1)];
    let kinds = |server: &Server| -> Vec<bool> {
        let listeners = server.listeners().iter();
        listeners.map(|listener| listener.is_tls).collect()
    };
    assert_eq!(kinds(&bind(&settings).unwrap()), [true, true]);
    let port = port_that_is_free();
    let text = port.to_string();
    let own = ("RESOUND_TLS_PORT", &*text);
    let server = bind(&[&settings[..], &[own]].concat()).unwrap();
    let (kinds, all) = (kinds(&server), addresses(&server));
    assert_eq!(kinds, [false, false, true, true]);
    assert_eq!((all[0].ip(), all[1].ip()), (all[2].ip(), all[3].ip()));
    let ports: Vec<u16> = all.iter().map(SocketAddr::port).collect();
    assert_eq!(ports, [ports[0], ports[0], port, port]);
    assert_eq!(server.address().unwrap(), all[0]);
    let _running = TestServer::run(server);
    for (at, is_tls) in all.iter().zip(kinds) {
        let mut client = if is_tls {
            secure_client(&authority, *at)
        } else {
            Client::connect(&Place(*at))
        };
        client.expect_alive();
    }
}

#[test]
fn all_places_are_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--host",
        "127.0.0.1,127.0.0.2",
        "--port",
        "0",
        "--path",
        "ws",
    ];
    let more = ["--hostname", "shop.example", "--socket", "r.sock"];
    let mut server = Running::start(command(dir.path(), &[&flags[..], &more].concat()));
    let said = &server.said;
    let port = said.split("127.0.0.1:").nth(1).unwrap();
    let port = port.split('/').next().unwrap();
    let line = format!(
        "Starting server on 127.0.0.1:{port}/ws and 127.0.0.2:{port}/ws and unix:r.sock:/ws (shop.example)"
    );
    assert!(said.contains(&line), "{said}");
    server.stop();
}

#[test]
fn a_successor_can_listen_on_the_same_port() {
    let dir = tempfile::tempdir().unwrap();
    let port = port_that_is_free().to_string();
    let start = |path: &str, reuse: &str| {
        let mut command = command(
            dir.path(),
            &["--host", "127.0.0.1", "--port", &port, "--path", path],
        );
        command.env("RESOUND_REUSE_PORT", reuse);
        command
    };
    let mut old = Running::start(start("old", "true"));
    let at = old.said.split("server on ").nth(1).unwrap();
    let at: SocketAddr = at.split('/').next().unwrap().parse().unwrap();
    let refused = start("new", "false").output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "both have to say so");
    let mut new = Running::start(start("new", "true"));
    let serves = |prefix: &str| {
        let mut http = Http::connect(&Place(at));
        http.request("GET", &format!("{prefix}/up"), "").status == 200
    };
    for prefix in ["/old", "/new"] {
        assert!((0..200).any(|_| serves(prefix)), "{prefix} gets none");
    }
    old.stop();
    assert!((0..50).all(|_| serves("/new")));
    new.stop();
}

#[test]
fn health_finds_the_server_wherever_it_listens() {
    let dir = tempfile::tempdir().unwrap();
    let port = port_that_is_free().to_string();
    let ask = |arguments: &[&str]| {
        run(
            dir.path(),
            &[&["health", "--port", &port], arguments].concat(),
        )
    };
    let mut cases = vec![
        &["--host", "127.0.0.2,127.0.0.1"][..],
        &["--host", "off", "--socket", "r.sock"],
        &["--host", "127.0.0.1", "--socket", "r.sock"],
        &["--host", "off", "--socket", "r.sock", "--path", "ws"],
    ];
    if has_ipv6() {
        cases.push(&["--host", "::"]);
        cases.push(&["--host", "0.0.0.0,::"]);
    }
    for arguments in cases {
        let (code, _, error) = ask(arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {error}");
        let flags = [&["--port", &port], arguments].concat();
        let mut server = Running::start(command(dir.path(), &flags));
        let (code, _, error) = ask(arguments);
        assert_eq!((code, &*error), (Some(0), ""), "{arguments:?}");
        server.stop();
    }
    let (code, _, error) = ask(&["--host", "off", "--socket", "r.sock"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("r.sock: No such file"), "{error}");
}

/// A certificate is for others to judge, so a Unix socket is asked if there is one.
#[test]
fn health_asks_whatever_speaks_no_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority();
    let [(_, cert), (_, key)] = authority.settings();
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let port = port_that_is_free().to_string();
    let flags = [
        &["--host", "127.0.0.1", "--port", &port, "--socket", "r.sock"][..],
        &tls,
    ]
    .concat();
    let mut server = Running::start(command(dir.path(), &flags));
    assert!(
        server
            .said
            .contains("Starting server on unix:r.sock, secure server on 127.0.0.1:"),
        "{}",
        server.said
    );
    let ask = |path: &str| {
        run(
            dir.path(),
            &[&["health", "--path", path], &flags[..]].concat(),
        )
    };
    assert_eq!(ask("").0, Some(0));
    let (code, _, error) = ask("/ws");
    assert_eq!(code, Some(1));
    assert!(error.contains("r.sock answers: HTTP/1.1 404"), "{error}");
    server.stop();
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(108);
    for (arguments, variables, expected) in [
        (
            &["--host", "127.0.0.1,"][..],
            &[][..],
            "expected an address without a port, such as 0.0.0.0, :: or localhost, several with commas",
        ),
        (
            &["--host", "off"],
            &[],
            "server.host = \"off\" (REVERB_SERVER_HOST): expected an address, or server.socket",
        ),
        (
            &["--socket", &long],
            &[],
            "expected a path of at most 107 bytes",
        ),
        (
            &["--socket", "s"],
            &[("RESOUND_SOCKET_MODE", "rw")],
            "server.socket_mode = \"rw\" (environment variable RESOUND_SOCKET_MODE): expected permissions in octal, such as 0660",
        ),
        (
            &["--socket", "s"],
            &[("RESOUND_SOCKET_GROUP", "no-such-group")],
            "server.socket_group = \"no-such-group\" (RESOUND_SOCKET_GROUP): there is no such group",
        ),
        (
            &[],
            &[("RESOUND_REUSE_PORT", "2")],
            "expected true or false",
        ),
        (
            &["--host", "127.0.0.1,10.0.0.5", "--port", "9601"],
            &[
                ("RESOUND_METRICS_PORT", "9601"),
                ("RESOUND_METRICS_HOST", "10.0.0.5"),
            ],
            "metrics.port = 9601 (RESOUND_METRICS_PORT) is server.port, too",
        ),
    ] {
        for action in ["start", "check"] {
            let mut command = resound(dir.path());
            command.arg(action).args(arguments).args(APP);
            let output = command.envs(variables.iter().copied()).output().unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(64), "{arguments:?}: {error}");
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn check_tells_where_it_would_listen() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("resound.toml"),
        "[server]\nhost = [\"127.0.0.1\", \"::1\"]\nsocket = \"/run/r.sock\"\nsocket_mode = \"0600\"\n",
    )
    .unwrap();
    let flags = ["check", "--config", "resound.toml"];
    let (code, out, error) = run(dir.path(), &[&flags[..], &APP].concat());
    assert_eq!(
        (code, error.contains("warning")),
        (Some(0), false),
        "{error}"
    );
    assert!(out.contains("server.host"), "{out}");
    assert!(out.contains("127.0.0.1,::1"), "{out}");
    assert!(
        out.ends_with("ok: 1 application, hosts 127.0.0.1 and ::1, port 8080, socket /run/r.sock, no warnings\n"),
        "{out}"
    );
}
