//! A Redis that dies, sleeps, forgets, refuses, or is replaced.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::frames::{arrived, event, whisper, whispered};
use crate::node::Node;
use crate::nodes::{Cluster, HASTY, await_nodes};
use crate::people::{Member, has_users, signed_in};
use crate::redis::{Options, Redis};
use crate::settings::Settings;
use crate::support::http::Answer;
use crate::support::{Client, Http};
use crate::topologies::{Sentinels, Shards};
use crate::wait::{LONG, eventually, soon};

/// Publishes through every node until all these receive it, each what comes from the others.
fn receive_from_each_other(nodes: &[&Node], members: &mut [Member]) {
    for (n, node) in nodes.iter().enumerate() {
        let data = format!("received {n}");
        let mut received = vec![false; members.len()];
        let all = soon(LONG, || {
            node.publish("presence-r", "ev", &data);
            for (member, received) in members.iter_mut().zip(&mut received) {
                *received |= member.others().iter().any(|frame| frame["data"] == *data);
            }
            received.iter().all(|received| *received)
        });
        assert!(all, "who received node {n}: {received:?}");
    }
}

/// A member on every node, all of whom see all; nothing they saw before counts.
fn one_on_each(nodes: &[&Node]) -> Vec<Member> {
    let users: Vec<String> = (0..nodes.len()).map(|n| format!("u{n}")).collect();
    let mut members: Vec<Member> = (nodes.iter().zip(&users))
        .map(|(node, user)| Member::join(*node, "presence-r", user))
        .collect();
    all_see_all(nodes, &mut members);
    for member in &mut members {
        member.changes();
    }
    members
}

