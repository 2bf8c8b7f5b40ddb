//! The version before this one and this one on one Redis, as in a rolling deploy.
//!
//! `RESOUND_PREVIOUS` names the binary of the former; `scripts/previous` builds it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::frames::{
    arrived, ask_to_join, cache_miss, data_of, event, subscription_count, until, whisper, whispered,
};
use crate::node::Node;
use crate::nodes::{HASTY, await_nodes};
use crate::people::{Member, has_users, listed, signed_in, who};
use crate::redis::Redis;
use crate::settings::Settings;
use crate::support::http::parsed;
use crate::support::{Client, Http, KEY};
use crate::wait::{LONG, eventually, eventually_is, soon};

/// Which of the nodes does what, and which is the other one: each has its turn.
const TURNS: [(usize, usize); 2] = [(0, 1), (1, 0)];

/// A node of each version: the one before first.
struct Mixed {
    // They end in this order.
    nodes: [Node; 2],
    redis: Redis,
}

impl Mixed {
    fn start(settings: &[(&str, &str)]) -> Self {
        let redis = Redis::start();
        let settings = redis.settings().with(settings);
        let nodes = [Node::previous(&settings), Node::start(&settings)];
        await_nodes(&[&nodes[0], &nodes[1]], 2);
        Self { nodes, redis }
    }

    /// Neither has said what the other one could not read, and nothing was lost.
    fn have_understood_each_other(&self) {
        for (n, node) in self.nodes.iter().enumerate() {
            let ready = node.ready();
            for (name, count) in [("ignored", 0), ("missed", 0), ("dropped", 0), ("links", 1)] {
                assert_eq!(ready[name], count, "{name} of node {n}: {ready}");
            }
        }
    }
}

