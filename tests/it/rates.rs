//! How much and how often a client may send.

use crate::support::{Client, Http, KEY, TestServer};

const LIMITED: &[(&str, &str)] = &[
    ("REVERB_APP_RATE_LIMITING_ENABLED", "true"),
    ("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "3"),
    ("REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "60"),
];

/// Reverb counts pings, too, so that a limit cuts the heartbeat.
#[test]
fn messages_over_the_rate_are_refused_and_pings_do_not_count() {
    let server = TestServer::with(LIMITED);
    let mut client = Client::connect(&server);
    (0..20).for_each(|_| client.expect_alive());
    client.subscribe("a");
    client.subscribe("b");
    client.send("nonsense");
    client.expect_error(4200, "Invalid message format");
    for text in [
        "nonsense",
        r#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#,
        r#"{"event":"client-a","channel":"a"}"#,
    ] {
        client.send(text);
        client.expect_error(4301, "Rate limit exceeded");
    }
    client.expect_alive();
    assert_eq!(server.occupied(), 2);
    Client::connect(&server).subscribe("c");
}

#[test]
fn who_is_over_the_rate_is_closed_if_the_application_wants_it() {
    let server =
        TestServer::with(&[LIMITED, &[("REVERB_APP_RATE_LIMIT_TERMINATE", "true")]].concat());
    let mut client = Client::connect(&server);
    (0..3).for_each(|n| client.subscribe(&format!("c{n}")));
    client.ask("c3");
    client.expect_error(4301, "Rate limit exceeded");
    client.closed_with(4100, "Rate limit exceeded");
}

#[test]
fn client_events_have_a_rate_and_a_size_of_their_own() {
    let server = TestServer::with(&[
        ("RESOUND_CLIENT_EVENT_MAX_PER_SECOND", "2"),
        ("RESOUND_CLIENT_EVENT_MAX_SIZE", "20"),
    ]);
    let (mut one, mut two) = (Client::connect(&server), Client::connect(&server));
    one.subscribe("private-a");
    two.subscribe("private-a");
    let event =
        |data: &str| format!(r#"{{"event":"client-a","channel":"private-a","data":{data}}}"#);
    one.send(&event(&format!("\"{}\"", "x".repeat(19))));
    one.expect_error(
        4301,
        "The data of the client event has 21 bytes, 20 are allowed \
         (client_events.max_size, RESOUND_CLIENT_EVENT_MAX_SIZE)",
    );
    for _ in 0..2 {
        one.send(&event("{}"));
        two.expect(&event("{}"));
    }
    one.send(&event("{}"));
    one.expect_error(4301, "Rate limit exceeded");
    one.subscribe("b");
    two.expect_silence();
}

#[test]
fn connections_of_one_address_have_a_rate_and_publishes_get_through() {
    let server = TestServer::with(&[("RESOUND_MAX_CONNECTION_RATE", "2")]);
    let mut http = Http::connect(&server);
    let _two = [Client::connect(&server), Client::connect(&server)];
    let mut third = Client::open(&server, &format!("/app/{KEY}"), &[]);
    third.expect_error(4100, "Too many connections from this address");
    third.closed_with(4100, "Too many connections from this address");
    http.publish(&["a"], "ev", "x");
    std::thread::sleep(std::time::Duration::from_millis(600));
    Client::connect(&server).expect_alive();
}

#[test]
fn native_clients_without_an_origin_are_let_in_if_the_application_says_so() {
    let server = TestServer::with(&[
        ("REVERB_ALLOWED_ORIGINS", "good.example"),
        ("RESOUND_ALLOW_MISSING_ORIGIN", "true"),
    ]);
    Client::connect(&server).expect_alive();
    let mut page = Client::open(
        &server,
        &format!("/app/{KEY}"),
        &[("origin", "http://evil.example")],
    );
    page.expect_error(4009, "Origin not allowed");
}
