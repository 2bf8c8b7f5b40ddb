//! The first that somebody is sent who leaves and comes back in one breath: the list of
//! a presence channel's members, and who of a watchlist is online.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::frames::{arrived, data_of};
use crate::nodes::Cluster;
use crate::people::{Member, listed, signed_in, who};
use crate::proxy::Weather;
use crate::support::{Client, KEY, SECRET, hmac};
use crate::wait::eventually_is;

const TIMES: usize = 20;

const SUCCEEDED: &str = "pusher_internal:subscription_succeeded";

/// Several messages in one write: the server reads them together.
fn send_together(client: &mut Client, messages: Vec<Message>) {
    for message in messages {
        client.socket.write(message).unwrap();
    }
    client.socket.flush().unwrap();
}

fn join_request(client: &Client, channel: &str, user: &str) -> Message {
    let data = who(user);
    let text = format!("{}:{channel}:{data}", client.id);
    let auth = format!("{KEY}:{}", hmac(SECRET, &text));
    let data = json!({ "channel": channel, "auth": auth, "channel_data": data });
    Message::text(json!({ "event": "pusher:subscribe", "data": data }).to_string())
}

fn leave_request(channel: &str) -> Message {
    let data = json!({ "channel": channel });
    Message::text(json!({ "event": "pusher:unsubscribe", "data": data }).to_string())
}

fn sign_in_request(client: &Client, user_data: &Value) -> Message {
    let user_data = user_data.to_string();
    let text = format!("{}::user::{user_data}", client.id);
    let auth = format!("{KEY}:{}", hmac(SECRET, &text));
    let data = json!({ "auth": auth, "user_data": user_data });
    Message::text(json!({ "event": "pusher:signin", "data": data }).to_string())
}

/// What a client is sent in a channel, until it gets an event that is published on
/// another node once it has a first list.
fn received_until_an_event(
    client: &mut Client,
    channel: &str,
    publish: impl FnOnce(),
) -> Vec<Value> {
    let mut received = vec![client.next_json()];
    assert_eq!(received[0]["event"], SUCCEEDED, "{received:?}");
    publish();
    while received.last().unwrap()["event"] != "ev" {
        received.push(client.next_json());
    }
    received.pop();
    assert!(received.iter().all(|frame| frame["channel"] == channel));
    received
}

/// Nothing has to be sent then, and so nothing is answered by Redis that it could wait for.
#[test]
fn who_leaves_a_public_channel_and_comes_back_in_one_breath_is_answered_at_once() {
    let cluster = Cluster::start(1, &[("RESOUND_NODE_TIMEOUT", "60")]);
    let mut client = Client::connect(&cluster[0]);
    client.subscribe("lobby");
    let begin = Instant::now();
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "lobby" } });
    for _ in 0..TIMES {
        let subscribe = Message::text(subscribe.to_string());
        send_together(&mut client, vec![leave_request("lobby"), subscribe]);
        assert_eq!(client.next_json()["event"], SUCCEEDED);
    }
    // A heartbeat every three seconds would carry each of them along.
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

/// As React's strict mode does it: subscribe, unsubscribe, subscribe. The only
/// subscriber of its node does so, so that the node knows of nobody else at first.
#[test]
fn every_list_is_complete_for_who_leaves_and_comes_back_in_one_breath() {
    let cluster = Cluster::start(2, &[]);
    let expected = BTreeSet::from(["u".to_owned(), "v".to_owned()]);
    let mut wrong = Vec::new();
    for n in 0..TIMES {
        let channel = format!("presence-{n}");
        let _v = Member::join(&cluster[1], &channel, "v");
        let mut u = Client::connect(&cluster[0]);
        let requests = vec![
            join_request(&u, &channel, "u"),
            leave_request(&channel),
            join_request(&u, &channel, "u"),
        ];
        send_together(&mut u, requests);
        let publish = || cluster[1].publish(&channel, "ev", "x");
        let received = received_until_an_event(&mut u, &channel, publish);
        let is_complete = |frame: &Value| frame["event"] == SUCCEEDED && listed(frame) == expected;
        if !received.iter().all(is_complete) {
            wrong.push(received);
        }
    }
    let first = wrong.first();
    assert!(wrong.is_empty(), "{} of {TIMES}: {first:#?}", wrong.len());
}

