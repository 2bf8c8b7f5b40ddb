//! The HTTP API's answers about the whole cluster.

use std::time::Instant;

use serde_json::{Value, json};

use crate::frames::event;
use crate::node::Node;
use crate::nodes::Cluster;
use crate::people::Member;
use crate::support::http::parsed;
use crate::support::{Client, Http, PATIENCE};
use crate::wait::{eventually, eventually_is};

/// Says that an answer is not about everybody.
const PARTIAL: &str = "x-resound-partial";

/// What a call answers: its status, its body, and whether it is only a part.
fn asked(node: &Node, path: &str, query: &[(&str, &str)]) -> (u16, Value, bool) {
    let answer = node.get(path, query);
    let partial = answer.header(PARTIAL);
    assert_ne!(partial, Some(""), "it says what is missing");
    (answer.status, parsed(&answer), partial.is_some())
}

fn expect(node: &Node, path: &str, query: &[(&str, &str)], status: u16, body: &Value) {
    eventually_is(
        &format!("{path} {query:?}"),
        &(status, body.clone(), false),
        || asked(node, path, query),
    );
}

/// Of the order of the users nothing is promised.
fn expect_users(node: &Node, channel: &str, users: &[&str]) {
    crate::people::has_users(node, channel, users);
    let (status, _, partial) = asked(node, &format!("channels/{channel}/users"), &[]);
    assert_eq!((status, partial), (200, false));
}

/// On each of three nodes: one in `lobby`, and users in `presence-h`: ana on all of
/// them, ben on the first; one in `private-h` on the last; an idle one on the second.
fn populated(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in cluster.nodes() {
        let mut client = Client::connect(node);
        client.subscribe("lobby");
        clients.push(client);
        clients.push(Member::join(node, "presence-h", "ana").client);
    }
    clients.push(Member::join(&cluster[0], "presence-h", "ben").client);
    clients[4].subscribe("private-h");
    clients.push(Client::connect(&cluster[1]));
    clients
}

#[test]
fn every_node_returns_the_channels_of_all() {
    let cluster = Cluster::start(3, &[]);
    cluster[0].publish("cache-x", "ev", "kept");
    let _clients = populated(&cluster);
    let users = &[("info", "user_count")][..];
    let subscriptions = &[("info", "subscription_count")][..];
    let all = &[("info", "user_count,subscription_count,cache")][..];
    for node in cluster.nodes() {
        for (path, query, expected) in [
            (
                "channels",
                &[][..],
                json!({ "channels": { "lobby": {}, "private-h": {}, "presence-h": {} } }),
            ),
            (
                "channels",
                &[("filter_by_prefix", "presence-"), users[0]],
                json!({ "channels": { "presence-h": { "user_count": 2 } } }),
            ),
            (
                "channels",
                subscriptions,
                json!({ "channels": { "lobby": { "subscription_count": 3 }, "private-h": { "subscription_count": 1 }, "presence-h": {} } }),
            ),
            ("channels/private-h", &[], json!({ "occupied": true })),
            (
                "channels/lobby",
                all,
                json!({ "occupied": true, "subscription_count": 3 }),
            ),
            (
                "channels/presence-h",
                all,
                json!({ "occupied": true, "user_count": 2 }),
            ),
            ("channels/nobody", all, json!({ "occupied": false })),
            (
                "channels/lobby/stats",
                &[],
                json!({ "occupied": true, "connection_count": 3 }),
            ),
            (
                "channels/presence-h/stats",
                &[],
                json!({ "occupied": true, "connection_count": 4, "user_count": 2 }),
            ),
            ("connections", &[], json!({ "connections": 8 })),
        ] {
            expect(node, path, query, 200, &expected);
        }
        expect_users(node, "presence-h", &["ana", "ben"]);
        expect(node, "channels/lobby/users", &[], 400, &json!({}));
        let nobody = json!({ "users": [] });
        expect(node, "channels/presence-no/users", &[], 200, &nobody);
        eventually("the cached event is known", || {
            let (_, body, _) = asked(node, "channels/cache-x", all);
            body["occupied"] == false && body["cache"]["data"] == "kept"
        });
    }
}

#[test]
fn a_publish_is_answered_with_what_it_asks_about_the_whole_cluster() {
    let cluster = Cluster::start(3, &[]);
    let mut clients = populated(&cluster);
    expect(
        &cluster[1],
        "connections",
        &[],
        200,
        &json!({ "connections": 8 }),
    );
    let asking = json!({ "name": "ev", "data": "x", "channels": ["lobby", "presence-h", "nobody"], "info": "user_count,subscription_count" });
    let body = json!({ "channels": { "lobby": { "subscription_count": 3 }, "presence-h": { "user_count": 2 }, "nobody": {} } });
    let answer = Http::connect(&cluster[1]).post("events", &asking.to_string());
    assert_eq!((answer.status, parsed(&answer)), (200, body));
    assert_eq!(answer.header(PARTIAL), None);
    let batch = json!({ "batch": [
        { "name": "ev", "data": "y", "channel": "nobody" },
        { "name": "ev", "data": "y", "channel": "lobby", "info": "subscription_count" },
    ] });
    let answer = Http::connect(&cluster[2]).post("batch_events", &batch.to_string());
    assert_eq!(
        (answer.status, parsed(&answer)),
        (200, json!({ "batch": [{}, { "subscription_count": 3 }] }))
    );
    for data in ["x", "y"] {
        clients[0].expect(&event("ev", data, "lobby"));
    }
}

