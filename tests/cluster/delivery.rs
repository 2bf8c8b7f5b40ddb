//! Events between nodes.

use std::collections::BTreeSet;

use serde_json::json;

use crate::frames::{event, whisper, whispered};
use crate::nodes::Cluster;
use crate::people::{Member, signed_in};
use crate::support::{Client, Http};
use crate::wait::eventually_is;

/// A subscriber on every node.
fn subscribers(cluster: &Cluster, channel: &str) -> Vec<Client> {
    let connect = |node| {
        let mut client = Client::connect(node);
        client.subscribe(channel);
        client
    };
    cluster.nodes().iter().map(connect).collect()
}

#[test]
fn an_event_reaches_every_subscriber_of_every_node_once() {
    let cluster = Cluster::start(3, &[]);
    for channel in ["lobby", "private-a", "private-encrypted-a"] {
        let mut clients = subscribers(&cluster, channel);
        clients.extend(subscribers(&cluster, channel));
        for (n, node) in cluster.nodes().iter().enumerate() {
            // Quotes, a surrogate pair's character and escapes: the bytes stay what they were.
            let data = format!(r#"{{"n":{n},"text":"é😀\n\u0000 \"quoted\""}}"#);
            node.publish(channel, "ev", &data);
            for client in &mut clients {
                client.expect(&event("ev", &data, channel));
            }
        }
        clients.iter_mut().for_each(Client::expect_silence);
    }
}

#[test]
fn an_event_as_big_as_allowed_crosses_whole() {
    let cluster = Cluster::start(2, &[]);
    let mut clients = subscribers(&cluster, "lobby");
    let data = "x".repeat(102_400);
    cluster[0].publish("lobby", "ev", &data);
    for client in &mut clients {
        client.expect(&event("ev", &data, "lobby"));
    }
}

#[test]
fn an_event_for_a_user_reaches_its_connections_on_every_node_and_nobody_else() {
    let cluster = Cluster::start(3, &[]);
    let channel = "#server-to-user-ana";
    let mut tabs = [0, 1].map(|node| signed_in(&cluster[node], &json!({ "id": "ana" })));
    tabs.iter_mut().for_each(|tab| tab.subscribe(channel));
    let mut ben = signed_in(&cluster[1], &json!({ "id": "ben" }));
    for node in cluster.nodes() {
        node.publish(channel, "ev", "x");
        for tab in &mut tabs {
            tab.expect(&event("ev", "x", channel));
        }
    }
    ben.expect_silence();
}

#[test]
fn members_of_a_presence_channel_get_its_events_on_every_node() {
    let cluster = Cluster::start(2, &[]);
    let mut members = [("ana", 0), ("ben", 1)]
        .map(|(user, node)| Member::join(&cluster[node], "presence-r", user));
    members
        .iter_mut()
        .for_each(|member| member.sees(&["ana", "ben"]));
    for node in cluster.nodes() {
        node.publish("presence-r", "ev", "x");
        for member in &mut members {
            member.client.expect(&event("ev", "x", "presence-r"));
        }
    }
}

#[test]
fn who_publishes_is_left_out_on_whichever_node_it_is() {
    let cluster = Cluster::start(3, &[]);
    let mut clients = subscribers(&cluster, "lobby");
    let out = clients[1].id.clone();
    for (n, node) in cluster.nodes().iter().enumerate() {
        let mut http = Http::connect(node);
        let single =
            json!({ "name": "ev", "channels": ["lobby"], "data": "one", "socket_id": out });
        assert_eq!(http.post("events", &single.to_string()).status, 200);
        let batch = json!({ "batch": [
            { "name": "ev", "channel": "lobby", "data": "two", "socket_id": out },
            { "name": "ev", "channel": "lobby", "data": format!("three {n}") },
        ] });
        assert_eq!(http.post("batch_events", &batch.to_string()).status, 200);
        for (at, client) in clients.iter_mut().enumerate() {
            if at != 1 {
                client.expect(&event("ev", "one", "lobby"));
                client.expect(&event("ev", "two", "lobby"));
            }
            client.expect(&event("ev", &format!("three {n}"), "lobby"));
        }
    }
    clients.iter_mut().for_each(Client::expect_silence);
}

#[test]
fn a_client_event_reaches_the_others_on_every_node_and_not_its_sender() {
    let cluster = Cluster::start(3, &[]);
    for channel in ["private-a", "lobby"] {
        let mut clients = subscribers(&cluster, channel);
        clients.extend(subscribers(&cluster, channel));
        for sender in 0..3 {
            let data = format!(r#"{{"from":{sender},"text":"\u00e9"}}"#);
            whisper(&mut clients[sender], channel, &data);
            for (n, client) in clients.iter_mut().enumerate() {
                if n != sender {
                    client.expect(&whispered(channel, &data));
                }
            }
        }
        clients.iter_mut().for_each(Client::expect_silence);
    }
}

#[test]
fn a_client_event_of_a_member_carries_its_user_id_to_other_nodes() {
    let cluster = Cluster::start(2, &[]);
    let mut ana = Member::join(&cluster[0], "presence-r", "ana");
    let mut ben = Member::join(&cluster[1], "presence-r", "ben");
    ana.sees(&["ana", "ben"]);
    ben.sees(&["ana", "ben"]);
    whisper(&mut ana.client, "presence-r", "{}");
    ben.client
        .expect(r#"{"event":"client-typing","channel":"presence-r","data":{},"user_id":"ana"}"#);
    ana.client.expect_silence();
}

#[test]
fn the_events_of_one_publisher_stay_in_order_on_every_node() {
    let cluster = Cluster::start(2, &[]);
    let mut clients = subscribers(&cluster, "lobby");
    let mut whisperer = Client::connect(&cluster[0]);
    whisperer.subscribe("private-a");
    let mut listener = Client::connect(&cluster[1]);
    listener.subscribe("private-a");
    let mut http = Http::connect(&cluster[0]);
    for n in 0..300 {
        http.publish(&["lobby"], "ev", &n.to_string());
        whisper(&mut whisperer, "private-a", &n.to_string());
    }
    for n in 0..300 {
        for client in &mut clients {
            client.expect(&event("ev", &n.to_string(), "lobby"));
        }
        listener.expect(&whispered("private-a", &n.to_string()));
    }
}

#[test]
fn many_publishers_at_once_lose_and_double_nothing_and_each_keeps_its_order() {
    const EACH: usize = 100;
    let cluster = Cluster::start(3, &[]);
    let mut clients = subscribers(&cluster, "lobby");
    std::thread::scope(|scope| {
        for (n, node) in cluster.nodes().iter().enumerate() {
            scope.spawn(move || {
                let mut http = Http::connect(node);
                for i in 0..EACH {
                    http.publish(&["lobby"], &format!("of-{n}"), &i.to_string());
                }
            });
        }
    });
    for client in &mut clients {
        let mut next = [0; 3];
        for _ in 0..3 * EACH {
            let frame = client.next_json();
            let publisher: usize = frame["event"].as_str().unwrap()[3..].parse().unwrap();
            assert_eq!(frame["data"], next[publisher].to_string(), "{frame}");
            next[publisher] += 1;
        }
        client.expect_silence();
    }
}

#[test]
fn a_batch_reaches_the_channels_of_every_node_in_its_order() {
    let cluster = Cluster::start(2, &[]);
    let mut both = Client::connect(&cluster[1]);
    both.subscribe("a");
    both.subscribe("b");
    let mut one = Client::connect(&cluster[1]);
    one.subscribe("b");
    let item =
        |channel: &str, data: &str| json!({ "name": "ev", "channel": channel, "data": data });
    let items = [
        ("a", "1"),
        ("b", "2"),
        ("nobody", "3"),
        ("a", "4"),
        ("b", "5"),
    ];
    let batch = json!({ "batch": items.map(|(channel, data)| item(channel, data)) });
    let answer = Http::connect(&cluster[0]).post("batch_events", &batch.to_string());
    assert_eq!((answer.status, &*answer.body), (200, "{}"));
    for (channel, data) in items.iter().filter(|(channel, _)| *channel != "nobody") {
        let text = event("ev", data, channel);
        // Order holds within a channel; between channels only on the publisher's node.
        let frame = both.next_json();
        assert!(frame["event"] == "ev", "{frame} instead of {text}");
        if *channel == "b" {
            one.expect(&text);
        }
    }
    both.expect_silence();
    one.expect_silence();
}

#[test]
fn nothing_that_is_published_after_a_subscription_succeeded_on_another_node_is_missed() {
    let cluster = Cluster::start(2, &[]);
    let mut client = Client::connect(&cluster[1]);
    let mut http = Http::connect(&cluster[0]);
    for n in 0..100 {
        let channel = format!("c{n}");
        client.subscribe(&channel);
        http.publish(&[&channel], "ev", "first");
        client.expect(&event("ev", "first", &channel));
    }
}

/// The last subscriber's leaving and the first one's coming cross each other on the
/// way to Redis.
#[test]
fn nothing_is_missed_by_who_comes_back_to_a_channel_that_was_just_left() {
    let cluster = Cluster::start(2, &[]);
    let mut clients = [Client::connect(&cluster[1]), Client::connect(&cluster[1])];
    let mut http = Http::connect(&cluster[0]);
    for n in 0..100 {
        let data = n.to_string();
        let client = &mut clients[n % 2];
        client.subscribe("lobby");
        http.publish(&["lobby"], "ev", &data);
        client.expect(&event("ev", &data, "lobby"));
        client.unsubscribe("lobby");
        if n % 3 == 0 {
            client.expect_alive();
        }
    }
}

#[test]
fn nothing_arrives_after_the_subscription_was_ended() {
    let cluster = Cluster::start(2, &[]);
    let mut client = Client::connect(&cluster[1]);
    client.subscribe("fence");
    let mut http = Http::connect(&cluster[0]);
    for n in 0..20 {
        client.subscribe("lobby");
        client.unsubscribe("lobby");
        client.expect_alive();
        http.publish(&["lobby"], "ev", "late");
        http.publish(&["fence"], "ev", &n.to_string());
        client.expect(&event("ev", &n.to_string(), "fence"));
    }
}

#[test]
fn subscriptions_that_are_asked_for_all_at_once_miss_nothing_after_their_answers() {
    const CHANNELS: usize = 60;
    let cluster = Cluster::start(2, &[]);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&cluster[1])).collect();
    let mut http = Http::connect(&cluster[0]);
    for client in &mut clients {
        (0..CHANNELS).for_each(|n| client.ask(&format!("c{n}")));
    }
    for client in &mut clients {
        let mut answers = 0;
        while answers < CHANNELS {
            let frame = client.next_json();
            assert_eq!(frame["event"], "pusher_internal:subscription_succeeded");
            answers += 1;
        }
    }
    let names: Vec<String> = (0..CHANNELS).map(|n| format!("c{n}")).collect();
    let channels: Vec<&str> = names.iter().map(String::as_str).collect();
    http.publish(&channels, "ev", "x");
    for client in &mut clients {
        let received: BTreeSet<String> = (0..CHANNELS).map(|_| client.next_text()).collect();
        let expected = names.iter().map(|channel| event("ev", "x", channel));
        assert_eq!(received, expected.collect());
        client.expect_silence();
    }
}

#[test]
fn counters_count_what_went_out_and_what_came_in() {
    let cluster = Cluster::start(2, &[]);
    let mut client = Client::connect(&cluster[1]);
    client.subscribe("lobby");
    let [before, there] = [0, 1].map(|node| cluster[node].ready());
    for n in 0..10 {
        cluster[0].publish("lobby", "ev", &n.to_string());
        client.expect(&event("ev", &n.to_string(), "lobby"));
    }
    let grown = |node: usize, before: &serde_json::Value, name: &str| {
        cluster[node].counter(name) - before[name].as_u64().unwrap()
    };
    // They are counted once Redis has confirmed them, which may be after their arrival.
    eventually_is("events sent", &10, || grown(0, &before, "published"));
    eventually_is("events delivered", &10, || grown(1, &there, "delivered"));
    assert!(grown(1, &there, "received") >= 10);
    for name in ["ignored", "missed", "dropped"] {
        assert_eq!(
            cluster[0].counter(name) + cluster[1].counter(name),
            0,
            "{name}"
        );
    }
    assert!(cluster[1].counter("listening") > 0);
    assert_ne!(before["node"], there["node"]);
    for ready in [&before, &there] {
        let id = ready["node"].as_str().unwrap();
        assert!(
            id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(
            (&ready["ready"], &ready["redis"], &ready["nodes"]),
            (&json!(true), &json!("connected"), &json!(2))
        );
    }
}
