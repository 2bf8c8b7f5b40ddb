//! Cache channels and counts of subscribers.

use crate::support::{Client, Http, TestServer};
use serde_json::json;

fn miss(channel: &str) -> String {
    format!(r#"{{"event":"pusher:cache_miss","data":"{{}}","channel":"{channel}"}}"#)
}

fn event(data: &str, channel: &str) -> String {
    format!(
        r#"{{"event":"ev","data":{},"channel":"{channel}"}}"#,
        json!(data)
    )
}

/// Reverb forgets it with the last subscriber, and knows no private-encrypted-cache.
#[test]
fn the_last_event_is_the_first_of_later_subscribers_also_after_vacancy() {
    let server = TestServer::start();
    let mut http = Http::connect(&server);
    for channel in ["cache-a", "private-cache-a", "private-encrypted-cache-a"] {
        let mut first = Client::connect(&server);
        first.subscribe(channel);
        first.expect(&miss(channel));
        http.publish(&[channel], "ev", "one");
        first.expect(&event("one", channel));
        http.publish(&[channel], "ev", "two");
        first.expect(&event("two", channel));
        let mut second = Client::connect(&server);
        second.subscribe(channel);
        second.expect(&event("two", channel));
        second.subscribe(channel);
        second.expect(&event("two", channel));
        drop((first, second));
        server.expect_empty();
        let mut third = Client::connect(&server);
        third.subscribe(channel);
        third.expect(&event("two", channel));
        third.expect_silence();
        drop(third);
        server.expect_empty();
    }
}

#[test]
fn an_event_to_an_empty_channel_is_kept_and_client_events_are_not() {
    let server = TestServer::start();
    let mut http = Http::connect(&server);
    http.publish(&["cache-a"], "ev", "early");
    let (mut one, mut two) = (Client::connect(&server), Client::connect(&server));
    for client in [&mut one, &mut two] {
        client.subscribe("cache-a");
        client.expect(&event("early", "cache-a"));
    }
    one.send(r#"{"event":"client-a","channel":"cache-a","data":{}}"#);
    two.expect(r#"{"event":"client-a","channel":"cache-a","data":{}}"#);
    let mut three = Client::connect(&server);
    three.subscribe("cache-a");
    three.expect(&event("early", "cache-a"));
    let answer = http.get("channels/cache-a", &[("info", "cache")]);
    assert!(
        answer
            .body
            .starts_with(r#"{"cache":{"data":"early","ttl":1"#),
        "{}",
        answer.body
    );
}

#[test]
fn events_expire_and_big_ones_are_not_kept() {
    let server = TestServer::with(&[
        ("RESOUND_CACHE_TTL", "1"),
        ("RESOUND_CACHE_MAX_BYTES", "1000"),
    ]);
    let mut http = Http::connect(&server);
    http.publish(&["cache-a"], "ev", "x");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let mut client = Client::connect(&server);
    client.subscribe("cache-a");
    client.expect(&miss("cache-a"));
    http.publish(&["cache-b"], "ev", &"x".repeat(1000));
    client.subscribe("cache-b");
    client.expect(&miss("cache-b"));
    assert_eq!(
        http.get("channels/cache-b", &[("info", "cache")]).body,
        r#"{"cache":null,"occupied":true}"#
    );
}

#[test]
fn subscribers_are_sent_how_many_they_are_if_the_application_wants_it() {
    let server = TestServer::with(&[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
    let count = |n: usize| {
        let data = json!(format!(r#"{{"subscription_count":{n}}}"#));
        format!(r#"{{"event":"pusher_internal:subscription_count","data":{data},"channel":"a"}}"#)
    };
    let (mut one, mut two) = (Client::connect(&server), Client::connect(&server));
    one.subscribe("a");
    one.expect(&count(1));
    two.subscribe("a");
    two.expect(&count(2));
    one.expect(&count(2));
    drop(two);
    one.expect(&count(1));
    one.expect_silence();
}

#[test]
fn counts_that_were_held_back_come_in_the_end() {
    let server = TestServer::with(&[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
    let mut clients: Vec<Client> = (0..130).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.ask("a");
    }
    let mut last = String::new();
    while !last.contains(r#"\"subscription_count\":130}"#) {
        last = clients[0].next_text();
    }
}
