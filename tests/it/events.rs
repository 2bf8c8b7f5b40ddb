//! From a publish to the subscribers.

use crate::support::http::parsed;
use crate::support::{Client, Http, Signed, TestServer, body};
use serde_json::json;

fn event(name: &str, data: &str, channel: &str) -> String {
    format!(
        r#"{{"event":"{name}","data":{},"channel":"{channel}"}}"#,
        json!(data)
    )
}

#[test]
fn every_subscriber_gets_the_event_once_and_nobody_else_does() {
    let server = TestServer::start();
    let mut members: Vec<Client> = (0..5).map(|_| Client::connect(&server)).collect();
    members
        .iter_mut()
        .for_each(|client| client.subscribe("private-chat.1"));
    let mut other = Client::connect(&server);
    other.subscribe("private-chat.2");
    Http::connect(&server).publish(
        &["private-chat.1"],
        "message.sent",
        r#"{"message":{"id":1}}"#,
    );
    for client in &mut members {
        client.expect(&event(
            "message.sent",
            r#"{"message":{"id":1}}"#,
            "private-chat.1",
        ));
        client.expect_silence();
    }
    other.expect_silence();
}

#[test]
fn data_arrives_as_it_was_sent() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    let mut http = Http::connect(&server);
    for data in [
        r#""plain text""#,
        r#""{}""#,
        r#""5""#,
        r#""\u00e9\/\ud83d\ude00 é / 😀""#,
        r#""\u0000\n\"""#,
    ] {
        let body = format!(r#"{{"name":"App\\Events\\Sent","channel":"lobby","data":{data}}}"#);
        assert_eq!(
            http.request("POST", &Signed::post("events", &body).target(), &body)
                .status,
            200
        );
        client.expect(&format!(
            r#"{{"event":"App\\Events\\Sent","data":{data},"channel":"lobby"}}"#
        ));
    }
}

#[test]
fn frames_of_every_header_length_arrive_whole() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    let mut http = Http::connect(&server);
    for length in [1, 60, 100, 125, 126, 127, 65_500, 65_536, 100_000] {
        let data = "x".repeat(length);
        http.publish(&["lobby"], "ev", &data);
        client.expect(&event("ev", &data, "lobby"));
    }
}

#[test]
fn one_publish_reaches_all_its_channels_in_order() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    client.subscribe("b");
    Http::connect(&server).publish(&["a", "nobody-is-here", "b"], "ev", "x");
    client.expect(&event("ev", "x", "a"));
    client.expect(&event("ev", "x", "b"));
}

#[test]
fn the_socket_of_to_others_does_not_get_the_event() {
    let server = TestServer::start();
    let (mut sender, mut other) = (Client::connect(&server), Client::connect(&server));
    for client in [&mut sender, &mut other] {
        client.subscribe("a");
        client.subscribe("b");
    }
    let mut http = Http::connect(&server);
    let body = json!({ "name": "ev", "channels": ["a", "b"], "data": "x", "socket_id": sender.id })
        .to_string();
    assert_eq!(
        http.request("POST", &Signed::post("events", &body).target(), &body)
            .status,
        200
    );
    other.expect(&event("ev", "x", "a"));
    other.expect(&event("ev", "x", "b"));
    sender.expect_silence();
    for nobody in ["1.2", "", "abc"] {
        let body =
            json!({ "name": "ev", "channel": "a", "data": "y", "socket_id": nobody }).to_string();
        assert_eq!(
            http.request("POST", &Signed::post("events", &body).target(), &body)
                .status,
            200
        );
        sender.expect(&event("ev", "y", "a"));
    }
}

#[test]
fn a_batch_is_delivered_in_its_order() {
    let server = TestServer::start();
    let (mut sender, mut other) = (Client::connect(&server), Client::connect(&server));
    sender.subscribe("a");
    other.subscribe("a");
    let items: Vec<_> = (0..12)
        .map(|n| json!({ "name": format!("ev{n}"), "channel": "a", "data": n.to_string(), "socket_id": sender.id }))
        .collect();
    let body = json!({ "batch": items }).to_string();
    let mut http = Http::connect(&server);
    let answer = http.request("POST", &Signed::post("batch_events", &body).target(), &body);
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    for n in 0..12 {
        other.expect(&event(&format!("ev{n}"), &n.to_string(), "a"));
    }
    sender.expect_silence();
}

