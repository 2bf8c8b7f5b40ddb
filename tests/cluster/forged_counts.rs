//! Counts that no node has, which somebody says on the bus: they add up to something
//! that is wrong, but to nothing that is less than what is so, and no node ends.

use serde_json::Value;

use crate::bus::Bystander;
use crate::frames::{arrived, data_of, event};
use crate::nodes::Cluster;
use crate::support::http::{Answer, parsed};
use crate::support::{Client, Http};
use crate::wait::{LONG, soon};

const FORGED: [&str; 2] = ["00000000000000aa", "00000000000000bb"];

/// The biggest number that can be said.
const MAX_COUNT: u64 = u64::MAX;

/// Subscribers and connections of the node: a sum that wraps around is less.
const HERE: usize = 3;

const ALL: &[u8] = b"reverb:{*}";

fn bus(channel: &str) -> String {
    format!("reverb:{{my-app-id/c/{channel}}}")
}

/// Two nodes, and two that there are not.
struct Forger {
    cluster: Cluster,
    bystander: Bystander,
}

impl Forger {
    fn start() -> Self {
        let cluster = Cluster::start(2, &[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
        let mut bystander = Bystander::connect(cluster.redis.port);
        for node in FORGED {
            bystander.publish(ALL, format!("R1 H {node}").as_bytes());
        }
        crate::nodes::await_nodes(&[&cluster[0], &cluster[1]], 4);
        Self { cluster, bystander }
    }

    /// A fact, in Redis and as a change that is published.
    fn enter(&mut self, channel: &str, node: &str, count: u64) {
        let facts = format!("{}:s", bus(channel));
        let redis = &self.cluster.redis;
        redis.command(&["HSETNX", &facts, "e", "forged"]);
        redis.command(&["HSET", &facts, node, "1"]);
        let field = format!("{node}n");
        redis.command(&["HSET", &facts, &field, &count.to_string()]);
        let version = redis.command(&["HINCRBY", &facts, "v", "1"]);
        let change = format!("R1 C {version} {node}\nn{count}");
        self.bystander
            .publish(bus(channel).as_bytes(), change.as_bytes());
    }

    fn subscribe(&self, channel: &str) -> Vec<Client> {
        let connect = |_| {
            let mut client = Client::connect(&self.cluster[0]);
            client.ask(channel);
            let answer = client.next_json();
            assert_eq!(answer["event"], "pusher_internal:subscription_succeeded");
            client
        };
        (0..HERE).map(connect).collect()
    }

    /// The node is there, linked to the other, and takes part in everything.
    fn all_is_well(&mut self, channel: &str, clients: &mut [Client]) {
        self.cluster[1].publish(channel, "ev", "x");
        let expected: Value = serde_json::from_str(&event("ev", "x", channel)).unwrap();
        for client in clients {
            let came = soon(LONG, || arrived(client).contains(&expected));
            assert!(came, "{}", self.cluster[0].ready());
        }
        for node in self.cluster.nodes() {
            assert!(node.is_connected());
            assert!(!node.log_contains("panicked"), "{}", node.log());
            assert_eq!(node.counter("links"), 1);
        }
    }
}

/// The counts that a client was sent.
fn counts(frames: &[Value]) -> Vec<Value> {
    frames
        .iter()
        .filter(|frame| frame["event"] == "pusher_internal:subscription_count")
        .map(|frame| data_of(frame)["subscription_count"].take())
        .collect()
}

/// The counts that a client is sent until there is one that is not too small: one beyond
/// a hundred may be held back for some seconds.
fn counts_until_enough(client: &mut Client) -> Vec<Value> {
    let mut reported = Vec::new();
    let came = soon(LONG, || {
        reported.extend(counts(&arrived(client)));
        reported.last().is_some_and(is_enough)
    });
    assert!(came, "{reported:?}");
    reported
}

fn is_enough(count: &Value) -> bool {
    count.as_u64().is_some_and(|count| count >= HERE as u64)
}

#[test]
fn counts_of_other_nodes_that_cannot_be_added_up_are_reported_as_many() {
    let mut forger = Forger::start();
    let mut clients = forger.subscribe("lobby");
    clients.iter_mut().for_each(|client| _ = arrived(client));
    for node in FORGED {
        forger.enter("lobby", node, MAX_COUNT);
    }
    forger.all_is_well("lobby", &mut clients);
    // Its coming is sent, whatever became of the others.
    let mut late = Client::connect(&forger.cluster[0]);
    late.ask("lobby");
    for client in &mut clients {
        let reported = counts_until_enough(client);
        assert!(reported.iter().all(is_enough), "{reported:?}");
    }
}

/// The first subscriber of a node reads what is there.
#[test]
fn counts_that_are_there_before_and_cannot_be_added_up_are_reported_as_many() {
    let mut forger = Forger::start();
    for node in FORGED {
        forger.enter("lobby", node, MAX_COUNT);
    }
    let mut clients = forger.subscribe("lobby");
    // Those before the last one came were sent while there were fewer.
    let reported = counts_until_enough(&mut clients[HERE - 1]);
    assert!(reported.iter().all(is_enough), "{reported:?}");
    forger.all_is_well("lobby", &mut clients);
}

/// What the node answers to a request, while nodes that there are not answer its
/// question with this.
fn answer_with(forger: &mut Forger, path: &str, query: &[(&str, &str)], rows: &str) -> Answer {
    let mut listener = Bystander::listening(forger.cluster.redis.port);
    let asking = forger.cluster[0].ready()["node"]
        .as_str()
        .unwrap()
        .to_owned();
    let question = format!("R1 Q {asking} ");
    let own = format!("reverb:{{node/{asking}}}");
    let mut http = Http::connect(&forger.cluster[0]);
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| http.get(path, query));
        let id = loop {
            let (_, message) = listener.next_message();
            let text = String::from_utf8(message).unwrap();
            if let Some(rest) = text.strip_prefix(&question) {
                break rest.lines().next().unwrap().to_owned();
            }
        };
        for node in FORGED {
            let text = format!("R1 R {node} {id} 1\n{rows}");
            forger.bystander.publish(own.as_bytes(), text.as_bytes());
        }
        answer.join().unwrap()
    })
}