#[test]
fn events_cross_both_ways_in_order_and_not_back_to_who_is_excepted() {
    let mixed = Mixed::start(&[]);
    let nodes = &mixed.nodes;
    for channel in ["lobby", "private-a", "private-encrypted-a"] {
        let mut clients = [0, 1].map(|node| {
            let mut client = Client::connect(&nodes[node]);
            client.subscribe(channel);
            client
        });
        for (from, to) in TURNS {
            let mut http = Http::connect(&nodes[from]);
            for n in 0..50 {
                http.publish(&[channel], "ev", &format!("é\"{n}"));
            }
            for client in &mut clients {
                for n in 0..50 {
                    let text =
                        json!({ "event": "ev", "data": format!("é\"{n}"), "channel": channel });
                    assert_eq!(client.next_json(), text);
                }
            }
            let body = json!({ "name": "others", "channel": channel, "data": "x", "socket_id": clients[to].id });
            assert_eq!(http.post("events", &body.to_string()).status, 200);
            clients[from].expect(&event("others", "x", channel));
            clients[to].expect_silence();
            let batch = json!({ "batch": [{ "name": "b", "channel": channel, "data": "y" }] });
            assert_eq!(http.post("batch_events", &batch.to_string()).status, 200);
            for client in &mut clients {
                client.expect(&event("b", "y", channel));
            }
            if channel == "private-a" {
                whisper(&mut clients[from], channel, r#"{"a":[1,"é"]}"#);
                clients[to].expect(&whispered(channel, r#"{"a":[1,"é"]}"#));
                clients[from].expect_silence();
            }
        }
    }
    mixed.have_understood_each_other();
}

#[test]
fn members_of_both_are_listed_and_seen_to_come_and_go() {
    let mixed = Mixed::start(&[]);
    let nodes = &mixed.nodes;
    for (here, there) in TURNS {
        let channel = format!("presence-{here}");
        let mut watcher = Member::join(&nodes[here], &channel, "watcher");
        let mut client = Client::connect(&nodes[there]);
        ask_to_join(&mut client, &channel, &who("ana"));
        let first = listed(&client.next_json());
        assert_eq!(first, BTreeSet::from(["ana", "watcher"].map(str::to_owned)));
        watcher.sees_changes(&["+ana"]);
        // A number for an id, and information of another shape.
        let odd = r#"{"user_id":7,"user_info":[{"é":null}]}"#;
        let mut seven = Client::connect(&nodes[there]);
        ask_to_join(&mut seven, &channel, odd);
        let presence = data_of(&seven.next_json())["presence"].take();
        assert_eq!(presence["count"], 3, "{presence}");
        let added = watcher.client.next_json();
        assert_eq!(data_of(&added), serde_json::from_str::<Value>(odd).unwrap());
        seven.unsubscribe(&channel);
        assert_eq!(
            watcher.client.next_json()["event"],
            "pusher_internal:member_removed"
        );
        // A tab on each, and one after the other goes.
        let tab = Member::join(&nodes[here], &channel, "ana");
        assert_eq!(tab.here.len(), 2, "{:?}", tab.here);
        drop(client);
        nodes
            .iter()
            .for_each(|node| has_users(node, &channel, &["ana", "watcher"]));
        let late = Member::join(&nodes[there], &channel, "late");
        assert_eq!(late.here.len(), 3, "{:?}", late.here);
        watcher.sees_changes(&["+late"]);
        drop(tab);
        watcher.sees_changes(&["-ana"]);
        drop(late);
        watcher.sees_changes(&["-late"]);
        nodes
            .iter()
            .for_each(|node| has_users(node, &channel, &["watcher"]));
        // The channel is left by all, and begins anew on the other one.
        drop(watcher);
        nodes.iter().for_each(|node| has_users(node, &channel, &[]));
        let mut new = Member::join(&nodes[there], &channel, "new");
        let other = Member::join(&nodes[here], &channel, "other");
        assert_eq!(other.here.len(), 2, "{:?}", other.here);
        new.sees_changes(&["+other"]);
    }
    mixed.have_understood_each_other();
}

#[test]
fn members_of_either_that_dies_or_is_stopped_go() {
    for (stays, ends) in TURNS {
        for is_killed in [true, false] {
            let mut mixed = Mixed::start(&[HASTY]);
            let mut watcher = Member::join(&mixed.nodes[stays], "presence-r", "watcher");
            let _lost = Member::join(&mixed.nodes[ends], "presence-r", "lost");
            watcher.sees_changes(&["+lost"]);
            if is_killed {
                mixed.nodes[ends].kill();
            } else {
                mixed.nodes[ends].stop();
            }
            watcher.sees_changes(&["-lost"]);
            await_nodes(&[&mixed.nodes[stays]], 1);
        }
    }
}

#[test]
fn nobody_goes_when_redis_comes_back_empty() {
    let mut mixed = Mixed::start(&[("RESOUND_NODE_TIMEOUT", "30")]);
    let mut members = [0, 1].map(|n| Member::join(&mixed.nodes[n], "presence-r", &format!("u{n}")));
    for member in &mut members {
        member.sees(&["u0", "u1"]);
        member.changes();
    }
    mixed.redis.restart_empty();
    await_nodes(&[&mixed.nodes[0], &mixed.nodes[1]], 2);
    for (n, node) in mixed.nodes.iter().enumerate() {
        let user = format!("late{n}");
        let late = Member::join(node, "presence-r", &user);
        eventually("they are together again", || {
            members.iter_mut().for_each(Member::look);
            members.iter().all(|member| member.here.contains(&user))
        });
        drop(late);
        for member in &mut members {
            let changes = [format!("+{user}"), format!("-{user}")];
            member.sees(&["u0", "u1"]);
            assert_eq!(member.changes(), changes, "nobody else came or went");
        }
    }
}

/// Waits until a watcher is sent that the user is now `online` or `offline`.
fn await_watchlist_event(watcher: &mut Client, name: &str, user: &str) {
    let mut seen = Vec::new();
    let received = soon(LONG, || {
        seen.extend(arrived(watcher));
        seen.iter()
            .filter(|frame| frame["event"] == "pusher_internal:watchlist_events")
            .flat_map(|frame| data_of(frame)["events"].as_array().cloned().unwrap())
            .any(|event| event["name"] == name && event["user_ids"] == json!([user]))
    });
    assert!(received, "{user} is {name}? {seen:?}");
}

#[test]
fn watchers_are_sent_users_of_the_other() {
    let mixed = Mixed::start(&[]);
    for (here, there) in TURNS {
        let user = format!("user-{there}");
        let ana = json!({ "id": format!("ana-{here}"), "watchlist": [user] });
        let mut ana = signed_in(&mixed.nodes[here], &ana);
        await_watchlist_event(&mut ana, "offline", &user);
        let tab = signed_in(&mixed.nodes[there], &json!({ "id": user }));
        await_watchlist_event(&mut ana, "online", &user);
        let late = json!({ "id": format!("late-{here}"), "watchlist": [user] });
        let mut late = signed_in(&mixed.nodes[here], &late);
        await_watchlist_event(&mut late, "online", &user);
        drop(tab);
        await_watchlist_event(&mut ana, "offline", &user);
        await_watchlist_event(&mut late, "offline", &user);
    }
    mixed.have_understood_each_other();
}

#[test]
fn the_last_event_of_a_cache_channel_is_that_of_both() {
    let mixed = Mixed::start(&[]);
    let nodes = &mixed.nodes;
    for (here, there) in TURNS {
        let channel = format!("cache-{here}");
        let mut first = Client::connect(&nodes[there]);
        first.subscribe(&channel);
        first.expect(&cache_miss(&channel));
        nodes[here].publish(&channel, "ev", "one");
        first.expect(&event("ev", "one", &channel));
        nodes[there].publish(&channel, "ev", "two");
        first.expect(&event("ev", "two", &channel));
        for node in nodes {
            eventually_is("the last event", &Value::from("two"), || {
                let answer = node.get(&format!("channels/{channel}"), &[("info", "cache")]);
                parsed(&answer)["cache"]["data"].take()
            });
            let mut later = Client::connect(node);
            later.subscribe(&channel);
            later.expect(&event("ev", "two", &channel));
            later.expect_silence();
        }
    }
    mixed.have_understood_each_other();
}

#[test]
fn questions_are_answered_for_both() {
    let mixed = Mixed::start(&[]);
    let mut clients = Vec::new();
    for (n, node) in mixed.nodes.iter().enumerate() {
        let mut client = Client::connect(node);
        client.subscribe("lobby");
        client.subscribe(&format!("private-{n}"));
        clients.push(client);
        clients.push(Member::join(node, "presence-h", "ana").client);
        clients.push(Member::join(node, "presence-h", &format!("u{n}")).client);
    }
    let all = &[("info", "user_count,subscription_count")][..];
    let presence = &[("filter_by_prefix", "presence-"), ("info", "user_count")][..];
    for node in &mixed.nodes {
        for (path, query, expected) in [
            (
                "channels",
                &[][..],
                json!({ "channels": { "lobby": {}, "private-0": {}, "private-1": {}, "presence-h": {} } }),
            ),
            (
                "channels",
                presence,
                json!({ "channels": { "presence-h": { "user_count": 3 } } }),
            ),
            (
                "channels/lobby",
                all,
                json!({ "occupied": true, "subscription_count": 2 }),
            ),
            (
                "channels/presence-h",
                all,
                json!({ "occupied": true, "user_count": 3 }),
            ),
            (
                "channels/presence-h/stats",
                &[],
                json!({ "occupied": true, "connection_count": 4, "user_count": 3 }),
            ),
            ("connections", &[], json!({ "connections": 6 })),
        ] {
            eventually_is(path, &(expected, None), || {
                let answer = node.get(path, query);
                let partial = answer.header("x-resound-partial").map(str::to_owned);
                (parsed(&answer), partial)
            });
        }
        has_users(node, "presence-h", &["ana", "u0", "u1"]);
    }
    mixed.have_understood_each_other();
}

#[test]
fn subscriptions_of_both_are_counted() {
    let mixed = Mixed::start(&[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
    for (here, there) in TURNS {
        let channel = format!("counted-{here}");
        let count = |n| subscription_count(n, &channel);
        let mut one = Client::connect(&mixed.nodes[here]);
        one.subscribe(&channel);
        until(&mut one, &count(1));
        let mut others = [there, there, here].map(|node| Client::connect(&mixed.nodes[node]));
        for (other, so_many) in others.iter_mut().zip(2..) {
            other.subscribe(&channel);
            until(other, &count(so_many));
            until(&mut one, &count(so_many));
        }
        drop(others);
        until(&mut one, &count(1));
    }
    mixed.have_understood_each_other();
}

#[test]
fn connections_of_a_user_are_closed_on_both() {
    const WHY: &str = "Connection terminated by the application";
    let mixed = Mixed::start(&[]);
    for (here, _) in TURNS {
        let user = format!("user-{here}");
        let mut signed = [0, 1].map(|n| signed_in(&mixed.nodes[n], &json!({ "id": user })));
        let path = format!("users/{user}/terminate_connections");
        let answer = Http::connect(&mixed.nodes[here]).post(&path, "{}");
        assert_eq!((answer.status, &*answer.body), (200, "{}"));
        for client in &mut signed {
            client.expect_error(4009, WHY);
            client.closed_with(4009, WHY);
        }
    }
    mixed.have_understood_each_other();
}

#[test]
fn the_quota_of_connections_is_that_of_both_together() {
    let mixed = Mixed::start(&[("REVERB_APP_MAX_CONNECTIONS", "2")]);
    let _clients = [0, 1].map(|node| Client::connect(&mixed.nodes[node]));
    for node in &mixed.nodes {
        eventually("the quota holds", || {
            (0..3).all(|_| {
                let mut client = Client::open(node, &format!("/app/{KEY}"), &[]);
                client.next_json()["event"] == "pusher:error"
            })
        });
    }
    mixed.have_understood_each_other();
}

/// Which node is replaced, and what starts in its place.
type Step = (usize, fn(&Settings) -> Node);

/// From the version before to this one, and back, as somebody does who does not like it:
/// one node after the other, while the other one goes on.
#[test]
fn nodes_are_replaced_one_by_one_by_the_other_version_and_back() {
    let redis = Redis::start();
    let settings = redis.settings();
    let mut nodes = [0, 1].map(|_| Node::previous(&settings));
    await_nodes(&[&nodes[0], &nodes[1]], 2);
    let steps: [Step; 4] = [
        (1, Node::start),
        (0, Node::start),
        (1, Node::previous),
        (0, Node::previous),
    ];
    nodes[0].publish("cache-r", "ev", "before");
    for (replaced, start) in steps {
        let stays = 1 - replaced;
        let mut watcher = Member::join(&nodes[stays], "presence-r", "watcher");
        let moving = Member::join(&nodes[replaced], "presence-r", "moving");
        watcher.sees_changes(&["+moving"]);
        nodes[replaced].stop();
        watcher.sees_changes(&["-moving"]);
        drop(moving);
        nodes[replaced] = start(&settings);
        await_nodes(&[&nodes[0], &nodes[1]], 2);
        let mut moving = Member::join(&nodes[replaced], "presence-r", "moving");
        assert_eq!(moving.here.len(), 2, "{:?}", moving.here);
        watcher.sees_changes(&["+moving"]);
        for node in &nodes {
            has_users(node, "presence-r", &["moving", "watcher"]);
            node.publish("presence-r", "ev", "x");
            for member in [&mut watcher, &mut moving] {
                member.client.expect(&event("ev", "x", "presence-r"));
            }
            let mut later = Client::connect(node);
            later.subscribe("cache-r");
            later.expect(&event("ev", "before", "cache-r"));
        }
    }
}
