//! The network between one node and Redis.

use std::time::{Duration, Instant};

use crate::frames::{arrived, event, until, whisper, whispered};
use crate::nodes::{Cluster, HASTY};
use crate::people::{Member, has_users};
use crate::proxy::Weather;
use crate::support::{Client, Http};
use crate::wait::{eventually, eventually_is};

/// A subscriber of `lobby` on each of two nodes.
fn pair(cluster: &Cluster) -> [Client; 2] {
    [0, 1].map(|node| {
        let mut client = Client::connect(&cluster[node]);
        client.subscribe("lobby");
        client
    })
}

#[test]
fn what_a_node_publishes_while_it_is_cut_off_arrives_after_the_heal_in_order_and_once() {
    for weather in [Weather::Cut, Weather::BlackHole] {
        let cluster = Cluster::start(2, &[]);
        let [mut here, mut there] = pair(&cluster);
        cluster.set_network(0, weather);
        let mut http = Http::connect(&cluster[0]);
        for n in 0..50 {
            http.publish(&["lobby"], "ev", &n.to_string());
            here.expect(&event("ev", &n.to_string(), "lobby"));
        }
        cluster.await_connected(0, false);
        assert!(cluster[0].counter("queued") > 0);
        for n in 50..100 {
            http.publish(&["lobby"], "ev", &n.to_string());
            here.expect(&event("ev", &n.to_string(), "lobby"));
        }
        there.expect_silence();
        cluster.heal_network(0);
        let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        http.publish(&["lobby"], "ev", "last");
        let before = until(&mut there, &event("ev", "last", "lobby"));
        let received: Vec<&str> = before
            .iter()
            .map(|frame| frame["data"].as_str().unwrap())
            .collect();
        assert_eq!(received, expected, "{weather:?}");
        eventually_is("bytes that are kept", &0, || cluster[0].counter("queued"));
        assert_eq!(cluster[0].counter("dropped"), 0);
        there.expect_silence();
    }
}

/// Redis has taken them, and the node never received the answer: it has to send them again, and
/// who has had them must not get them again.
#[test]
fn what_was_sent_and_not_confirmed_is_not_delivered_twice() {
    // The others give the node up meanwhile, or they do not.
    for settings in [&[][..], &[HASTY]] {
        let cluster = Cluster::start(2, settings);
        let [_here, mut there] = pair(&cluster);
        let mut http = Http::connect(&cluster[0]);
        http.publish(&["lobby"], "ev", "before");
        there.expect(&event("ev", "before", "lobby"));
        // Redis's answer may come after the event; what is sent next waits for it.
        eventually_is("published", &1, || cluster[0].counter("published"));
        cluster.set_network(0, Weather::Deaf);
        http.publish(&["lobby"], "ev", "once");
        there.expect(&event("ev", "once", "lobby"));
        http.publish(&["lobby"], "ev", "kept");
        cluster.await_connected(0, false);
        if !settings.is_empty() {
            eventually_is("nodes", &1, || cluster[1].counter("nodes"));
        }
        cluster.heal_network(0);
        cluster.await_whole();
        http.publish(&["lobby"], "ev", "last");
        let before = until(&mut there, &event("ev", "last", "lobby"));
        let data = before.iter().filter_map(|frame| frame["data"].as_str());
        assert_eq!(data.collect::<Vec<_>>(), ["kept"], "{settings:?}");
        assert_eq!(cluster[1].counter("missed"), 0);
    }
}

#[test]
fn what_is_over_the_bound_in_bytes_is_dropped_and_counted() {
    let cluster = Cluster::start(2, &[("RESOUND_CLUSTER_BUFFER_BYTES", "20000")]);
    let [mut here, mut there] = pair(&cluster);
    cluster.set_network(0, Weather::Cut);
    cluster.await_connected(0, false);
    let mut http = Http::connect(&cluster[0]);
    let data = |n: usize| format!("{n} {}", "x".repeat(1000));
    for n in 0..50 {
        http.publish(&["lobby"], "ev", &data(n));
        here.expect(&event("ev", &data(n), "lobby"));
    }
    let dropped = cluster[0].counter("dropped");
    assert!((25..50).contains(&dropped), "{dropped} of 50");
    let queued = cluster[0].counter("queued");
    assert!((1000..=20_000).contains(&queued), "{queued}");
    cluster.heal_network(0);
    cluster.await_connected(0, true);
    eventually_is("bytes that are kept", &0, || cluster[0].counter("queued"));
    http.publish(&["lobby"], "ev", "last");
    let kept = until(&mut there, &event("ev", "last", "lobby"));
    let numbers: Vec<usize> = kept
        .iter()
        .map(|frame| frame["data"].as_str().unwrap().split(' ').next().unwrap())
        .map(|number| number.parse().unwrap())
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(numbers.len() as u64, 50 - cluster[0].counter("dropped"));
    assert_eq!(cluster[0].counter("dropped"), dropped);
}

