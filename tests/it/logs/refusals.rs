//! What is refused is one line, with who and why and what to do, however often it happens.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use super::start;
use crate::support::{APP_ID, Client, Http, KEY, Signed, body};
use crate::tls::openssl::{Files, authority, s_client};

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
    let line = log.wait_for(&["subscription refused", "private-"]);
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
    let app = format!("app={APP_ID}");
    let evil = [
        ("origin", "https://evil.example"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    Client::open(&server, "/app/wrong", &[]).next_text();
    log.wait_for(&[
        "unknown application key (4001)",
        "key=wrong",
        "peer=127.0.0.1:",
        "help=\"REVERB_APP_KEY",
    ]);
    Client::open(&server, &page, &evil).next_text();
    log.wait_for(&[
        "origin not allowed (4009)",
        &app,
        "origin=https://evil.example",
        "peer=127.0.0.1:",
        "forwarded_for=192.0.2.7",
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
    let app = format!("app={APP_ID}");
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
                "path=/apps/other/events",
                "REVERB_APP_ID differs",
            ],
        ),
        (
            "/nothing".to_owned(),
            "",
            vec!["no such address (404)", "path=/nothing"],
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
                "key=other",
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
            vec!["invalid fields (422)", &app, "fields=name"],
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
        (
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /up HTTP/1.1\r\n\r\n",
            [
                "a PROXY header that is not expected",
                "RESOUND_PROXY_PROTOCOL=on",
            ],
        ),
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
    let app = format!("app={APP_ID}");
    let id = format!("socket_id={}", client.id);
    for (sent, parts) in [
        (
            format!(
                r#"{{"event":"pusher:subscribe","data":{{"channel":"private-a","auth":"{KEY}:00"}}}}"#
            ),
            [
                "subscription refused",
                "channel=private-a reason=\"The signature in auth is not valid",
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
            ["client event refused", "channel=private-b", "not a member"],
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
    let app = format!("app={APP_ID}");
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
fn a_handshake_that_fails_is_one_line_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let own = Files::make(dir.path(), "own", &["localhost"]);
    let (ca, _) = authority(dir.path(), "ours");
    let (_, stranger) = authority(dir.path(), "theirs");
    let (server, log) = start(
        &[],
        &[
            ("RESOUND_TLS_CERT", own.cert()),
            ("RESOUND_TLS_KEY", own.key()),
            ("RESOUND_TLS_CLIENT_CA", ca.to_str().unwrap()),
            ("RESOUND_TLS_MIN_VERSION", "1.3"),
        ],
    );
    log.wait_for(&[
        "certificate loaded",
        own.cert(),
        "names=localhost",
        "not_after=4096-01-01",
    ]);
    let certificate = ["-cert", stranger.cert(), "-key", stranger.key()];
    for (arguments, parts) in [
        (
            &[][..],
            ["no certificate of the client", "RESOUND_TLS_CLIENT_CA"],
        ),
        (
            &certificate,
            [
                "the client's certificate is not accepted",
                "RESOUND_TLS_CLIENT_CA",
            ],
        ),
        (
            &["-tls1_2"],
            ["TLS handshake failed", "RESOUND_TLS_MIN_VERSION"],
        ),
    ] {
        log.clear();
        s_client(&server, arguments);
        log.wait_for(&["INFO", parts[0], parts[1], "peer=127.0.0.1:"]);
        assert_eq!(log.lines().len(), 1, "{:#?}", log.lines());
    }
}
