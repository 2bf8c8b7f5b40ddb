//! Publishes that arrive twice.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::http::Answer;
use crate::support::{At, Client, Http, Signed, TestServer, body};

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Where a server's metrics are.
struct Metrics(SocketAddr);

impl At for Metrics {
    fn address(&self) -> SocketAddr {
        self.0
    }
}

const REPLAYED: &str = "idempotency-replayed";

fn key(text: &str) -> String {
    format!("Idempotency-Key: {text}\r\n")
}

/// The data of the events that a client gets until there are no more.
fn events(client: &mut Client, http: &mut Http) -> Vec<Value> {
    // Unlike any other, so that it is never taken for one that comes again.
    let last = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
    http.publish(&["a"], "last", &last);
    let mut data = Vec::new();
    loop {
        let frame = client.next_json();
        if frame["event"] == "last" {
            return data;
        }
        data.push(frame["data"].clone());
    }
}

fn subscribed(server: &TestServer) -> Client {
    let mut client = Client::connect(server);
    client.subscribe("a");
    client
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header(REPLAYED) == Some("true")
}

#[test]
fn the_same_key_publishes_once_and_is_answered_as_the_first_time() {
    let server = TestServer::start();
    let mut client = subscribed(&server);
    let mut http = Http::connect(&server);
    let asked = json!({ "name": "e", "channel": "a", "data": "1", "info": "subscription_count" });
    let asked = asked.to_string();
    let first = http.post_with("events", &key("job-1:0"), &asked);
    assert_eq!(first.status, 200);
    assert!(!is_replayed(&first));
    // What has changed since is not in the answer.
    let mut other = subscribed(&server);
    let second = http.post_with("events", &key("job-1:0"), &asked);
    assert_eq!((second.status, &second.body), (200, &first.body));
    assert!(is_replayed(&second));
    let third = http.post_with("events", &key("job-1:1"), &asked);
    assert!(
        !is_replayed(&third) && third.body != first.body,
        "{third:?}"
    );
    assert_eq!(events(&mut client, &mut http).len(), 2);
    assert_eq!(other.next_json()["data"], "1");
    let batch = json!({ "batch": [{ "name": "e", "channel": "a", "data": "2" }] }).to_string();
    for is_second in [false, true] {
        let answer = http.post_with("batch_events", &key("job-2"), &batch);
        assert_eq!((answer.status, is_replayed(&answer)), (200, is_second));
    }
    assert_eq!(events(&mut client, &mut http), [json!("2")]);
}

#[test]
fn a_key_with_something_else_is_refused_and_publishes_nothing() {
    let server = TestServer::start();
    let mut client = subscribed(&server);
    let mut http = Http::connect(&server);
    let first = body(&["a"], "e", "1");
    assert_eq!(http.post_with("events", &key("k"), &first).status, 200);
    let other = body(&["a"], "e", "2");
    let batch = json!({ "batch": [] }).to_string();
    for (call, body) in [("events", &other), ("batch_events", &batch)] {
        let answer = http.post_with(call, &key("k"), body);
        let text = r#"{"Idempotency-Key":["The Idempotency-Key was used for another request."]}"#;
        assert_eq!((answer.status, &*answer.body), (422, text));
    }
    assert_eq!(events(&mut client, &mut http), [json!("1")]);
}

#[test]
fn what_was_refused_can_be_tried_again() {
    let server = TestServer::start();
    let mut client = subscribed(&server);
    let mut http = Http::connect(&server);
    assert_eq!(http.post_with("events", &key("k"), "{}").status, 422);
    let good = body(&["a"], "e", "1");
    let answer = http.post_with("events", &key("k"), &good);
    assert_eq!((answer.status, is_replayed(&answer)), (200, false));
    assert_eq!(events(&mut client, &mut http), [json!("1")]);
}

#[test]
fn keys_that_are_none_are_refused() {
    let server = TestServer::start();
    let mut http = Http::connect(&server);
    let good = body(&["a"], "e", "1");
    let (long, longest) = ("x".repeat(256), "x".repeat(255));
    let twice = format!("{}{}", key("a"), key("b"));
    for headers in [
        key(""),
        key("\u{e9}"),
        key(&long),
        key(&"x".repeat(10_000)),
        twice,
    ] {
        let answer = http.post_with("events", &headers, &good);
        assert_eq!(answer.status, 422, "{headers:?}");
        assert!(
            answer.body.contains("1 to 255 printable ASCII"),
            "{}",
            answer.body
        );
    }
    assert_eq!(http.post_with("events", &key(&longest), &good).status, 200);
}

#[test]
fn a_signed_request_that_comes_again_is_answered_again_if_the_application_wants_that() {
    for (window, expected) in [("0", 3), ("5", 1)] {
        let server = TestServer::with(&[("RESOUND_DUPLICATE_WINDOW", window)]);
        let mut client = subscribed(&server);
        let mut http = Http::connect(&server);
        let text = body(&["a"], "e", "1");
        let target = Signed::post("events", &text).target();
        for number in 0..3 {
            let answer = http.request("POST", &target, &text);
            let is_again = number > 0 && expected == 1;
            assert_eq!((answer.status, is_replayed(&answer)), (200, is_again));
        }
        assert_eq!(events(&mut client, &mut http).len(), expected);
        // Another body is another request, in the same second, too.
        http.publish(&["a"], "e", "2");
        http.publish(&["a"], "e", "3");
        assert_eq!(events(&mut client, &mut http).len(), 2);
    }
}

#[test]
fn many_at_once_with_the_same_key_publish_once() {
    let server = TestServer::with(&[("RESOUND_WORKERS", "2")]);
    let mut client = subscribed(&server);
    let text = body(&["a"], "e", "1");
    for round in 0..50 {
        let mut all: Vec<Http> = (0..8).map(|_| Http::connect(&server)).collect();
        for http in &mut all {
            http.begin_post("events", &key(&format!("round {round}")), &text);
        }
        let answers: Vec<Answer> = all.iter_mut().map(Http::answer).collect();
        let statuses: BTreeSet<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, BTreeSet::from([200]));
        let firsts = answers.iter().filter(|answer| !is_replayed(answer));
        assert_eq!(firsts.count(), 1);
    }
    assert_eq!(events(&mut client, &mut Http::connect(&server)).len(), 50);
}

#[test]
fn what_is_answered_again_is_counted() {
    let server = TestServer::with(&[("RESOUND_METRICS_PORT", "0")]);
    let mut http = Http::connect(&server);
    let text = body(&["a"], "e", "1");
    for is_again in [false, true, true] {
        let answer = http.post_with("events", &key("k"), &text);
        assert_eq!(is_replayed(&answer), is_again);
    }
    let metrics = Metrics(server.metrics.unwrap());
    let scraped = Http::connect(&metrics).request("GET", "/metrics", "").body;
    let expected = "resound_publishes_replayed_total{app_id=\"my-app-id\"} 2\n";
    assert!(scraped.contains(expected), "{scraped}");
}
