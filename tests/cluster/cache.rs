//! Cache channels in a cluster.

use std::time::Duration;

use serde_json::Value;

use crate::frames::{arrived, cache_miss, event};
use crate::node::Node;
use crate::nodes::Cluster;
use crate::support::http::parsed;
use crate::support::{Client, Http};
use crate::wait::{LONG, eventually_is, soon};

/// The last event of a channel, as a node returns it.
fn last_event(node: &Node, channel: &str) -> Value {
    let answer = node.get(&format!("channels/{channel}"), &[("info", "cache")]);
    parsed(&answer)["cache"]["data"].take()
}

fn has_last_event(node: &Node, channel: &str, data: &str) {
    eventually_is("the last event", &Value::from(data), || {
        last_event(node, channel)
    });
}

#[test]
fn the_last_event_is_the_first_of_later_subscribers_of_every_node() {
    let cluster = Cluster::start(3, &[]);
    for channel in ["cache-a", "private-cache-a", "private-encrypted-cache-a"] {
        let mut first = Client::connect(&cluster[0]);
        first.subscribe(channel);
        first.expect(&cache_miss(channel));
        for (data, publisher) in [("one", 1), ("two", 0), ("three", 2)] {
            cluster[publisher].publish(channel, "ev", data);
            first.expect(&event("ev", data, channel));
            // The subscriber's own node may have sent it before Redis knew.
            has_last_event(&cluster[2 - publisher], channel, data);
        }
        drop(first);
        for node in cluster.nodes() {
            has_last_event(node, channel, "three");
            let mut later = Client::connect(node);
            later.subscribe(channel);
            later.expect(&event("ev", "three", channel));
            later.expect_silence();
        }
    }
}

/// It has it from the cache, or, if it came before the event, gets it then; not both.
#[test]
fn the_first_subscriber_of_a_node_gets_what_was_just_published_on_another_once() {
    let cluster = Cluster::start(2, &[]);
    let mut http = Http::connect(&cluster[0]);
    let mut client = Client::connect(&cluster[1]);
    for n in 0..50 {
        let channel = format!("cache-{n}");
        http.publish(&[&channel], "ev", "x");
        client.subscribe(&channel);
        let mut first = client.next_text();
        if first == cache_miss(&channel) {
            first = client.next_text();
        }
        assert_eq!(first, event("ev", "x", &channel));
        http.publish(&[&channel], "ev", "y");
        client.expect(&event("ev", "y", &channel));
    }
}

#[test]
fn it_outlives_the_node_that_took_it() {
    let mut cluster = Cluster::start(2, &[]);
    cluster[0].publish("cache-a", "ev", "x");
    has_last_event(&cluster[1], "cache-a", "x");
    cluster[0].kill();
    let mut client = Client::connect(&cluster[1]);
    client.subscribe("cache-a");
    client.expect(&event("ev", "x", "cache-a"));
}

#[test]
fn it_expires_and_a_bigger_one_than_allowed_is_kept_nowhere() {
    let settings = [
        ("RESOUND_CACHE_TTL", "3"),
        ("RESOUND_CACHE_MAX_BYTES", "1000"),
    ];
    let cluster = Cluster::start(2, &settings);
    cluster[0].publish("cache-a", "ev", "x");
    has_last_event(&cluster[1], "cache-a", "x");
    std::thread::sleep(Duration::from_millis(3100));
    let mut client = Client::connect(&cluster[1]);
    client.subscribe("cache-a");
    client.expect(&cache_miss("cache-a"));
    cluster[0].publish("cache-b", "ev", "small");
    has_last_event(&cluster[1], "cache-b", "small");
    cluster[0].publish("cache-b", "ev", &"x".repeat(1000));
    for node in cluster.nodes() {
        eventually_is("the last event", &Value::Null, || {
            last_event(node, "cache-b")
        });
    }
}

#[test]
fn a_client_event_on_another_node_does_not_take_its_place() {
    let cluster = Cluster::start(2, &[]);
    cluster[0].publish("cache-a", "ev", "x");
    has_last_event(&cluster[1], "cache-a", "x");
    let mut clients = [0, 1].map(|node| Client::connect(&cluster[node]));
    for client in &mut clients {
        client.subscribe("cache-a");
        client.expect(&event("ev", "x", "cache-a"));
    }
    clients[0].send(r#"{"event":"client-a","channel":"cache-a","data":{}}"#);
    clients[1].expect(r#"{"event":"client-a","channel":"cache-a","data":{}}"#);
    for node in cluster.nodes() {
        assert_eq!(last_event(node, "cache-a"), "x");
    }
}

/// With Redis gone, a node has what itself has seen.
#[test]
fn without_redis_a_node_answers_with_what_it_has() {
    let mut cluster = Cluster::start(2, &[]);
    cluster.redis.kill();
    cluster.await_all_connected(false);
    cluster[0].publish("cache-a", "ev", "here");
    let mut here = Client::connect(&cluster[0]);
    here.subscribe("cache-a");
    here.expect(&event("ev", "here", "cache-a"));
    let mut there = Client::connect(&cluster[1]);
    there.subscribe("cache-a");
    there.expect(&cache_miss("cache-a"));
    cluster.redis.restart();
    let mut seen = Vec::new();
    let came = soon(LONG, || {
        seen.extend(arrived(&mut there));
        !seen.is_empty()
    });
    assert!(
        came && seen.len() == 1 && seen[0]["data"] == "here",
        "{seen:?}"
    );
    has_last_event(&cluster[1], "cache-a", "here");
}

#[test]
fn a_redis_that_came_back_empty_is_given_what_the_nodes_have_received() {
    let mut cluster = Cluster::start(2, &[]);
    let mut first = Client::connect(&cluster[0]);
    first.subscribe("cache-a");
    first.expect(&cache_miss("cache-a"));
    cluster[0].publish("cache-a", "ev", "x");
    first.expect(&event("ev", "x", "cache-a"));
    has_last_event(&cluster[1], "cache-a", "x");
    cluster.redis.restart_empty();
    cluster.await_all_connected(true);
    has_last_event(&cluster[1], "cache-a", "x");
    let mut later = Client::connect(&cluster[1]);
    later.subscribe("cache-a");
    later.expect(&event("ev", "x", "cache-a"));
    first.expect_silence();
}
