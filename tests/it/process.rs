//! The server as a process of its own: what it holds, and what it returns.

use std::time::{Duration, Instant};

use crate::support::{Client, Http, KEY, Process, SECRET, Signed, body, hmac};
use serde_json::{Value, json};

#[test]
fn a_publish_gets_through_when_sockets_are_at_the_limit_of_open_files() {
    let server = Process::start("ulimit -n 300;");
    let mut clients: Vec<Client> = Vec::new();
    let refused = loop {
        let mut client = Client::open(&server, &format!("/app/{KEY}"), &[]);
        let first = client.next_json();
        if first["event"] == "pusher:error" {
            break client;
        }
        clients.push(client);
        assert!(clients.len() < 300, "nobody was refused");
    };
    let mut refused = refused;
    refused.closed_with(4100, "Server is over capacity");
    assert!(clients.len() >= 150, "{} is far below 300", clients.len());
    clients[0].subscribe("lobby");
    for _ in 0..20 {
        Http::connect(&server).publish(&["lobby"], "ev", "x");
        clients[0].expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
    }
    clients.pop();
    let deadline = Instant::now() + crate::support::PATIENCE;
    while Client::open(&server, &format!("/app/{KEY}"), &[]).next_json()["event"] == "pusher:error"
    {
        assert!(
            Instant::now() < deadline,
            "a place that is free is not given"
        );
    }
}

/// Every frame type, with every field missing, of every wrong type, empty, huge,
/// nested and twice.
fn bad_frames() -> Vec<String> {
    let frames = [
        json!({ "event": "pusher:subscribe", "data": { "channel": "presence-x", "auth": "k:s", "channel_data": "{}" } }),
        json!({ "event": "pusher:unsubscribe", "data": { "channel": "never-joined" } }),
        json!({ "event": "pusher:signin", "data": { "auth": "k:s", "user_data": "{\"id\":\"1\"}" } }),
        json!({ "event": "client-x", "channel": "never-joined", "data": {} }),
        json!({ "event": "pusher:ping", "data": {} }),
        json!({ "event": "unknown", "channel": "x" }),
        json!({ "event": "pusher:unknown" }),
    ];
    let deep = (0..100).fold(json!(1), |value, _| json!([value]));
    let wrong = [
        json!(null),
        json!(true),
        json!(-1.5),
        json!([]),
        json!({}),
        json!(""),
        json!("x".repeat(5000)),
        deep,
    ];
    let mut bad = vec![
        "".to_owned(),
        "{".to_owned(),
        "[]".to_owned(),
        "\"x\"".to_owned(),
        "[".repeat(1000),
    ];
    bad.push(format!(
        r#"{{"event":"pusher:subscribe","data":{}1{}}}"#,
        "[".repeat(1000),
        "]".repeat(1000)
    ));
    for frame in frames {
        bad.push(frame.to_string());
        let paths = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        for key in paths(&frame) {
            let mut changed = frame.clone();
            changed.as_object_mut().unwrap().remove(&key);
            bad.push(changed.to_string());
            bad.push(
                frame
                    .to_string()
                    .replacen('{', &format!("{{\"{key}\":1,"), 1),
            );
            for value in &wrong {
                changed[&key] = value.clone();
                bad.push(changed.to_string());
            }
        }
        for key in frame["data"]
            .as_object()
            .map(|_| paths(&frame["data"]))
            .unwrap_or_default()
        {
            let mut changed = frame.clone();
            changed["data"].as_object_mut().unwrap().remove(&key);
            bad.push(changed.to_string());
            for value in &wrong {
                changed["data"][&key] = value.clone();
                bad.push(changed.to_string());
            }
        }
    }
    bad
}

