//! Publishes that arrive twice, at different nodes.

use serde_json::json;

use crate::frames::arrived;
use crate::nodes::Cluster;
use crate::support::http::Answer;
use crate::support::{At, Client, Http, body};
use crate::wait::{LONG, soon};

fn post(node: &impl At, key: &str, text: &str) -> Answer {
    Http::connect(node).post_with("events", &header(key), text)
}

fn header(key: &str) -> String {
    format!("Idempotency-Key: {key}\r\n")
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

/// Waits until a client has what was published last; returns how often it got the event.
fn count(client: &mut Client, node: &impl At) -> usize {
    Http::connect(node).publish(&["a"], "last", "null");
    let mut count = 0;
    let is_over = soon(LONG, || {
        let frames = arrived(client);
        count += frames.iter().filter(|frame| frame["event"] == "e").count();
        frames.iter().any(|frame| frame["event"] == "last")
    });
    assert!(is_over, "the last event does not come");
    count
}

#[test]
fn another_node_knows_what_was_published() {
    let cluster = Cluster::start(3, &[]);
    let mut client = Client::connect(&cluster[2]);
    client.subscribe("a");
    let asked = json!({ "name": "e", "channel": "a", "data": "1", "info": "subscription_count" });
    let asked = asked.to_string();
    let first = post(&cluster[0], "k", &asked);
    assert_eq!((first.status, is_replayed(&first)), (200, false));
    for node in [1, 2, 0] {
        let again = post(&cluster[node], "k", &asked);
        assert_eq!((again.status, &again.body), (200, &first.body));
        assert!(is_replayed(&again), "node {node}");
    }
    let other = post(&cluster[1], "k", &body(&["a"], "e", "2"));
    assert_eq!(other.status, 422);
    assert_eq!(count(&mut client, &cluster[0]), 1);
}

#[test]
fn what_one_node_refused_another_one_may_take() {
    let cluster = Cluster::start(2, &[]);
    assert_eq!(post(&cluster[0], "k", "{}").status, 422);
    // The claim is given up behind the answer.
    let good = body(&["a"], "e", "1");
    let taken = soon(LONG, || post(&cluster[1], "k", &good).status == 200);
    assert!(taken);
}

#[test]
fn at_all_nodes_at_once_it_is_published_once() {
    let cluster = Cluster::start(3, &[]);
    let mut client = Client::connect(&cluster[0]);
    client.subscribe("a");
    let text = body(&["a"], "e", "1");
    for round in 0..20 {
        let key = format!("round-{round}");
        let mut all: Vec<Http> = (0..6).map(|it| Http::connect(&cluster[it % 3])).collect();
        for http in &mut all {
            http.begin_post("events", &header(&key), &text);
        }
        let answers: Vec<Answer> = all.iter_mut().map(Http::answer).collect();
        assert!(
            answers.iter().all(|answer| answer.status == 200),
            "{answers:?}"
        );
        let firsts = answers.iter().filter(|answer| !is_replayed(answer));
        assert_eq!(firsts.count(), 1, "{answers:?}");
    }
    assert_eq!(count(&mut client, &cluster[1]), 20);
}

#[test]
fn without_redis_each_node_goes_by_what_it_knows() {
    let mut cluster = Cluster::start(2, &[]);
    let text = body(&["a"], "e", "1");
    post(&cluster[0], "before", &text);
    cluster.redis.kill();
    cluster.await_all_connected(false);
    for (key, is_known) in [("before", true), ("after", false), ("after", true)] {
        let answer = post(&cluster[0], key, &text);
        assert_eq!(
            (answer.status, is_replayed(&answer)),
            (200, is_known),
            "{key}"
        );
    }
    assert!(!is_replayed(&post(&cluster[1], "after", &text)));
}
