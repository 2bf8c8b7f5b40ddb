//! Random runs of a cluster, against what one server would have sent.
//!
//! Three nodes and up to eight clients do random things; the model is a list of who
//! is subscribed to what. Whenever all is quiet, every node's answers are those of
//! the model, every client sees who is there, and has received what it had to receive, once.
//!
//! `RESOUND_SEED=7 cargo test --test cluster model` replays a run, and
//! `RESOUND_SEEDS=50 …` runs many (nextest would end it after two minutes).

mod peer;
mod quiet;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use crate::frames::ask_to_join;
use crate::nodes::{Cluster, HASTY};
use crate::people::who;
use crate::proxy::Weather;
use crate::random::Random;
use crate::support::Http;
use crate::wait::eventually;
use peer::{Peer, Subscription};

const NODES: usize = 3;
const MAX_CLIENTS: usize = 8;
const USERS: &[&str] = &["ana", "ben", "eve", "kim"];
const CHANNELS: &[&str] = &["lobby", "private-a", "presence-r", "presence-s"];

/// What goes wrong while the clients go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The network of one node.
    Network(Weather),
    RedisSleeps,
    RedisRestarts,
    RedisForgets,
    NodeDies,
}

const FAULTS: &[Fault] = &[
    Fault::Network(Weather::Cut),
    Fault::Network(Weather::BlackHole),
    Fault::Network(Weather::Deaf),
    Fault::Network(Weather::Still),
    Fault::RedisSleeps,
    Fault::RedisRestarts,
    Fault::RedisForgets,
    Fault::NodeDies,
];

/// An event of this phase.
struct Sent {
    channel: &'static str,
    node: usize,
    /// Who must not get it.
    except: Option<usize>,
    /// Who has to get it, by client and subscription, if that still stands in the end.
    must: BTreeSet<(usize, usize)>,
    /// The same, if the way between the nodes was not spoilt.
    should: BTreeSet<(usize, usize)>,
}

