//! Presence channels.

use crate::support::{Client, Http, KEY, SECRET, TestServer, hmac};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// Subscribes as a member and returns the answer.
pub(crate) fn join(client: &mut Client, channel: &str, data: &str) -> Value {
    ask(client, channel, data);
    client.next_json()
}

fn ask(client: &mut Client, channel: &str, data: &str) {
    let request = request(client, channel, data);
    client.send(&request);
}

fn request(client: &Client, channel: &str, data: &str) -> String {
    let auth = format!(
        "{KEY}:{}",
        hmac(SECRET, &format!("{}:{channel}:{data}", client.id))
    );
    let data = json!({ "channel": channel, "auth": auth, "channel_data": data });
    json!({ "event": "pusher:subscribe", "data": data }).to_string()
}

pub(crate) fn joined(server: &TestServer, channel: &str, data: &str) -> Client {
    let mut client = Client::connect(server);
    let answer = join(&mut client, channel, data);
    assert_eq!(
        answer["event"], "pusher_internal:subscription_succeeded",
        "{answer}"
    );
    client
}

/// The `presence` block of an answer.
fn block(answer: &Value) -> Value {
    let data: Value = serde_json::from_str(answer["data"].as_str().unwrap()).unwrap();
    data["presence"].clone()
}

fn added(channel: &str, data: &str) -> String {
    format!(
        r#"{{"event":"pusher_internal:member_added","data":{},"channel":"{channel}"}}"#,
        json!(data)
    )
}

fn removed(channel: &str, id: &str) -> String {
    let data = format!(r#"{{"user_id":{id}}}"#);
    format!(
        r#"{{"event":"pusher_internal:member_removed","data":{},"channel":"{channel}"}}"#,
        json!(data)
    )
}

const ANA: &str = r#"{"user_id":"1","user_info":{"name":"Ana"}}"#;
const BEN: &str = r#"{"user_id":2,"user_info":{"name":"Ben"}}"#;

#[test]
fn who_joins_sees_who_is_there_and_the_others_see_who_joins_and_leaves() {
    let server = TestServer::start();
    let mut ana = Client::connect(&server);
    let answer = join(&mut ana, "presence-r", ANA);
    assert_eq!(
        block(&answer),
        json!({ "count": 1, "ids": ["1"], "hash": { "1": { "name": "Ana" } } })
    );
    let mut ben = Client::connect(&server);
    let answer = join(&mut ben, "presence-r", BEN);
    let hash = json!({ "1": { "name": "Ana" }, "2": { "name": "Ben" } });
    assert_eq!(
        block(&answer),
        json!({ "count": 2, "ids": ["1", 2], "hash": hash })
    );
    ana.expect(&added("presence-r", BEN));
    ben.unsubscribe("presence-r");
    ana.expect(&removed("presence-r", "2"));
    ben.expect_alive();
    join(&mut ben, "presence-r", BEN);
    ana.expect(&added("presence-r", BEN));
    drop(ben);
    ana.expect(&removed("presence-r", "2"));
    ana.expect_silence();
    drop(ana);
    server.expect_empty();
}

#[test]
fn a_user_with_several_tabs_is_one_member() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-r", BEN);
    let mut tabs: Vec<Client> = (0..3).map(|_| joined(&server, "presence-r", ANA)).collect();
    watcher.expect(&added("presence-r", ANA));
    let late = join(&mut Client::connect(&server), "presence-r", ANA);
    assert_eq!(block(&late)["count"], 2);
    tabs.truncate(1);
    watcher.expect_silence();
    tabs.clear();
    watcher.expect(&removed("presence-r", "\"1\""));
}

