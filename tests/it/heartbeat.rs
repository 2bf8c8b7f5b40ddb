//! Silent connections.

use crate::support::{Client, TestServer};
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;

const SETTINGS: &[(&str, &str)] = &[
    ("REVERB_APP_PING_INTERVAL", "1"),
    ("RESOUND_PONG_TIMEOUT", "1"),
];

fn expect_pings(client: &mut Client) {
    client.expect(r#"{"event":"pusher:ping"}"#);
    assert_eq!(client.next(), Message::Ping(Bytes::new()));
}

/// tungstenite answers the WebSocket ping when it is next asked to read; `Client`
/// is not asked, so it stays silent. Reverb never cuts a socket that is in no channel.
#[test]
fn a_silent_connection_is_pinged_and_then_closed_with_4201_subscribed_or_not() {
    let server = TestServer::with(SETTINGS);
    let (mut subscribed, mut bare) = (Client::connect(&server), Client::connect(&server));
    subscribed.subscribe("lobby");
    for client in [&mut subscribed, &mut bare] {
        client.socket.set_config(|_| {});
        client.expect(r#"{"event":"pusher:ping"}"#);
    }
    std::thread::sleep(std::time::Duration::from_secs(4));
    for client in [&mut subscribed, &mut bare] {
        assert_eq!(client.next(), Message::Ping(Bytes::new()));
        client.expect_error(4201, "Pong reply not received in time");
        client.closed_with(4201, "Pong reply not received in time");
    }
    assert_eq!(server.occupied(), 0);
}

/// Proxies with short idle limits cut a connection that is pinged only after the pong's
/// time-out.
#[test]
fn the_ping_interval_is_kept_when_it_is_shorter_than_the_pong_timeout() {
    let server = TestServer::with(&[
        ("REVERB_APP_PING_INTERVAL", "2"),
        ("RESOUND_PONG_TIMEOUT", "30"),
    ]);
    let mut client = Client::connect(&server);
    let began = std::time::Instant::now();
    for _ in 0..3 {
        expect_pings(&mut client);
        client.send(r#"{"event":"pusher:pong","data":{}}"#);
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!((3.0..9.5).contains(&seconds), "three pings in {seconds} s");
}

#[test]
fn any_sign_of_life_keeps_a_connection() {
    let server = TestServer::with(SETTINGS);
    let mut pongs = Client::connect(&server);
    let mut control = Client::connect(&server);
    for _ in 0..3 {
        expect_pings(&mut pongs);
        pongs.send(r#"{"event":"pusher:pong","data":{}}"#);
        expect_pings(&mut control);
        control.socket.send(Message::Pong(Bytes::new())).unwrap();
    }
    pongs.send(r#"{"event":"pusher:ping"}"#);
    while pongs.next() != Message::text(r#"{"event":"pusher:pong"}"#) {}
}
