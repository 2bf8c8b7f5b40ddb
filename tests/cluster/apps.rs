//! Applications that are removed, and come again, on one of several nodes.
//!
//! The servers are in this process, since only the library can change applications.

use std::thread;
use std::time::{Duration, Instant};

use resound::apps::App;
use serde_json::json;

use crate::frames::{event, until};
use crate::people::Member;
use crate::redis::Redis;
use crate::support::http::parsed;
use crate::support::{Client, Http, KEY, TestServer};
use crate::wait::{eventually, eventually_is};

fn server(redis: &Redis, settings: &[(&str, &str)]) -> TestServer {
    let all = redis.settings().with(&[
        ("REVERB_SCALING_ENABLED", "true"),
        ("REVERB_APP_PING_INTERVAL", "600"),
        ("REVERB_APP_MAX_CONNECTIONS", "1000"),
    ]);
    let all = all.with(settings);
    TestServer::with(&all.pairs().collect::<Vec<_>>())
}

fn pair(redis: &Redis, settings: &[(&str, &str)]) -> [TestServer; 2] {
    let servers = [server(redis, settings), server(redis, settings)];
    servers.iter().for_each(|server| await_listening(server, 0));
    servers
}

/// Waits until a node sees the other one, and listens to just so many topics.
fn await_listening(server: &TestServer, topics: usize) {
    let expected = (json!(2), json!(topics), json!(topics), json!(true));
    eventually_is("what a node listens to", &expected, || {
        let ready = parsed(&Http::connect(server).request("GET", "/ready", ""));
        let of = |name: &str| ready[name].clone();
        (of("nodes"), of("wanted"), of("listening"), of("ready"))
    });
}

fn is_closed(client: &mut Client) {
    let mut received = String::new();
    while !received.contains("4001") {
        received = client.next_text();
    }
    client.closed_with(4001, "Application does not exist");
}

fn connections(server: &TestServer) -> String {
    Http::connect(server).get("connections", &[]).body
}

/// The old one's sockets go while the new one's come: both have the same names in Redis.
#[test]
fn one_that_comes_again_at_once_is_whole_on_all_nodes() {
    let redis = Redis::start();
    let [a, b] = pair(&redis, &[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
    let mut ben = Member::join(&b, "presence-r", "ben");
    // Enough of them that they are closed in slices.
    let mut old: Vec<Client> = (0..200).map(|_| Client::connect(&a)).collect();
    for client in &mut old {
        client.ask("lobby");
    }
    let mut ana = Member::join(&a, "presence-r", "ana");
    ben.sees(&["ana", "ben"]);
    ben.changes();
    let app = App::clone(&a.app.snapshot());
    a.control.apply_apps(Vec::new()).unwrap();
    a.control.apply_apps(vec![app]).unwrap();
    let begin = Instant::now();
    let mut new = Client::connect(&a);
    new.subscribe("lobby");
    let mut http = Http::connect(&b);
    http.publish(&["lobby"], "ev", "1");
    until(&mut new, &event("ev", "1", "lobby"));
    let mut cleo = Member::join(&a, "presence-r", "cleo");
    assert!(cleo.here.contains("ben"), "{:?}", cleo.here);
    is_closed(&mut ana.client);
    old.iter_mut().for_each(is_closed);
    http.publish(&["lobby"], "ev", "2");
    until(&mut new, &event("ev", "2", "lobby"));
    // Otherwise the watchdog may have repaired it.
    assert!(begin.elapsed() < Duration::from_secs(3), "it took too long");
    cleo.sees(&["ben", "cleo"]);
    ben.sees(&["ben", "cleo"]);
    await_listening(&a, 2);
    await_listening(&b, 1);
    eventually("old connections are not counted", || {
        [&a, &b].map(connections) == [r#"{"connections":3}"#; 2]
    });
    let key = redis.command(&["KEYS", "*:connections"]);
    eventually_is("what Redis counts", &vec![1, 2], || {
        let counts = redis.command(&["HVALS", key.trim()]);
        let mut counts: Vec<i64> = counts.lines().filter_map(|n| n.parse().ok()).collect();
        counts.sort_unstable();
        counts
    });
}

#[test]
fn one_that_is_removed_on_a_node_is_gone_there_and_goes_on_on_others() {
    let redis = Redis::start();
    let [a, b] = pair(&redis, &[]);
    let mut ana = Member::join(&a, "presence-r", "ana");
    let mut ben = Member::join(&b, "presence-r", "ben");
    a.control.apply_apps(Vec::new()).unwrap();
    is_closed(&mut ana.client);
    ben.sees(&["ben"]);
    await_listening(&a, 0);
    assert_eq!(a.hub.apps(), 0);
    Http::connect(&b).publish(&["presence-r"], "ev", "1");
    until(&mut ben.client, &event("ev", "1", "presence-r"));
    eventually_is("connections", &r#"{"connections":1}"#.to_owned(), || {
        connections(&b)
    });
}

/// A channel goes on with the facts that it began with, also after a new link to Redis.
#[test]
fn counts_that_are_switched_on_are_sent_of_channels_that_begin_later() {
    let mut redis = Redis::start();
    let [a, b] = pair(&redis, &[]);
    let mut before = Client::connect(&a);
    before.subscribe("before");
    for server in [&a, &b] {
        let mut app = App::clone(&server.app.snapshot());
        app.subscription_count = true;
        server.control.apply_apps(vec![app]).unwrap();
    }
    redis.restart();
    await_listening(&a, 1);
    let mut clients = [Client::connect(&a), Client::connect(&b)];
    clients.iter_mut().for_each(|client| client.ask("after"));
    for client in &mut clients {
        let two = crate::frames::subscription_count(2, "after");
        until(client, &two);
    }
    Client::connect(&b).subscribe("before");
    before.expect_silence();
}

/// Its application was there when its handshake was checked, and is not when Redis answers.
#[test]
fn a_handshake_that_waits_for_the_other_nodes_is_refused_when_its_application_is_gone() {
    let mut redis = Redis::start();
    let [a, _b] = pair(&redis, &[]);
    redis.pause();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| Client::open(&a, &format!("/app/{KEY}"), &[]));
        eventually("it waits", || a.app.connections() == 1);
        a.control.apply_apps(Vec::new()).unwrap();
        thread::sleep(Duration::from_millis(100));
        redis.resume();
        let mut client = waiting.join().unwrap();
        client.expect_error(4001, "Application does not exist");
        client.closed_with(4001, "Application does not exist");
    });
    eventually("it does not count", || a.app.connections() == 0);
}

#[test]
fn others_know_of_a_node_that_drains() {
    let redis = Redis::start();
    let [a, b] = pair(&redis, &[("RESOUND_NODE_TIMEOUT", "3")]);
    let draining = || {
        let ready = parsed(&Http::connect(&b).request("GET", "/ready", ""));
        (ready["nodes"].clone(), ready["nodes_draining"].clone())
    };
    assert_eq!(draining(), (json!(2), json!(0)));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(3600);
    assert!(a.control.lifecycle().drain(deadline, deadline));
    eventually_is("how many drain", &(json!(2), json!(1)), draining);
    drop(a);
    eventually_is("how many drain", &(json!(1), json!(0)), draining);
}
