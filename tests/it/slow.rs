//! Clients that do not read.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Http, PATIENCE, TestServer};
use resound::protocol::CloseReason;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

/// The slow client gets whole frames up to some point, then 4100 and a close
/// frame; the other one gets everything.
#[test]
fn a_client_that_does_not_read_is_closed_with_4100_and_holds_up_nobody() {
    let server = TestServer::with(&[("RESOUND_MAX_BACKLOG", "100000")]);
    let (mut slow, mut quick) = (Client::connect(&server), Client::connect(&server));
    slow.subscribe("lobby");
    quick.subscribe("lobby");
    let data = "x".repeat(50_000);
    let event = format!(
        r#"{{"event":"ev","data":{},"channel":"lobby"}}"#,
        json!(data)
    );
    let mut http = Http::connect(&server);
    // The kernel's buffers of both ends take some megabytes first.
    const MESSAGES: usize = 400;
    let subscribers = || server.hub.find(&server.app, "lobby").unwrap().counts();
    for _ in 0..MESSAGES {
        http.publish(&["lobby"], "ev", &data);
        quick.expect(&event);
        // It has some seconds to read the rest.
        if subscribers().subscriptions == 1 {
            break;
        }
    }
    let mut got = 0;
    loop {
        match slow.next() {
            Message::Text(text) if text.as_str() == event => got += 1,
            other => {
                let error = r#"{"event":"pusher:error","data":{"code":4100,"message":"Messages are not read fast enough"}}"#;
                assert_eq!(other, Message::text(error));
                break;
            }
        }
    }
    assert!(got < MESSAGES, "it was not slow at all");
    slow.closed_with(4100, "Messages are not read fast enough");
    quick.expect_silence();
}

/// However much each may have: together they have a bound, too.
#[test]
fn clients_that_do_not_read_share_a_bound() {
    let server = TestServer::with(&[
        ("RESOUND_MAX_BACKLOG", "1000000000"),
        ("RESOUND_MAX_TOTAL_BACKLOG", "3000000"),
    ]);
    let mut slow: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    let mut quick = Client::connect(&server);
    slow.iter_mut().for_each(|client| client.subscribe("lobby"));
    quick.subscribe("lobby");
    let data = "x".repeat(100_000);
    let event = format!(r#"{{"event":"ev","data":"{data}","channel":"lobby"}}"#);
    let mut http = Http::connect(&server);
    let closed = || server.hub.closes().of(CloseReason::TooSlow);
    // The kernel's buffers of both ends take some megabytes of each first.
    for _ in 0..1000 {
        http.publish(&["lobby"], "ev", &data);
        quick.expect(&event);
        if closed() == 3 {
            break;
        }
    }
    // One that does not answer the close frame is counted when it is dropped.
    let deadline = Instant::now() + PATIENCE;
    while closed() < 3 {
        assert!(Instant::now() < deadline, "{} were closed", closed());
        thread::sleep(Duration::from_millis(10));
    }
    quick.expect_silence();
}

/// What waits because we have not written it yet is not the client's fault.
#[test]
fn one_publish_that_is_bigger_than_the_bound_reaches_a_client_that_reads() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    let channels: Vec<String> = (0..45).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
    names.iter().for_each(|name| client.subscribe(name));
    Http::connect(&server).publish(&names, "ev", &"x".repeat(100_000));
    for name in names {
        assert_eq!(client.next_json()["channel"], name);
    }
    client.expect_silence();
}

#[test]
fn an_event_that_alone_is_over_the_bound_is_delivered() {
    let server = TestServer::with(&[("RESOUND_MAX_BACKLOG", "1024")]);
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let data = "x".repeat(100_000);
    Http::connect(&server).publish(&["a"], "ev", &data);
    client.expect(&format!(
        r#"{{"event":"ev","data":"{data}","channel":"a"}}"#
    ));
    client.expect_alive();
}
