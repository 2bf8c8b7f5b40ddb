//! The user that docs/scaling.md describes may do what a node does, and has to be allowed no more.

use serde_json::json;

use crate::nodes::Cluster;
use crate::redis::{Options, Redis};
use crate::support::{Client, Http};
use crate::wait::eventually;

/// The commands that the docs name.
fn commands() -> Vec<String> {
    let docs = include_str!("../../docs/scaling.md");
    let (_, rest) = docs.split_once("and the commands `").unwrap();
    let (names, _) = rest.split_once('`').unwrap();
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    assert!(names.len() > 30, "{names:?}");
    names
}

fn redis() -> Redis {
    let mut user: Vec<String> = ["--user", "node", "on", ">s3cret", "~reverb*", "&reverb*"]
        .map(str::to_owned)
        .into();
    user.extend(commands().iter().map(|name| format!("+{name}")));
    Redis::single(Options {
        more: user,
        ..Options::default()
    })
}

#[test]
fn a_user_with_the_permissions_of_the_docs_is_enough() {
    let cluster = Cluster::on(
        redis(),
        2,
        &[
            ("REDIS_USERNAME", "node"),
            ("REDIS_PASSWORD", "s3cret"),
            ("RESOUND_TRACK_OCCUPANCY", "true"),
            ("RESOUND_SUBSCRIPTION_COUNT", "true"),
            ("RESOUND_CACHE_MAX_BYTES", "2000"),
            ("REVERB_APP_MAX_CONNECTIONS", "10"),
            ("RESOUND_NODE_TIMEOUT", "2"),
        ],
    );
    let mut clients = [0, 1].map(|n| Client::connect(&cluster[n]));
    for client in &mut clients {
        for channel in ["lobby", "cache-a"] {
            client.ask(channel);
        }
    }
    for n in 0..10 {
        let data = "x".repeat(500);
        Http::connect(&cluster[n % 2]).publish(&[&format!("cache-{n}")], "e", &data);
    }
    for client in &mut clients {
        client.unsubscribe("lobby");
    }
    drop(clients);
    eventually("everything is left", || {
        cluster.redis.command(&["KEYS", "*:s"]).is_empty()
    });
    for node in cluster.nodes() {
        let ready = node.ready();
        let counters = ["ready", "links", "degraded", "ignored"].map(|name| ready[name].clone());
        assert_eq!(json!(counters), json!([true, 1, 0, 0]), "{}", node.log());
        assert!(!node.log_contains("NOPERM"), "{}", node.log());
    }
}
