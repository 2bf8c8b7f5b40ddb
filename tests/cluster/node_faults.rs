//! Nodes that stop and come back.

use std::time::Duration;

use crate::frames::event;
use crate::nodes::{Cluster, HASTY, await_nodes};
use crate::people::{Member, has_users};
use crate::support::{Client, Http};
use crate::wait::eventually;

#[test]
fn a_node_that_sleeps_beyond_its_time_is_left_and_comes_back_with_its_members() {
    let mut cluster = Cluster::start(3, &[HASTY]);
    let mut watchers = [0, 1].map(|node| Member::join(&cluster[node], "presence-r", "watcher"));
    let mut sleeper = Member::join(&cluster[2], "presence-r", "sleeper");
    let everybody = &["sleeper", "watcher"][..];
    for member in watchers.iter_mut().chain([&mut sleeper]) {
        member.sees(everybody);
        member.changes();
    }
    cluster[2].pause();
    for watcher in &mut watchers {
        watcher.sees_changes(&["-sleeper"]);
    }
    await_nodes(&[&cluster[0], &cluster[1]], 2);
    has_users(&cluster[0], "presence-r", &["watcher"]);
    // What happens meanwhile is learnt when it wakes up.
    let _new = Member::join(&cluster[1], "presence-r", "new");
    cluster[2].resume();
    cluster.await_whole();
    let everybody = &["new", "sleeper", "watcher"][..];
    for member in watchers.iter_mut().chain([&mut sleeper]) {
        member.sees(everybody);
    }
    for watcher in &mut watchers {
        let mut changes = watcher.changes();
        changes.sort_unstable();
        assert_eq!(changes, ["+new", "+sleeper"]);
    }
    for node in cluster.nodes() {
        has_users(node, "presence-r", everybody);
        node.publish("presence-r", "ev", "x");
        let text = event("ev", "x", "presence-r");
        for member in watchers.iter_mut().chain([&mut sleeper]) {
            member.client.expect(&text);
        }
    }
}

#[test]
fn a_short_sleep_is_not_noticed_and_costs_no_event() {
    let mut cluster = Cluster::start(2, &[]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let mut sleeper = Member::join(&cluster[1], "presence-r", "sleeper");
    watcher.sees_changes(&["+sleeper"]);
    cluster[1].pause();
    let mut http = Http::connect(&cluster[0]);
    (0..50).for_each(|n| http.publish(&["presence-r"], "ev", &n.to_string()));
    std::thread::sleep(Duration::from_secs(1));
    cluster[1].resume();
    for n in 0..50 {
        let text = event("ev", &n.to_string(), "presence-r");
        sleeper.client.expect(&text);
        watcher.client.expect(&text);
    }
    assert_eq!((watcher.changes(), sleeper.changes()), (vec![], vec![]));
}

/// Nobody who is on a node that lives may notice that another one died, but for those
/// who were there.
#[test]
fn a_node_that_dies_disturbs_nothing_on_the_others() {
    let mut cluster = Cluster::start(3, &[HASTY]);
    let mut client = Client::connect(&cluster[1]);
    client.subscribe("lobby");
    let mut lost = Client::connect(&cluster[2]);
    lost.subscribe("lobby");
    cluster[2].kill();
    let mut http = Http::connect(&cluster[0]);
    let mut n = 0;
    eventually("the dead node is not counted any more", || {
        http.publish(&["lobby"], "ev", &n.to_string());
        client.expect(&event("ev", &n.to_string(), "lobby"));
        n += 1;
        cluster[0].ready()["nodes"] == 2 && cluster[1].ready()["nodes"] == 2
    });
    assert!(n > 1, "it was counted for a while");
    client.expect_silence();
}

/// The node's own last words: an event that was published through it is delivered
/// although it ends right afterwards, as it should when it was asked to.
#[test]
fn what_was_published_through_a_node_that_is_stopped_arrives() {
    let mut cluster = Cluster::start(2, &[]);
    let mut client = Client::connect(&cluster[0]);
    client.subscribe("lobby");
    let mut http = Http::connect(&cluster[1]);
    (0..100).for_each(|n| http.publish(&["lobby"], "ev", &n.to_string()));
    cluster[1].stop();
    (0..100).for_each(|n| client.expect(&event("ev", &n.to_string(), "lobby")));
    client.expect_silence();
}

/// A rolling restart: every node is replaced in turn, and the rest goes on.
#[test]
fn nodes_are_replaced_one_by_one_while_clients_of_the_others_miss_nothing() {
    let mut cluster = Cluster::start(3, &[]);
    for node in 0..3 {
        let [from, to] = [(node + 1) % 3, (node + 2) % 3];
        let mut watcher = Member::join(&cluster[to], "presence-r", "watcher");
        let _moving = Member::join(&cluster[node], "presence-r", "moving");
        watcher.sees(&["moving", "watcher"]);
        watcher.changes();
        cluster[node].stop();
        watcher.sees_changes(&["-moving"]);
        cluster[from].publish("presence-r", "ev", "x");
        watcher.client.expect(&event("ev", "x", "presence-r"));
        cluster.replace(node);
        cluster.await_whole();
        let _back = Member::join(&cluster[node], "presence-r", "moving");
        watcher.sees_changes(&["+moving"]);
        drop(watcher);
    }
}
