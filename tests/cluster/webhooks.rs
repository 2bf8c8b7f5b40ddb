//! What applications are told of, by several nodes together.

#[path = "../it/webhooks/receiver.rs"]
#[allow(dead_code, reason = "it also serves tests of one server")]
mod receiver;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::node::Node;
use crate::nodes::{Cluster, HASTY};
use crate::people::Member;
use crate::redis::{Options, Redis};
use crate::support::{At, Client};
use crate::wait::{LONG, soon};
use receiver::{Answer, Receiver};

fn cluster(nodes: usize, receiver: &Receiver, more: &[(&str, &str)]) -> Cluster {
    let url = receiver.url();
    let settings = [
        HASTY,
        ("RESOUND_WEBHOOK_URL", &*url),
        ("RESOUND_WEBHOOK_ALLOW_LOCAL", "true"),
        ("RESOUND_WEBHOOK_BATCH_MS", "10"),
        ("RESOUND_WEBHOOK_SMOOTHING_MS", "500"),
    ];
    Cluster::start(nodes, &[&settings, more].concat())
}

/// The events, each as one text.
fn texts(events: &[Value]) -> Vec<String> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let texts = events.iter().map(|event| {
        let [name, channel, user] = ["name", "channel", "user_id"].map(|it| text(event, it));
        format!("{name} {channel} {user}").trim_end().to_owned()
    });
    texts.collect()
}

fn joined(node: &impl At, user: &str) -> Member {
    Member::join(node, "presence-a", user)
}

/// Waits until the receiver has taken these, each once by its id, and nothing else.
fn expect_told(receiver: &Receiver, expected: &[&str]) {
    let told = || {
        let (mut ids, mut events) = (BTreeSet::new(), Vec::new());
        for event in receiver.taken() {
            if ids.insert(event["id"].to_string()) {
                events.push(event);
            }
        }
        let mut texts = texts(&events);
        texts.sort();
        texts
    };
    let mut expected: Vec<String> = expected.iter().map(|it| (*it).to_owned()).collect();
    expected.sort();
    soon(LONG, || told() == expected);
    assert_eq!(told(), expected);
}

