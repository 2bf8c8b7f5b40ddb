//! Connections that are moved to other workers in every state that they can be in, by way
//! of their written form, while their channels are published to all the time. A client
//! sees each number once and in order ([`Listener`]), and exactly one answer to each thing
//! that it asks.

mod workers;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use resound::hub::Unsubscribed;
use resound::protocol::{ChannelName, SocketId};
use resound::tls::{Acceptor, Session};
use resound::worker::state::{ConnectionState, FreezeError, PhaseState};
use resound::worker::{MoveError, UNIX_PEER};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::PATIENCE;
use workers::{Listener, Others, PING, PONG, WORKERS, Workers, channel, frame, succeeded};

const TEXT: u8 = 1;
const FINAL: u8 = 0x80;
const WS_PING: u8 = 0x89;

fn none(_: u64) -> usize {
    0
}

/// Does something with a client of some channels that are published to all the time.
fn published(workers: &Workers, channels: &[&str], act: impl FnOnce(&mut Listener)) {
    let mut listener = workers.connect();
    for name in channels {
        listener.subscribe(name);
    }
    let publisher = workers.publisher(channels, none);
    act(&mut listener);
    let last = publisher.stop();
    for name in channels {
        listener.expect_all(name, last);
    }
    listener.expect_alive();
}

#[test]
fn an_idle_connection_is_moved() {
    let workers = Workers::start(&[]);
    published(&workers, &["a", "b", "private-c"], |listener| {
        let before = workers.home(listener.address());
        let mut age = Duration::ZERO;
        for _ in 0..20 * WORKERS {
            let state = workers.move_on(listener);
            assert_eq!(state.phase, PhaseState::Open);
            assert_eq!(state.socket_id, listener.client.id);
            assert_eq!(state.origin.as_deref(), Some("https://example.com"));
            assert_eq!(state.session.peer, listener.address());
            assert_eq!(state.input, Default::default());
            assert_eq!(state.session.received, 3);
            assert!(state.session.received_bytes > 100);
            assert!(state.session.age >= age);
            age = state.session.age;
            let mut names: Vec<&str> = state.subscriptions.iter().map(|s| &*s.channel).collect();
            names.sort();
            assert_eq!(names, ["a", "b", "private-c"]);
            assert!(state.subscriptions.iter().all(|s| s.position.is_some()));
        }
        let after = workers.home(listener.address());
        assert_eq!((after.worker, after.id), (before.worker, before.id));
        listener.expect_alive();
        listener.client.unsubscribe("b");
        listener.expect_alive();
        listener.forget("b");
        listener.subscribe("b");
        workers.move_on(listener);
    });
    workers.expect_empty();
}

/// What arrives while a connection moves is in the socket, or was read before.
#[test]
fn a_connection_is_moved_at_every_byte_of_a_frame() {
    let workers = Workers::start(&[]);
    published(&workers, &["a"], |listener| {
        let ping = frame(FINAL | TEXT, PING.as_bytes());
        for cut in 1..ping.len() {
            listener.write(&ping[..cut]);
            let state = workers.move_until(listener, |state| !state.input.bytes.is_empty());
            assert_eq!(state.input.bytes, ping[..cut]);
            listener.write(&ping[cut..]);
            workers.move_on(listener);
            listener.expect(PONG);
        }
        // Whole messages before the cut one, which are handled once.
        let read = [&ping[..], &ping, &ping[..9]].concat();
        listener.write(&read);
        let is_cut = |state: &ConnectionState| state.input.bytes == ping[..9];
        workers.move_until(listener, is_cut);
        listener.write(&ping[9..]);
        (0..3).for_each(|_| listener.expect(PONG));
    });
}