#[test]
fn what_is_too_old_is_dropped_and_counted() {
    let cluster = Cluster::start(2, &[("RESOUND_CLUSTER_BUFFER_SECONDS", "1")]);
    let [_here, mut there] = pair(&cluster);
    cluster.set_network(0, Weather::Cut);
    cluster.await_connected(0, false);
    let mut http = Http::connect(&cluster[0]);
    (0..5).for_each(|n| http.publish(&["lobby"], "ev", &n.to_string()));
    std::thread::sleep(Duration::from_millis(2500));
    cluster.heal_network(0);
    cluster.await_connected(0, true);
    http.publish(&["lobby"], "ev", "last");
    let before = until(&mut there, &event("ev", "last", "lobby"));
    assert_eq!(before, [""; 0], "they were too old");
    assert_eq!(cluster[0].counter("dropped"), 5);
}

/// A node that was not connected while others published has missed it, and says so.
#[test]
fn what_a_node_missed_while_it_was_cut_off_is_counted_and_not_delivered_late_twice() {
    let cluster = Cluster::start(2, &[]);
    let [_here, mut there] = pair(&cluster);
    cluster[0].publish("lobby", "ev", "before");
    there.expect(&event("ev", "before", "lobby"));
    cluster.set_network(1, Weather::Cut);
    cluster.await_connected(1, false);
    let mut http = Http::connect(&cluster[0]);
    (0..10).for_each(|n| http.publish(&["lobby"], "ev", &n.to_string()));
    cluster.heal_network(1);
    cluster.await_connected(1, true);
    cluster.await_whole();
    let mut seen = Vec::new();
    eventually("the node listens again", || {
        http.publish(&["lobby"], "ev", "after");
        seen = arrived(&mut there);
        !seen.is_empty()
    });
    http.publish(&["lobby"], "ev", "last");
    seen.extend(until(&mut there, &event("ev", "last", "lobby")));
    let lost = 10 - seen.iter().filter(|frame| frame["data"] != "after").count() as u64;
    let missed = cluster[1].counter("missed");
    assert!(missed >= lost, "{missed} counted, {lost} lost: {seen:?}");
}

#[test]
fn a_cut_beyond_the_timeout_parts_the_members_and_the_heal_brings_them_together() {
    for weather in [Weather::Cut, Weather::BlackHole, Weather::Still] {
        let cluster = Cluster::start(3, &[HASTY]);
        let mut members = [("ana", 0), ("ben", 1), ("eve", 2)]
            .map(|(user, node)| Member::join(&cluster[node], "presence-r", user));
        let everybody = &["ana", "ben", "eve"][..];
        members.iter_mut().for_each(|member| {
            member.sees(everybody);
            member.changes();
        });
        cluster.set_network(0, weather);
        members[0].sees(&["ana"]);
        members[1].sees_changes(&["-ana"]);
        members[2].sees_changes(&["-ana"]);
        has_users(&cluster[0], "presence-r", &["ana"]);
        has_users(&cluster[1], "presence-r", &["ben", "eve"]);
        // Life goes on on both sides.
        let mut late = Member::join(&cluster[0], "presence-r", "late");
        members[0].sees(&["ana", "late"]);
        let mut changes = members[0].changes();
        changes.sort_unstable();
        assert_eq!(changes, ["+late", "-ben", "-eve"]);
        let mut new = Member::join(&cluster[2], "presence-r", "new");
        cluster.heal_network(0);
        cluster.await_whole();
        let everybody = &["ana", "ben", "eve", "late", "new"][..];
        for member in members.iter_mut().chain([&mut late, &mut new]) {
            member.sees(everybody);
        }
        for node in cluster.nodes() {
            has_users(node, "presence-r", everybody);
        }
        let mut changes = members[1].changes();
        changes.sort_unstable();
        assert_eq!(changes, ["+ana", "+late", "+new"], "{weather:?}");
    }
}