/// Reverb answers 4200 to it and to everybody who joins later.
#[test]
fn user_info_may_have_any_shape_or_be_missing() {
    let server = TestServer::start();
    for (data, info) in [
        (r#"{"user_id":"9"}"#, json!({})),
        (r#"{"user_id":"9","user_info":true}"#, json!(true)),
        (r#"{"user_id":"9","user_info":null}"#, json!(null)),
        (r#"{"user_id":"9","user_info":[]}"#, json!([])),
        (r#"{"user_id":"9","user_info":{}}"#, json!({})),
        (
            r#"{"user_id":"9","user_info":"\u00e9\"\\"}"#,
            json!("é\"\\"),
        ),
    ] {
        let mut client = Client::connect(&server);
        assert_eq!(
            block(&join(&mut client, "presence-s", data))["hash"],
            json!({ "9": info }),
            "{data}"
        );
        drop(client);
        server.expect_empty();
    }
}

#[test]
fn bad_member_data_is_refused_and_leaves_nothing_behind() {
    let server = TestServer::with(&[
        ("RESOUND_PRESENCE_MAX_MEMBER_SIZE", "100"),
        ("RESOUND_PRESENCE_MAX_MEMBERS", "1"),
    ]);
    let mut client = Client::connect(&server);
    for data in [
        "[]",
        "3",
        "no json",
        r#"{"user_info":{}}"#,
        r#"{"user_id":""}"#,
        r#"{"user_id":true}"#,
        &"x".repeat(101),
    ] {
        ask(&mut client, "presence-r", data);
        assert_eq!(
            client.next_json()["event"],
            "pusher:subscription_error",
            "{data}"
        );
        assert_eq!(client.next_json()["event"], "pusher:error", "{data}");
    }
    client.ask("presence-r");
    assert_eq!(client.next_json()["event"], "pusher:subscription_error");
    client.expect_error(4009, "Connection is unauthorized");
    assert_eq!((server.occupied(), server.hub.users(&server.app)), (0, 0));
    join(&mut client, "presence-r", ANA);
    let mut second = Client::connect(&server);
    ask(&mut second, "presence-r", BEN);
    assert_eq!(second.next_json()["event"], "pusher:subscription_error");
    second.expect_error(
        4100,
        "The presence channel has all the 1 members it may have (presence.max_members, RESOUND_PRESENCE_MAX_MEMBERS)",
    );
    client.expect_silence();
}

#[test]
fn a_second_subscription_changes_nothing_even_as_somebody_else() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-r", r#"{"user_id":"3"}"#);
    let mut ana = joined(&server, "presence-r", ANA);
    watcher.expect(&added("presence-r", ANA));
    assert_eq!(
        block(&join(&mut ana, "presence-r", BEN))["ids"],
        json!(["3", "1"])
    );
    watcher.expect_silence();
    drop(ana);
    watcher.expect(&removed("presence-r", "\"1\""));
    drop(watcher);
    server.expect_empty();
}

#[test]
fn whispers_carry_the_real_user_id_in_every_mode() {
    for mode in ["private", "members", "all"] {
        let server = TestServer::with(&[("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", mode)]);
        let mut ana = joined(&server, "presence-r", ANA);
        let mut ben = joined(&server, "presence-r", BEN);
        ana.expect(&added("presence-r", BEN));
        ben.send(r#"{"event":"client-typing","channel":"presence-r","data":{},"user_id":"1"}"#);
        ana.expect(r#"{"event":"client-typing","channel":"presence-r","data":{},"user_id":2}"#);
        ben.expect_silence();
    }
}

#[test]
fn events_reach_members_as_on_any_channel() {
    let server = TestServer::start();
    let mut ana = joined(&server, "presence-r", ANA);
    Http::connect(&server).publish(&["presence-r"], "ev", "x");
    ana.expect(r#"{"event":"ev","data":"x","channel":"presence-r"}"#);
}

/// The answer to a second subscription has its place in the channel's order: who is
/// in its list is not announced after it.
#[test]
fn a_list_that_is_asked_for_again_is_in_order_with_the_joins() {
    let server = TestServer::start();
    let mut watcher = joined(&server, "presence-r", ANA);
    std::thread::scope(|scope| {
        let server = &server;
        scope.spawn(move || {
            let mut members: Vec<Client> = Vec::new();
            for n in 0..150 {
                members.push(joined(
                    server,
                    "presence-r",
                    &format!(r#"{{"user_id":"u{n}"}}"#),
                ));
            }
        });
        let mut known = std::collections::BTreeSet::from(["1".to_owned()]);
        for _ in 0..150 {
            ask(&mut watcher, "presence-r", ANA);
            loop {
                let frame = watcher.next_json();
                let data: Value = serde_json::from_str(frame["data"].as_str().unwrap()).unwrap();
                match frame["event"].as_str().unwrap() {
                    "pusher_internal:member_added" => {
                        assert!(
                            known.insert(data["user_id"].as_str().unwrap().to_owned()),
                            "sent twice: {data}"
                        );
                    }
                    "pusher_internal:member_removed" => {
                        assert!(
                            known.remove(data["user_id"].as_str().unwrap()),
                            "never came: {data}"
                        );
                    }
                    _ => {
                        let ids = data["presence"]["ids"].as_array().unwrap().iter();
                        let listed: std::collections::BTreeSet<String> =
                            ids.map(|id| id.as_str().unwrap().to_owned()).collect();
                        assert_eq!(listed, known);
                        break;
                    }
                }
            }
        }
    });
}

/// Everybody sees joins and leaves in one order, and each view is what the events say.
#[test]
fn every_members_view_is_the_same_under_churn() {
    let server = TestServer::start();
    let mut watchers: Vec<Client> = (0..4)
        .map(|n| joined(&server, "presence-r", &format!(r#"{{"user_id":"w{n}"}}"#)))
        .collect();
    for (n, client) in watchers.iter_mut().enumerate() {
        (n + 1..4).for_each(|_| _ = client.next());
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..24 {
                    let user = (thread + round) % 5;
                    let data = format!(r#"{{"user_id":"{user}"}}"#);
                    let mut client = joined(server, "presence-r", &data);
                    match round % 4 {
                        // The end of the connection without a close frame. (Another thread
                        // may have terminated this user, so sending may fail.)
                        0 => _ = client.socket.send("{}".into()),
                        // A proper close.
                        1 => {
                            _ = client.socket.close(None);
                            while client.socket.read().is_ok() {}
                        }
                        // The application has the user's connections closed.
                        2 => {
                            let path = format!("users/{user}/terminate_connections");
                            assert_eq!(Http::connect(server).post(&path, "{}").status, 200);
                            while client.socket.read().is_ok() {}
                        }
                        _ => {
                            _ = client.socket.send(
                                r#"{"event":"pusher:unsubscribe","data":{"channel":"presence-r"}}"#
                                    .into(),
                            );
                            _ = client.socket.send(r#"{"event":"pusher:ping"}"#.into());
                            while client
                                .socket
                                .read()
                                .is_ok_and(|message| !message.to_string().contains("pong"))
                            {
                            }
                        }
                    }
                }
            });
        }
    });
    let last = joined(&server, "presence-r", r#"{"user_id":"last"}"#);
    let mut histories: Vec<Vec<String>> = Vec::new();
    for client in &mut watchers {
        let mut history = Vec::new();
        while history
            .last()
            .is_none_or(|text: &String| !text.contains("last"))
        {
            history.push(client.next_text());
        }
        histories.push(history);
    }
    assert!(histories.iter().all(|history| *history == histories[0]));
    let mut present = std::collections::BTreeSet::new();
    for text in &histories[0] {
        let frame: Value = serde_json::from_str(text).unwrap();
        let data: Value = serde_json::from_str(frame["data"].as_str().unwrap()).unwrap();
        let id = data["user_id"].as_str().unwrap().to_owned();
        let changed = if frame["event"] == "pusher_internal:member_added" {
            present.insert(id)
        } else {
            present.remove(&id)
        };
        assert!(changed, "a join or a leave too many: {text}");
    }
    drop((last, watchers));
    server.expect_empty();
}

/// 32 KB of such requests made 124 MB of answers.
#[test]
fn a_subscription_that_is_repeated_has_one_answer_pending_at_most() {
    const REQUESTS: usize = 400;
    let server = TestServer::with(&[("RESOUND_WORKERS", "1")]);
    let bulk = "x".repeat(5000);
    let _members: Vec<Client> = (0..20)
        .map(|n| {
            let data = json!({ "user_id": 100 + n, "user_info": bulk }).to_string();
            joined(&server, "presence-big", &data)
        })
        .collect();
    let mut client = joined(&server, "presence-big", ANA);
    let request = request(&client, "presence-big", ANA);
    for _ in 0..REQUESTS {
        client.socket.write(Message::text(&request)).unwrap();
    }
    client.socket.flush().unwrap();
    client.send(r#"{"event":"pusher:ping","data":{}}"#);
    let (mut answers, mut pongs) = (0, 0);
    while pongs == 0 || answers == 0 {
        match client.next_json() {
            frame if frame["event"] == "pusher_internal:subscription_succeeded" => {
                assert_eq!(block(&frame)["count"], 21);
                answers += 1;
            }
            frame => {
                assert_eq!(frame["event"], "pusher:pong");
                pongs += 1;
            }
        }
    }
    // One for each turn of the worker, which on a busy machine gets through few of them.
    assert!(answers <= REQUESTS / 2, "{answers} answers");
    let again = join(&mut client, "presence-big", ANA);
    assert_eq!(
        block(&again)["count"],
        21,
        "one that comes later is answered"
    );
}

/// Each time it joins anew it is owed the list: not before it has read the last one.
#[test]
fn a_client_that_joins_and_leaves_in_turn_is_answered_as_fast_as_it_reads() {
    const PAIRS: usize = 300;
    let server = TestServer::with(&[("RESOUND_WORKERS", "1")]);
    let bulk = "x".repeat(9000);
    let _members: Vec<Client> = (0..100)
        .map(|n| {
            let data = json!({ "user_id": 100 + n, "user_info": bulk }).to_string();
            joined(&server, "presence-big", &data)
        })
        .collect();
    let mut client = Client::connect(&server);
    let subscribe = request(&client, "presence-big", ANA);
    let leave = json!({ "event": "pusher:unsubscribe", "data": { "channel": "presence-big" } });
    for _ in 0..PAIRS {
        client.socket.write(Message::text(&subscribe)).unwrap();
        client
            .socket
            .write(Message::text(leave.to_string()))
            .unwrap();
    }
    client.socket.flush().unwrap();
    // All that the kernel takes is written; the rest is not even asked of the channel.
    std::thread::sleep(std::time::Duration::from_millis(500));
    Client::connect(&server).expect_alive();
    for _ in 0..PAIRS {
        let answer = client.next_json();
        assert_eq!(answer["event"], "pusher_internal:subscription_succeeded");
        assert_eq!(block(&answer)["count"], 101);
    }
    client.expect_alive();
}
