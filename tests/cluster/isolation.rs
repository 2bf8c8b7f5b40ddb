//! Who shares a Redis and yet must not receive from each other.

use crate::frames::event;
use crate::node::Node;
use crate::nodes::await_nodes;
use crate::people::{Member, has_users};
use crate::redis::Redis;
use crate::settings::Settings;
use crate::support::http::parsed;
use crate::support::{Client, Http, KEY, Signed, body};
use crate::wait::eventually_is;

#[test]
fn deployments_with_another_channel_prefix_or_database_do_not_receive_from_each_other() {
    let redis = Redis::start();
    let deployments = [
        &[][..],
        &[("REVERB_SCALING_CHANNEL", "other")],
        &[("REDIS_PREFIX", "other_")],
        &[("REDIS_DB", "1")],
    ];
    let nodes: Vec<Node> = deployments
        .iter()
        .map(|settings| Node::start(&redis.settings().with(settings)))
        .collect();
    nodes.iter().for_each(|node| await_nodes(&[node], 1));
    let mut clients: Vec<Client> = nodes.iter().map(Client::connect).collect();
    clients
        .iter_mut()
        .for_each(|client| client.subscribe("lobby"));
    let mut members: Vec<Member> = (nodes.iter().enumerate())
        .map(|(n, node)| Member::join(node, "presence-r", &format!("u{n}")))
        .collect();
    nodes.iter().enumerate().for_each(|(n, node)| {
        node.publish("lobby", "ev", &n.to_string());
        node.publish("cache-a", "ev", &n.to_string());
    });
    for (n, node) in nodes.iter().enumerate() {
        let own = n.to_string();
        clients[n].expect(&event("ev", &own, "lobby"));
        clients[n].expect_silence();
        clients[n].subscribe("cache-a");
        clients[n].expect(&event("ev", &own, "cache-a"));
        let user = format!("u{n}");
        has_users(node, "presence-r", &[&user]);
        members[n].sees(&[&user]);
        assert_eq!(members[n].changes(), [""; 0]);
        assert_eq!(node.get("connections", &[]).body, r#"{"connections":2}"#);
        assert_eq!(node.counter("ignored"), 0);
    }
}

/// The application of every test, and another one.
const APPS: &str = r#"
[[apps]]
id = "my-app-id"
key = "my-app-key"
secret = "my-app-secret"

[[apps]]
id = "second"
key = "second-key"
secret = "second-secret"
"#;

#[test]
fn applications_of_a_cluster_do_not_receive_from_each_other() {
    let redis = Redis::start();
    let file = redis.dir().join("resound.toml");
    std::fs::write(&file, APPS).unwrap();
    let flags = ["--config", file.to_str().unwrap()];
    let nodes = [0, 1].map(|_| Node::with_flags(&redis.settings(), &flags));
    await_nodes(&nodes.iter().collect::<Vec<_>>(), 2);
    let connect = |node: &Node, key: &str| {
        let mut client = Client::open(node, &format!("/app/{key}"), &[]);
        client.established();
        client.subscribe("lobby");
        client
    };
    let mut first = connect(&nodes[1], KEY);
    let mut second = connect(&nodes[1], "second-key");
    let body = body(&["lobby"], "ev", "to the second");
    let mut signed = Signed::post("events", &body).set("auth_key", "second-key");
    signed.path = "/apps/second/events".to_owned();
    signed.secret = "second-secret";
    let answer = Http::connect(&nodes[0]).request("POST", &signed.target(), &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    nodes[0].publish("lobby", "ev", "to the first");
    first.expect(&event("ev", "to the first", "lobby"));
    second.expect(&event("ev", "to the second", "lobby"));
    first.expect_silence();
    second.expect_silence();
    eventually_is(
        "connections",
        &serde_json::json!({ "connections": 1 }),
        || parsed(&nodes[0].get("connections", &[])),
    );
}

/// Characters that mean something in a pattern or to a shell.
#[test]
fn a_prefix_is_taken_as_it_is() {
    let redis = Redis::start();
    let settings = redis.settings().and(&Settings::of(&[(
        "REDIS_PREFIX",
        "laravel-[x]?\\^$(é)_database_:",
    )]));
    let nodes = [0, 1].map(|_| Node::start(&settings));
    await_nodes(&nodes.iter().collect::<Vec<_>>(), 2);
    let mut member = Member::join(&nodes[1], "presence-r", "ana");
    let mut ben = Member::join(&nodes[0], "presence-r", "ben");
    member.sees(&["ana", "ben"]);
    ben.sees(&["ana", "ben"]);
    nodes[0].publish("presence-r", "ev", "x");
    member.client.expect(&event("ev", "x", "presence-r"));
}
