//! Certificates that are exchanged while openssl is connected.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::haproxy;
use crate::node::Node;
use crate::openssl::{Connection, Pair, openssl};
use crate::port;
use crate::s_client::s_client;
use crate::server::{self, has_logged};
use crate::support::At;
use crate::wait::eventually;

const ECDSA: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA: &[&str] = &["rsa:2048"];

/// A server with a port for TLS, and its files.
struct Secure {
    node: Node,
    tls: SocketAddr,
    files: Pair,
    dir: TempDir,
}

impl Secure {
    fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = Pair::make(dir.path(), "first.test", ECDSA).copy(dir.path(), "own");
        let tls = SocketAddr::from(([127, 0, 0, 1], port::free()));
        let tls_port = tls.port().to_string();
        let own = [
            ("RESOUND_TLS_CERT", files.cert()),
            ("RESOUND_TLS_KEY", files.key()),
            ("RESOUND_TLS_PORT", &tls_port),
            ("RESOUND_CONTROL_SOCKET", &control(dir.path())),
        ];
        let node = server::start(&[&own, settings].concat());
        Self {
            node,
            tls,
            files,
            dir,
        }
    }

    /// The exit code of `resound reload`, and what it says.
    fn reload(&self) -> (Option<i32>, String) {
        let run = Command::new(env!("CARGO_BIN_EXE_resound"))
            .args(["reload", "--control-socket", &control(self.dir.path())])
            .env_clear()
            .output()
            .unwrap();
        let said = [run.stdout, run.stderr].concat();
        (run.status.code(), String::from_utf8(said).unwrap())
    }

    /// Whether this one's certificate is shown to openssl, which trusts no other.
    fn shows(&self, name: &str) -> bool {
        let cert = self.dir.path().join(format!("{name}.pem"));
        let trusted = ["-CAfile", cert.to_str().unwrap()];
        let strict = ["-verify_return_error", "-verify_hostname", name];
        let said = s_client(self, &[trusted.as_slice(), &strict].concat());
        said.contains("HTTP/1.1 200 OK")
    }
}

impl At for Secure {
    fn address(&self) -> SocketAddr {
        self.tls
    }
}

fn control(dir: &Path) -> String {
    dir.join("control.sock").to_str().unwrap().to_owned()
}

#[test]
fn certificates_are_exchanged_by_a_reload_and_wrong_ones_are_refused() {
    let server = Secure::start(&[]);
    let mut held = Connection::websocket(server.tls, &[]);
    let (files, dir) = (&server.files, server.dir.path());
    let second = Pair::make(dir, "second.test", RSA);
    let refused = |why: &str| {
        let (code, said) = server.reload();
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(server.shows("first.test") && !server.shows("second.test"));
    };
    std::fs::copy(&second.cert, &files.cert).unwrap();
    refused("is not that of the first certificate");
    std::fs::remove_file(&files.key).unwrap();
    refused("own.key");
    let encrypted = ["-aes256", "-passout", "pass:x", "-in", second.key()];
    openssl(&[&["rsa"], &encrypted[..], &["-out", files.key()]].concat());
    refused("encrypted");
    std::fs::copy(&second.key, &files.key).unwrap();
    let (code, said) = server.reload();
    assert_eq!(code, Some(0), "{said}");
    assert!(server.shows("second.test") && !server.shows("first.test"));
    // Whoever was connected is so still, and what is published plainly arrives.
    server.node.publish("lobby", "ev", "after the reload");
    held.expect("after the reload");
    // A ping whose mask changes nothing, and its answer.
    held.say(b"\x89\x88\0\0\0\0pinging}");
    held.expect("pinging}");
}

#[test]
fn files_that_change_are_loaded_without_a_reload_and_sessions_go_on() {
    let server = Secure::start(&[]);
    let session = server.dir.path().join("session");
    let session = session.to_str().unwrap();
    let saved = s_client(&server, &["-tls1_3", "-sess_out", session]);
    assert!(saved.contains("HTTP/1.1 200 OK"), "{saved}");
    Pair::make(server.dir.path(), "second.test", ECDSA).copy(server.dir.path(), "own");
    eventually("it is loaded", || server.shows("second.test"));
    assert!(has_logged(
        &server.node,
        &["certificate loaded", "second.test"]
    ));
    let resumed = s_client(&server, &["-tls1_3", "-sess_in", session]);
    assert!(resumed.contains("Reused, TLSv1.3"), "{resumed}");
}

/// The PROXY header comes before the handshake.
#[test]
fn openssl_is_known_by_its_address_through_haproxy() {
    let server = Secure::start(&[
        ("RESOUND_TRUSTED_PROXIES", "127.0.0.1"),
        ("RESOUND_PROXY_PROTOCOL", "on"),
        ("RESOUND_DEBUG", "on"),
    ]);
    let with = "send-proxy-v2 check-ssl verify none";
    let proxy = haproxy::start(server.tls, "tcp", "", with);
    eventually("it checks", || {
        has_logged(&server.node, &["request", "path=/up"])
    });
    let own = server.files.cert();
    let strict = ["-CAfile", own, "-verify_return_error", "-bind", "127.0.0.7"];
    let held = Connection::websocket(proxy.address, &strict);
    server::publish_from(8, &server.node, "lobby", "through it");
    held.expect("through it");
    let line = ["connecting", "peer=127.0.0.7:", "proxy=127.0.0.1:"];
    assert!(has_logged(&server.node, &line), "{}", server.node.log());
}
