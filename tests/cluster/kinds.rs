//! The same small story on every kind of Redis.

use std::rc::Rc;

use serde_json::json;

use crate::frames::event;
use crate::node::Node;
use crate::nodes::await_nodes;
use crate::people::{Member, has_users};
use crate::redis::{Certificates, Options, Redis};
use crate::settings::Settings;
use crate::support::http::parsed;
use crate::support::{Client, Http};
use crate::topologies::{Sentinels, Shards};
use crate::wait::eventually_is;

/// Publishing, presence with tabs, the cache, a query, and the death of a node.
fn story(redis: &Settings) {
    let settings = redis.with(&[("RESOUND_NODE_TIMEOUT", "3")]);
    let mut nodes = [0, 1].map(|_| Node::start(&settings));
    await_nodes(&[&nodes[0], &nodes[1]], 2);

    // Enough channels to be on every shard of a Redis Cluster.
    let channels: Vec<String> = (0..12).map(|n| format!("private-{n}")).collect();
    let mut client = Client::connect(&nodes[1]);
    for channel in &channels {
        client.subscribe(channel);
    }
    for channel in &channels {
        nodes[0].publish(channel, "ev", "x");
        client.expect(&event("ev", "x", channel));
    }

    for n in 0..4 {
        let channel = format!("presence-{n}");
        let mut watcher = Member::join(&nodes[0], &channel, "watcher");
        let first = Member::join(&nodes[1], &channel, "ana");
        assert_eq!(first.here.len(), 2);
        let second = Member::join(&nodes[1], &channel, "ana");
        watcher.sees_changes(&["+ana"]);
        drop(first);
        nodes[1].publish(&channel, "ev", "x");
        watcher.client.expect(&event("ev", "x", &channel));
        drop(second);
        watcher.sees_changes(&["-ana"]);

        let cached = format!("cache-{n}");
        nodes[0].publish(&cached, "ev", "kept");
        eventually_is("the last event", &json!("kept"), || {
            let answer = nodes[1].get(&format!("channels/{cached}"), &[("info", "cache")]);
            parsed(&answer)["cache"]["data"].take()
        });
        client.subscribe(&cached);
        client.expect(&event("ev", "kept", &cached));
    }

    let mut watcher = Member::join(&nodes[0], "presence-r", "watcher");
    let _lost = Member::join(&nodes[1], "presence-r", "lost");
    watcher.sees_changes(&["+lost"]);
    for node in &nodes {
        has_users(node, "presence-r", &["lost", "watcher"]);
        let count = json!({ "occupied": true, "subscription_count": 1 });
        eventually_is("the count", &count, || {
            let info = [("info", "subscription_count")];
            parsed(&Http::connect(node).get("channels/private-3", &info))
        });
    }
    nodes[1].kill();
    watcher.sees_changes(&["-lost"]);
    await_nodes(&[&nodes[0]], 1);
}

#[test]
fn on_one_redis() {
    story(&Redis::start().settings());
}

#[test]
fn on_a_redis_with_a_password() {
    let redis = Redis::single(Options {
        password: Some("p@ss: wörd/?#"),
        ..Options::default()
    });
    story(&redis.settings());
}

#[test]
fn on_a_redis_that_lets_in_one_user_of_its_acl() {
    let redis = Redis::single(Options {
        user: Some(("worker", "s3cret")),
        ..Options::default()
    });
    story(&redis.settings());
}

#[test]
fn on_a_redis_that_is_given_as_a_url() {
    let redis = Redis::single(Options {
        user: Some(("worker", "s3cret/with:all@of#it")),
        ..Options::default()
    });
    let url = format!(
        "redis://worker:s3cret%2Fwith%3Aall%40of%23it@127.0.0.1:{}/3",
        redis.port
    );
    // The URL wins over what is said beside it.
    story(&Settings::of(&[("REDIS_URL", &url), ("REDIS_PORT", "1")]));
}

#[test]
fn on_a_redis_that_speaks_tls_and_wants_a_certificate() {
    let redis = Redis::single(Options {
        tls: Some(Rc::new(Certificates::new())),
        password: Some("s3cret"),
        ..Options::default()
    });
    story(&redis.settings());
}

/// As Laravel's phpredis takes it: the scheme is part of the host.
#[test]
fn on_a_redis_that_speaks_tls_and_is_given_as_a_host_with_a_scheme() {
    let certificates = Rc::new(Certificates::new());
    let redis = Redis::single(Options {
        tls: Some(Rc::clone(&certificates)),
        more: ["--tls-auth-clients", "no"].map(str::to_owned).into(),
        ..Options::default()
    });
    story(&Settings::of(&[
        ("REDIS_HOST", "tls://localhost"),
        ("REDIS_PORT", &redis.port.to_string()),
        (
            "RESOUND_REDIS_TLS_CA",
            certificates.authority.to_str().unwrap(),
        ),
    ]));
}

#[test]
fn on_a_redis_cluster_of_three_shards() {
    story(&Shards::start().settings());
}

#[test]
fn on_a_master_with_sentinels() {
    story(&Sentinels::start().settings());
}

/// The page says what a user of Redis's ACL must be allowed; it is allowed just that.
#[test]
fn a_user_that_is_allowed_what_the_page_says_is_allowed_enough() {
    let page = include_str!("../../docs/scaling.md");
    let (_, rules) = page.split_once("and the commands `").unwrap();
    let (commands, _) = rules.split_once('`').unwrap();
    let redis = Redis::single(Options::default());
    let mut user = [
        "ACL", "SETUSER", "few", "on", ">secret", "~reverb*", "&reverb*",
    ]
    .map(str::to_owned)
    .to_vec();
    user.extend(commands.split_whitespace().map(|name| format!("+{name}")));
    let words: Vec<&str> = user.iter().map(String::as_str).collect();
    assert_eq!(redis.command(&words).trim(), "OK");
    let settings = [
        ("REDIS_USERNAME", "few"),
        ("REDIS_PASSWORD", "secret"),
        ("REVERB_APP_MAX_CONNECTIONS", "100"),
    ];
    let nodes = [0, 1].map(|_| Node::start(&redis.settings().with(&settings)));
    await_nodes(&nodes.iter().collect::<Vec<_>>(), 2);
    let mut ana = Member::join(&nodes[0], "presence-cache-r", "ana");
    let ben = Member::join(&nodes[1], "presence-cache-r", "ben");
    ana.sees(&["ana", "ben"]);
    nodes[1].publish("presence-cache-r", "ev", "x");
    has_users(&nodes[0], "presence-cache-r", &["ana", "ben"]);
    drop(ben);
    ana.sees(&["ana"]);
    for node in &nodes {
        assert!(node.is_connected() && node.ready()["links"] == 1);
    }
}
