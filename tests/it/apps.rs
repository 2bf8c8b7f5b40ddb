//! Applications that are added, changed and removed while the server runs.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use resound::apps::{App, AppHandle, DuplicateApp};
use resound::protocol::signature::Secret;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{APP_ID, Client, Http, KEY, PATIENCE, SECRET, Signed, TestServer, body, hmac};

/// The application that the server began with.
fn first(server: &TestServer) -> App {
    (*server.app.snapshot()).clone()
}

/// One like it, whose id, key and secret are this text.
fn other(server: &TestServer, name: &str) -> App {
    App {
        id: name.to_owned(),
        key: name.to_owned(),
        secret: Secret::new(name),
        ..first(server)
    }
}

fn serve_both(server: &TestServer) -> AppHandle {
    let apps = vec![first(server), other(server, "other")];
    server.control.apply_apps(apps).unwrap();
    server.control.apps().by_id("other").unwrap()
}

fn serve_first_only(server: &TestServer) {
    server.control.apply_apps(vec![first(server)]).unwrap();
}

fn connect(server: &TestServer, key: &str) -> Client {
    let mut client = Client::open(server, &format!("/app/{key}"), &[]);
    client.established();
    client
}

/// Subscribes to a private or presence channel with this key and secret.
fn ask_signed(client: &mut Client, key: &str, secret: &str, channel: &str, user: Option<&str>) {
    let mut text = format!("{}:{channel}", client.id);
    let mut data = json!({ "channel": channel });
    if let Some(user) = user {
        let member = json!({ "user_id": user }).to_string();
        text = format!("{text}:{member}");
        data["channel_data"] = member.into();
    }
    data["auth"] = format!("{key}:{}", hmac(secret, &text)).into();
    client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
}

fn sign_in(client: &mut Client, key: &str, secret: &str, user: &str) {
    let user_data = json!({ "id": user, "watchlist": ["x"] }).to_string();
    let text = format!("{}::user::{user_data}", client.id);
    let auth = format!("{key}:{}", hmac(secret, &text));
    let data = json!({ "auth": auth, "user_data": user_data });
    client.send(&json!({ "event": "pusher:signin", "data": data }).to_string());
    assert!(client.next_text().contains("pusher:signin_success"));
    assert!(client.next_text().contains("watchlist_events"));
}

/// A publish as an application signs it.
fn publish(http: &mut Http, id: &str, key: &str, secret: &'static str, channel: &str) -> u16 {
    let body = body(&[channel], "ev", "x");
    let mut signed = Signed::post("events", &body).set("auth_key", key);
    signed.path = format!("/apps/{id}/events");
    signed.secret = secret;
    http.request("POST", &signed.target(), &body).status
}

fn is_refused(client: &mut Client) {
    client.expect_error(4001, "Application does not exist");
    client.closed_with(4001, "Application does not exist");
}

/// Waits until an application that was removed has left nothing.
fn expect_forgotten(server: &TestServer, app: &AppHandle, apps: usize) {
    let deadline = Instant::now() + PATIENCE;
    let left = || {
        let channels = server.hub.channels(app, "").len();
        let users = server.hub.users(app);
        (app.connections(), channels, users, server.hub.apps())
    };
    while left() != (0, 0, 0, apps) {
        assert!(Instant::now() < deadline, "something is left: {:?}", left());
        thread::yield_now();
    }
}

#[test]
fn an_application_that_is_added_is_served() {
    let server = TestServer::start();
    is_refused(&mut Client::open(&server, "/app/other", &[]));
    let mut http = Http::connect(&server);
    assert_eq!(publish(&mut http, "other", "other", "other", "lobby"), 404);
    let other = serve_both(&server);
    let mut clients = [connect(&server, "other"), Client::connect(&server)];
    clients
        .iter_mut()
        .for_each(|client| client.subscribe("lobby"));
    assert_eq!(publish(&mut http, "other", "other", "other", "lobby"), 200);
    clients[0].expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
    clients[1].expect_silence();
    assert_eq!((other.connections(), server.app.connections()), (1, 1));
}

#[test]
fn what_cannot_be_told_apart_is_refused_and_changes_nothing() {
    let server = TestServer::start();
    let same = App {
        id: "other".to_owned(),
        ..first(&server)
    };
    let refused = server.control.apply_apps(vec![first(&server), same]);
    assert_eq!(refused.unwrap_err(), DuplicateApp::Key(KEY.to_owned()));
    Client::connect(&server).expect_alive();
}

