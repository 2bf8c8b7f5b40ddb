//! Outages of Redis of any length: whoever had joined a channel before goes on receiving
//! what other nodes publish, and a node that does not listen to what it has to says so.
//!
//! `RESOUND_OUTAGES=200 cargo test --test cluster outages` goes on for longer (nextest would
//! end it after some minutes), and `RESOUND_SEED=7 …` repeats the same outages.

use std::time::{Duration, Instant};

use resound::hub::ConnectionRef;
use resound::protocol::{ChannelName, SocketId};
use serde_json::{Value, json};

use crate::bus::Bystander;
use crate::frames::arrived;
use crate::node::Node;
use crate::nodes::{Cluster, await_nodes};
use crate::people::{Member, signed_in};
use crate::proxy::{Proxy, Weather};
use crate::random::Random;
use crate::redis::Redis;
use crate::support::http::parsed;
use crate::support::{Client, Http, TestServer};
use crate::wait::{eventually, eventually_is, soon};

const CHANNELS: &[&str] = &["lobby", "private-a", "private-b", "presence-r", "cache-c"];

/// How long it may take until all is well again.
const WITHIN: Duration = Duration::from_secs(8);

/// Two nodes of one deployment, and somebody in every channel on each.
struct Pair {
    nodes: [Node; 2],
    _far: Proxy,
    clients: [Vec<(&'static str, Client)>; 2],
}

impl Pair {
    fn start(redis: &Redis, number: usize) -> Self {
        // One is farther away: it receives the other's answer together with that of Redis.
        let far = Proxy::to(redis.port);
        far.set(Weather::Slow(Duration::from_millis(5)));
        let nodes = [redis.port, far.port].map(|port| {
            let settings = redis.settings_by(port);
            Node::start(&settings.with(&[
                ("REVERB_SCALING_CHANNEL", &format!("pair{number}")),
                ("RESOUND_NODE_TIMEOUT", "2"),
            ]))
        });
        await_nodes(&[&nodes[0], &nodes[1]], 2);
        let clients = [0, 1].map(|n| {
            let join = |channel: &&'static str| {
                if channel.starts_with("presence-") {
                    let member = Member::join(&nodes[n], channel, &format!("u{n}"));
                    return (*channel, member.client);
                }
                let mut client = Client::connect(&nodes[n]);
                client.subscribe(channel);
                (*channel, client)
            };
            CHANNELS.iter().map(join).collect()
        });
        Self {
            nodes,
            _far: far,
            clients,
        }
    }

    /// Publishes in every channel on both nodes until each is received on the other. Returns
    /// what is not received in time, and what the cut-off node says of itself.
    fn missing(&mut self, tag: &str, until: Instant) -> Vec<String> {
        let mut open: Vec<(usize, usize)> = (0..2)
            .flat_map(|node| (0..CHANNELS.len()).map(move |channel| (node, channel)))
            .collect();
        while !open.is_empty() && Instant::now() < until {
            // What is published on a node, its own clients receive without any link.
            let name = |node: usize| format!("{tag}-for-{node}");
            for (node, channel) in &open {
                self.nodes[1 - node].publish(CHANNELS[*channel], &name(*node), "x");
            }
            std::thread::sleep(Duration::from_millis(100));
            let clients = &mut self.clients;
            open.retain(|(node, channel)| {
                let frames = arrived(&mut clients[*node][*channel].1);
                !frames.iter().any(|frame| frame["event"] == name(*node))
            });
        }
        let describe = |(node, channel): &(usize, usize)| {
            let ready = self.nodes[*node].ready();
            format!("{}: {ready}", CHANNELS[*channel])
        };
        open.iter().map(describe).collect()
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_outage_of_any_length_leaves_a_node_without_events() {
    let seed = number("RESOUND_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let outages = number("RESOUND_OUTAGES").unwrap_or(20);
    eprintln!("RESOUND_SEED={seed}");
    let mut random = Random::new(seed);
    let mut redis = Redis::start();
    let mut pairs: Vec<Pair> = (0..4).map(|n| Pair::start(&redis, n)).collect();
    for outage in 0..outages {
        std::thread::sleep(Duration::from_millis(random.below(700) as u64));
        redis.kill();
        // Some are longer than a node may be silent.
        let lasts = random.one_of(&[0, 500, 1500, 2000, 2500, 3500]);
        std::thread::sleep(Duration::from_millis(lasts));
        redis.restart_empty();
        let back = Instant::now();
        let missing: Vec<String> = std::thread::scope(|scope| {
            let tag = format!("ev-{outage}");
            let ask = |pair| {
                scope.spawn({
                    let tag = tag.clone();
                    move || Pair::missing(pair, &tag, back + WITHIN)
                })
            };
            let asked: Vec<_> = pairs.iter_mut().map(ask).collect();
            asked
                .into_iter()
                .flat_map(|asked| asked.join().unwrap())
                .collect()
        });
        eprintln!(
            "outage {outage} of {lasts} ms: all is well after {:?}",
            back.elapsed()
        );
        assert!(
            missing.is_empty(),
            "RESOUND_SEED={seed}, missing after outage {outage} of {lasts} ms: {missing:#?}"
        );
    }
}

/// Another node, which had given this one up, may say so before this one has the
/// answers to the first that it said.
#[test]
fn a_node_that_is_asked_to_resync_before_its_link_is_up_does_so_when_it_is() {
    let cluster = Cluster::start(2, &[("RESOUND_NODE_TIMEOUT", "30")]);
    let mut clients = [0, 1].map(|node| {
        let mut client = Client::connect(&cluster[node]);
        client.subscribe("lobby");
        client
    });
    let ids = [0, 1].map(|node| cluster[node].ready()["node"].as_str().unwrap().to_owned());
    cluster.set_network(0, Weather::Cut);
    cluster.await_connected(0, false);
    // Its heartbeat, behind its subscription to what is said to it.
    cluster.set_network(0, Weather::UpTo("EVALSHA"));
    let own = format!("reverb:{{node/{}}}", ids[0]);
    let asked = format!("R1 F {}", ids[1]);
    eventually("it receives that it is to resync", || {
        cluster.redis.command(&["PUBLISH", &own, &asked]) == "1"
    });
    assert!(!cluster[0].is_connected(), "its heartbeat is not answered");
    cluster.heal_network(0);
    cluster.await_whole();
    for (n, client) in clients.iter_mut().enumerate() {
        let received = soon(WITHIN, || {
            cluster[1 - n].publish("lobby", "ev", "x");
            std::thread::sleep(Duration::from_millis(50));
            !arrived(client).is_empty()
        });
        assert!(received, "{}", cluster[n].ready());
    }
    for node in cluster.nodes() {
        eventually_is("what is listened to", &json!([true, 1, 1]), || {
            let ready = node.ready();
            json!([ready["ready"], ready["wanted"], ready["listening"]])
        });
    }
}

/// What was sent before it may have been forgotten there, and what is not sent yet is
/// still to come.
#[test]
fn a_node_that_is_asked_to_resync_while_it_does_so_does_it_once_more() {
    let cluster = Cluster::start(2, &[("RESOUND_NODE_TIMEOUT", "30")]);
    let ids = [0, 1].map(|node| cluster[node].ready()["node"].as_str().unwrap().to_owned());
    eventually("all was sent", || {
        cluster[0].log_contains("linked to other nodes")
    });
    // It receives both at once.
    cluster.set_network(0, Weather::Still);
    let mut listener = Bystander::listening(cluster.redis.port);
    let mut asking = Bystander::connect(cluster.redis.port);
    let own = format!("reverb:{{node/{}}}", ids[0]);
    for _ in 0..2 {
        let asked = format!("R1 F {}", ids[1]);
        let received = asking.publish(own.as_bytes(), asked.as_bytes());
        assert_eq!(received, 2, "the node, and who listens to all");
    }
    cluster.heal_network(0);
    let expected = format!("R1 A {}", ids[0]);
    let mut times = 0;
    while times < 2 {
        let (_, message) = listener.next_message();
        times += usize::from(message == expected.as_bytes());
    }
}

/// A server in this process, on a Redis, whose hub's notes can be kept from its link.
fn server_on(redis: &Redis) -> TestServer {
    let settings = redis.settings();
    let settings: Vec<(&str, &str)> = settings.pairs().collect();
    let mut all = vec![("REVERB_SCALING_ENABLED", "true")];
    all.extend(settings);
    TestServer::with(&all)
}

fn connection_ref() -> ConnectionRef {
    ConnectionRef {
        worker: 0,
        key: usize::MAX,
        id: SocketId::from_random(1),
    }
}

/// Does something, and takes away what that queues for the link, before the link does.
/// False if the link was quicker.
fn withhold(server: &TestServer, act: impl FnOnce(&TestServer)) -> bool {
    act(server);
    let queue = server.hub.cluster_queue().unwrap();
    !queue.take_topics(100).is_empty()
}

/// What `/ready` says: its status, whether it is ready, and both numbers.
fn readiness(server: &TestServer) -> (u16, [Value; 3]) {
    let answer = Http::connect(server).request("GET", "/ready", "");
    let body = parsed(&answer);
    let of = |name: &str| body[name].clone();
    (answer.status, ["ready", "wanted", "listening"].map(of))
}

#[test]
fn a_node_that_does_not_listen_to_what_it_has_to_says_so_and_mends_it() {
    let redis = Redis::start();
    let server = server_on(&redis);
    let mut eve = signed_in(&server, &json!({ "id": "eve" }));
    let ready = |count: usize| (200, [json!(true), json!(count), json!(count)]);
    eventually_is("readiness", &ready(1), || readiness(&server));

    // Channels that the link was never sent.
    let mut names = (0..).map(|n| ChannelName::parse(&format!("c{n}"), 100).unwrap());
    let mut lost = Vec::new();
    while lost.len() < 3 {
        let name = names.next().unwrap();
        let subscribe = |server: &TestServer| {
            let joined = server
                .hub
                .subscribe(&server.app, &name, connection_ref(), None);
            lost.push((name.clone(), joined.unwrap()));
        };
        if !withhold(&server, subscribe) {
            let (_, joined) = lost.pop().unwrap();
            server.hub.leave(&joined.channel, connection_ref(), None);
        }
    }
    let bus = |name: &str| format!("reverb:{{my-app-id/c/{name}}}");
    let listens = |name: &str| {
        let count = redis.command(&["PUBSUB", "NUMSUB", &bus(name)]);
        count.ends_with('1')
    };
    let (missing, _) = &lost[0];
    assert!(!listens(missing.as_str()));
    let missing_of = (200, [json!(true), json!(4), json!(1)]);
    eventually_is("what it does not listen to", &missing_of, || {
        readiness(&server)
    });
    eventually_is(
        "readiness while it does not listen",
        &(503, json!(false)),
        || {
            let (status, [is_ready, ..]) = readiness(&server);
            (status, is_ready)
        },
    );
    eventually_is("readiness when it is mended", &ready(4), || {
        readiness(&server)
    });
    assert!(listens(missing.as_str()));

    // And one that it was never sent the end of.
    let kept = lost.iter().any(|(_, joined)| {
        let leave = |server: &TestServer| server.hub.leave(&joined.channel, connection_ref(), None);
        withhold(&server, leave)
    });
    assert!(kept, "the link was quicker three times");
    let is_ready = || readiness(&server).0 == 200;
    eventually("it says that it listens to too much", || !is_ready());
    eventually("it is mended", is_ready);
    let left = lost.iter().filter(|(name, _)| !listens(name.as_str()));
    assert!(left.count() > 0);
    eve.expect_alive();
}