#[test]
fn what_is_left_is_returned_everywhere() {
    let cluster = Cluster::start(3, &[]);
    let mut clients = populated(&cluster);
    clients[0].unsubscribe("lobby");
    clients.drain(1..);
    for node in cluster.nodes() {
        expect(node, "channels", &[], 200, &json!({ "channels": {} }));
        expect(node, "connections", &[], 200, &json!({ "connections": 1 }));
    }
    clients[0].expect_alive();
}

#[test]
fn the_answer_without_a_node_that_hangs_is_quick_and_says_that_it_is_partial() {
    let mut cluster = Cluster::start(3, &[]);
    let _clients = populated(&cluster);
    let all = json!({ "connections": 8 });
    expect(&cluster[0], "connections", &[], 200, &all);
    cluster[2].pause();
    let begin = Instant::now();
    let (status, body, partial) = asked(&cluster[0], "connections", &[]);
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    assert_eq!(
        (status, body, partial),
        (200, json!({ "connections": 6 }), true)
    );
    let (status, body, partial) = asked(&cluster[0], "channels", &[]);
    assert_eq!((status, partial), (200, true));
    assert!(body["channels"].get("lobby").is_some(), "{body}");
    cluster[2].resume();
    for node in cluster.nodes() {
        expect(node, "connections", &[], 200, &all);
    }
}

/// A publish does not suffer from what it asks: it is delivered, and answered with what is known.
#[test]
fn a_publish_that_asks_while_a_node_hangs_is_delivered_and_answered_in_part() {
    let mut cluster = Cluster::start(2, &[]);
    let mut clients = [0, 1].map(|node| Client::connect(&cluster[node]));
    clients
        .iter_mut()
        .for_each(|client| client.subscribe("lobby"));
    expect(
        &cluster[0],
        "channels/lobby",
        &[("info", "subscription_count")],
        200,
        &json!({ "occupied": true, "subscription_count": 2 }),
    );
    cluster[1].pause();
    let asking =
        json!({ "name": "ev", "data": "x", "channels": ["lobby"], "info": "subscription_count" });
    let answer = Http::connect(&cluster[0]).post("events", &asking.to_string());
    assert_eq!(answer.status, 200);
    assert!(answer.header(PARTIAL).is_some(), "{answer:?}");
    let count = &parsed(&answer)["channels"]["lobby"]["subscription_count"];
    assert!(*count == 1 || *count == 2, "its own, or what is remembered");
    clients[0].expect(&event("ev", "x", "lobby"));
    cluster[1].resume();
    clients[1].expect(&event("ev", "x", "lobby"));
}

#[test]
fn without_redis_a_node_returns_its_own_part_and_says_so() {
    let mut cluster = Cluster::start(2, &[]);
    let mut clients = [0, 1].map(|node| Client::connect(&cluster[node]));
    clients
        .iter_mut()
        .for_each(|client| client.subscribe("lobby"));
    let info = &[("info", "subscription_count")][..];
    let body = |count: usize| json!({ "occupied": true, "subscription_count": count });
    expect(&cluster[0], "channels/lobby", info, 200, &body(2));
    cluster.redis.kill();
    cluster.await_all_connected(false);
    for node in cluster.nodes() {
        let answer = asked(node, "connections", &[]);
        assert_eq!(answer, (200, json!({ "connections": 1 }), true));
        let (status, answer, partial) = asked(node, "channels/lobby", info);
        assert_eq!(
            (status, &answer["occupied"], partial),
            (200, &json!(true), true)
        );
    }
    cluster.redis.restart();
    for node in cluster.nodes() {
        expect(node, "channels/lobby", info, 200, &body(2));
        expect(node, "connections", &[], 200, &json!({ "connections": 2 }));
    }
}

#[test]
fn a_node_that_died_is_missed_only_until_its_time_is_over() {
    let mut cluster = Cluster::start(3, &[crate::nodes::HASTY]);
    let _clients = populated(&cluster);
    expect(
        &cluster[0],
        "connections",
        &[],
        200,
        &json!({ "connections": 8 }),
    );
    cluster[2].kill();
    for node in &cluster.nodes()[..2] {
        expect(node, "connections", &[], 200, &json!({ "connections": 6 }));
        expect(
            node,
            "channels",
            &[("info", "subscription_count")],
            200,
            &json!({ "channels": { "lobby": { "subscription_count": 2 }, "presence-h": {} } }),
        );
        expect_users(node, "presence-h", &["ana", "ben"]);
    }
}