struct World {
    cluster: Cluster,
    random: Random,
    peers: Vec<Peer>,
    /// By serial number, of this phase.
    sent: BTreeMap<usize, Sent>,
    fault: Option<Fault>,
    /// Nodes that cannot receive all that others send in this phase.
    cut_off: BTreeSet<usize>,
    /// Nodes that died in this phase.
    dead: BTreeSet<usize>,
    numbers: usize,
    history: Vec<String>,
    seed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            cluster: Cluster::start(NODES, &[HASTY]),
            random: Random::new(seed),
            peers: Vec::new(),
            sent: BTreeMap::new(),
            fault: None,
            cut_off: BTreeSet::new(),
            dead: BTreeSet::new(),
            numbers: 0,
            history: Vec::new(),
            seed,
        }
    }

    fn number(&mut self) -> usize {
        self.numbers += 1;
        self.numbers
    }

    fn say(&mut self, text: String) {
        self.history.push(text);
    }

    /// One random thing.
    fn step(&mut self) {
        if self.peers.len() < 2 {
            return self.connect();
        }
        match self.random.below(20) {
            0..2 if self.peers.len() < MAX_CLIENTS => self.connect(),
            2 => self.disconnect(),
            3..8 => self.subscribe(),
            8..10 => self.unsubscribe(),
            10..16 => self.publish(),
            16..19 => self.whisper(),
            _ => {
                let at = self.random.below(self.peers.len());
                self.peers[at].look();
            }
        }
    }

    fn connect(&mut self) {
        let (name, node) = (self.number(), self.random.below(NODES));
        self.say(format!("client {name} connects to node {node}"));
        self.peers.push(Peer::new(name, node, &self.cluster));
    }

    fn disconnect(&mut self) {
        let mut peer = self.peers.swap_remove(self.random.below(self.peers.len()));
        self.say(format!("client {} goes", peer.name));
        if self.random.below(2) == 0 {
            let _ = peer.client.socket.close(None);
        }
    }

    fn subscribe(&mut self) {
        let at = self.random.below(self.peers.len());
        let channel = self.random.one_of(CHANNELS);
        let user = channel
            .starts_with("presence-")
            .then(|| self.random.one_of(USERS));
        let number = self.number();
        let waits = self.fault.is_none();
        let peer = &mut self.peers[at];
        if peer.subscriptions.contains_key(channel) {
            return;
        }
        let text = format!("client {} subscribes to {channel}, {user:?}", peer.name);
        self.history.push(text);
        match user {
            Some(user) => ask_to_join(&mut peer.client, channel, &who(user)),
            None => peer.client.ask(channel),
        }
        let subscription = Subscription {
            user,
            number,
            answered: false,
        };
        peer.subscriptions.insert(channel, subscription);
        if waits {
            eventually("a subscription succeeds", || {
                peer.look();
                peer.all_answered()
            });
        }
    }

    fn unsubscribe(&mut self) {
        let at = self.random.below(self.peers.len());
        self.peers[at].look();
        let answered = self.peers[at].answered();
        if answered.is_empty() {
            return;
        }
        let channel = self.random.one_of(&answered);
        let peer = &mut self.peers[at];
        self.history
            .push(format!("client {} leaves {channel}", peer.name));
        peer.client.unsubscribe(channel);
        // What was on its way came before; nothing comes behind.
        peer.look();
        peer.subscriptions.remove(channel);
        peer.here.remove(channel);
    }

    fn publish(&mut self) {
        let (node, channel) = (self.random.below(NODES), self.random.one_of(CHANNELS));
        let except = (self.random.below(4) == 0).then(|| self.random.below(self.peers.len()));
        let except = except.map(|at| (self.peers[at].name, self.peers[at].client.id.clone()));
        let serial = self.send(channel, node, except.as_ref().map(|(name, _)| *name));
        let data = serial.to_string();
        let mut body = json!({ "name": "ev", "channels": [channel], "data": data });
        if let Some((_, id)) = except {
            body["socket_id"] = id.into();
        }
        let answer = Http::connect(&self.cluster[node]).post("events", &body.to_string());
        assert_eq!((answer.status, &*answer.body), (200, "{}"));
    }

    fn whisper(&mut self) {
        let at = self.random.below(self.peers.len());
        let answered = self.peers[at].answered();
        if answered.is_empty() {
            return;
        }
        let channel = self.random.one_of(&answered);
        let (name, node) = (self.peers[at].name, self.peers[at].node);
        let serial = self.send(channel, node, Some(name));
        let text = json!({ "event": "client-w", "channel": channel, "data": serial.to_string() });
        let peer = &mut self.peers[at];
        peer.client.send(&text.to_string());
        // Taken by the server before anything else happens.
        peer.look();
    }

    /// Notes an event that is about to be sent, and who has to get it.
    fn send(&mut self, channel: &'static str, node: usize, except: Option<usize>) -> usize {
        let serial = self.number();
        self.history.push(format!(
            "{serial} goes to {channel} by node {node}, except {except:?}"
        ));
        let (mut must, mut should) = (BTreeSet::new(), BTreeSet::new());
        for peer in &self.peers {
            let Some(subscription) = peer.subscriptions.get(channel) else {
                continue;
            };
            if Some(peer.name) == except || !subscription.answered {
                continue;
            }
            let is_sure = self.fault.is_none() || peer.node == node;
            let who = (peer.name, subscription.number);
            _ = if is_sure { &mut must } else { &mut should }.insert(who);
        }
        let sent = Sent {
            channel,
            node,
            except,
            must,
            should,
        };
        self.sent.insert(serial, sent);
        serial
    }

    fn begin(&mut self, fault: Fault) {
        let node = self.random.below(NODES);
        self.say(format!("-- {fault:?}, node {node} if it is one's"));
        self.fault = Some(fault);
        match fault {
            Fault::Network(weather) => {
                self.cut_off.insert(node);
                self.cluster.set_network(node, weather);
            }
            Fault::RedisSleeps => self.cluster.redis.pause(),
            Fault::RedisRestarts => self.cluster.redis.kill(),
            Fault::RedisForgets => {
                assert_eq!(self.cluster.redis.command(&["FLUSHALL"]), "OK");
            }
            Fault::NodeDies => {
                self.dead.insert(node);
                self.cluster[node].kill();
                self.peers.retain(|peer| peer.node != node);
                // The others go on for a while without it.
                self.cluster.replace(node);
            }
        }
        if matches!(fault, Fault::RedisSleeps | Fault::RedisRestarts) {
            self.cut_off.extend(0..NODES);
        }
    }

    fn heal(&mut self) {
        match self.fault {
            Some(Fault::Network(_)) => {
                (0..NODES).for_each(|node| self.cluster.heal_network(node));
            }
            Some(Fault::RedisSleeps) => self.cluster.redis.resume(),
            Some(Fault::RedisRestarts) => self.cluster.redis.restart(),
            Some(Fault::RedisForgets | Fault::NodeDies) | None => {}
        }
        self.say("-- healed".to_owned());
        self.cluster.await_whole();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.history.len().saturating_sub(80);
            let history = self.history[from..].join("\n");
            eprintln!("{history}\n--- the seed was {}", self.seed);
        }
    }
}

/// The seeds to live, or so many of the first ones.
fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok()?.parse().ok();
    match number("RESOUND_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("RESOUND_SEEDS").unwrap_or(count)).collect(),
    }
}

#[test]
fn without_faults_every_client_is_sent_what_one_server_would_send() {
    for seed in seeds(2) {
        let mut world = World::new(seed);
        for _ in 0..5 {
            (0..60).for_each(|_| world.step());
            world.settle();
        }
    }
}

#[test]
fn after_every_fault_the_cluster_is_what_one_server_would_be() {
    for seed in seeds(2) {
        let mut world = World::new(seed);
        (0..20).for_each(|_| world.step());
        world.settle();
        let mut faults = FAULTS.to_vec();
        world.random.shuffle(&mut faults);
        for fault in faults {
            world.begin(fault);
            (0..10).for_each(|_| world.step());
            // Some last longer than a node may be silent.
            let lasts = world.random.one_of(&[0, 0, 300, 4000]);
            std::thread::sleep(Duration::from_millis(lasts));
            (0..10).for_each(|_| world.step());
            world.heal();
            world.settle();
            (0..10).for_each(|_| world.step());
            world.settle();
        }
    }
}