fn all_see_all(nodes: &[&Node], members: &mut [Member]) {
    let users: Vec<String> = (0..nodes.len()).map(|n| format!("u{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    for member in members {
        member.sees(&users);
    }
    for node in nodes {
        has_users(*node, "presence-r", &users);
    }
}

fn all(cluster: &Cluster) -> Vec<&Node> {
    cluster.nodes().iter().collect()
}

#[test]
fn without_redis_every_node_goes_on_by_itself() {
    let mut cluster = Cluster::start(2, &[]);
    let [mut one, mut two] = [0, 0].map(|node| Client::connect(&cluster[node]));
    one.subscribe("private-a");
    cluster.redis.kill();
    cluster.await_all_connected(false);
    for node in cluster.nodes() {
        let Answer { status, .. } = Http::connect(node).request("GET", "/up", "");
        assert_eq!(status, 200);
    }
    // Everything that one node can do alone.
    two.subscribe("private-a");
    cluster[0].publish("private-a", "ev", "x");
    for client in [&mut one, &mut two] {
        client.expect(&event("ev", "x", "private-a"));
    }
    whisper(&mut one, "private-a", "{}");
    two.expect(&whispered("private-a", "{}"));
    let mut ana = Member::join(&cluster[0], "presence-x", "ana");
    let ben = Member::join(&cluster[0], "presence-x", "ben");
    assert_eq!(ben.here.len(), 2);
    ana.sees_changes(&["+ben"]);
    drop(ben);
    ana.sees_changes(&["-ben"]);
    let mut signed = signed_in(&cluster[0], &json!({ "id": "eve" }));
    let answer = Http::connect(&cluster[0]).post("users/eve/terminate_connections", "{}");
    assert_eq!(answer.status, 200);
    signed.expect_error(4009, "Connection terminated by the application");
    cluster.redis.restart();
    cluster.await_whole();
    let mut far = Member::join(&cluster[1], "presence-x", "far");
    far.sees(&["ana", "far"]);
    ana.sees_changes(&["+far"]);
}

/// Redis is paused: nothing is refused, and nothing is answered.
#[test]
fn no_local_delivery_waits_for_a_redis_that_hangs() {
    let mut cluster = Cluster::start(2, &[]);
    let mut client = Client::connect(&cluster[0]);
    client.subscribe("lobby");
    cluster.redis.pause();
    let begin = Instant::now();
    let mut http = Http::connect(&cluster[0]);
    for n in 0..200 {
        http.publish(&["lobby"], "ev", &n.to_string());
        client.expect(&event("ev", &n.to_string(), "lobby"));
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "200 publishes took {took:?}");
    cluster.await_all_connected(false);
    http.publish(&["lobby"], "ev", "alone");
    client.expect(&event("ev", "alone", "lobby"));
    cluster.redis.resume();
    cluster.await_whole();
}

#[test]
fn what_was_published_while_redis_was_away_arrives_when_it_is_back() {
    let mut cluster = Cluster::start(2, &[]);
    let mut clients = [0, 1].map(|node| {
        let mut client = Client::connect(&cluster[node]);
        client.subscribe("lobby");
        client
    });
    cluster.redis.kill();
    cluster.await_all_connected(false);
    for (n, node) in cluster.nodes().iter().enumerate() {
        let mut http = Http::connect(node);
        for i in 0..20 {
            http.publish(&["lobby"], &format!("of-{n}"), &i.to_string());
            clients[n].expect(&event(&format!("of-{n}"), &i.to_string(), "lobby"));
        }
    }
    cluster.redis.restart();
    cluster.await_whole();
    for (n, node) in cluster.nodes().iter().enumerate() {
        node.publish("lobby", "last", &n.to_string());
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let mut received = Vec::new();
        let all = soon(LONG, || {
            received.extend(arrived(client));
            received
                .iter()
                .filter(|frame| frame["event"] == "last")
                .count()
                == 2
        });
        assert!(all, "{received:?}");
        received.retain(|frame| frame["event"] != "last");
        let name = format!("of-{}", 1 - n);
        let expected: Vec<Value> = (0..20)
            .map(|i| json!({ "event": name, "data": i.to_string(), "channel": "lobby" }))
            .collect();
        assert_eq!(received, expected);
    }
}

#[test]
fn a_redis_that_is_away_for_a_moment_makes_no_member_come_or_go() {
    let mut cluster = Cluster::start(3, &[("RESOUND_NODE_TIMEOUT", "30")]);
    let mut members = one_on_each(&all(&cluster));
    cluster.redis.kill();
    cluster.await_all_connected(false);
    cluster.redis.restart();
    cluster.await_whole();
    receive_from_each_other(&all(&cluster), &mut members);
    all_see_all(&all(&cluster), &mut members);
    for member in &mut members {
        assert_eq!(member.changes(), [""; 0]);
    }
}

#[test]
fn a_redis_that_comes_back_empty_is_filled_again() {
    let mut cluster = Cluster::start(3, &[("RESOUND_NODE_TIMEOUT", "30")]);
    let mut members = one_on_each(&all(&cluster));
    cluster.redis.restart_empty();
    cluster.await_whole();
    receive_from_each_other(&all(&cluster), &mut members);
    all_see_all(&all(&cluster), &mut members);
    for member in &mut members {
        assert_eq!(member.changes(), [""; 0], "nobody went");
    }
    let mut late = Member::join(&cluster[0], "presence-r", "late");
    late.sees(&["late", "u0", "u1", "u2"]);
}

#[test]
fn flushall_is_repaired_and_nobody_goes() {
    let cluster = Cluster::start(3, &[HASTY]);
    let mut members = one_on_each(&all(&cluster));
    for _ in 0..3 {
        assert_eq!(cluster.redis.command(&["FLUSHALL"]), "OK");
        receive_from_each_other(&all(&cluster), &mut members);
    }
    // Longer than the time after which a silent node's members are gone.
    std::thread::sleep(Duration::from_secs(4));
    cluster.await_whole();
    all_see_all(&all(&cluster), &mut members);
    let mut late = Member::join(&cluster[0], "presence-r", "late");
    late.sees(&["late", "u0", "u1", "u2"]);
    for member in &mut members {
        member.sees_changes(&["+late"]);
    }
}

/// The other node enters all its facts before this one knows that Redis has lost them.
#[test]
fn who_leaves_after_a_flushall_that_a_node_slept_through_is_gone_there() {
    let mut cluster = Cluster::start(2, &[("RESOUND_NODE_TIMEOUT", "30")]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let leaves = Member::join(&cluster[1], "presence-r", "leaves");
    watcher.sees_changes(&["+leaves"]);
    cluster[0].pause();
    assert_eq!(cluster.redis.command(&["FLUSHALL"]), "OK");
    let facts = ["KEYS", "*presence-r*"];
    eventually("the other enters again", || {
        !cluster.redis.command(&facts).is_empty()
    });
    drop(leaves);
    eventually("nobody is there", || {
        cluster.redis.command(&facts).is_empty()
    });
    cluster[0].resume();
    watcher.sees_changes(&["-leaves"]);
}

#[test]
fn connections_that_redis_kills_are_made_again() {
    let cluster = Cluster::start(2, &[]);
    let nodes = all(&cluster);
    let mut members = one_on_each(&nodes);
    for _ in 0..3 {
        // All but the one that says it.
        let killed = cluster
            .redis
            .command(&["CLIENT", "KILL", "USER", "default"]);
        assert!(killed.parse::<u32>().unwrap() >= 2, "{killed}");
        receive_from_each_other(&nodes, &mut members);
        await_nodes(&nodes, 2);
    }
    all_see_all(&nodes, &mut members);
    for member in &mut members {
        assert_eq!(member.changes(), [""; 0]);
    }
}

#[test]
fn a_redis_that_sleeps_beyond_the_timeout_parts_the_nodes_and_brings_them_together_again() {
    let mut cluster = Cluster::start(3, &[HASTY]);
    let mut members = one_on_each(&all(&cluster));
    cluster.redis.pause();
    for (n, member) in members.iter_mut().enumerate() {
        member.sees(&[&format!("u{n}")]);
        assert_eq!(member.changes().len(), 2, "each of the others goes once");
    }
    cluster.redis.resume();
    cluster.await_whole();
    all_see_all(&all(&cluster), &mut members);
    receive_from_each_other(&all(&cluster), &mut members);
    for member in &mut members {
        assert_eq!(member.changes().len(), 2, "each of the others comes once");
    }
}

/// The commands that take them out were sent, and Redis died before it ran them.
#[test]
fn who_leaves_while_redis_hangs_is_gone_after_it_was_killed_and_came_back() {
    let mut cluster = Cluster::start(2, &[("RESOUND_NODE_TIMEOUT", "30")]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let leaves = Member::join(&cluster[1], "presence-r", "leaves");
    let stays = Member::join(&cluster[1], "presence-s", "stays");
    let other = Member::join(&cluster[1], "presence-s", "other");
    let mut neighbour = Member::join(&cluster[0], "presence-s", "neighbour");
    watcher.sees_changes(&["+leaves"]);
    neighbour.sees(&["neighbour", "other", "stays"]);
    neighbour.changes();
    cluster.redis.pause();
    // One is the last of its node in the channel, and one is not.
    drop((leaves, other));
    has_users(&cluster[1], "presence-r", &[]);
    has_users(&cluster[1], "presence-s", &["stays"]);
    cluster.redis.restart();
    cluster.await_whole();
    watcher.sees_changes(&["-leaves"]);
    neighbour.sees_changes(&["-other"]);
    drop(stays);
    neighbour.sees_changes(&["-stays"]);
}

#[test]
fn a_wrong_password_is_reported_and_the_right_one_is_tried_again() {
    const WRONG: &str = "hunter2-is-wrong";
    let redis = Redis::single(Options {
        password: Some("right"),
        ..Options::default()
    });
    let wrong = redis.settings().with(&[("REDIS_PASSWORD", WRONG)]);
    let nodes = [0, 1].map(|_| Node::start(&wrong));
    for node in &nodes {
        eventually("the node says that it is not let in", || {
            !node.is_connected() && node.log_contains("WRONGPASS")
        });
        assert!(!node.log().contains(WRONG), "passwords are secret");
        let mut client = Client::connect(node);
        client.subscribe("lobby");
        client.expect_alive();
    }
    assert_eq!(
        redis.command(&["CONFIG", "SET", "requirepass", WRONG]),
        "OK"
    );
    await_nodes(&nodes.iter().collect::<Vec<_>>(), 2);
    let mut members = one_on_each(&[&nodes[0], &nodes[1]]);
    receive_from_each_other(&[&nodes[0], &nodes[1]], &mut members);
}

#[test]
fn a_node_that_starts_without_redis_joins_the_others_when_it_comes() {
    let mut redis = Redis::start();
    redis.kill();
    let nodes = [0, 1].map(|_| Node::start(&redis.settings()));
    let mut members: Vec<Member> = (nodes.iter().enumerate())
        .map(|(n, node)| Member::join(node, "presence-r", &format!("u{n}")))
        .collect();
    for node in &nodes {
        assert!(!node.is_connected());
    }
    redis.restart();
    let nodes: Vec<&Node> = nodes.iter().collect();
    await_nodes(&nodes, 2);
    all_see_all(&nodes, &mut members);
    receive_from_each_other(&nodes, &mut members);
    for (n, member) in members.iter_mut().enumerate() {
        assert_eq!(member.changes(), [format!("+u{}", 1 - n)]);
    }
}

/// A master that is gone for good: the sentinels promote its replica, and the nodes
/// find it.
#[test]
fn nodes_follow_the_sentinels_to_a_new_master() {
    let mut sentinels = Sentinels::start();
    let nodes = [0, 1].map(|_| Node::start(&sentinels.settings()));
    let nodes: Vec<&Node> = nodes.iter().collect();
    await_nodes(&nodes, 2);
    let mut members = one_on_each(&nodes);
    sentinels.servers[0].kill();
    let replica = sentinels.servers[1].port;
    eventually("the replica is promoted", || {
        sentinels.master_port() == Some(replica)
    });
    await_nodes(&nodes, 2);
    receive_from_each_other(&nodes, &mut members);
    all_see_all(&nodes, &mut members);
    // The old master comes back as a replica, and nobody follows it.
    sentinels.servers[0].restart();
    eventually("the old master is a replica", || {
        sentinels.servers[0].command(&["ROLE"]).starts_with("slave")
    });
    await_nodes(&nodes, 2);
    receive_from_each_other(&nodes, &mut members);
}

#[test]
fn nodes_follow_a_redis_cluster_through_restarts_and_failovers() {
    let mut shards = Shards::with_replicas();
    let nodes = [0, 1].map(|_| Node::start(&shards.settings()));
    let nodes: Vec<&Node> = nodes.iter().collect();
    await_nodes(&nodes, 2);
    let mut members = one_on_each(&nodes);
    // One after the other, so that the channel's own shard is among them.
    for master in shards.masters() {
        shards.servers[master].kill();
        eventually("a replica is promoted", || {
            let now = shards.masters();
            now.len() == 3 && !now.contains(&master)
        });
        shards.servers[master].restart();
        shards.await_ok();
        await_nodes(&nodes, 2);
        receive_from_each_other(&nodes, &mut members);
        all_see_all(&nodes, &mut members);
    }
}

/// The old shard ends the subscriptions unasked, and answers what comes with MOVED.
#[test]
fn nodes_follow_a_channel_that_moves_to_another_shard() {
    let shards = Shards::start();
    let nodes = [0, 1].map(|_| Node::start(&shards.settings()));
    let nodes: Vec<&Node> = nodes.iter().collect();
    await_nodes(&nodes, 2);
    let mut clients: Vec<Client> = nodes.iter().map(|node| Client::connect(*node)).collect();
    for client in &mut clients {
        client.subscribe("moving");
    }
    let bus = "reverb:{my-app-id/c/moving}";
    let slot = shards.servers[0].command(&["CLUSTER", "KEYSLOT", bus]);
    let slot = slot.trim();
    let listeners = |server: &Redis| server.command(&["PUBSUB", "SHARDNUMSUB", bus]);
    let serves = |server: &Redis| listeners(server).contains('2');
    let masters = shards.masters();
    let old = *masters
        .iter()
        .find(|at| serves(&shards.servers[**at]))
        .unwrap();
    let new = *masters.iter().find(|at| **at != old).unwrap();
    let id = shards.servers[new].command(&["CLUSTER", "MYID"]);
    // Else what the old one said of its slots a moment ago counts for more.
    shards.servers[new].command(&["CLUSTER", "BUMPEPOCH"]);
    for server in [new, old] {
        let answer =
            shards.servers[server].command(&["CLUSTER", "SETSLOT", slot, "NODE", id.trim()]);
        assert_eq!(answer.trim(), "OK");
    }
    eventually("both nodes listen to the new shard", || {
        serves(&shards.servers[new])
    });
    nodes[0].publish("moving", "ev", "x");
    for client in &mut clients {
        client.expect(&event("ev", "x", "moving"));
    }
}

/// Settings that lead nowhere at first: the host is there, and it is no Redis.
#[test]
fn something_that_is_no_redis_does_not_hurt_a_node() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let talking = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .is_err()
            {
                return;
            }
        }
    });
    let node = Node::start(&Settings::of(&[
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", &port),
    ]));
    let mut client = Client::connect(&node);
    client.subscribe("lobby");
    node.publish("lobby", "ev", "x");
    client.expect(&event("ev", "x", "lobby"));
    assert!(!node.is_connected());
    assert_eq!(arrived(&mut client), [""; 0]);
    // It goes on until the process of the test ends.
    drop(talking);
}
