//! A node of two that ends behind HAProxy, with the settings that are there by default.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::frames::ask_to_join;
use crate::node::Node;
use crate::people::{Member, who};
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::support::{At, Client, Http};
use crate::wait::{LONG, eventually, eventually_is};

/// Sockets that are on the node that ends, and some on the other one all the time.
const MOVED: usize = 200;
const STAYING: usize = 20;

/// Of the former, those that are in a presence channel.
const MEMBERS: usize = 20;

/// Those that connect while nobody is closed yet.
const NEWCOMERS: usize = 5;

/// How long nobody is closed, and how long it all takes, by default.
const PAUSE: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_secs(8);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(500);

const HALL: &str = "presence-hall";

/// The name of the event after which nobody listens any more.
const LAST: &str = "last";

impl At for Proxy {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Everything goes to the first node while it is ready.
fn haproxy(first: &Node, second: &Node) -> Proxy {
    let (first, second) = (first.address(), second.address());
    Proxy::start("haproxy", &["-db", "-f", "{config}"], |address, _| {
        format!(
            "defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    # Longer than a busy machine keeps an answer waiting.
    timeout check 5s
frontend clients
    bind {address}
    default_backend nodes
backend nodes
    option httpchk GET /ready
    default-server check inter 200ms fall 1 rise 1
    server first {first}
    server second {second} backup
"
        )
    })
}

/// What one socket that was moved went through.
struct Journey {
    closed: Instant,
    /// The numbers of the events that it got, before and after.
    before: Vec<usize>,
    after: Vec<usize>,
}

/// Follows one socket through haproxy until the last event.
fn travel(mut client: Client, proxy: SocketAddr, member: Option<String>) -> Journey {
    let mut before = Vec::new();
    let closed = loop {
        let message = client.next();
        if message.is_close() {
            let at = Instant::now();
            let Message::Close(Some(frame)) = message else {
                panic!("a close frame without a code");
            };
            assert_eq!(u16::from(frame.code), 4200, "{frame}");
            break at;
        }
        take(message.to_text().unwrap(), &mut before);
    };
    // pusher-js connects again when the connection has ended.
    assert!(client.socket.read().is_err());
    let mut client = Client::connect(&Place(proxy));
    let mut after = Vec::new();
    client.ask("lobby");
    if let Some(user) = member {
        ask_to_join(&mut client, HALL, &who(&user));
    }
    while take(&client.next_text(), &mut after) {}
    Journey {
        closed,
        before,
        after,
    }
}

/// Notes the number of an event; false for the last event.
fn take(text: &str, numbers: &mut Vec<usize>) -> bool {
    let frame: Value = serde_json::from_str(text).unwrap();
    match frame["event"].as_str().unwrap() {
        "e" => numbers.push(frame["data"].as_str().unwrap().parse().unwrap()),
        LAST => return false,
        "pusher_internal:subscription_succeeded"
        | "pusher_internal:member_added"
        | "pusher_internal:member_removed" => {}
        _ => panic!("{text}"),
    }
    true
}

struct Place(SocketAddr);

impl At for Place {
    fn address(&self) -> SocketAddr {
        self.0
    }
}

/// Publishes through haproxy until it is told to end; returns how many.
fn publish(proxy: SocketAddr, is_over: &AtomicBool) -> usize {
    let mut http = Http::connect(&Place(proxy));
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        http.publish(&["lobby"], "e", &count.to_string());
        count += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    http.publish(&["lobby"], LAST, "-");
    count
}

fn user(number: usize) -> String {
    format!("user-{number}")
}

/// Those that are to move, in the channel and some of them in the hall too.
fn passengers(proxy: &Proxy, observer: &mut Member) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..MOVED).map(|_| Client::connect(proxy)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.subscribe("lobby");
        if number < MEMBERS {
            ask_to_join(client, HALL, &who(&user(number)));
        }
    }
    let all: BTreeSet<String> = (0..MEMBERS).map(user).chain(["observer".into()]).collect();
    eventually_is("who is in the hall", &all, || {
        observer.look();
        observer.here.clone()
    });
    observer.changes();
    clients
}

/// Waits until haproxy sends nobody to the one that ends.
fn connect_newcomers(proxy: &Proxy, second: &Node) -> Vec<Client> {
    let count = || second.counter("connections") as usize;
    let before = count();
    let mut newcomers = vec![Client::connect(proxy)];
    eventually("newcomers come to the other node", || {
        if count() == before {
            newcomers = vec![Client::connect(proxy)];
        }
        count() > before
    });
    newcomers.extend((1..NEWCOMERS).map(|_| Client::connect(proxy)));
    eventually_is(
        "connections of the other node",
        &(before + NEWCOMERS),
        count,
    );
    newcomers
}

/// What a socket that was always on the other node got: each event once, in order.
fn stay(mut client: Client) -> Vec<usize> {
    let mut numbers = Vec::new();
    while take(&client.next_text(), &mut numbers) {}
    numbers
}

fn is_run(numbers: &[usize]) -> bool {
    numbers.windows(2).all(|two| two[0] + 1 == two[1])
}

