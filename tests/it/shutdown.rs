//! The end of the server.

use std::time::Duration;

use resound::lifecycle::State;
use tokio::time::Instant;

use crate::support::http::parsed;
use crate::support::{Client, Http, TestServer};
use serde_json::json;

/// Reverb cuts the connections, without a close frame.
#[test]
fn every_connection_is_closed_with_1001_and_requests_are_finished() {
    let mut server = TestServer::start();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(&server)).collect();
    clients[0].subscribe("lobby");
    let mut idle = Http::connect(&server);
    assert_eq!(idle.request("GET", "/up", "").status, 200);
    server.begin_shutdown();
    for client in &mut clients {
        client.closed_with(1001, "Server is shutting down");
    }
    assert!(idle.is_closed());
    server.join();
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

#[test]
fn a_client_that_does_not_go_is_dropped_after_the_grace_time() {
    let mut server = TestServer::start();
    let client = Client::connect(&server);
    let begin = std::time::Instant::now();
    server.join();
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "the grace time was one second"
    );
    drop(client);
}

#[test]
fn a_handshake_that_ends_while_the_server_goes_down_is_closed_with_1001() {
    let mut server = TestServer::start();
    let mut waiting = Client::connect(&server);
    let mut stream = crate::support::client::tcp(&server);
    let head = "GET /app/my-app-key HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (first, rest) = head.split_at(60);
    std::io::Write::write_all(&mut stream, first.as_bytes()).unwrap();
    waiting.expect_silence();
    server.begin_shutdown();
    waiting.closed_with(1001, "Server is shutting down");
    // The server may also have cut it, which is as good.
    let _ = std::io::Write::write_all(&mut stream, rest.as_bytes());
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains("connection_established"), "{answer}");
}

/// So a balancer learns of it by the connection; only a request that had begun gets an answer.
#[test]
fn while_it_goes_down_new_connections_are_refused_and_requests_under_way_are_answered() {
    let mut server = TestServer::start();
    // It does not answer its close frame, so the server waits for it.
    let mut waiting = Client::connect(&server);
    let mut under_way = ["/up", "/ready"].map(|target| {
        let mut http = Http::connect(&server);
        http.write(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n"));
        http
    });
    waiting.expect_silence();
    server.begin_shutdown();
    assert!(waiting.next().is_close());
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while std::net::TcpStream::connect(server.address).is_ok() {
        assert!(std::time::Instant::now() < deadline, "it still accepts");
    }
    for http in &mut under_way {
        http.write("\r\n");
        assert_eq!(http.answer().status, 503);
        assert!(http.is_closed());
    }
}

/// A library call only: a signal stops at once.
#[test]
fn while_it_drains_it_serves_and_is_not_ready_and_it_stops_at_the_deadline() {
    let mut server = TestServer::start();
    let lifecycle = server.control.lifecycle().clone();
    let mut before = Client::connect(&server);
    before.subscribe("lobby");
    let mut http = Http::connect(&server);
    assert_eq!(http.request("GET", "/ready", "").status, 200);
    let begin = Instant::now();
    let end = begin + Duration::from_secs(2);
    assert!(lifecycle.drain(end, end));
    let ready = http.request("GET", "/ready", "");
    let said = parsed(&ready);
    assert_eq!((ready.status, &said["ready"]), (503, &json!(false)));
    assert_eq!(said["lifecycle"], "draining");
    let up = http.request("GET", "/up", "");
    let draining = r#"{"health":"DRAINING"}"#;
    assert_eq!((up.status, up.body.as_str()), (503, draining));
    let mut after = Client::connect(&server);
    after.subscribe("lobby");
    Http::connect(&server).publish(&["lobby"], "ev", "x");
    for client in [&mut before, &mut after] {
        client.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
        client.expect_alive();
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "it was too slow");
    assert!(matches!(lifecycle.state(), State::Draining { .. }));
    for client in [&mut before, &mut after] {
        client.closed_with(4200, "Server is going down, reconnect");
    }
    assert!(begin.elapsed() >= Duration::from_secs(2));
    assert!(http.is_closed());
    server.join_by_itself();
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

#[test]
fn a_signal_ends_a_drain_and_a_drain_does_not_undo_a_stop() {
    let mut server = TestServer::start();
    let lifecycle = server.control.lifecycle().clone();
    let mut client = Client::connect(&server);
    let later = Instant::now() + Duration::from_secs(3600);
    lifecycle.drain(later, later);
    client.expect_silence();
    server.begin_shutdown();
    client.closed_with(1001, "Server is shutting down");
    let sooner = Instant::now() + Duration::from_secs(1);
    assert!(!lifecycle.drain(sooner, sooner));
    server.join();
    assert_eq!(lifecycle.state(), State::Stopping);
}
