//! Subscriptions and connections that the application ends.

use serde_json::{Value, json};

use crate::presence::{join, joined};
use crate::support::{APP_ID, Client, Http, Signed, TestServer};
use crate::users::signed_in;

const ANA: &str = r#"{"user_id":"ana"}"#;

/// The client is told that its subscription has ended, and gets nothing more of the channel.
fn expect_unsubscribed(client: &mut Client, channel: &str) {
    let frame = client.next_json();
    assert_eq!(frame["event"], "pusher:subscription_error", "{frame}");
    assert_eq!(frame["channel"], channel);
    let data: Value = serde_json::from_str(frame["data"].as_str().unwrap()).unwrap();
    let text = "The application has ended this subscription";
    assert_eq!(
        data,
        json!({ "type": "Unsubscribed", "error": text, "status": 403 })
    );
}

fn user_id(frame: &Value) -> (Value, Value) {
    let data: Value = serde_json::from_str(frame["data"].as_str().unwrap()).unwrap();
    (frame["event"].clone(), data["user_id"].clone())
}

#[test]
fn a_user_leaves_a_channel_with_all_its_connections() {
    let server = TestServer::with(&[("RESOUND_WORKERS", "2")]);
    let channel = "presence-room";
    let mut other = joined(&server, channel, r#"{"user_id":"other"}"#);
    let mut own: Vec<Client> = (0..4).map(|_| joined(&server, channel, ANA)).collect();
    assert_eq!(other.next_json()["event"], "pusher_internal:member_added");
    for client in &mut own {
        client.subscribe("news");
    }
    let mut http = Http::connect(&server);
    let answer = http.post("channels/presence-room/users/ana/unsubscribe", "{}");
    assert_eq!((answer.status, &*answer.body), (200, "{}"));
    for client in &mut own {
        expect_unsubscribed(client, channel);
    }
    let removed = json!("pusher_internal:member_removed");
    assert_eq!(user_id(&other.next_json()), (removed, json!("ana")));
    http.publish(&[channel, "news"], "e", "1");
    assert_eq!(other.next_json()["event"], "e");
    for client in &mut own {
        let frame = client.next_json();
        assert_eq!(
            frame["channel"], "news",
            "of its other channels it is not taken out"
        );
        client.expect_silence();
    }
    let users = http.get("channels/presence-room/users", &[]).body;
    assert_eq!(users, r#"{"users":[{"id":"other"}]}"#);
    // Who is let in again by the application is in again.
    let answer = join(&mut own[0], channel, ANA);
    assert_eq!(answer["event"], "pusher_internal:subscription_succeeded");
    assert_eq!(other.next_json()["event"], "pusher_internal:member_added");
    http.publish(&[channel], "e", "2");
    assert_eq!(own[0].next_json()["event"], "e");
    drop((own, other));
    server.expect_empty();
}

#[test]
fn a_user_that_has_signed_in_leaves_a_private_channel() {
    let server = TestServer::start();
    let [mut ana, mut ben] =
        [r#"{"id":"ana"}"#, r#"{"id":"ben"}"#].map(|user| signed_in(&server, user));
    for client in [&mut ana, &mut ben] {
        client.subscribe("private-a");
    }
    let mut http = Http::connect(&server);
    http.post("channels/private-a/users/ana/unsubscribe", "");
    expect_unsubscribed(&mut ana, "private-a");
    http.publish(&["private-a"], "e", "1");
    assert_eq!(ben.next_json()["event"], "e");
    ana.expect_silence();
}

#[test]
fn one_connection_leaves_a_channel() {
    let server = TestServer::with(&[("RESOUND_WORKERS", "2")]);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.subscribe("private-a");
    }
    let mut http = Http::connect(&server);
    let path = format!("channels/private-a/sockets/{}/unsubscribe", clients[1].id);
    assert_eq!(http.post(&path, "").body, "{}");
    expect_unsubscribed(&mut clients[1], "private-a");
    http.publish(&["private-a"], "e", "1");
    for (at, client) in clients.iter_mut().enumerate() {
        match at {
            1 => client.expect_silence(),
            _ => assert_eq!(client.next_json()["event"], "e"),
        }
    }
    let count = http.get("channels/private-a", &[("info", "subscription_count")]);
    assert_eq!(count.body, r#"{"occupied":true,"subscription_count":3}"#);
    drop(clients);
    server.expect_empty();
}

/// What is published before arrives or not, what is published after does not.
#[test]
fn nothing_that_is_published_afterwards_arrives() {
    let server = TestServer::with(&[("RESOUND_WORKERS", "2")]);
    let mut http = Http::connect(&server);
    for round in 0..50 {
        let mut client = Client::connect(&server);
        client.subscribe("private-a");
        let path = format!("channels/private-a/sockets/{}/unsubscribe", client.id);
        for _ in 0..round {
            http.publish(&["private-a"], "before", "1");
        }
        http.post(&path, "");
        http.publish(&["private-a"], "after", "1");
        let last = loop {
            let frame = client.next_json();
            if frame["event"] != "before" {
                break frame;
            }
        };
        assert_eq!(last["event"], "pusher:subscription_error");
        client.expect_alive();
    }
    server.expect_empty();
}

#[test]
fn whom_nobody_knows_need_not_leave() {
    let server = TestServer::start();
    let mut client = signed_in(&server, r#"{"id":"ana"}"#);
    client.subscribe("a");
    let mut http = Http::connect(&server);
    for path in [
        "channels/a/users/nobody/unsubscribe",
        "channels/b/users/ana/unsubscribe",
        "channels/a/sockets/1.1/unsubscribe",
    ] {
        let answer = http.post(path, "");
        assert_eq!((answer.status, &*answer.body), (200, "{}"), "{path}");
    }
    for (path, field) in [
        ("channels/a/sockets/x/unsubscribe", "socket_id"),
        ("channels/a%20b/users/ana/unsubscribe", "channel"),
    ] {
        let answer = http.post(path, "");
        assert_eq!(answer.status, 422, "{path}: {}", answer.body);
        assert!(answer.body.contains(field), "{path}: {}", answer.body);
    }
    assert_eq!(
        http.get("channels/a/users/ana/unsubscribe", &[]).status,
        405
    );
    assert_eq!(
        http.post("channels/a/people/ana/unsubscribe", "").status,
        404
    );
    let unsigned = format!("/apps/{APP_ID}/channels/a/users/ana/unsubscribe");
    assert_eq!(http.request("POST", &unsigned, "").status, 401);
    client.expect_silence();
}

#[test]
fn terminated_clients_come_back_if_the_application_wants_it() {
    let text = "Connection terminated by the application, reconnect";
    let stay = "Connection terminated by the application";
    for (settings, query, reconnects) in [
        (&[][..], "", false),
        (&[], "true", true),
        (&[("RESOUND_TERMINATE_CODE", "4200")], "", true),
        (&[("RESOUND_TERMINATE_CODE", "4200")], "false", false),
    ] {
        let server = TestServer::with(settings);
        let mut client = signed_in(&server, r#"{"id":"ana"}"#);
        let mut call = Signed::post("users/ana/terminate_connections", "");
        if !query.is_empty() {
            call = call.set("reconnect", query);
        }
        let answer = Http::connect(&server).request("POST", &call.target(), "");
        assert_eq!(answer.status, 200, "{}", answer.body);
        if reconnects {
            client.closed_with(4200, text);
        } else {
            client.expect_error(4009, stay);
            client.closed_with(4009, stay);
        }
    }
    let server = TestServer::start();
    let call = Signed::post("users/ana/terminate_connections", "").set("reconnect", "maybe");
    let answer = Http::connect(&server).request("POST", &call.target(), "");
    assert_eq!(answer.status, 422, "{}", answer.body);
}