/// Events before the close from the first one on, and afterwards up to the last one.
fn check_journeys(journeys: &[Journey], begin: Instant, count: usize) {
    for Journey {
        closed,
        before,
        after,
    } in journeys
    {
        let closed = *closed - begin;
        assert!(
            closed >= PAUSE && closed <= WITHIN,
            "closed after {closed:?}"
        );
        assert!(is_run(before) && before.first() == Some(&0), "{before:?}");
        assert!(is_run(after), "{after:?}");
        if let Some(first) = after.first() {
            assert_eq!(after.last(), Some(&(count - 1)), "{after:?}");
            assert!(first > before.last().unwrap(), "{before:?} {after:?}");
        }
    }
}

/// Each was seen to leave and to come back, or its new socket came before the old one's end
/// was known, and nobody noticed.
fn check_members(observer: &mut Member) {
    let mut changes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let all: BTreeSet<String> = (0..MEMBERS).map(user).chain(["observer".into()]).collect();
    eventually_is("who is in the hall", &all, || {
        observer.look();
        observer.here.clone()
    });
    for change in observer.changes() {
        let (sign, user) = change.split_at(1);
        changes
            .entry(user.to_owned())
            .or_default()
            .push(sign.to_owned());
    }
    for (user, signs) in &changes {
        assert_eq!(signs, &["-", "+"], "{user}");
    }
}

/// What Redis has, as text.
fn contents(redis: &Redis) -> String {
    let keys = redis.command(&["KEYS", "*"]);
    let mut all = vec![
        keys.clone(),
        redis.command(&["PUBSUB", "CHANNELS"]),
        redis.command(&["PUBSUB", "SHARDCHANNELS"]),
    ];
    for key in keys.lines() {
        let command: &[&str] = match &*redis.command(&["TYPE", key]) {
            "hash" => &["HGETALL", key],
            "set" => &["SMEMBERS", key],
            "zset" => &["ZRANGE", key, "0", "-1"],
            _ => &["GET", key],
        };
        all.push(redis.command(command));
    }
    all.join("\n")
}

fn spawn_all<T: Send + 'static>(
    clients: Vec<Client>,
    each: impl Fn(usize, Client) -> T + Clone + Send + 'static,
) -> Vec<JoinHandle<T>> {
    let spawn = |(number, client)| {
        let each = each.clone();
        std::thread::spawn(move || each(number, client))
    };
    clients.into_iter().enumerate().map(spawn).collect()
}

fn joined<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    let joined = threads.into_iter().map(JoinHandle::join);
    joined.collect::<Result<_, _>>().unwrap()
}

#[test]
fn clients_of_a_node_that_ends_come_to_the_other_one_and_nobody_else_notices() {
    let redis = Redis::start();
    // What tests of nodes set otherwise.
    let defaults = [("RESOUND_SHUTDOWN_GRACE", "5")];
    let start = || Node::start(&redis.settings().with(&defaults));
    let (mut first, second) = (start(), start());
    for node in [&first, &second] {
        eventually_is("nodes", &2, || node.counter("nodes"));
    }
    let proxy = haproxy(&first, &second);
    let address = proxy.address();

    let mut staying: Vec<Client> = (0..STAYING).map(|_| Client::connect(&second)).collect();
    staying
        .iter_mut()
        .for_each(|client| client.subscribe("lobby"));
    let mut observer = Member::join(&second, HALL, "observer");
    let passengers = passengers(&proxy, &mut observer);
    assert_eq!(first.counter("connections"), MOVED as u64);
    let name = first.ready()["node"].as_str().unwrap().to_owned();
    assert!(contents(&redis).contains(&name));

    let staying = spawn_all(staying, |_, client| stay(client));
    let moving = spawn_all(passengers, move |number, client| {
        travel(client, address, (number < MEMBERS).then(|| user(number)))
    });
    let is_over = std::sync::Arc::new(AtomicBool::new(false));
    let over = std::sync::Arc::clone(&is_over);
    let publishing = std::thread::spawn(move || publish(address, &over));
    std::thread::sleep(SLACK);

    let begin = Instant::now();
    first.terminate();
    eventually_is("the status of /ready", &503, || first.ready_with_status().0);
    let newcomers = connect_newcomers(&proxy, &second);
    assert!(begin.elapsed() < PAUSE, "the machine is too slow");
    assert_eq!(first.counter("connections"), MOVED as u64, "in the pause");

    let code = first.ended(LONG);
    let took = begin.elapsed();
    assert_eq!(code, Some(0), "{}", first.log());
    assert!(took <= WITHIN + SLACK, "it ended after {took:?}");
    let all = (STAYING + 1 + MOVED + NEWCOMERS) as u64;
    eventually_is("connections of the other node", &all, || {
        second.counter("connections")
    });
    check_members(&mut observer);
    // What it said of itself is removed by the next heartbeat of another one.
    let is_left = || contents(&redis).contains(&name);
    eventually("nothing of it is left in Redis", || !is_left());
    is_over.store(true, Ordering::Relaxed);
    let count = publishing.join().unwrap();

    let expected: Vec<usize> = (0..count).collect();
    assert!(joined(staying).iter().all(|numbers| *numbers == expected));
    check_journeys(&joined(moving), begin, count);
    drop(newcomers);
}
