//! Nodes of which it is announced that they live although they do not, or the other way round.

use std::time::Duration;

use crate::bus::Bystander;
use crate::frames::event;
use crate::nodes::{Cluster, HASTY};
use crate::people::{Member, has_users};
use crate::wait::{eventually, eventually_is, soon};

/// The channel that all nodes listen to, and the set of their heartbeats.
const ALL: &str = "reverb:{*}";
const HEARTBEATS: &str = "reverb:{*}:nodes";

/// A few seconds more than the node time-out of [`HASTY`].
const SOON: Duration = Duration::from_secs(8);

fn id_of(cluster: &Cluster, node: usize) -> String {
    cluster[node].ready()["node"].as_str().unwrap().to_owned()
}

/// The clock of Redis was an hour ahead when its last heartbeat was received, and was set right.
#[test]
fn a_node_that_dies_goes_in_its_time_though_its_last_heartbeat_is_from_the_future() {
    let mut cluster = Cluster::start(2, &[HASTY]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let _lost = Member::join(&cluster[1], "presence-r", "lost");
    watcher.sees_changes(&["+lost"]);
    let dead = id_of(&cluster, 1);
    cluster[1].kill();
    let time = cluster.redis.command(&["TIME"]);
    let seconds: u64 = time.lines().next().unwrap().parse().unwrap();
    let score = ((seconds + 3600) * 1000).to_string();
    let set = ["ZADD", HEARTBEATS, "XX", "CH", &score, &dead];
    assert_eq!(cluster.redis.command(&set), "1");
    let gone = soon(SOON, || {
        watcher.look();
        !watcher.here.contains("lost")
    });
    assert!(gone, "a member of a dead node after {SOON:?}");
    assert_eq!(watcher.changes(), ["-lost"]);
    eventually_is("nodes", &1, || cluster[0].counter("nodes"));
    has_users(&cluster[0], "presence-r", &["watcher"]);
    // Nor does it come back, as long as it is in the list.
    let back = soon(Duration::from_secs(4), || {
        cluster[0].counter("nodes") != 1 || !watcher.changes().is_empty()
    });
    assert!(!back, "{}", cluster[0].log());
}

/// Its clock is not asked: a node that lives is not taken for dead by an entry that
/// its next heartbeat replaces.
#[test]
fn a_node_that_lives_stays_though_its_heartbeat_was_from_the_future() {
    let cluster = Cluster::start(2, &[HASTY]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let mut other = Member::join(&cluster[1], "presence-r", "other");
    watcher.sees_changes(&["+other"]);
    let id = id_of(&cluster, 1);
    let time = cluster.redis.command(&["TIME"]);
    let seconds: u64 = time.lines().next().unwrap().parse().unwrap();
    let score = ((seconds + 3600) * 1000).to_string();
    cluster.redis.command(&["ZADD", HEARTBEATS, &score, &id]);
    // Each heartbeat is one fifth of the node time-out after the last one.
    std::thread::sleep(Duration::from_secs(3));
    cluster.await_whole();
    assert_eq!((watcher.changes(), other.changes()), (vec![], vec![]));
    has_users(&cluster[0], "presence-r", &["other", "watcher"]);
}

#[test]
fn a_node_of_which_somebody_says_that_it_goes_is_back_soon() {
    let cluster = Cluster::start(3, &[]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let mut live = Member::join(&cluster[1], "presence-r", "live");
    let mut third = Member::join(&cluster[2], "presence-r", "third");
    let all = ["live", "third", "watcher"];
    for member in [&mut watcher, &mut live, &mut third] {
        member.sees(&all);
        member.changes();
    }
    let message = format!("R1 B {}", id_of(&cluster, 1));
    let received: Vec<u64> = (cluster.nodes().iter())
        .map(|node| node.counter("received"))
        .collect();
    let mut bystander = Bystander::connect(cluster.redis.port);
    assert_eq!(bystander.publish(ALL.as_bytes(), message.as_bytes()), 3);
    for (node, received) in cluster.nodes().iter().zip(received) {
        eventually("it has the message", || node.counter("received") > received);
    }
    let whole = soon(SOON, || {
        watcher.look();
        third.look();
        let nodes = |node: usize| cluster[node].counter("nodes");
        (0..3).all(|node| nodes(node) == 3) && watcher.here.len() == 3 && third.here.len() == 3
    });
    let nodes: Vec<u64> = (cluster.nodes().iter())
        .map(|node| node.counter("nodes"))
        .collect();
    assert!(
        whole,
        "after {SOON:?}: {nodes:?} nodes, {:?} is seen on the first node, {:?} on the third\n{}",
        watcher.here,
        third.here,
        cluster[1].log()
    );
    for node in cluster.nodes() {
        has_users(node, "presence-r", &all);
    }
    // Whatever was seen meanwhile, the node that lives saw nobody go.
    assert_eq!(live.changes(), [""; 0]);
    let mut members = [watcher, live, third];
    for member in &mut members {
        member.changes();
    }
    // What it says and what happens there reaches the others, and the other way round.
    for node in cluster.nodes() {
        node.publish("presence-r", "ev", "x");
        for member in &mut members {
            member.client.expect(&event("ev", "x", "presence-r"));
        }
    }
    let new = Member::join(&cluster[1], "presence-r", "new");
    assert_eq!(new.here.len(), 4, "{:?}", new.here);
    for member in &mut members {
        member.sees_changes(&["+new"]);
    }
    drop(new);
    for member in &mut members {
        member.sees_changes(&["-new"]);
    }
    assert_eq!(cluster[1].counter("links"), 1);
}
