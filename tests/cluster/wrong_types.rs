//! Somebody has put something else where a topic's key is in Redis: it costs that topic
//! its other nodes, and nobody else anything.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::frames::{cache_miss, event};
use crate::node::Node;
use crate::nodes::Cluster;
use crate::people::{Member, has_users};
use crate::support::Client;
use crate::support::http::parsed;
use crate::wait::{eventually, eventually_is, soon};

const FACTS: &str = "reverb:{my-app-id/c/presence-r}:s";
const LAST: &str = "reverb:{my-app-id/c/cache-a}:e";

/// How long a topic may go on without other nodes once its key is right.
const HEALED: Duration = Duration::from_secs(15);

/// Longer than the link takes to notice, to connect again, and to be not ready.
const WATCHED: Duration = Duration::from_secs(5);

/// How often the lines of a node's log warn of this.
fn warnings(node: &Node, text: &str) -> usize {
    let log = node.log();
    let is_it = |line: &&str| line.contains("WARN") && line.contains(text);
    log.lines().filter(is_it).count()
}

/// A member of another channel on each node, and their connections to one more.
struct Others {
    members: [Member; 2],
    clients: [Client; 2],
}

impl Others {
    fn on(cluster: &Cluster) -> Self {
        let mut members =
            [0, 1].map(|n| Member::join(&cluster[n], "presence-other", &format!("u{n}")));
        for member in &mut members {
            member.sees(&["u0", "u1"]);
            member.changes();
        }
        let clients = [0, 1].map(|n| {
            let mut client = Client::connect(&cluster[n]);
            client.subscribe("private-other");
            client
        });
        Self { members, clients }
    }

    /// They are sent what happens on the other node: at once, each thing once, and
    /// nothing else. Their channels are not the only ones, too: a new one works.
    fn go_on(&mut self, cluster: &Cluster, round: usize) {
        for node in cluster.nodes() {
            node.publish("private-other", "ev", "x");
            for client in &mut self.clients {
                client.expect(&event("ev", "x", "private-other"));
            }
        }
        let [here, there] = [&cluster[round % 2], &cluster[(round + 1) % 2]];
        let visitor = Member::join(here, "presence-other", "visitor");
        assert_eq!(visitor.here.len(), 3, "{:?}", visitor.here);
        drop(visitor);
        for member in &mut self.members {
            member.sees_changes(&["+visitor", "-visitor"]);
        }
        let channel = format!("presence-new-{round}");
        let mut first = Member::join(here, &channel, "first");
        let second = Member::join(there, &channel, "second");
        assert_eq!(second.here.len(), 2, "{:?}", second.here);
        first.sees_changes(&["+second"]);
    }
}

/// For some time, everything but the topic in question goes on, on the same links, and
/// the nodes are ready.
fn nothing_else_is_hurt(cluster: &Cluster, others: &mut Others) {
    let until = Instant::now() + WATCHED;
    let mut round = 0;
    while Instant::now() < until {
        for (n, node) in cluster.nodes().iter().enumerate() {
            let (status, ready) = node.ready_with_status();
            let reported = (status, &ready["redis"], &ready["links"]);
            let fine = (200, &Value::from("connected"), &Value::from(1));
            assert_eq!(reported, fine, "node {n}: {ready}\n{}", node.log());
        }
        others.go_on(cluster, round);
        round += 1;
    }
}

/// It is logged once, with the key's name, and counted, by each of these nodes.
fn it_is_reported(nodes: &[&Node], key: &str) {
    for node in nodes {
        eventually_is("degraded topics", &Value::from(1), || {
            node.ready()["degraded"].take()
        });
        assert_eq!(warnings(node, key), 1, "{}", node.log());
    }
}

fn it_is_over(cluster: &Cluster) {
    for node in cluster.nodes() {
        let is_over = soon(HEALED, || node.ready()["degraded"] == 0);
        assert!(is_over, "{}", node.ready());
        let (status, ready) = node.ready_with_status();
        assert_eq!((status, &ready["links"]), (200, &Value::from(1)), "{ready}");
    }
}

/// Within the time, everybody sees all, as if nothing had been.
fn all_are_together_again(cluster: &Cluster, members: &mut [&mut Member], users: &[&str]) {
    let begin = Instant::now();
    for member in &mut *members {
        member.sees(users);
    }
    for node in cluster.nodes() {
        has_users(node, "presence-r", users);
    }
    let took = begin.elapsed();
    assert!(took < HEALED, "it took {took:?}");
    for member in &mut *members {
        member.changes();
        member.others();
    }
    let mut late = Member::join(&cluster[1], "presence-r", "late");
    assert_eq!(late.here.len(), users.len() + 1, "{:?}", late.here);
    for member in &mut *members {
        member.sees_changes(&["+late"]);
    }
    for node in cluster.nodes() {
        node.publish("presence-r", "ev", "x");
        let text = event("ev", "x", "presence-r");
        late.client.expect(&text);
        for member in &mut *members {
            member.client.expect(&text);
        }
    }
    drop(late);
    for member in &mut *members {
        member.sees_changes(&["-late"]);
    }
}