#[test]
fn a_bad_item_sends_nothing_of_a_batch() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let body = json!({ "batch": [{ "name": "ev", "channel": "a", "data": "x" }, { "name": "ev", "channel": "a" }] });
    let body = body.to_string();
    let answer = Http::connect(&server).request(
        "POST",
        &Signed::post("batch_events", &body).target(),
        &body,
    );
    assert_eq!(answer.status, 422);
    assert_eq!(
        parsed(&answer),
        json!({ "batch.1.data": ["The batch.1.data field is required."] })
    );
    client.expect_silence();
}

#[test]
fn a_channel_has_one_order_for_everybody() {
    let server = TestServer::start();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&server)).collect();
    clients.iter_mut().for_each(|client| client.subscribe("a"));
    const EACH: usize = 200;
    std::thread::scope(|scope| {
        for publisher in 0..3 {
            let server = &server;
            scope.spawn(move || {
                let mut http = Http::connect(server);
                (0..EACH).for_each(|n| http.publish(&["a"], "ev", &format!("{publisher}-{n}")));
            });
        }
    });
    let orders: Vec<Vec<String>> = clients
        .iter_mut()
        .map(|client| (0..3 * EACH).map(|_| client.next_text()).collect())
        .collect();
    assert!(orders.iter().all(|order| *order == orders[0]));
    for publisher in 0..3 {
        let own: Vec<&String> = orders[0]
            .iter()
            .filter(|text| text.contains(&format!("\"{publisher}-")))
            .collect();
        let expected: Vec<String> = (0..EACH)
            .map(|n| event("ev", &format!("{publisher}-{n}"), "a"))
            .collect();
        assert!(own.into_iter().eq(expected.iter()));
    }
    clients.iter_mut().for_each(Client::expect_silence);
}

/// Joins while others publish: the first frame is the success, and what follows
/// has no gap.
#[test]
fn a_subscriber_gets_all_that_comes_after_it_joined_and_nothing_before() {
    let server = TestServer::start();
    let mut early = Client::connect(&server);
    early.subscribe("a");
    std::thread::scope(|scope| {
        let server = &server;
        let publisher = scope.spawn(move || {
            let mut http = Http::connect(server);
            (0..500).for_each(|n| http.publish(&["a"], "ev", &n.to_string()));
        });
        for _ in 0..20 {
            let mut late = Client::connect(server);
            late.subscribe("a");
            if publisher.is_finished() {
                break;
            }
            let number = |client: &mut Client| -> usize {
                client.next_json()["data"]
                    .as_str()
                    .unwrap()
                    .parse()
                    .unwrap()
            };
            let first = number(&mut late);
            for n in first + 1..(first + 20).min(500) {
                assert_eq!(number(&mut late), n);
            }
        }
    });
    for n in 0..500 {
        early.expect(&event("ev", &n.to_string(), "a"));
    }
}

#[test]
fn applications_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resound.toml");
    std::fs::write(
        &file,
        "[[apps]]\nid = \"2\"\nkey = \"second-key\"\nsecret = \"s2\"\n",
    )
    .unwrap();
    let mut sources = crate::support::server::sources(&[]);
    sources.config_file = Some(file);
    let server = TestServer::from_sources(&sources, false);
    let mut first = Client::connect(&server);
    let mut second = Client::open(&server, "/app/second-key", &[]);
    second.established();
    first.subscribe("lobby");
    second.subscribe("lobby");
    Http::connect(&server).publish(&["lobby"], "ev", "x");
    first.expect(&event("ev", "x", "lobby"));
    second.expect_silence();
    let body = body(&["lobby"], "ev", "x");
    let mut crossed = Signed::post("events", &body);
    crossed.path = "/apps/2/events".to_owned();
    let answer = Http::connect(&server).request("POST", &crossed.target(), &body);
    assert_eq!(answer.status, 401);
    assert!(
        answer
            .body
            .ends_with("The auth_key \"my-app-key\" does not belong to application \"2\"."),
        "{}",
        answer.body
    );
}