#[test]
fn a_short_cut_is_not_seen_by_any_member() {
    let cluster = Cluster::start(2, &[]);
    let mut members = [("ana", 0), ("ben", 1)]
        .map(|(user, node)| Member::join(&cluster[node], "presence-r", user));
    members.iter_mut().for_each(|member| {
        member.sees(&["ana", "ben"]);
        member.changes();
    });
    for _ in 0..3 {
        cluster.set_network(0, Weather::Cut);
        cluster.await_connected(0, false);
        cluster.heal_network(0);
        cluster.await_whole();
    }
    for (from, node) in cluster.nodes().iter().enumerate() {
        let data = from.to_string();
        eventually("events cross again", || {
            node.publish("presence-r", "ev", &data);
            let others = members[1 - from].others();
            others.iter().any(|frame| frame["data"] == *data)
        });
    }
    for member in &mut members {
        assert_eq!(member.changes(), [""; 0]);
    }
}

/// A subscription while the node waits for Redis is answered all the same, and what is
/// asked of the others when Redis is back is right.
#[test]
fn subscriptions_are_answered_while_redis_says_nothing() {
    for weather in [Weather::Cut, Weather::BlackHole] {
        let cluster = Cluster::start(2, &[]);
        let mut client = Client::connect(&cluster[0]);
        cluster.set_network(0, weather);
        // The node may have to find out first.
        client.ask("lobby");
        let frames = until(
            &mut client,
            r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"lobby"}"#,
        );
        assert!(frames.is_empty(), "{frames:?}");
        cluster.await_connected(0, false);
        client.subscribe("private-a");
        cluster.heal_network(0);
        cluster.await_whole();
        for channel in ["lobby", "private-a"] {
            let text = event("ev", "x", channel);
            eventually("the node listens", || {
                cluster[1].publish(channel, "ev", "x");
                arrived(&mut client).iter().any(|frame| {
                    *frame == serde_json::from_str::<serde_json::Value>(&text).unwrap()
                })
            });
        }
    }
}

#[test]
fn a_slow_network_delays_others_and_nobody_here() {
    const LATE: Duration = Duration::from_millis(1000);
    let cluster = Cluster::start(2, &[]);
    let [mut here, mut there] = pair(&cluster);
    let mut sender = Client::connect(&cluster[0]);
    sender.subscribe("lobby");
    cluster.set_network(0, Weather::Slow(LATE));
    for n in 0..5 {
        let begin = Instant::now();
        cluster[0].publish("lobby", "ev", &n.to_string());
        here.expect(&event("ev", &n.to_string(), "lobby"));
        sender.expect(&event("ev", &n.to_string(), "lobby"));
        whisper(&mut sender, "lobby", &n.to_string());
        here.expect(&whispered("lobby", &n.to_string()));
        let took = begin.elapsed();
        assert!(took < LATE, "{took:?}, as if it had waited for Redis");
    }
    for n in 0..5 {
        there.expect(&event("ev", &n.to_string(), "lobby"));
        there.expect(&whispered("lobby", &n.to_string()));
    }
}

#[test]
fn a_network_that_is_slow_by_half_a_second_breaks_nothing() {
    let cluster = Cluster::start(2, &[HASTY]);
    let mut ana = Member::join(&cluster[0], "presence-r", "ana");
    let mut ben = Member::join(&cluster[1], "presence-r", "ben");
    ana.sees_changes(&["+ben"]);
    (0..2).for_each(|node| cluster.set_network(node, Weather::Slow(Duration::from_millis(500))));
    // Longer than the time after which a silent node's members are gone.
    std::thread::sleep(Duration::from_secs(5));
    cluster.await_whole();
    let mut late = Member::join(&cluster[0], "presence-other", "late");
    late.sees(&["late"]);
    ana.sees_changes(&[]);
    ben.sees_changes(&[]);
    for (node, data) in [(0, "x"), (1, "y")] {
        cluster[node].publish("presence-r", "ev", data);
        for member in [&mut ana, &mut ben] {
            member.client.expect(&event("ev", data, "presence-r"));
        }
    }
}