#[test]
fn a_connection_is_moved_at_every_byte_of_a_fragmented_message() {
    let workers = Workers::start(&[]);
    published(&workers, &["a"], |listener| {
        let (one, rest) = PING.as_bytes().split_at(5);
        let (two, three) = rest.split_at(9);
        let parts = [
            frame(TEXT, one),
            frame(WS_PING, b"first"),
            frame(0, two),
            frame(0, b""),
            frame(WS_PING, b"second"),
            frame(FINAL, three),
        ];
        let all = parts.concat();
        let pongs = [parts[..2].concat().len(), parts[..5].concat().len()];
        for cut in 1..all.len() {
            listener.write(&all[..cut]);
            // Both halves of a fragment are read at once, or not.
            let whole = parts.iter().scan(0, |end, part| {
                *end += part.len();
                Some((*end <= cut, part))
            });
            let fragments = whole.filter(|(is_whole, part)| *is_whole && part[0] != WS_PING);
            let payload: usize = fragments.map(|(_, part)| part.len() - 6).sum();
            let ends = parts.iter().scan(0, |end, part| {
                *end += part.len();
                Some(*end)
            });
            let begun = cut - ends.take_while(|end| *end <= cut).last().unwrap_or(0);
            let header = if cut < parts[0].len() { 0 } else { 6 };
            let expected = header + payload + begun;
            let state = workers.move_until(listener, |state| state.input.bytes.len() == expected);
            assert!(state.input.waiting_message.is_none());
            workers.move_on(listener);
            listener.write(&all[cut..]);
            for (name, end) in [&b"first"[..], b"second"].iter().zip(pongs) {
                assert_eq!(
                    listener.next(),
                    Message::Pong(name.to_vec().into()),
                    "{end} {cut}"
                );
            }
            listener.expect(PONG);
        }
    });
}