#[test]
fn connections_of_other_nodes_that_cannot_be_added_up_are_reported_as_many() {
    let mut forger = Forger::start();
    let mut clients = forger.subscribe("lobby");
    let rows = format!(r#"{{"connections":{MAX_COUNT},"channels":[]}}"#);
    let answer = answer_with(&mut forger, "connections", &[], &rows);
    let reported = (answer.status, parsed(&answer)["connections"].take());
    assert!(reported.0 == 200 && is_enough(&reported.1), "{reported:?}");
    forger.all_is_well("lobby", &mut clients);
}

#[test]
fn subscriptions_on_other_nodes_that_cannot_be_added_up_are_reported_as_many() {
    let mut forger = Forger::start();
    let mut clients = forger.subscribe("lobby");
    let row = format!(r#"{{"name":"lobby","subscriptions":{MAX_COUNT},"users":[]}}"#);
    let rows = format!(r#"{{"connections":0,"channels":[{row}]}}"#);
    let info = [("info", "subscription_count")];
    let answer = answer_with(&mut forger, "channels/lobby", &info, &rows);
    let reported = (answer.status, parsed(&answer)["subscription_count"].take());
    assert!(reported.0 == 200 && is_enough(&reported.1), "{reported:?}");
    let answer = answer_with(&mut forger, "channels", &info, &rows);
    let reported = &parsed(&answer)["channels"]["lobby"]["subscription_count"];
    assert!(answer.status == 200 && is_enough(reported), "{answer:?}");
    forger.all_is_well("lobby", &mut clients);
}
