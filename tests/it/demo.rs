//! The demo's page and its signing.

use std::time::{Duration, Instant};

use crate::support::http::parsed;
use crate::support::server::sources;
use crate::support::{Client, Http, KEY, TestServer, body};
use resound::config::{Config, Sources};
use serde_json::{Value, json};

#[test]
fn the_page_is_served_with_the_applications_settings() {
    let server = TestServer::demo();
    let page = Http::connect(&server).request("GET", "/demo", "");
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert!(
        page.body
            .contains(r#"{"key":"my-app-key","app_id":"my-app-id","channel":"private-chat.1""#)
    );
    assert!(!page.body.contains("{{settings}}"));
}

/// What the page does: has a subscription signed, has a publish signed, posts it.
#[test]
fn what_the_demo_signs_is_accepted_by_the_real_api() {
    let server = TestServer::demo();
    let mut client = Client::connect(&server);
    let mut http = Http::connect(&server);
    let form = format!("socket_id={}&channel_name=private-chat.1", client.id);
    let auth = parsed(&http.request("POST", "/demo/auth", &form));
    assert_eq!(auth, json!({ "auth": client.auth("private-chat.1") }));
    client.subscribe("private-chat.1");
    let body = body(&["private-chat.1"], "message.sent", "{}");
    let url = parsed(&http.request("POST", "/demo/sign", &body))["url"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(http.request("POST", &url, &body).body, "{}");
    client.expect(r#"{"event":"message.sent","data":"{}","channel":"private-chat.1"}"#);
    assert_eq!(
        http.request("POST", &url, "{}").status,
        401,
        "only the body that was signed"
    );
}

#[test]
fn the_demo_refuses_other_channels_and_bad_forms() {
    let server = TestServer::demo();
    let mut http = Http::connect(&server);
    for (form, status) in [
        ("socket_id=1.2&channel_name=private-other", 403),
        ("socket_id=1.2", 400),
        ("", 400),
        (&"x".repeat(70_000), 400),
    ] {
        assert_eq!(
            Http::connect(&server)
                .request("POST", "/demo/auth", form)
                .status,
            status
        );
    }
    assert_eq!(http.request("GET", "/demo/auth", "").status, 405);
    assert_eq!(http.request("GET", "/demo/nothing", "").status, 404);
    assert_eq!(KEY, "my-app-key");
}

/// What the page's script is given.
fn settings(page: &str) -> Value {
    let line = page
        .lines()
        .find(|line| line.contains(r#"{"key":"my-app-key""#))
        .unwrap();
    let (begin, end) = (line.find('{').unwrap(), line.rfind('}').unwrap());
    serde_json::from_str(&line[begin..=end]).unwrap()
}

#[test]
fn the_env_to_paste_makes_a_server_of_the_port_that_the_page_is_on() {
    let server = TestServer::demo();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".env");
    for port in [8081, 8080] {
        let mut http = Http::connect(&server);
        http.write(&format!(
            "GET /demo HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
        ));
        let env = settings(&http.answer().body)["env"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(env.contains("REVERB_SERVER_PORT"), port != 8080, "{env}");
        std::fs::write(&file, env).unwrap();
        let sources = Sources {
            env_file: Some(file.clone()),
            ..Sources::default()
        };
        let config = Config::load(&sources).unwrap();
        assert_eq!(config.server.port, port);
        assert!(config.apps.iter().any(|app| app.key == KEY));
        // Laravel dials what listens.
        assert_eq!(config.notes, Vec::<String>::new());
    }
}

/// A page of another site whose name leads to 127.0.0.1.
#[test]
fn a_name_of_another_host_gets_neither_the_page_nor_a_signature() {
    let server = TestServer::demo();
    let ask = |line: &str, host: &str| {
        let mut http = Http::connect(&server);
        http.write(&format!(
            "{line} HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n"
        ));
        http.answer()
    };
    for host in [
        "Host: evil.example\r\n",
        "Host: evil.example:8080\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: 0.0.0.0\r\n",
    ] {
        for line in [
            "GET /demo",
            "GET /",
            "POST /demo/sign",
            "POST /demo/auth",
            "GET /apps/my-app-id/channels",
            "GET /app/my-app-key",
            "GET /up",
        ] {
            let answer = ask(line, host);
            assert_eq!(answer.status, 421, "{line} {host}");
            assert!(answer.body.contains("127.0.0.1"), "{}", answer.body);
        }
    }
    let no_host = "Host: localhost@evil.example\r\n";
    assert_eq!(ask("POST /demo/sign", no_host).status, 400);
    let absolute = ask("POST http://evil.example/demo/sign", "Host: localhost\r\n");
    assert_eq!(absolute.status, 421);
    for host in [
        "127.0.0.1",
        "127.0.0.1:1",
        "LOCALHOST:8080",
        "[::1]",
        "[::1]:8080",
    ] {
        assert_eq!(
            ask("GET /demo", &format!("Host: {host}\r\n")).status,
            200,
            "{host}"
        );
    }
}

#[test]
fn the_addresses_beside_the_page_lead_to_it_on_a_demo_server_only() {
    let server = TestServer::demo();
    let mut demo = Http::connect(&server);
    for target in ["/", "/demo/"] {
        let answer = demo.request("GET", target, "");
        assert_eq!(
            (answer.status, answer.header("location")),
            (307, Some("/demo")),
            "{target}"
        );
        assert_eq!(demo.request("POST", target, "").status, 405, "{target}");
    }
    let server = TestServer::with(&[("REVERB_SERVER_PATH", "/ws")]);
    for target in ["/", "/ws/", "/demo", "/demo/"] {
        assert_eq!(
            Http::connect(&server).request("GET", target, "").status,
            404,
            "{target}"
        );
    }
}

#[test]
fn a_body_that_does_not_come_is_given_up_in_time() {
    let server = TestServer::from_sources(&sources(&[("RESOUND_REQUEST_TIMEOUT", "1")]), true);
    for path in ["sign", "auth"] {
        let begin = Instant::now();
        let mut http = Http::connect(&server);
        http.write(&format!(
            "POST /demo/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx"
        ));
        assert_eq!(http.answer().status, 408, "{path}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
