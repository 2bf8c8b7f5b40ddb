//! Clients that come back with a ticket: over a restart, over a reload, and not when they
//! were let in by other rules.

use std::path::Path;

use resound::config::Config;
use resound::server::TicketKeys;

use super::openssl::{Files, authority, s_client};
use crate::support::{TestServer, server};

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// Whether the session of the file is resumed, instead of beginning a new one.
fn is_resumed(at: &TestServer, version: &str, session: &Path) -> bool {
    let said = s_client(at, &[version, "-sess_in", session.to_str().unwrap()]);
    let is_resumed = said.contains("Reused, TLSv1");
    assert!(is_resumed || said.contains("New, TLSv1"), "{said}");
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    is_resumed
}

/// Begins a session and writes it to a file.
fn begin(at: &TestServer, version: &str, session: &Path) {
    let said = s_client(at, &[version, "-sess_out", session.to_str().unwrap()]);
    assert!(said.contains("New, TLSv1"), "{said}");
    assert!(session.is_file(), "{said}");
}

fn random(path: &Path, size: usize) {
    let mut bytes = vec![0; size];
    getrandom::fill(&mut bytes).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn with_keys_in_files_sessions_outlast_a_restart_and_a_new_key() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(dir.path(), "own", &["localhost"]);
    let [first, second] = ["first.key", "second.key"].map(|name| dir.path().join(name));
    random(&first, 80);
    random(&second, 48);
    let start = |keys: &str| {
        TestServer::with(&[
            ("RESOUND_TLS_CERT", files.cert()),
            ("RESOUND_TLS_KEY", files.key()),
            ("RESOUND_TLS_TICKET_KEYS", keys),
        ])
    };
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    for version in VERSIONS {
        let session = dir.path().join(version);
        let before = start(first);
        begin(&before, version, &session);
        assert!(is_resumed(&before, version, &session));
        drop(before);
        assert!(is_resumed(&start(first), version, &session), "{version}");
        let both = format!("{second},{first}");
        assert!(is_resumed(&start(&both), version, &session), "{version}");
        assert!(!is_resumed(&start(second), version, &session), "{version}");
    }
}

#[test]
fn sessions_outlast_a_reload_and_a_successor_that_is_given_the_keys() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(dir.path(), "own", &["localhost"]);
    let settings = [
        ("RESOUND_TLS_CERT", files.cert()),
        ("RESOUND_TLS_KEY", files.key()),
    ];
    let server = TestServer::with(&settings);
    for version in VERSIONS {
        let session = dir.path().join(version);
        begin(&server, version, &session);
        // As a renewal does.
        Files::make(dir.path(), "own", &["localhost"]);
        let config = Config::load(&server::sources(&settings)).unwrap();
        server.control.apply(&config).unwrap();
        assert!(is_resumed(&server, version, &session), "{version}");
        let successor = TestServer::with(&settings);
        assert!(!is_resumed(&successor, version, &session), "{version}");
        let keys = server.control.ticket_keys().to_bytes();
        let keys = TicketKeys::from_bytes(&keys).unwrap();
        successor.control.set_ticket_keys(keys);
        assert!(is_resumed(&successor, version, &session), "{version}");
    }
}

/// rustls asks nobody for a certificate who comes back with a ticket.
#[test]
fn who_was_let_in_without_a_certificate_cannot_come_back_when_one_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(dir.path(), "own", &["localhost"]);
    let (ca, client) = authority(dir.path(), "ours");
    let (other_ca, _) = authority(dir.path(), "theirs");
    let settings = [
        ("RESOUND_TLS_CERT", files.cert()),
        ("RESOUND_TLS_KEY", files.key()),
    ];
    let server = TestServer::with(&settings);
    let apply = |ca: &Path| {
        let more = [("RESOUND_TLS_CLIENT_CA", ca.to_str().unwrap())];
        let config = Config::load(&server::sources(&[&settings[..], &more].concat())).unwrap();
        server.control.apply(&config).unwrap();
    };
    for version in VERSIONS {
        let session = dir.path().join(version);
        let session = session.to_str().unwrap();
        let config = Config::load(&server::sources(&settings)).unwrap();
        server.control.apply(&config).unwrap();
        begin(&server, version, session.as_ref());
        apply(&ca);
        let come_back = |more: &[&str]| {
            let said = s_client(&server, &[&[version, "-sess_in", session], more].concat());
            (
                said.contains("Reused, TLSv1"),
                said.contains("HTTP/1.1 200"),
            )
        };
        assert_eq!(come_back(&[]), (false, false), "{version}");
        let own = ["-cert", client.cert(), "-key", client.key()];
        let new = [&own[..], &["-sess_out", session]].concat();
        // Each time it is looked at, since it may have expired meanwhile.
        for _ in 0..2 {
            assert_eq!(come_back(&new), (false, true), "{version}");
        }
        assert_eq!(come_back(&[]), (false, false), "{version}");
        apply(&other_ca);
        assert_eq!(come_back(&own), (false, false), "{version}");
    }
}