#[test]
fn a_presence_channel_whose_key_is_no_hash_has_the_members_of_its_own_node() {
    let cluster = Cluster::start(2, &[]);
    let mut others = Others::on(&cluster);
    assert_eq!(cluster.redis.command(&["SET", FACTS, "theirs"]), "OK");
    // Who comes is answered, and sees who else is here.
    let mut ana = Member::join(&cluster[0], "presence-r", "ana");
    let eve = Member::join(&cluster[0], "presence-r", "eve");
    assert_eq!(eve.here.len(), 2, "{:?}", eve.here);
    ana.sees_changes(&["+eve"]);
    let mut ben = Member::join(&cluster[1], "presence-r", "ben");
    nothing_else_is_hurt(&cluster, &mut others);
    drop(eve);
    eventually("who is here sees who goes from here", || {
        ana.look();
        !ana.here.contains("eve")
    });
    cluster[0].publish("presence-r", "ev", "here");
    ana.client.expect(&event("ev", "here", "presence-r"));
    assert_eq!(cluster.redis.command(&["GET", FACTS]), "theirs");
    it_is_reported(&[&cluster[0], &cluster[1]], FACTS);

    assert_eq!(cluster.redis.command(&["DEL", FACTS]), "1");
    all_are_together_again(&cluster, &mut [&mut ana, &mut ben], &["ana", "ben"]);
    it_is_over(&cluster);
    others.go_on(&cluster, 1000);
}

#[test]
fn a_presence_channel_whose_key_is_replaced_while_it_is_used_goes_on() {
    let cluster = Cluster::start(2, &[]);
    let mut others = Others::on(&cluster);
    let mut ana = Member::join(&cluster[0], "presence-r", "ana");
    let mut ben = Member::join(&cluster[1], "presence-r", "ben");
    ana.sees_changes(&["+ben"]);
    assert_eq!(cluster.redis.command(&["SET", FACTS, "theirs"]), "OK");
    // Changes on both nodes, which Redis does not take.
    let mut eve = Member::join(&cluster[1], "presence-r", "eve");
    assert!(eve.here.contains("ben"), "{:?}", eve.here);
    eventually("who is here sees who comes here", || {
        ben.look();
        ben.here.contains("eve")
    });
    let kim = Member::join(&cluster[0], "presence-r", "kim");
    assert!(kim.here.contains("ana"), "{:?}", kim.here);
    nothing_else_is_hurt(&cluster, &mut others);
    ben.client.unsubscribe("presence-r");
    eventually("who is here sees who goes from here", || {
        eve.look();
        !eve.here.contains("ben")
    });
    drop(kim);
    it_is_reported(&[&cluster[0], &cluster[1]], FACTS);

    assert_eq!(cluster.redis.command(&["DEL", FACTS]), "1");
    all_are_together_again(&cluster, &mut [&mut ana, &mut eve], &["ana", "eve"]);
    it_is_over(&cluster);
    others.go_on(&cluster, 1000);
}

#[test]
fn a_cache_channel_whose_last_event_is_no_text_in_redis_has_none_there() {
    let cluster = Cluster::start(2, &[]);
    let mut others = Others::on(&cluster);
    assert_eq!(
        cluster.redis.command(&["HSET", LAST, "theirs", "is this"]),
        "1"
    );
    let mut clients = [0, 1].map(|node| {
        let mut client = Client::connect(&cluster[node]);
        client.subscribe("cache-a");
        client.expect(&cache_miss("cache-a"));
        client
    });
    let answer = cluster[0].get("channels/cache-a", &[("info", "cache")]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    nothing_else_is_hurt(&cluster, &mut others);
    // Another one is not touched.
    cluster[0].publish("cache-b", "ev", "b");
    eventually_is("the last event of another", &Value::from("b"), || {
        let answer = cluster[1].get("channels/cache-b", &[("info", "cache")]);
        parsed(&answer)["cache"]["data"].take()
    });
    it_is_reported(&[&cluster[0], &cluster[1]], LAST);

    assert_eq!(cluster.redis.command(&["DEL", LAST]), "1");
    it_is_over(&cluster);
    cluster[0].publish("cache-a", "ev", "x");
    for client in &mut clients {
        client.expect(&event("ev", "x", "cache-a"));
    }
    let text = event("ev", "x", "cache-a");
    for node in cluster.nodes() {
        let mut later = Client::connect(node);
        later.subscribe("cache-a");
        later.expect(&text);
    }
    others.go_on(&cluster, 1000);
}

/// The type is right there, and what it holds is none of ours.
#[test]
fn values_that_no_node_has_written_cost_nobody_the_link() {
    let cluster = Cluster::start(2, &[]);
    let redis = &cluster.redis;
    let mut others = Others::on(&cluster);
    let member = Member::join(&cluster[0], "presence-r", "u");
    redis.command(&["HSET", FACTS, "v", "9223372036854775807"]);
    for field in ["", "cache-a", "cache-b"] {
        redis.command(&["HSET", "reverb:{my-app-id}:cache:sizes", field, "x"]);
    }
    redis.command(&["ZADD", "reverb:{my-app-id}:cache", "1", "cache-b"]);
    let second = Member::join(&cluster[0], "presence-r", "v");
    cluster[0].publish("cache-a", "ev", "x");
    others.go_on(&cluster, 0);
    drop((member, second));
    std::thread::sleep(Duration::from_secs(2));
    others.go_on(&cluster, 1);
    for node in cluster.nodes() {
        assert_eq!(node.counter("links"), 1, "{}", node.log());
    }
}
