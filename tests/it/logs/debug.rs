//! `--debug`: every connection, and what it sends and is sent, whole.

use super::{fields_of, start};
use crate::support::{APP_ID, Client, Http, KEY, hmac};

#[test]
fn debug_shows_every_connection_message_and_error() {
    let (server, log) = start(&["--debug"], &[]);
    let page = format!("/app/{KEY}");
    let mut client = Client::open(&server, &page, &[("origin", "https://shop.example")]);
    client.established();
    let app = format!("app={APP_ID}");
    let id = format!("socket_id={}", client.id);
    log.wait_for(&[
        "connecting",
        &app,
        &format!("key={KEY}"),
        "origin=https://shop.example",
        "peer=127.0.0.1:",
    ]);
    log.wait_for(&["connected", &app, &id, "peer=127.0.0.1:"]);
    client.subscribe("private-a");
    log.wait_for(&["message", &id, "kind=pusher:subscribe"]);
    log.wait_for(&["subscribed", &id, "channel=private-a"]);
    client.send(r#"{"event":"client-a","channel":"private-a","data":{"secret":1}}"#);
    log.wait_for(&["client event", "channel=private-a", "event=client-a"]);
    client.expect_alive();
    log.wait_for(&["message", &id, "kind=pusher:ping"]);
    client.unsubscribe("private-a");
    log.wait_for(&["unsubscribed", &id, "channel=private-a"]);
    client.send("{");
    log.wait_for(&["error sent", &id, "code=4200", "Invalid message format"]);
    let mut http = Http::connect(&server);
    http.publish(&["b"], "ev", "payload");
    log.wait_for(&["published", &app, "channel=b", "event=ev"]);
    log.wait_for(&[
        "request",
        "method=POST",
        "path=/apps/my-app-id/events",
        "peer=",
    ]);
    log.wait_for(&["answered", "status=200", "peer="]);
    drop(client);
    let line = log.wait_for(&["disconnected", &id, "reason=gone", "peer="]);
    assert_eq!(fields_of(&line)["messages"], "5");
}

#[test]
fn the_end_of_a_connection_says_how_long_it_was_and_what_came() {
    let (server, log) = start(&["--debug"], &[]);
    let mut client = Client::connect(&server);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let sent = [
        r#"{"event":"pusher:ping"}"#,
        r#"{"event":"anything","data":"größe"}"#,
        "not JSON",
    ];
    sent.iter().for_each(|text| client.send(text));
    client.expect(r#"{"event":"pusher:pong"}"#);
    client.expect_error(4200, "Invalid message format");
    client.socket.close(None).unwrap();
    let line = log.wait_for(&["disconnected"]);
    let fields = fields_of(&line);
    let seconds: f64 = fields["seconds"].parse().unwrap();
    assert!((0.02..10.0).contains(&seconds), "{line}");
    assert!(fields["seconds"].len() <= 5, "milliseconds: {line}");
    let bytes: usize = sent.iter().map(|text| text.len()).sum();
    assert_eq!(fields["messages"], "3", "{line}");
    assert_eq!(fields["bytes"], bytes.to_string(), "{line}");
    assert_eq!(fields["reason"], "by_client", "{line}");
}

#[test]
fn frames_are_shown_whole_in_both_directions_and_a_broadcast_once() {
    let (server, log) = start(&["--debug"], &[]);
    let mut first = Client::connect(&server);
    let mut second = Client::connect(&server);
    for client in [&mut first, &mut second] {
        client.subscribe("private-a");
    }
    let id = &first.id.clone();
    let frame_of = |line: &str| fields_of(line)["frame"].clone();
    let said =
        r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"private-a"}"#;
    assert_eq!(
        frame_of(&log.wait_for(&[" sent ", id, "subscription_succ"])),
        said
    );
    let long = "x".repeat(5000);
    let sent = format!(r#"{{"event":"client-a","channel":"private-a","data":{{"a":"{long} ="}}}}"#);
    first.send(&sent);
    let got = second.next_text();
    assert_eq!(
        frame_of(&log.wait_for(&[" received ", id, "client-a"])),
        sent
    );
    assert_eq!(frame_of(&log.wait_for(&[" broadcast ", "client-a"])), got);
    Http::connect(&server).publish(&["private-a"], "ev", &long);
    let got = first.next_text();
    let line = log.wait_for(&[" broadcast ", r#"\"ev\""#]);
    let fields = fields_of(&line);
    assert_eq!(fields["frame"], got);
    assert_eq!(
        (
            &*fields["app"],
            &*fields["channel"],
            &*fields["subscribers"]
        ),
        (APP_ID, "private-a", "2")
    );
    assert_eq!(second.next_text(), got);
    let lines = log.lines();
    let broadcasts = lines.iter().filter(|line| line.contains(r#"\"ev\""#));
    assert_eq!(broadcasts.count(), 1, "{lines:#?}");
}

#[test]
fn signatures_are_not_shown() {
    let (server, log) = start(&["--debug"], &[]);
    let mut client = Client::connect(&server);
    client.subscribe("private-a");
    let signature = client.auth("private-a");
    let frame = fields_of(&log.wait_for(&[" received ", "pusher:subscribe"]))["frame"].clone();
    let expected = format!(
        r#"{{"data":{{"auth":"{KEY}:…","channel":"private-a"}},"event":"pusher:subscribe"}}"#
    );
    assert_eq!(frame, expected);
    // One that is no message is not shown with a signature, either.
    let other = hmac("secret", "text");
    client.send(&format!("{{{other}"));
    client.expect_error(4200, "Invalid message format");
    log.wait_for(&[" received ", "{…"]);
    for line in log.lines() {
        assert!(
            !line.contains(&signature[KEY.len()..]) && !line.contains(&other),
            "{line}"
        );
    }
}

/// Levels do not show what is sent, and show or hide the rest with `--debug`, too.
#[test]
fn frames_are_for_debug_only_and_can_be_left_out_of_it() {
    for (flags, levels, is_shown) in [
        (&[][..], "trace", false),
        (&[], "info,resound::frames=trace", false),
        (&[], "info,resound::frames[{frame}]=trace", false),
        (&["--debug"], "resound=debug", true),
        (&["--debug"], "resound=debug,resound::frames=off", false),
        (&["--debug"], "info", false),
    ] {
        let (server, log) = start(
            flags,
            &[("RUST_LOG", &format!("{levels},resound::server=info"))],
        );
        let mut client = Client::connect(&server);
        client.subscribe("a");
        Http::connect(&server).publish(&["a"], "ev", "payload");
        client.next_text();
        drop(client);
        Http::connect(&server).request("POST", "/apps/nobody/events", "{}");
        log.wait_for(&["unknown application id (404)"]);
        let lines = log.lines();
        let is_payload = |line: &String| line.contains("payload");
        assert_eq!(
            lines.iter().any(is_payload),
            is_shown,
            "{levels}: {lines:#?}"
        );
    }
}