#[test]
fn bad_frames_are_answered_and_leave_no_state_and_no_memory_behind() {
    let server = Process::start("");
    let mut http = Http::connect(&server);
    let frames = bad_frames();
    assert!(frames.len() > 150, "{}", frames.len());
    let round = || {
        let mut client = Client::connect(&server);
        for frame in &frames {
            client.send(frame);
            client.send(r#"{"event":"pusher:ping"}"#);
            while client.next_text() != r#"{"event":"pusher:pong"}"# {}
        }
    };
    (0..5).for_each(|_| round());
    let before = server.memory();
    (0..40).for_each(|_| round());
    let after = server.memory();
    assert!(after < before + 2048, "{before} KiB became {after} KiB");
    assert_eq!(http.get("channels", &[]).body, r#"{"channels":{}}"#);
    let deadline = Instant::now() + crate::support::PATIENCE;
    while http.get("connections", &[]).body != r#"{"connections":0}"# {
        assert!(Instant::now() < deadline, "a connection is left");
    }
}

/// Channels, members and users come and go, and then nothing is left of them.
#[test]
fn memory_returns_after_channels_and_members_have_gone() {
    let server = Process::start("");
    let sign = |client: &Client, text: &str| {
        format!("{KEY}:{}", hmac(SECRET, &format!("{}:{text}", client.id)))
    };
    let crowd = || {
        let mut clients: Vec<Client> = (0..60).map(|_| Client::connect(&server)).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            for channel in 0..20 {
                client.subscribe(&format!("private-{n}-{channel}"));
            }
            let user = format!(
                r#"{{"id":"u{n}","watchlist":["u{}","nobody-{n}"]}}"#,
                (n + 1) % 60
            );
            let data =
                json!({ "auth": sign(client, &format!(":user::{user}")), "user_data": user });
            client.send(&json!({ "event": "pusher:signin", "data": data }).to_string());
            assert_eq!(client.next_json()["event"], "pusher:signin_success");
            let member = format!(r#"{{"user_id":"u{n}"}}"#);
            let auth = sign(client, &format!("presence-crowd:{member}"));
            let data = json!({ "channel": "presence-crowd", "auth": auth, "channel_data": member });
            client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
            while !client.next_text().contains("presence") {}
        }
    };
    (0..3).for_each(|_| crowd());
    let before = server.memory();
    (0..10).for_each(|_| crowd());
    let after = server.memory();
    assert!(after < before + 4096, "{before} KiB became {after} KiB");
}

/// Clients that have thousands of things sent to others are held back, so that
/// memory stays bounded and publishes get through.
#[test]
fn churn_in_a_big_room_neither_fills_the_memory_nor_stops_publishes() {
    let server = Process::start("");
    let join = |client: &mut Client, user: &str| {
        let member = format!(r#"{{"user_id":"{user}"}}"#);
        let auth = format!(
            "{KEY}:{}",
            hmac(SECRET, &format!("{}:presence-room:{member}", client.id))
        );
        let data = json!({ "channel": "presence-room", "auth": auth, "channel_data": member });
        client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
    };
    let mut members: Vec<Client> = (0..60).map(|_| Client::connect(&server)).collect();
    for (n, client) in members.iter_mut().enumerate() {
        join(client, &format!("m{n}"));
    }
    let mut listener = Client::connect(&server);
    listener.subscribe("lobby");
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (server, join) = (&server, &join);
            scope.spawn(move || {
                let mut client = Client::connect(server);
                for _ in 0..1000 {
                    join(&mut client, &format!("churn{thread}"));
                    client.unsubscribe("presence-room");
                    while !client.next_text().contains("subscription_succeeded") {}
                }
            });
        }
        for _ in 0..50 {
            Http::connect(&server).publish(&["lobby"], "ev", "x");
            listener.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
        }
    });
    // What the members do not read counts, up to their bound; what is queued does not pile up.
    assert!(server.memory() < 400 * 1024, "{} KiB", server.memory());
}

/// Answers to a client that asks and does not read are bounded, too.
#[test]
fn answers_that_nobody_reads_do_not_fill_the_memory() {
    let server = Process::start("");
    Http::connect(&server).publish(&["cache-x"], "ev", &"x".repeat(100_000));
    let asking = r#"{"event":"pusher:subscribe","data":{"channel":"cache-x"}}"#;
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        // The server closes it at some point.
        let _ = (0..500).try_for_each(|_| client.socket.write(asking.into()));
        let _ = client.socket.flush();
    }
    std::thread::sleep(Duration::from_secs(1));
    assert!(server.memory() < 150 * 1024, "{} KiB", server.memory());
    Client::connect(&server).expect_alive();
}