#[test]
fn a_changed_secret_and_key_hold_at_once_and_connections_stay() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("private-before");
    let changed = App {
        key: "new-key".to_owned(),
        secret: Secret::new("new"),
        ..first(&server)
    };
    let changes = server.control.apply_apps(vec![changed]).unwrap();
    assert_eq!(changes.changed, std::slice::from_ref(&server.app));
    ask_signed(&mut client, KEY, SECRET, "private-after", None);
    assert!(client.next_text().contains("subscription_error"));
    client.expect_error(4009, "Connection is unauthorized");
    ask_signed(&mut client, "new-key", "new", "private-after", None);
    assert!(client.next_text().contains("subscription_succeeded"));
    let mut http = Http::connect(&server);
    let channel = "private-before";
    assert_eq!(publish(&mut http, APP_ID, KEY, SECRET, channel), 401);
    assert_eq!(publish(&mut http, APP_ID, "new-key", "new", channel), 200);
    client.expect(r#"{"event":"ev","data":"x","channel":"private-before"}"#);
    is_refused(&mut Client::open(&server, &format!("/app/{KEY}"), &[]));
    connect(&server, "new-key").expect_alive();
}

#[test]
fn changed_limits_hold_for_what_comes_after() {
    let server = TestServer::start();
    let mut clients = [Client::connect(&server), Client::connect(&server)];
    clients[0].subscribe("one");
    let mut changed = first(&server);
    changed.max_connections = Some(1);
    changed.max_subscriptions = 1;
    changed.presence.max_members = Some(1);
    changed.events.data = 10;
    changed.origins = resound::apps::Origins::new(vec!["good.example".to_owned()], false);
    changed.activity_timeout = 7;
    server.control.apply_apps(vec![changed.clone()]).unwrap();
    clients.iter_mut().for_each(Client::expect_alive);
    clients[0].ask("two");
    assert!(clients[0].next_text().contains("max_subscriptions"));
    let origin = [("Origin", "http://good.example")];
    let open = |headers: &[_]| Client::open(&server, &format!("/app/{KEY}"), headers);
    open(&origin).expect_error(4004, "Application is over connection quota");
    open(&[]).expect_error(4009, "Origin not allowed");
    ask_signed(&mut clients[1], KEY, SECRET, "presence-r", Some("ana"));
    assert!(clients[1].next_text().contains("subscription_succeeded"));
    let mut http = Http::connect(&server);
    let (small, large) = (
        body(&["one"], "ev", "x"),
        body(&["one"], "ev", "0123456789a"),
    );
    assert_eq!(http.post("events", &small).status, 200);
    assert_eq!(http.post("events", &large).status, 413);
    changed.max_connections = None;
    server.control.apply_apps(vec![changed]).unwrap();
    let mut third = open(&origin);
    assert!(third.next_text().contains(r#"\"activity_timeout\":7"#));
    assert_eq!(server.app.connections(), 3, "it was counted all along");
}

#[test]
fn a_changed_cache_holds_for_the_next_event() {
    let server = TestServer::start();
    let mut http = Http::connect(&server);
    let mut changed = first(&server);
    changed.cache.max_bytes = 0;
    http.publish(&["cache-c"], "ev", "1");
    server.control.apply_apps(vec![changed]).unwrap();
    let mut client = Client::connect(&server);
    client.subscribe("cache-c");
    client.expect(r#"{"event":"ev","data":"1","channel":"cache-c"}"#);
    http.publish(&["cache-c"], "ev", "2");
    client.expect(r#"{"event":"ev","data":"2","channel":"cache-c"}"#);
    let mut late = Client::connect(&server);
    late.subscribe("cache-c");
    assert!(late.next_text().contains("cache_miss"));
}

/// More clients than one slice, on all workers, while others are served.
#[test]
fn a_removed_application_is_closed_with_4001_and_others_go_on() {
    const CLIENTS: usize = 300;
    const EVENTS: usize = 2000;
    let server = TestServer::start();
    let other = serve_both(&server);
    let mut stays: Vec<Client> = (0..10).map(|_| Client::connect(&server)).collect();
    stays
        .iter_mut()
        .for_each(|client| client.subscribe("lobby"));
    let mut goes: Vec<Client> = (0..CLIENTS).map(|_| connect(&server, "other")).collect();
    for (at, client) in goes.iter_mut().enumerate() {
        match at % 4 {
            0 => client.subscribe("lobby"),
            1 => {
                let user = at.to_string();
                ask_signed(client, "other", "other", "presence-r", Some(&user));
            }
            2 => sign_in(client, "other", "other", &at.to_string()),
            _ => {}
        }
    }
    let is_removed = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut http = Http::connect(&server);
            (0..EVENTS).for_each(|_| http.publish(&["lobby"], "ev", "x"));
        });
        scope.spawn(|| {
            let mut http = Http::connect(&server);
            while publish(&mut http, "other", "other", "other", "lobby") == 200 {}
            assert!(is_removed.load(Ordering::SeqCst), "it is served until then");
            assert_eq!(publish(&mut http, "other", "other", "other", "lobby"), 404);
        });
        thread::sleep(std::time::Duration::from_millis(20));
        is_removed.store(true, Ordering::SeqCst);
        serve_first_only(&server);
        for mut client in goes {
            let error = loop {
                let text = client.next_text();
                if text.contains("pusher:error") {
                    break text;
                }
            };
            assert!(error.contains("4001"), "{error}");
            client.closed_with(4001, "Application does not exist");
        }
        for client in &mut stays {
            for _ in 0..EVENTS {
                client.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
            }
            client.expect_alive();
        }
    });
    is_refused(&mut Client::open(&server, "/app/other", &[]));
    expect_forgotten(&server, &other, 1);
}