/// The second of its node joins while the first leaves and comes back.
#[test]
fn every_list_is_complete_for_two_of_whom_one_leaves_and_comes_back() {
    let cluster = Cluster::start(2, &[]);
    let mut wrong = Vec::new();
    for n in 0..TIMES {
        let channel = format!("presence-{n}");
        let _v = Member::join(&cluster[1], &channel, "v");
        let mut clients = ["u", "w"].map(|user| (user, Client::connect(&cluster[0])));
        for (user, client) in &mut clients {
            let requests = vec![
                join_request(client, &channel, user),
                leave_request(&channel),
                join_request(client, &channel, user),
            ];
            send_together(client, requests);
        }
        for (user, client) in &mut clients {
            let publish = || cluster[1].publish(&channel, "ev", "x");
            for frame in received_until_an_event(client, &channel, publish) {
                let has_both = |list: BTreeSet<String>| list.contains(*user) && list.contains("v");
                let is_wrong = if frame["event"] == SUCCEEDED {
                    !has_both(listed(&frame))
                } else {
                    // The other may come and go.
                    data_of(&frame)["user_id"] == "v"
                };
                if is_wrong {
                    wrong.push(frame);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} frames: {wrong:#?}", wrong.len());
}

/// The first watchlist events of a connection, after its sign-in was answered.
fn first_watchlist_events(client: &mut Client) -> Value {
    let mut frame = client.next_json();
    while frame["event"] != "pusher_internal:watchlist_events" {
        assert_eq!(frame["event"], "pusher:signin_success", "{frame}");
        frame = client.next_json();
    }
    data_of(&frame)["events"].take()
}

#[test]
fn who_signs_in_again_at_once_is_sent_first_that_the_others_are_online() {
    let cluster = Cluster::start(2, &[]);
    let online = |user: &str| json!([{ "name": "online", "user_ids": [user] }]);
    let mut wrong = Vec::new();
    for n in 0..TIMES {
        let watched = format!("v{n}");
        let _v = signed_in(&cluster[1], &json!({ "id": watched }));
        let data = json!({ "id": format!("u{n}"), "watchlist": [watched] });
        let mut tabs = [0; 2].map(|_| Client::connect(&cluster[0]));
        for (tab, is_last) in tabs.iter_mut().zip([false, true]) {
            let mut requests = vec![sign_in_request(tab, &data)];
            requests.extend((!is_last).then_some(Message::Close(None)));
            send_together(tab, requests);
        }
        let last = &mut tabs[1];
        let events = first_watchlist_events(last);
        if events != online(&watched) {
            wrong.push(events);
        }
        std::thread::sleep(Duration::from_millis(20));
        wrong.extend(arrived(last));
    }
    let first = wrong.first();
    assert!(wrong.is_empty(), "{} of {TIMES}: {first:#?}", wrong.len());
}

/// Slow enough for what happens while an answer of Redis is on its way.
const SLOW: Weather = Weather::Slow(Duration::from_millis(400));

/// Waits until so many nodes listen to a topic, as Redis sees it.
fn await_listeners(cluster: &Cluster, topic: &str, count: usize) {
    let bus = format!("reverb:{{my-app-id/{topic}}}");
    eventually_is(&format!("nodes that listen to {topic}"), &count, || {
        let received = cluster.redis.command(&["PUBSUB", "NUMSUB", &bus]);
        received.lines().last().unwrap().parse().unwrap()
    });
}

/// The answer to what was asked for an earlier connection is not one for this.
#[test]
fn who_signs_in_again_is_sent_first_that_those_are_online_who_came_meanwhile() {
    let cluster = Cluster::start(2, &[]);
    let data = json!({ "id": "u", "watchlist": ["v"] });
    let mut tabs = [0; 2].map(|_| Client::connect(&cluster[0]));
    cluster.set_network(0, SLOW);
    let request = sign_in_request(&tabs[0], &data);
    send_together(&mut tabs[0], vec![request]);
    await_listeners(&cluster, "u/v", 1);
    // Redis has answered that nobody is online.
    let _v = signed_in(&cluster[1], &json!({ "id": "v" }));
    send_together(&mut tabs[0], vec![Message::Close(None)]);
    std::thread::sleep(Duration::from_millis(50));
    let request = sign_in_request(&tabs[1], &data);
    send_together(&mut tabs[1], vec![request]);
    let events = first_watchlist_events(&mut tabs[1]);
    assert_eq!(events, json!([{ "name": "online", "user_ids": ["v"] }]));
}

/// A success says that other nodes can know of the user: it may sign out there then, and
/// is not taken for gone. That of an earlier sign-in says nothing of this one, if the
/// end of the earlier one is still on its way.
#[test]
fn a_user_that_signs_in_again_and_then_out_on_another_node_never_goes() {
    let cluster = Cluster::start(2, &[]);
    let user = json!({ "id": "u" });
    let on_other_node = signed_in(&cluster[1], &user);
    let mut watcher = signed_in(&cluster[1], &json!({ "id": "w", "watchlist": ["u"] }));
    let events = first_watchlist_events(&mut watcher);
    assert_eq!(events, json!([{ "name": "online", "user_ids": ["u"] }]));
    let mut tabs = [0; 2].map(|_| Client::connect(&cluster[0]));
    cluster.set_network(0, SLOW);
    let request = sign_in_request(&tabs[0], &user);
    send_together(&mut tabs[0], vec![request]);
    await_listeners(&cluster, "u/u", 2);
    send_together(&mut tabs[0], vec![Message::Close(None)]);
    std::thread::sleep(Duration::from_millis(50));
    let request = sign_in_request(&tabs[1], &user);
    send_together(&mut tabs[1], vec![request]);
    assert_eq!(tabs[1].next_json()["event"], "pusher:signin_success");
    drop(on_other_node);
    // Long after all that was on its way has arrived.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(arrived(&mut watcher), [Value::Null; 0]);
}

/// The same in a presence channel.
#[test]
fn a_member_that_comes_back_and_then_leaves_another_node_never_goes() {
    let cluster = Cluster::start(2, &[]);
    let mut watcher = Member::join(&cluster[1], "presence-r", "w");
    let on_other_node = Member::join(&cluster[1], "presence-r", "u");
    watcher.sees_changes(&["+u"]);
    let mut client = Client::connect(&cluster[0]);
    cluster.set_network(0, SLOW);
    let request = join_request(&client, "presence-r", "u");
    send_together(&mut client, vec![request]);
    await_listeners(&cluster, "c/presence-r", 2);
    let requests = vec![
        leave_request("presence-r"),
        join_request(&client, "presence-r", "u"),
    ];
    send_together(&mut client, requests);
    let _u = Member::of(client, "presence-r");
    drop(on_other_node);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(watcher.changes(), [""; 0]);
}