/// 450 of them, with 400 open files, stopped publishes for 75 s.
#[test]
fn connections_that_say_nothing_stop_neither_publishes_nor_handshakes() {
    let server = Process::start("ulimit -n 400;");
    let mut member = Client::connect(&server);
    member.subscribe("lobby");
    let event = r#"{"event":"ev","data":"x","channel":"lobby"}"#;
    // In the middle of a request: not to be closed, however long ago it began.
    let body = body(&["lobby"], "ev", "x");
    let target = Signed::post("events", &body).target();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut half = Http::connect(&server);
    half.write(&head);
    half.write(&body[..5]);
    std::thread::sleep(Duration::from_millis(100));
    let mut refused = Http::connect(&server);
    refused.write("POST /apps/x/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n");
    let mut silent: Vec<Http> = (0..450).map(|_| Http::connect(&server)).collect();
    let begin = Instant::now();
    for _ in 0..20 {
        Http::connect(&server).publish(&["lobby"], "ev", "x");
        member.expect(event);
        Client::connect(&server).expect_alive();
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "they had to wait");
    assert!(silent[0].is_closed(), "who waits longest goes first");
    assert!(refused.is_closed(), "nobody waits for its body");
    half.write(&body[5..]);
    assert_eq!(half.answer().status, 200);
    member.expect(event);
}

/// A client that is refused and stays kept its place for seconds.
#[test]
fn connections_that_are_refused_stop_no_publishes() {
    let server = Process::start("ulimit -n 400;");
    let _refused: Vec<Client> = (0..450)
        .map(|_| Client::open(&server, "/app/unknown-key", &[]))
        .collect();
    let begin = Instant::now();
    for _ in 0..20 {
        Http::connect(&server).publish(&["lobby"], "ev", "x");
        Client::connect(&server).expect_alive();
    }
    assert!(begin.elapsed() < Duration::from_secs(3), "they had to wait");
}

/// One of 100 kB for 2000 took 200 MB more.
#[test]
fn a_large_event_is_not_copied_for_each_subscriber() {
    const SUBSCRIBERS: u64 = 500;
    const KIB: u64 = 100;
    let server = Process::start("");
    let mut clients: Vec<Client> = (0..SUBSCRIBERS).map(|_| Client::connect(&server)).collect();
    clients
        .iter_mut()
        .for_each(|client| client.subscribe("lobby"));
    let before = server.peak_memory();
    let data = "x".repeat(100 * 1024);
    Http::connect(&server).publish(&["lobby"], "ev", &data);
    let event = format!(r#"{{"event":"ev","data":"{data}","channel":"lobby"}}"#);
    clients.iter_mut().for_each(|client| client.expect(&event));
    let more = server.peak_memory() - before;
    assert!(more < SUBSCRIBERS * KIB / 5, "{more} KiB more");
}

/// What `concurrently`, `timeout` and a terminal's process group do.
#[test]
fn a_stop_signal_that_is_repeated_within_a_second_is_the_same_and_all_get_their_close_frame() {
    for signals in [
        ["-TERM", "-TERM"],
        ["-INT", "-TERM"],
        ["-QUIT", "-INT"],
        ["-QUIT", "-QUIT"],
    ] {
        let mut server = Process::start("");
        let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(&server)).collect();
        server.signal(signals[0]);
        server.logged("closing connections");
        server.signal(signals[1]);
        for client in &mut clients {
            client.closed_with(1001, "Server is shutting down");
        }
        assert_eq!(server.child.wait().unwrap().code(), Some(0), "{signals:?}");
    }
}

#[test]
fn a_stop_signal_more_than_a_second_after_the_first_ends_at_once() {
    let mut server = Process::with("", &[("RESOUND_SHUTDOWN_GRACE", "60")]);
    // It does not answer the close frame, so the server waits for it.
    let client = Client::connect(&server);
    let begin = Instant::now();
    server.signal("-TERM");
    server.logged("closing connections");
    std::thread::sleep(Duration::from_millis(200));
    server.signal("-TERM");
    std::thread::sleep(Duration::from_millis(1300));
    assert!(server.child.try_wait().unwrap().is_none(), "it ended early");
    server.signal("-INT");
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
    server.logged("second signal: ending at once");
    assert!(begin.elapsed() < Duration::from_secs(10));
    drop(client);
}

#[test]
fn signals_that_other_servers_have_a_meaning_for_end_nothing() {
    let mut server = Process::start("");
    let mut client = Client::connect(&server);
    for (signal, text) in [
        ("-USR1", "SIGUSR1"),
        ("-USR2", "SIGUSR2"),
        ("-HUP", "settings reloaded"),
    ] {
        server.signal(signal);
        server.logged(text);
        client.expect_alive();
    }
    server.signal("-PIPE");
    client.expect_alive();
    server.signal("-TERM");
    client.closed_with(1001, "Server is shutting down");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