/// One that does not read: small frames, and large ones that are shared.
#[test]
fn a_blocked_connection_is_moved_with_what_waits_for_it() {
    let workers = Workers::start(&[
        ("RESOUND_MAX_BACKLOG", "500000000"),
        ("RESOUND_MAX_TOTAL_BACKLOG", "1000000000"),
    ]);
    let padding = |number: u64| match number {
        1..50 => 20_000,
        _ if number.is_multiple_of(50) => 20_000,
        _ => 100,
    };
    let mut listener = workers.connect();
    listener.subscribe("a");
    let mut quick = workers.connect();
    quick.subscribe("a");
    let publisher = workers.publisher(&["a"], padding);
    workers.move_until(&listener, |state| !state.output.bytes.is_empty());
    // Until what is written ends within a frame.
    while workers.move_on(&listener).output.written == 0 {
        listener.step();
    }
    // Each move writes and reads all that waits: more of it takes longer, and meanwhile there is more.
    publisher.slow_down();
    for _ in 0..6 {
        let state = workers.move_on(&listener);
        assert!(!state.output.bytes.is_empty());
        workers.move_on(&quick);
    }
    // Of answers to one subscription, one waits at a time.
    listener.client.ask("a");
    let is_pending = |state: &ConnectionState| state.subscriptions[0].is_answer_pending;
    workers.move_until(&listener, is_pending);
    (0..2).for_each(|_| listener.client.ask("a"));
    workers.move_on(&listener);
    // It reads on while it is moved.
    let is_moving = AtomicBool::new(true);
    let address = listener.address();
    thread::scope(|scope| {
        scope.spawn(|| {
            while is_moving.load(Ordering::Relaxed) {
                workers.try_move(address).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        listener.expect(&succeeded("a"));
        (0..3).for_each(|_| listener.expect_alive());
        let last = publisher.stop();
        listener.expect_all("a", last);
        quick.expect_all("a", last);
        is_moving.store(false, Ordering::Relaxed);
    });
    let state = workers.move_on(&listener);
    assert!(state.output.bytes.is_empty());
    listener.expect_alive();
}

/// What is kept for a connection on its way has the bound of every out-buffer.
#[test]
fn a_connection_that_does_not_read_is_closed_wherever_it_is() {
    let workers = Workers::start(&[("RESOUND_MAX_BACKLOG", "200000")]);
    let mut listener = workers.connect();
    listener.subscribe("a");
    let publisher = workers.publisher(&["a"], |_| 5000);
    let deadline = Instant::now() + Duration::from_secs(30);
    while workers.try_move(listener.address()).is_ok() {
        assert!(Instant::now() < deadline);
    }
    publisher.stop();
    let error = listener.next().into_text().unwrap();
    assert!(
        error.contains("pusher:error") && error.contains("4100"),
        "{error}"
    );
    assert!(
        matches!(listener.next(), Message::Close(Some(frame)) if u16::from(frame.code) == 4100)
    );
    drop(listener);
    workers.expect_empty();
}

/// Its message waits, and what comes after it.
#[test]
fn a_connection_is_moved_whose_message_waits_for_room() {
    let workers = Workers::start(&[]);
    let mut listener = workers.connect();
    listener.subscribe("a");
    workers.fall_behind();
    let ask = json!({ "event": "pusher:subscribe", "data": { "channel": "later" } }).to_string();
    let ping = frame(FINAL | TEXT, PING.as_bytes());
    let sent = [&frame(FINAL | TEXT, ask.as_bytes())[..], &ping, &ping[..7]].concat();
    listener.write(&sent);
    let waits = |state: &ConnectionState| state.input.waiting_message.is_some();
    let state = workers.move_until(&listener, waits);
    assert_eq!(state.input.waiting_message.as_deref(), Some(&*ask));
    assert_eq!(state.input.bytes, [&ping[..], &ping[..7]].concat());
    let publisher = workers.publisher(&["a"], none);
    for _ in 0..10 {
        let again = workers.move_on(&listener);
        assert_eq!(again.input, state.input);
    }
    listener.write(&ping[7..]);
    assert!(workers.hub.find(&workers.app, "later").is_none());
    workers.catch_up();
    listener.expect(&succeeded("later"));
    listener.expect(PONG);
    listener.expect(PONG);
    listener.expect_all("a", publisher.stop());
}

/// Other nodes are asked, and nobody answers until the link is given up: before, while or
/// after the connection moves.
#[test]
fn a_connection_is_moved_that_waits_for_redis() {
    for round in 0..12 {
        let workers = Workers::linked(&[], Others::Silent);
        let mut listener = workers.connect();
        let publisher = workers.publisher(&["a", "presence-b"], none);
        listener.client.ask("a");
        listener.join("presence-b", r#"{"user_id":"u","user_info":{"n":"é"}}"#);
        let success = listener.sign_in(r#"{"id":"u","watchlist":["v"]}"#);
        let waits = |state: &ConnectionState| {
            let user = state.session.user.as_ref();
            state.subscriptions.len() == 2 && user.is_some_and(|user| user.waiting_answer.is_some())
        };
        let state = workers.move_until(&listener, waits);
        assert!(
            state.subscriptions.iter().all(|s| s.position.is_none()),
            "{state:?}"
        );
        let member = state
            .subscriptions
            .iter()
            .find_map(|s| s.member.as_ref())
            .unwrap();
        assert_eq!((&*member.id, &*member.id_json), ("u", "\"u\""));
        assert_eq!(member.info_json, r#"{"n":"é"}"#);
        let user = state.session.user.as_ref().unwrap();
        assert!(user.awaits_watchlist && user.watchlist == ["v"]);
        let is_moving = AtomicBool::new(true);
        let address = listener.address();
        thread::scope(|scope| {
            scope.spawn(|| {
                while is_moving.load(Ordering::Relaxed) {
                    workers.try_move(address).unwrap();
                }
            });
            thread::sleep(Duration::from_millis(round));
            workers.hub.go_alone();
            thread::sleep(Duration::from_millis(3));
            is_moving.store(false, Ordering::Relaxed);
        });
        let mut answers: Vec<String> = (0..4)
            .map(|_| listener.next().into_text().unwrap().to_string())
            .collect();
        answers.sort();
        assert_eq!(answers[0], success);
        assert!(answers[1].contains(r#"\"ids\":[\"u\"]"#), "{answers:?}");
        assert_eq!(answers[2], succeeded("a"));
        assert!(answers[3].contains("watchlist_events"), "{answers:?}");
        let state = workers.move_on(&listener);
        assert!(state.subscriptions.iter().all(|s| s.position.is_some()));
        assert!(state.session.user.unwrap().waiting_answer.is_none());
        let last = publisher.stop();
        listener.expect_all("a", last);
        listener.expect_all("presence-b", last);
        listener.expect_alive();
        drop(listener);
        workers.expect_empty();
    }
}

#[test]
fn members_and_users_stay_while_they_move() {
    let workers = Workers::start(&[]);
    let (mut ana, mut ben) = (workers.connect(), workers.connect());
    let success = ben.sign_in(r#"{"id":"ben","watchlist":["ana"]}"#);
    ben.expect(&success);
    assert!(ben.next().into_text().unwrap().contains("watchlist_events"));
    ben.join("presence-b", r#"{"user_id":"ben"}"#);
    assert!(ben.next().into_text().unwrap().contains("succeeded"));
    let success = ana.sign_in(r#"{"id":"ana"}"#);
    ana.expect(&success);
    assert!(ben.next().into_text().unwrap().contains("online"));
    ana.join(
        "presence-b",
        r#"{"user_id":"ana","user_info":{"x":[1,"\"\\"]}}"#,
    );
    assert!(ana.next().into_text().unwrap().contains("succeeded"));
    assert!(ben.next().into_text().unwrap().contains("member_added"));
    for _ in 0..4 {
        let state = workers.move_on(&ana);
        workers.move_on(&ben);
        let member = state.subscriptions[0].member.as_ref().unwrap();
        assert_eq!(member.info_json, r#"{"x":[1,"\"\\"]}"#);
        assert_eq!(state.session.user.unwrap().member.id, "ana");
    }
    let event = r#"{"event":"client-e","channel":"presence-b","data":1}"#;
    ana.client.send(event);
    let got: Value = serde_json::from_str(&ben.next().into_text().unwrap()).unwrap();
    assert_eq!(
        (&got["event"], &got["user_id"]),
        (&json!("client-e"), &json!("ana"))
    );
    ana.expect_alive();
    assert_eq!(workers.hub.terminate(&workers.app, "ana", None), 1);
    assert!(ana.next().into_text().unwrap().contains("4009"));
    drop(ana);
    for told in ["member_removed", "offline"] {
        assert!(ben.next().into_text().unwrap().contains(told));
    }
    ben.expect_alive();
    drop(ben);
    workers.expect_empty();
}

/// The text of the error, and the code of the close frame, which nothing follows.
fn end(listener: &mut Listener) -> (String, u16) {
    let mut texts = String::new();
    loop {
        match listener.next() {
            Message::Text(text) => texts.push_str(&text),
            Message::Close(Some(frame)) => {
                assert!(listener.client.socket.read().is_err());
                return (texts, frame.code.into());
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Whichever worker it is closed by, and when both close it.
#[test]
fn a_connection_is_closed_once_while_it_moves() {
    for round in 0..40 {
        let workers = Workers::start(&[]);
        let mut listener = workers.connect();
        for name in ["a", "b"] {
            listener.subscribe(name);
        }
        let success = listener.sign_in(r#"{"id":"u"}"#);
        listener.expect(&success);
        let publisher = workers.publisher(&["a", "b"], none);
        let address = listener.address();
        thread::scope(|scope| {
            scope.spawn(|| while workers.try_move(address).is_ok() {});
            thread::sleep(Duration::from_micros(500 * round));
            let expected = if round % 2 == 0 {
                workers.hub.terminate(&workers.app, "u", None);
                workers.hub.terminate(&workers.app, "u", None);
                4009
            } else {
                workers.remove_app();
                4001
            };
            let (text, code) = end(&mut listener);
            assert_eq!(
                (text.matches("pusher:error").count(), code),
                (1, expected),
                "{text}"
            );
        });
        publisher.stop();
        drop(listener);
        workers.expect_empty();
    }
}

/// Whichever worker it is with, and when it is with none.
#[test]
fn a_connection_leaves_a_channel_once_while_it_moves() {
    let channel = ChannelName::parse("a", 100).unwrap();
    for round in 0..40 {
        let workers = Workers::start(&[]);
        let mut listener = workers.connect();
        for name in ["a", "b"] {
            listener.subscribe(name);
        }
        // Every worker has others of the channel.
        let mut others: Vec<Listener> = (0..2 * WORKERS).map(|_| workers.connect()).collect();
        others.iter_mut().for_each(|other| other.subscribe("a"));
        let publisher = workers.publisher(&["a", "b"], none);
        let success = listener.sign_in(r#"{"id":"u"}"#);
        listener.expect(&success);
        let (address, is_over) = (listener.address(), AtomicBool::new(false));
        let socket = SocketId::parse(&listener.client.id).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    workers.try_move(address).unwrap();
                }
            });
            thread::sleep(Duration::from_micros(500 * round));
            let who = match round % 2 {
                0 => Unsubscribed::Socket(socket),
                _ => Unsubscribed::User("u".to_owned()),
            };
            workers.hub.unsubscribe(&workers.app, &channel, &who);
            // Whatever becomes of it, the other thread ends.
            let next = catch_unwind(AssertUnwindSafe(|| listener.next()));
            is_over.store(true, Ordering::Relaxed);
            let text = next.unwrap().into_text().unwrap();
            assert!(text.contains("Unsubscribed"), "{text}");
        });
        let left = workers.hub.find(&workers.app, "a").unwrap();
        assert_eq!(left.counts().subscriptions, others.len());
        let last = publisher.stop();
        listener.expect_all("b", last);
        others
            .iter_mut()
            .for_each(|other| other.expect_all("a", last));
        drop(others);
        listener.expect_alive();
        drop(listener);
        workers.expect_empty();
    }
}

#[test]
fn connections_that_move_when_the_server_stops_are_told_so() {
    for round in 0..10 {
        let workers = Workers::start(&[]);
        let mut listeners: Vec<Listener> = (0..6).map(|_| workers.connect()).collect();
        listeners
            .iter_mut()
            .for_each(|listener| listener.subscribe("a"));
        let publisher = workers.publisher(&["a"], none);
        thread::scope(|scope| {
            for listener in &listeners {
                let (workers, address) = (&workers, listener.address());
                scope.spawn(move || while workers.try_move(address).is_ok() {});
            }
            thread::sleep(Duration::from_millis(round));
            workers.go_down();
        });
        for listener in &mut listeners {
            assert_eq!(end(listener), (String::new(), 1001));
        }
        publisher.stop();
    }
}

#[test]
fn limits_and_deadlines_go_on_where_they_were() {
    let workers = Workers::start(&[
        ("REVERB_APP_RATE_LIMITING_ENABLED", "true"),
        ("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "3"),
        ("REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "60"),
        ("RESOUND_AUTHORIZATION_TIMEOUT", "3"),
    ]);
    let began = Instant::now();
    let mut listener = workers.connect();
    for name in ["a", "b"] {
        listener.subscribe(name);
        let state = workers.move_on(&listener);
        let left = state.session.full_message_rate_in.unwrap();
        assert!(left > Duration::from_secs(10), "{left:?}");
    }
    listener.subscribe("c");
    workers.move_on(&listener);
    listener.client.ask("d");
    assert!(
        listener
            .next()
            .into_text()
            .unwrap()
            .contains("Rate limit exceeded")
    );
    thread::sleep(Duration::from_secs(1));
    let left = workers.move_on(&listener).deadlines;
    assert!(
        left.authorization.unwrap() < Duration::from_secs(2),
        "{left:?}"
    );
    assert!(
        left.pong.is_none() && left.ping > Duration::from_secs(10),
        "{left:?}"
    );
    assert!(listener.next().into_text().unwrap().contains("4009"));
    let lasted = began.elapsed();
    assert!(lasted < Duration::from_secs(6), "{lasted:?}");
}

/// Half a message is no sign of life, wherever its first half was read.
#[test]
fn a_silent_client_is_pinged_in_time_and_closed_in_time() {
    let workers = Workers::start(&[
        ("REVERB_APP_PING_INTERVAL", "2"),
        ("RESOUND_PONG_TIMEOUT", "2"),
    ]);
    let mut listener = workers.connect();
    listener.write(&frame(FINAL | TEXT, PING.as_bytes())[..7]);
    let began = Instant::now();
    let mut pinged = None;
    while let Ok(state) = workers.try_move(listener.address()) {
        let left = state.deadlines.pong;
        pinged = pinged.or_else(|| left.map(|_| began.elapsed()));
        thread::sleep(Duration::from_millis(50));
    }
    let (pinged, closed) = (pinged.unwrap(), began.elapsed());
    let seconds = |from, to| Duration::from_secs(from)..Duration::from_secs(to);
    assert!(seconds(1, 4).contains(&pinged), "{pinged:?}");
    assert!(seconds(3, 8).contains(&closed), "{closed:?}");
    listener.expect(r#"{"event":"pusher:ping"}"#);
    assert!(matches!(listener.next(), Message::Ping(_)));
    assert!(listener.next().into_text().unwrap().contains("4201"));
}

#[test]
fn a_connection_over_a_unix_socket_is_moved_as_any_other() {
    let workers = Workers::start(&[
        ("RESOUND_MAX_BACKLOG", "500000000"),
        ("RESOUND_MAX_TOTAL_BACKLOG", "1000000000"),
    ]);
    let mut listener = workers.connect_unix();
    listener.subscribe("a");
    let large_at_first = |number| if number < 50 { 20_000 } else { 100 };
    let publisher = workers.publisher(&["a"], large_at_first);
    // Nothing is read, so that in the end it is moved with what waits for it.
    let deadline = Instant::now() + PATIENCE;
    while workers.try_move(UNIX_PEER).unwrap().output.bytes.is_empty() {
        assert!(Instant::now() < deadline, "it is never blocked");
    }
    for _ in 0..10 {
        workers.try_move(UNIX_PEER).unwrap();
        listener.step();
    }
    let last = publisher.stop();
    listener.expect_all("a", last);
    workers.try_move(UNIX_PEER).unwrap();
    listener.expect_alive();
}

#[test]
fn what_cannot_be_moved_is_refused_and_goes_on() {
    let workers = Workers::start(&[]);
    let mut listener = workers.connect();
    listener.subscribe("a");
    let error = |address: SocketAddr| workers.try_move(address).unwrap_err();
    workers.go_down();
    // It is told to go, and its client does not go.
    let deadline = Instant::now() + Duration::from_secs(5);
    while !matches!(error(listener.address()), MoveError::Closing) {
        assert!(Instant::now() < deadline);
    }

    let workers = Workers::with(&[], Others::None, tls);
    let tcp = workers.dial();
    let error = workers.try_move(tcp.local_addr().unwrap()).unwrap_err();
    assert!(
        matches!(error, MoveError::Freeze(FreezeError::Tls)),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("TLS connection cannot be frozen"),
        "{error}"
    );
}

/// A session with another client than that of the connection: nothing is said over it.
fn tls() -> Option<Box<Session>> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    // On a thread of its own, since it waits, and the worker's must not.
    let accepted = thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let tcp = tokio::net::TcpStream::from_std(tcp).unwrap();
            let accepted = Acceptor::new(config, false).accept(tcp).await;
            accepted.ok().expect("a handshake").into_parts().session
        })
    });
    while client.is_handshaking() || client.wants_write() {
        client.complete_io(&mut tcp).unwrap();
    }
    Some(accepted.join().unwrap())
}

/// More at once than one worker can be asked for at a time, all to one worker.
#[test]
fn a_crowd_is_moved_to_one_worker_at_once() {
    const CLIENTS: usize = 1600;
    const TARGET: usize = 0;
    let workers = Workers::start(&[]);
    let mut listeners: Vec<Listener> = (0..CLIENTS).map(|_| workers.connect()).collect();
    for listener in &mut listeners {
        listener.subscribe("a");
    }
    let publisher = workers.publisher(&["a"], none);
    publisher.slow_down();
    let away = |listener: &&Listener| workers.home(listener.address()).worker != TARGET;
    let moves: Vec<_> = listeners
        .iter()
        .filter(away)
        .map(|listener| workers.begin_move(listener.address(), TARGET))
        .collect();
    assert!(moves.len() > CLIENTS / 2, "{}", moves.len());
    for moving in moves {
        moving.end(&workers).unwrap();
    }
    assert!(listeners.iter().all(|listener| !away(&listener)));
    let last = publisher.stop();
    for listener in &mut listeners {
        listener.expect_all("a", last);
    }
    drop(listeners);
    workers.expect_empty();
}

/// Many at once, which also subscribe, unsubscribe, are closed and go away meanwhile.
#[test]
fn nothing_is_lost_and_nothing_left_when_many_move() {
    const CLIENTS: usize = 12;
    let workers = Workers::start(&[]);
    let names: Vec<String> = (0..4).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let publisher = workers.publisher(&names, |number| {
        if number.is_multiple_of(50) {
            20_000
        } else {
            10
        }
    });
    let is_moving = AtomicBool::new(true);
    let mut listeners: Vec<Listener> = (0..CLIENTS).map(|_| workers.connect()).collect();
    let addresses: Vec<SocketAddr> = listeners.iter().map(Listener::address).collect();
    let last = thread::scope(|scope| {
        for part in addresses.chunks(CLIENTS / 2) {
            let (workers, is_moving) = (&workers, &is_moving);
            scope.spawn(move || {
                while is_moving.load(Ordering::Relaxed) {
                    for address in part {
                        // Some have gone.
                        let _ = workers.try_move(*address);
                    }
                }
            });
        }
        let clients: Vec<_> = listeners
            .iter_mut()
            .enumerate()
            .map(|(index, listener)| {
                let names = &names;
                scope.spawn(move || {
                    for round in 0..30 {
                        let name = names[(index + round) % names.len()];
                        listener.subscribe(name);
                        listener.expect_alive();
                        if round % 3 != 0 {
                            listener.client.unsubscribe(name);
                            listener.expect_alive();
                            listener.forget(name);
                        }
                        if index == 0 && round == 10 {
                            listener.client.socket.close(None).unwrap();
                            return;
                        }
                    }
                    names.iter().for_each(|name| listener.subscribe(name));
                })
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        is_moving.store(false, Ordering::Relaxed);
        publisher.stop()
    });
    for mut listener in listeners.into_iter().skip(1) {
        for name in &names {
            while listener.last(name) != Some(last) {
                listener.step();
            }
        }
        listener.expect_alive();
    }
    workers.expect_empty();
    assert!(
        workers
            .hub
            .find(&workers.app, channel("c0").as_str())
            .is_none()
    );
}
