//! Which certificate and which version a client gets, and which clients get in.

use resound::apps::{Counter, HandshakeRefusal};
use resound::config::Config;
use resound::server::Server;

use super::openssl::{Files, authority, authority_of_two, s_client, shown};
use crate::support::{Http, TestServer, server};

#[test]
fn a_client_gets_the_certificate_that_has_the_name_it_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let first = Files::make(dir.path(), "first", &["a.example", "b.example"]);
    let second = Files::make(dir.path(), "second", &["*.wild.example", "c.example"]);
    let server = TestServer::with(&[
        (
            "RESOUND_TLS_CERT",
            &format!("{}, {}", first.cert(), second.cert()),
        ),
        (
            "RESOUND_TLS_KEY",
            &format!("{},{}", first.key(), second.key()),
        ),
    ]);
    for (name, expected) in [
        (Some("a.example"), &first),
        (Some("b.example"), &first),
        (Some("c.example"), &second),
        (Some("C.Example"), &second),
        (Some("x.wild.example"), &second),
        (Some("x.y.wild.example"), &first),
        (Some("unknown.example"), &first),
        (None, &first),
    ] {
        assert_eq!(shown(&server, name), expected.der(), "{name:?}");
    }
}

#[test]
fn versions_below_the_oldest_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(dir.path(), "own", &["localhost"]);
    let settings = [
        ("RESOUND_TLS_CERT", files.cert()),
        ("RESOUND_TLS_KEY", files.key()),
    ];
    let any = TestServer::with(&settings);
    assert!(s_client(&any, &["-tls1_2"]).contains("HTTP/1.1 200"));
    assert!(s_client(&any, &["-tls1_3"]).contains("HTTP/1.1 200"));
    let new = TestServer::with(&[&settings[..], &[("RESOUND_TLS_MIN_VERSION", "1.3")]].concat());
    let said = s_client(&new, &["-tls1_2"]);
    assert!(said.contains("alert protocol version"), "{said}");
    assert!(s_client(&new, &["-tls1_3"]).contains("HTTP/1.1 200"));
}

#[test]
fn clients_have_to_show_a_certificate_if_an_authority_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(dir.path(), "own", &["localhost"]);
    let (ca, [client, expired]) = authority_of_two(dir.path(), "ours");
    let (_, stranger) = authority(dir.path(), "theirs");
    let server = TestServer::with(&[
        ("RESOUND_TLS_CERT", files.cert()),
        ("RESOUND_TLS_KEY", files.key()),
        ("RESOUND_TLS_CLIENT_CA", ca.to_str().unwrap()),
    ]);
    for version in ["-tls1_2", "-tls1_3"] {
        let with = |files: &Files| {
            s_client(
                &server,
                &[version, "-cert", files.cert(), "-key", files.key()],
            )
        };
        let said = with(&client);
        assert!(said.contains("HTTP/1.1 200"), "{said}");
        for said in [
            s_client(&server, &[version]),
            with(&stranger),
            with(&expired),
        ] {
            assert!(said.contains("alert"), "{said}");
            assert!(!said.contains("HTTP/1.1"), "{said}");
        }
    }
    let counters = server.control.apps().unattributed();
    let refused = counters.of(Counter::HandshakesRefused(HandshakeRefusal::Tls));
    assert_eq!(refused, 6);
}

#[test]
fn with_a_port_for_tls_the_other_one_stays_plain() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(dir.path(), "own", &["localhost"]);
    let server = TestServer::with(&[
        ("RESOUND_TLS_CERT", files.cert()),
        ("RESOUND_TLS_KEY", files.key()),
        ("RESOUND_TLS_PORT", "0"),
    ]);
    let answer = Http::connect(&server).request("GET", "/up", "");
    assert_eq!(answer.status, 200);
}

#[test]
fn what_is_probably_a_mistake_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let first = Files::make(dir.path(), "first", &["a.example"]);
    let nameless = Files::make(dir.path(), "second", &["10.0.0.7"]);
    let settings = server::sources(&[
        (
            "RESOUND_TLS_CERT",
            &format!("{},{}", first.cert(), nameless.cert()),
        ),
        (
            "RESOUND_TLS_KEY",
            &format!("{},{}", first.key(), nameless.key()),
        ),
    ]);
    let checked = Server::check(&Config::load(&settings).unwrap()).unwrap();
    let text = format!(
        "server.tls_cert: no client gets {}: it has no host name that is not another's",
        nameless.cert()
    );
    assert_eq!(checked.warnings, [text]);
    let found: Vec<_> = checked
        .certificates
        .iter()
        .map(|it| &it.names[..])
        .collect();
    assert_eq!(found, [["a.example"], ["10.0.0.7"]]);
}
