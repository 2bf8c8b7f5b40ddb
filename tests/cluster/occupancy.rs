//! Whether a channel is occupied on any node is decided once, by Redis.

use std::sync::{Arc, Mutex};

use resound::hub::{HubEvent, HubEventKind, Sink, Sinks};

use crate::node::Node;
use crate::people::Member;
use crate::redis::Redis;
use crate::support::{Client, TestServer};
use crate::wait::{eventually, eventually_is};

/// Keeps what the cluster decides.
#[derive(Default)]
struct Decisions(Mutex<Vec<String>>);

impl Sink for Decisions {
    fn accept(&self, event: &HubEvent<'_>) {
        let text = match event.kind {
            HubEventKind::ClusterChannelOccupied { channel } => format!("+{channel}"),
            HubEventKind::ClusterChannelVacated { channel } => format!("-{channel}"),
            HubEventKind::MemberAdded {
                channel, member, ..
            } => format!("+{channel}/{}", member.id),
            HubEventKind::MemberRemoved {
                channel, id_json, ..
            } => format!("-{channel}/{}", id_json.trim_matches('"')),
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }
}

impl Decisions {
    fn count(&self, text: &str) -> usize {
        let decisions = self.0.lock().unwrap();
        decisions.iter().filter(|it| *it == text).count()
    }
}

/// Two servers of this process that tell what is decided, on one Redis.
struct Pair {
    redis: Redis,
    decisions: Arc<Decisions>,
    servers: [TestServer; 2],
}

const TRACKED: (&str, &str) = ("RESOUND_TRACK_OCCUPANCY", "true");

impl Pair {
    fn start() -> Self {
        let redis = Redis::start();
        let decisions = Arc::new(Decisions::default());
        let settings = redis.settings();
        let mut all: Vec<(&str, &str)> = settings.pairs().collect();
        all.extend([
            ("REVERB_SCALING_ENABLED", "true"),
            ("RESOUND_NODE_TIMEOUT", "3"),
            TRACKED,
        ]);
        let servers = [(); 2].map(|()| {
            let sink: Arc<dyn Sink> = Arc::clone(&decisions) as _;
            TestServer::with_sinks(&all, Sinks::new(vec![sink]))
        });
        Self {
            redis,
            decisions,
            servers,
        }
    }

    /// How often it was decided that a channel is occupied, and that it is not.
    fn count(&self, channel: &str) -> (usize, usize) {
        let count = |sign: char| self.decisions.count(&format!("{sign}{channel}"));
        (count('+'), count('-'))
    }

    fn expect(&self, channel: &str, counts: (usize, usize)) {
        eventually_is("what was decided", &counts, || self.count(channel));
    }
}

/// A cache channel is answered twice.
fn subscribe(client: &mut Client, channel: &str) {
    client.ask(channel);
    let succeeded = client.next_json();
    assert_eq!(succeeded["event"], "pusher_internal:subscription_succeeded");
    if channel.starts_with("cache-") {
        assert_eq!(client.next_json()["event"], "pusher:cache_miss");
    }
}

#[test]
fn the_first_on_any_node_occupies_a_channel_and_the_last_vacates_it() {
    let pair = Pair::start();
    for channel in ["lobby", "cache-lobby"] {
        let mut clients = [0, 1].map(|n| Client::connect(&pair.servers[n]));
        subscribe(&mut clients[0], channel);
        pair.expect(channel, (1, 0));
        subscribe(&mut clients[1], channel);
        clients[0].unsubscribe(channel);
        let mut again = Client::connect(&pair.servers[0]);
        subscribe(&mut again, channel);
        drop(again);
        eventually("only the other node has it", || {
            pair.servers[0]
                .hub
                .find(&pair.servers[0].app, channel)
                .is_none()
        });
        assert_eq!(pair.count(channel), (1, 0), "it was occupied all the time");
        drop(clients);
        pair.expect(channel, (1, 1));
    }
}

#[test]
fn what_was_occupied_on_a_node_that_dies_is_vacated_once() {
    let pair = Pair::start();
    let settings = pair
        .redis
        .settings()
        .with(&[("RESOUND_NODE_TIMEOUT", "3"), TRACKED]);
    let mut node = Node::start(&settings);
    let mut client = Client::connect(&node);
    let mut survivor = Client::connect(&pair.servers[0]);
    client.subscribe("alone");
    client.subscribe("shared");
    survivor.subscribe("shared");
    assert_eq!(
        pair.count("alone"),
        (0, 0),
        "the other process was notified"
    );
    node.kill();
    pair.expect("alone", (0, 1));
    assert_eq!(pair.count("shared"), (0, 0));
    drop(survivor);
    pair.expect("shared", (0, 1));
    // Both have seen it die by now.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(
        (pair.count("alone"), pair.count("shared")),
        ((0, 1), (0, 1))
    );
    eventually("nothing is left of it", || {
        pair.redis.command(&["KEYS", "*:occupied"]).is_empty()
    });
}

#[test]
fn nodes_of_which_not_all_track_say_so() {
    let redis = Redis::start();
    let tracks = Node::start(&redis.settings().with(&[TRACKED]));
    let does_not = Node::start(&redis.settings());
    for (node, text) in [
        (&tracks, "has track_occupancy off, this one on"),
        (&does_not, "has track_occupancy on, this one off"),
    ] {
        eventually("the difference is reported", || {
            let ready = node.ready();
            let differences = ready["differences"].to_string();
            differences.contains(text) && node.log_contains(text)
        });
        assert!(node.is_connected(), "it serves all the same");
    }
}

/// Also the last one on its node, whose channel is forgotten before Redis has answered.
#[test]
fn sinks_are_told_of_members_that_come_and_go() {
    let pair = Pair::start();
    let alone = Member::join(&pair.servers[0], "presence-a", "u");
    pair.expect("presence-a/u", (1, 0));
    drop(alone);
    pair.expect("presence-a/u", (1, 1));
    let both = [0, 1].map(|n| Member::join(&pair.servers[n], "presence-b", &format!("u{n}")));
    // Each node sees both.
    pair.expect("presence-b/u0", (2, 0));
    pair.expect("presence-b/u1", (2, 0));
    let [first, second] = both;
    drop(first);
    pair.expect("presence-b/u0", (2, 2));
    drop(second);
    pair.expect("presence-b/u1", (2, 1));
}
