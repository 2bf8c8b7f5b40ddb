//! Who a line is about, when proxies stand in front.

use std::io::Write;

use serde_json::Value;

use super::{fields_of, start};
use crate::support::client::tcp;
use crate::support::{Client, Http, KEY, Signed, body};

const TRUSTED: (&str, &str) = ("RESOUND_TRUSTED_PROXIES", "127.0.0.1");

#[test]
fn the_client_of_a_trusted_proxy_is_the_peer_of_every_line() {
    let (server, log) = start(&["--debug"], &[TRUSTED, ("RESOUND_ACCESS_LOG", "on")]);
    let page = format!("/app/{KEY}");
    let header = [("x-forwarded-for", "6.6.6.6, 192.0.2.1:4711")];
    let mut client = Client::open(&server, &page, &header);
    client.established();
    client.send("{");
    client.next_text();
    let id = format!("socket_id={}", client.id);
    drop(client);
    let line = log.wait_for(&["connecting"]);
    let fields = fields_of(&line);
    assert_eq!(fields["peer"], "192.0.2.1:4711", "{line}");
    assert!(fields["proxy"].starts_with("127.0.0.1:"), "{line}");
    assert!(!fields.contains_key("forwarded_for"), "{line}");
    for what in [" connected ", "message refused", "disconnected"] {
        let line = log.wait_for(&[what, &id]);
        assert_eq!(fields_of(&line)["peer"], "192.0.2.1:4711", "{line}");
    }
    let event = body(&["lobby"], "ev", "x");
    let mut http = Http::connect(&server);
    for (client, target, status) in [
        ("192.0.2.2", Signed::post("events", &event).target(), 200),
        ("2001:db8::1", Signed::post("events", "other").target(), 401),
    ] {
        http.write(&format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\
             Content-Length: {}\r\n\r\n{event}",
            event.len()
        ));
        assert_eq!(http.answer().status, status);
        let peer = format!("peer={client} ");
        log.wait_for(&["request", "method=POST", &peer, "proxy=127.0.0.1:"]);
        let access = log.wait_for(&["\"access\"", &format!("\"peer\":\"{client}\"")]);
        let access: Value = serde_json::from_str(&access).unwrap();
        assert!(access["proxy"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
    log.wait_for(&["request refused", "peer=2001:db8::1 ", "proxy=127.0.0.1:"]);
}

#[test]
fn what_nobody_believes_is_shown_as_such() {
    let (server, log) = start(&[], &[("RESOUND_TRUSTED_PROXIES", "192.0.2.0/24")]);
    let header = [("x-forwarded-for", "192.0.2.1")];
    Client::open(&server, "/app/wrong", &header).next_text();
    let line = log.wait_for(&["connection refused: unknown application key (4001)"]);
    let fields = fields_of(&line);
    assert!(fields["peer"].starts_with("127.0.0.1:"), "{line}");
    assert_eq!(fields["forwarded_for"], "192.0.2.1", "{line}");
    assert!(!fields.contains_key("proxy"), "{line}");
}

#[test]
fn proxy_headers_that_are_wrong_or_not_believed_are_warned_of() {
    let proxy_protocol = ("RESOUND_PROXY_PROTOCOL", "on");
    let (server, log) = start(&["--debug"], &[TRUSTED, proxy_protocol]);
    for (bytes, error) in [
        ("GET /up HTTP/1.1\r\n", "it begins with something else"),
        (
            "PROXY TCP4 192.0.2.1 127.0.0.1 1 x\r\n",
            "its ports are none",
        ),
    ] {
        tcp(&server).write_all(bytes.as_bytes()).unwrap();
        let text = "closed a proxy's connection that does not begin with a valid PROXY header";
        let line = log.wait_for(&["WARN", text, error]);
        assert!(fields_of(&line)["peer"].starts_with("127.0.0.1:"), "{line}");
    }
    let mut http = Http::connect(&server);
    http.write("PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n");
    assert_eq!(http.request("GET", "/nothing", "").status, 404);
    log.wait_for(&["no such address", "peer=192.0.2.1:4711", "proxy=127.0.0.1:"]);

    let (server, log) = start(&[], &[proxy_protocol]);
    log.wait_for(&["WARN", "server.proxy_protocol is on, and nobody may use it"]);
    for _ in 0..20 {
        let mut http = Http::connect(&server);
        http.write("PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n");
        assert_eq!(http.request("GET", "/up", "").status, 200);
    }
    let text = "ignored a PROXY header of an address that is no trusted proxy";
    let line = log.wait_for(&["WARN", text]);
    assert!(fields_of(&line)["peer"].starts_with("127.0.0.1:"), "{line}");
    let count = log
        .lines()
        .iter()
        .filter(|line| line.contains(text))
        .count();
    assert!(count < 10, "{count} lines");
}