#[test]
fn nothing_of_a_removed_application_is_there_when_it_comes_again() {
    let server = TestServer::start();
    let before = serve_both(&server);
    let mut http = Http::connect(&server);
    let mut old = connect(&server, "other");
    old.subscribe("cache-c");
    assert!(old.next_text().contains("cache_miss"));
    assert_eq!(
        publish(&mut http, "other", "other", "other", "cache-c"),
        200
    );
    old.expect(r#"{"event":"ev","data":"x","channel":"cache-c"}"#);
    serve_first_only(&server);
    let after = serve_both(&server);
    assert_ne!(before, after);
    let mut new = connect(&server, "other");
    is_refused(&mut old);
    new.subscribe("cache-c");
    assert!(
        new.next_text().contains("cache_miss"),
        "its events went, too"
    );
    assert_eq!(
        publish(&mut http, "other", "other", "other", "cache-c"),
        200
    );
    new.expect(r#"{"event":"ev","data":"x","channel":"cache-c"}"#);
    expect_forgotten(&server, &before, 1);
    assert_eq!(after.connections(), 1);
}

/// Nobody had joined a channel: only what was cached is there.
#[test]
fn cached_events_go_with_an_application_without_connections() {
    let server = TestServer::start();
    let other = serve_both(&server);
    let mut http = Http::connect(&server);
    assert_eq!(
        publish(&mut http, "other", "other", "other", "cache-c"),
        200
    );
    assert_eq!(server.hub.apps(), 1);
    serve_first_only(&server);
    assert_eq!(server.hub.apps(), 0);
    assert!(other.is_removed());
}

#[test]
fn a_handshake_and_a_request_that_were_under_way_are_answered() {
    let server = TestServer::start();
    serve_both(&server);
    let mut stream = crate::support::client::tcp(&server);
    let head = "GET /app/other HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (head, head_rest) = head.split_at(60);
    stream.write_all(head.as_bytes()).unwrap();
    // Its head is verified, and its body is still to come.
    let body = body(&["lobby"], "ev", "x");
    let mut signed = Signed::post("events", &body).set("auth_key", "other");
    signed.path = "/apps/other/events".to_owned();
    signed.secret = "other";
    let mut http = Http::connect(&server);
    http.write(&format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        signed.target(),
        body.len()
    ));
    Client::connect(&server).expect_silence();
    serve_first_only(&server);
    http.write(&body);
    assert_eq!(http.answer().status, 404);
    stream.write_all(head_rest.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let mut text = String::new();
    while let Ok(count @ 1..) = std::io::Read::read(&mut stream, &mut answer) {
        text.push_str(&String::from_utf8_lossy(&answer[..count]));
    }
    assert!(
        text.contains("4001") && !text.contains("established"),
        "{text}"
    );
}

/// Connections come while the application goes: whoever was let in is closed, too.
#[test]
fn nobody_stays_who_connects_while_the_application_is_removed() {
    let server = TestServer::start();
    for _ in 0..20 {
        let other = serve_both(&server);
        thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                (0..10)
                    .map(|_| Client::open(&server, "/app/other", &[]))
                    .collect::<Vec<Client>>()
            });
            thread::sleep(std::time::Duration::from_millis(1));
            serve_first_only(&server);
            for mut client in connecting.join().unwrap() {
                let close = loop {
                    if let Message::Close(close) = client.next() {
                        break close;
                    }
                };
                assert_eq!(u16::from(close.unwrap().code), 4001);
            }
        });
        expect_forgotten(&server, &other, 0);
    }
}