#[test]
fn what_is_so_on_several_nodes_is_told_once() {
    let receiver = Receiver::start();
    let events = [
        (
            "RESOUND_WEBHOOK_EVENTS",
            "channel_occupied,channel_vacated,member_added,member_removed,client_event,subscription_count",
        ),
        ("RESOUND_SUBSCRIPTION_COUNT", "true"),
    ];
    let cluster = cluster(3, &receiver, &events);
    let here = [0, 1, 2].map(|node| joined(&cluster[node], "ana"));
    let mut ben = joined(&cluster[1], "ben");
    ben.client
        .send(r#"{"event":"client-a","channel":"presence-a","data":"1"}"#);
    let mut told = vec![
        "channel_occupied presence-a",
        "member_added presence-a ana",
        "member_added presence-a ben",
        "client_event presence-a ben",
    ];
    expect_told(&receiver, &told);
    let [first, second, third] = here;
    drop((first, second));
    // As it is on one node, it is on all.
    let mut news = Client::connect(&cluster[0]);
    news.subscribe("news");
    told.extend(["channel_occupied news", "subscription_count news"]);
    expect_told(&receiver, &told);
    std::thread::sleep(Duration::from_secs(1));
    expect_told(&receiver, &told);
    drop((third, ben));
    told.extend([
        "member_removed presence-a ana",
        "member_removed presence-a ben",
        "channel_vacated presence-a",
    ]);
    expect_told(&receiver, &told);
}

#[test]
fn what_a_killed_node_had_others_tell() {
    let receiver = Receiver::start();
    let mut cluster = cluster(3, &receiver, &[]);
    let members: Vec<Member> = (0..6)
        .map(|number| joined(&cluster[number % 3], &format!("u{number}")))
        .collect();
    // One that is on two of them stays.
    let _both = [joined(&cluster[0], "both"), joined(&cluster[1], "both")];
    let mut told = vec![
        "channel_occupied presence-a".to_owned(),
        "member_added presence-a both".to_owned(),
    ];
    told.extend((0..6).map(|number| format!("member_added presence-a u{number}")));
    let expect = |told: &[String]| {
        expect_told(
            &receiver,
            &told.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    };
    expect(&told);
    // Whichever it is that tells for all.
    for node in [0, 1] {
        cluster[node].kill();
        for number in [node, node + 3] {
            told.push(format!("member_removed presence-a u{number}"));
        }
        if node == 1 {
            told.push("member_removed presence-a both".to_owned());
        }
        expect(&told);
    }
    drop(members);
    told.extend([2, 5].map(|number| format!("member_removed presence-a u{number}")));
    told.push("channel_vacated presence-a".to_owned());
    expect(&told);
}

#[test]
fn what_waits_for_a_receiver_outlives_the_node_that_tells() {
    let receiver = Receiver::start();
    receiver.answer(Answer::Status(503));
    let mut cluster = cluster(2, &receiver, &[]);
    let _here = [0, 1].map(|node| joined(&cluster[node], &format!("u{node}")));
    receiver.requests(1);
    // It has all that is to be told now, and dies with it.
    let sender = cluster.redis.command(&["get", &key(&cluster, "sender")]);
    let first = (0..2).find(|node| cluster[*node].ready()["node"] == sender.trim());
    cluster[first.unwrap()].kill();
    receiver.answer(Answer::Status(200));
    let gone = format!("member_removed presence-a u{}", first.unwrap());
    expect_told(
        &receiver,
        &[
            "channel_occupied presence-a",
            "member_added presence-a u0",
            "member_added presence-a u1",
            &gone,
        ],
    );
    let queue = key(&cluster, "queue");
    assert!(soon(LONG, || cluster
        .redis
        .command(&["xlen", &queue])
        .trim()
        == "0"));
}

fn key(cluster: &Cluster, rest: &str) -> String {
    let keys = cluster.redis.command(&["keys", &format!("*/w}}:{rest}")]);
    keys.trim().to_owned()
}

#[test]
fn who_goes_to_another_node_when_one_stops_was_never_away() {
    let receiver = Receiver::start();
    let more = [
        ("RESOUND_WEBHOOK_SMOOTHING_MS", "3000"),
        ("RESOUND_DRAIN_SECONDS", "0"),
    ];
    let mut cluster = cluster(2, &receiver, &more);
    let (stays, goes) = (joined(&cluster[0], "stays"), joined(&cluster[0], "goes"));
    let mut told = vec![
        "channel_occupied presence-a",
        "member_added presence-a stays",
        "member_added presence-a goes",
    ];
    expect_told(&receiver, &told);
    cluster[0].terminate();
    drop((stays, goes));
    let _stays = joined(&cluster[1], "stays");
    told.push("member_removed presence-a goes");
    expect_told(&receiver, &told);
}

#[test]
fn without_redis_nothing_is_told_and_then_what_is_so() {
    let receiver = Receiver::start();
    let mut cluster = cluster(2, &receiver, &[("RESOUND_NODE_TIMEOUT", "15")]);
    let ana = joined(&cluster[0], "ana");
    let _ben = joined(&cluster[1], "ben");
    let mut told = vec![
        "channel_occupied presence-a",
        "member_added presence-a ana",
        "member_added presence-a ben",
    ];
    expect_told(&receiver, &told);
    cluster.redis.pause();
    cluster.await_all_connected(false);
    drop(ana);
    let mut news = Client::connect(&cluster[1]);
    news.subscribe("news");
    std::thread::sleep(Duration::from_secs(2));
    expect_told(&receiver, &told);
    cluster.redis.resume();
    told.extend(["member_removed presence-a ana", "channel_occupied news"]);
    expect_told(&receiver, &told);
}

#[test]
fn what_is_written_with_escapes_is_told_through_redis_too() {
    let receiver = Receiver::start();
    let events = [("RESOUND_WEBHOOK_EVENTS", "subscription_refused")];
    let cluster = cluster(1, &receiver, &events);
    let mut client = Client::connect(&cluster[0]);
    client.send(r#"{"event":"pusher:subscribe","data":{"channel":"a\"b\n"}}"#);
    let told = receiver.events(1);
    assert_eq!(told[0]["channel"], "a\"b\n");
    assert_eq!(told[0]["socket_id"], *client.id);
}

#[test]
fn if_redis_loses_its_data_who_goes_later_is_told_all_the_same() {
    let receiver = Receiver::start();
    let cluster = cluster(2, &receiver, &[]);
    let ana = joined(&cluster[0], "ana");
    expect_told(
        &receiver,
        &["channel_occupied presence-a", "member_added presence-a ana"],
    );
    cluster.redis.command(&["flushall"]);
    // Others come before anybody has looked.
    let ben = joined(&cluster[0], "ben");
    let count = |text: &str| {
        texts(&receiver.taken())
            .iter()
            .filter(|it| *it == text)
            .count()
    };
    assert!(soon(LONG, || count("member_added presence-a ana") == 2));
    drop((ana, ben));
    assert!(soon(LONG, || count("member_removed presence-a ana") == 1
        && count("member_removed presence-a ben") == 1));
}

#[test]
fn a_node_that_stops_leaves_what_it_has_not_told_of_any_application() {
    let [first, second] = [Receiver::start(), Receiver::start()];
    let redis = Redis::single(Options::default());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resound.toml");
    let app = |id: &str, receiver: &Receiver| {
        receiver.answer(Answer::Status(503));
        let url = receiver.url();
        format!(
            "[[apps]]\nid = \"{id}\"\nkey = \"{id}\"\nsecret = \"my-app-secret\"\n[[apps.webhooks]]\nurl = \"{url}\"\n"
        )
    };
    let text = "[webhooks]\nallow_local = true\nbatch_ms = 0\nsmoothing_ms = 500\n".to_owned()
        + &app("my-app-id", &first)
        + &app("other", &second);
    std::fs::write(
        &file,
        text.replace("key = \"my-app-id\"", "key = \"my-app-key\""),
    )
    .unwrap();
    let flags = ["--config", file.to_str().unwrap()];
    let start = || Node::with_flags(&redis.settings_by(redis.port), &flags);
    let mut node = start();
    let mut client = Client::connect(&node);
    client.subscribe("a");
    let mut other = Client::open(&node, "/app/other?protocol=7", &[]);
    other.established();
    other.subscribe("b");
    first.requests(1);
    second.requests(1);
    node.stop();
    let _successor = start();
    for (receiver, channel) in [(&first, "a"), (&second, "b")] {
        receiver.answer(Answer::Status(200));
        let [occupied, vacated] =
            ["occupied", "vacated"].map(|it| format!("channel_{it} {channel}"));
        expect_told(receiver, &[&occupied, &vacated]);
    }
}
