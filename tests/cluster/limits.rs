//! Limits and counts of the whole cluster.

use serde_json::json;

use crate::frames::{subscription_count, until};
use crate::node::Node;
use crate::nodes::{Cluster, HASTY};
use crate::support::{Client, KEY};
use crate::wait::eventually;

const QUOTA: (&str, &str) = ("REVERB_APP_MAX_CONNECTIONS", "4");

/// A connection, if the application may have one more.
fn admitted(node: &Node) -> Option<Client> {
    let mut client = Client::open(node, &format!("/app/{KEY}"), &[]);
    let first = client.next_json();
    if first["event"] == "pusher:connection_established" {
        return Some(client);
    }
    assert_eq!(
        first["data"],
        json!({ "code": 4004, "message": "Application is over connection quota" })
    );
    client.closed_with(4004, "Application is over connection quota");
    None
}

/// Waits until every node knows how many connections there are.
fn await_connections(nodes: &[Node], count: usize) {
    let expected = json!({ "connections": count }).to_string();
    for node in nodes {
        eventually("all connections are known", || {
            node.get("connections", &[]).body == expected
        });
    }
}

/// Waits until a node refuses again and again; who it admitted before goes again.
fn await_refusal(node: &Node) {
    eventually("the quota holds on this node", || {
        (0..5).all(|_| admitted(node).is_none())
    });
}

#[test]
fn the_quota_of_connections_is_that_of_all_nodes_together() {
    let cluster = Cluster::start(3, &[QUOTA]);
    let mut clients: Vec<Client> = [0, 0, 1, 2]
        .map(|node| Client::connect(&cluster[node]))
        .into();
    await_connections(cluster.nodes(), 4);
    for node in cluster.nodes() {
        await_refusal(node);
    }
    // One goes on one node, and somebody gets its place on another.
    clients.remove(0);
    let mut next = None;
    eventually("the place is given", || {
        next = admitted(&cluster[2]);
        next.is_some()
    });
    await_connections(cluster.nodes(), 4);
    await_refusal(&cluster[0]);
    clients.iter_mut().for_each(Client::expect_alive);
    next.unwrap().expect_alive();
}

#[test]
fn the_permits_of_a_node_that_dies_are_given_to_others() {
    let mut cluster = Cluster::start(2, &[QUOTA, HASTY]);
    let mut stays = Client::connect(&cluster[0]);
    let _lost: Vec<Client> = (0..3).map(|_| Client::connect(&cluster[1])).collect();
    await_connections(cluster.nodes(), 4);
    await_refusal(&cluster[0]);
    cluster[1].kill();
    let mut clients = Vec::new();
    eventually("the places are given", || {
        clients.extend(admitted(&cluster[0]));
        clients.len() == 3
    });
    await_refusal(&cluster[0]);
    stays.expect_alive();
}

/// Nobody is shut out because Redis is away: a node goes on with what it knows.
#[test]
fn without_redis_a_node_still_admits_what_its_own_connections_leave_room_for() {
    let mut cluster = Cluster::start(2, &[QUOTA, HASTY]);
    let _first = Client::connect(&cluster[0]);
    await_connections(cluster.nodes(), 1);
    cluster.redis.kill();
    cluster.await_all_connected(false);
    let mut second = admitted(&cluster[0]).expect("there is room");
    second.expect_alive();
}

#[test]
fn subscribers_are_sent_how_many_there_are_on_all_nodes() {
    let cluster = Cluster::start(2, &[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
    let count = |n| subscription_count(n, "a");
    let [mut one, mut two] = [0, 1].map(|node| Client::connect(&cluster[node]));
    one.subscribe("a");
    until(&mut one, &count(1));
    two.subscribe("a");
    until(&mut two, &count(2));
    until(&mut one, &count(2));
    let mut three = Client::connect(&cluster[1]);
    three.subscribe("a");
    for client in [&mut one, &mut two, &mut three] {
        until(client, &count(3));
    }
    drop(two);
    drop(three);
    until(&mut one, &count(1));
    one.expect_silence();
}

#[test]
fn counts_of_many_subscribers_of_all_nodes_come_in_the_end() {
    let cluster = Cluster::start(2, &[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
    let mut clients: Vec<Client> = (0..70)
        .flat_map(|_| [0, 1])
        .map(|node| Client::connect(&cluster[node]))
        .collect();
    for client in &mut clients {
        client.ask("a");
    }
    for client in &mut clients[..2] {
        until(client, &subscription_count(140, "a"));
    }
}
