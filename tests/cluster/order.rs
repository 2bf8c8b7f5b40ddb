//! One node's events arrive everywhere in its order, whoever published them.

use serde_json::{Value, json};

use crate::node::Node;
use crate::nodes::Cluster;
use crate::support::{Client, Http};

const ROUNDS: usize = 20;
const PUBLISHERS: usize = 4;
const EACH: usize = 300;

/// Publishes from several connections at once.
fn publish_from_all(node: &Node, channel: &str) {
    std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            scope.spawn(move || {
                let mut http = Http::connect(node);
                for n in 0..EACH {
                    http.publish(&[channel], "ev", &format!("{publisher}:{n}"));
                }
            });
        }
    });
}

/// All that was published in a round, as a subscriber gets it.
fn received(client: &mut Client) -> Vec<String> {
    let next = |_| {
        let frame: Value = client.next_json();
        assert_eq!(frame["event"], "ev", "{frame}");
        frame["data"].as_str().unwrap().to_owned()
    };
    (0..PUBLISHERS * EACH).map(next).collect()
}

/// In how many rounds another node's subscriber gets events in another order than one
/// of the node that they were published on, and where the first of them differs.
fn rounds_out_of_order(channel: &str) -> (usize, Value) {
    let cluster = Cluster::start(2, &[]);
    let mut clients = [0, 1].map(|node| {
        let mut client = Client::connect(&cluster[node]);
        client.ask(channel);
        while client.next_json()["event"] != "pusher_internal:subscription_succeeded" {}
        client
    });
    if channel.starts_with("cache-") {
        clients.iter_mut().for_each(|client| _ = client.next_json());
    }
    let mut differing = 0;
    let mut first = Value::Null;
    for round in 0..ROUNDS {
        publish_from_all(&cluster[0], channel);
        let [here, there] = clients.each_mut().map(received);
        let Some(at) = (0..here.len()).find(|at| here[*at] != there[*at]) else {
            continue;
        };
        differing += 1;
        if first.is_null() {
            let around = at..here.len().min(at + 4);
            first = json!({
                "round": round, "at": at,
                "here": here[around.clone()], "there": there[around],
            });
        }
    }
    (differing, first)
}

#[test]
fn many_publishers_of_one_node_are_received_in_the_same_order_on_another() {
    let (differing, first) = rounds_out_of_order("lobby");
    assert_eq!(differing, 0, "of {ROUNDS} rounds; first {first}");
}

#[test]
fn many_publishers_to_a_cache_channel_are_received_in_the_same_order_on_another_node() {
    let (differing, first) = rounds_out_of_order("cache-lobby");
    assert_eq!(differing, 0, "of {ROUNDS} rounds; first {first}");
}

/// The application's last events and the clients' events, which are not kept, take different
/// ways through the node.
#[test]
fn events_of_clients_and_of_the_application_are_in_one_order_in_a_cache_channel() {
    let channel = "private-cache-lobby";
    let cluster = Cluster::start(2, &[]);
    let [mut sender, mut here, mut there] = [0, 0, 1].map(|node| {
        let mut client = Client::connect(&cluster[node]);
        client.ask(channel);
        while client.next_json()["event"] != "pusher:cache_miss" {}
        client
    });
    let mut http = Http::connect(&cluster[0]);
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            let sender = &mut sender;
            scope.spawn(move || {
                for n in 0..EACH {
                    let data = format!("c:{n}");
                    let event = json!({ "event": "client-e", "channel": channel, "data": data });
                    sender.send(&event.to_string());
                }
            });
            for n in 0..EACH {
                http.publish(&[channel], "ev", &format!("a:{n}"));
            }
        });
        let received = |client: &mut Client| -> Vec<Value> {
            (0..2 * EACH)
                .map(|_| client.next_json()["data"].take())
                .collect()
        };
        let [here, there] = [&mut here, &mut there].map(received);
        let differs = (0..here.len()).find(|at| here[*at] != there[*at]);
        assert_eq!(differs, None, "in round {round}");
        for _ in 0..EACH {
            assert_eq!(
                sender.next_json()["event"],
                "ev",
                "its own do not come back"
            );
        }
    }
}
