//! Ending over a while, so that clients come to another node as a stream.

use std::time::{Duration, Instant};

use crate::support::http::parsed;
use crate::support::{Client, Http, PATIENCE, Process};

const DRAIN: &[(&str, &str)] = &[("RESOUND_DRAIN_SECONDS", "3"), ("RESOUND_DRAIN_PAUSE", "1")];

const RECONNECT: &str = "Server is going down, reconnect";

#[test]
fn sockets_are_closed_one_after_the_other_while_it_serves() {
    const COUNT: usize = 120;
    let mut server = Process::with("", DRAIN);
    let mut clients: Vec<Client> = (0..COUNT).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.subscribe("lobby");
    }
    let mut http = Http::connect(&server);
    let begin = Instant::now();
    server.signal("-TERM");
    server.logged("closing connections");
    // It is logged a moment before.
    let ready = loop {
        let ready = http.request("GET", "/ready", "");
        if ready.status != 200 || begin.elapsed() > PATIENCE {
            break ready;
        }
    };
    assert_eq!(
        (ready.status, &parsed(&ready)["lifecycle"]),
        (503, &"draining".into())
    );
    assert_eq!(ready.header("connection"), None, "balancers may ask again");
    // While balancers look away, nobody is closed, and newcomers are served.
    let mut late = Client::connect(&server);
    late.subscribe("lobby");
    clients.push(late);
    http.publish(&["lobby"], "e", "pause");
    for client in &mut clients {
        client.expect(r#"{"event":"e","data":"pause","channel":"lobby"}"#);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "the machine is too slow"
    );
    // Each gets all events until it is closed.
    let ends: Vec<Duration> = std::thread::scope(|scope| {
        let waiting: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let mut next = 0;
                    loop {
                        let message = client.next();
                        let at = begin.elapsed();
                        if message.is_close() {
                            let frame = message.to_string();
                            assert_eq!(frame, RECONNECT);
                            return at;
                        }
                        let expected =
                            format!(r#"{{"event":"e","data":"{next}","channel":"lobby"}}"#);
                        assert_eq!(message.to_text().unwrap(), expected);
                        next += 1;
                    }
                })
            })
            .collect();
        for number in 0..14 {
            std::thread::sleep(Duration::from_millis(200));
            // Answers of a server that closes end the connection: there is another one.
            let mut http = Http::connect(&server);
            http.publish(&["lobby"], "e", &number.to_string());
        }
        waiting
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    assert!(
        ends.iter().all(|at| *at >= Duration::from_millis(900)),
        "{ends:?}"
    );
    for second in 1..4 {
        let range = Duration::from_secs(second)..Duration::from_secs(second + 1);
        let closed = ends.iter().filter(|at| range.contains(*at)).count();
        assert!(
            (COUNT / 6..COUNT / 2 + 5).contains(&closed),
            "{closed} in second {second}"
        );
    }
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn once_it_closes_sockets_answers_end_their_connections() {
    let server = Process::with(
        "",
        &[
            ("RESOUND_DRAIN_SECONDS", "600"),
            ("RESOUND_DRAIN_PAUSE", "0"),
        ],
    );
    let mut http = Http::connect(&server);
    server.signal("-TERM");
    server.logged("closing connections");
    let answer = http.request("GET", "/up", "");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (503, Some("close"))
    );
    assert!(http.is_closed());
}

#[test]
fn an_interrupt_closes_all_at_once_whatever_is_set() {
    let mut server = Process::with("", DRAIN);
    let mut client = Client::connect(&server);
    server.signal("-INT");
    client.closed_with(1001, "Server is shutting down");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_drain() {
    let mut server = Process::with(
        "",
        &[
            ("RESOUND_DRAIN_SECONDS", "600"),
            ("RESOUND_DRAIN_PAUSE", "600"),
        ],
    );
    let mut client = Client::connect(&server);
    server.signal("-TERM");
    server.logged("closing connections");
    std::thread::sleep(Duration::from_millis(1200));
    client.expect_alive();
    server.signal("-TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
}

/// A single node has nowhere to send its clients.
#[test]
fn a_single_node_closes_all_at_once() {
    let mut server = Process::start("");
    let mut client = Client::connect(&server);
    server.signal("-TERM");
    client.closed_with(1001, "Server is shutting down");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_drain_can_be_set_by_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::within(dir, "", &[]);
    let mut client = Client::connect(&server);
    std::fs::write(
        server.dir.path().join(".env"),
        "RESOUND_DRAIN_SECONDS=1\nRESOUND_DRAIN_PAUSE=0\n",
    )
    .unwrap();
    server.signal("-HUP");
    server.logged("settings reloaded");
    server.signal("-TERM");
    client.closed_with(4200, RECONNECT);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

/// Nobody was served yet.
#[test]
fn a_start_that_waits_for_redis_can_be_ended() {
    // It lets everybody connect, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let settings = [
        ("REVERB_SCALING_ENABLED", "true"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", &port),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::run(dir, "--require-redis", "", &settings);
    server.signal("-TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
