//! What is in Redis, and what is left there.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bus::Bystander;
use crate::frames::{arrived, ask_to_join, event};
use crate::node::Node;
use crate::nodes::Cluster;
use crate::people::{Member, signed_in, who};
use crate::redis::Redis;
use crate::support::client::tcp;
use crate::support::{Client, Http, KEY};
use crate::topologies::Shards;
use crate::wait::{LONG, soon};

/// How long keys may outlive the last fact that was in them.
const GONE: Duration = Duration::from_secs(5);

/// Keys of topics: all but that of the nodes.
fn topic_keys(redis: &Redis) -> Vec<String> {
    let keys = redis.command(&["KEYS", "*{my-app-id/*"]);
    keys.lines().map(str::to_owned).collect()
}

fn expect_no_topic_keys(redis: &Redis) {
    let mut left = Vec::new();
    let gone = soon(GONE, || {
        left = topic_keys(redis);
        left.is_empty()
    });
    let some = &left[..left.len().min(5)];
    assert!(
        gone,
        "{} keys are left after {GONE:?}: {some:?}…",
        left.len()
    );
}

/// Joins channels, and waits until it is in all of them.
fn join_all(client: &mut Client, channels: &[String], user: &str) {
    for channel in channels {
        ask_to_join(client, channel, &who(user));
    }
    let mut joined = 0;
    let all = soon(LONG, || {
        let is_success = "pusher_internal:subscription_succeeded";
        let frames = arrived(client);
        joined += (frames.iter())
            .filter(|frame| frame["event"] == is_success)
            .count();
        joined == channels.len()
    });
    assert!(all, "it is in {joined} of {}", channels.len());
}

#[test]
fn channels_and_users_that_nobody_is_in_any_more_leave_no_keys() {
    let cluster = Cluster::start(2, &[]);
    let channels: Vec<String> = (0..300).map(|n| format!("presence-{n}")).collect();
    let mut visitors = [0, 1].map(|node| Client::connect(&cluster[node]));
    join_all(&mut visitors[0], &channels, "ana");
    // Some of them on two nodes.
    join_all(&mut visitors[1], &channels[250..], "ben");
    let signed = ["ana", "ben"].map(|user| {
        let data = json!({ "id": user, "watchlist": ["ana", "ben", "eve"] });
        signed_in(&cluster[0], &data)
    });
    let there = topic_keys(&cluster.redis).len();
    assert!(there >= channels.len(), "{there} keys while they are used");
    // Some of them one by one, on two nodes at once, and the rest with the connections.
    for channel in &channels[150..280] {
        for visitor in &mut visitors {
            visitor.unsubscribe(channel);
        }
    }
    for visitor in &mut visitors {
        arrived(visitor);
    }
    drop((visitors, signed));
    expect_no_topic_keys(&cluster.redis);
    // They begin anew as if nobody had ever been there.
    for channel in &channels[275..285] {
        let mut ana = Member::join(&cluster[0], channel, "ana");
        let ben = Member::join(&cluster[1], channel, "ben");
        assert_eq!(ben.here.len(), 2, "{channel}: {:?}", ben.here);
        ana.sees_changes(&["+ben"]);
        drop(ben);
        ana.sees_changes(&["-ben"]);
    }
    expect_no_topic_keys(&cluster.redis);
}

#[test]
fn who_comes_when_the_last_of_another_node_goes_is_not_lost_with_the_key() {
    let cluster = Cluster::start(2, &[]);
    for round in 0..40 {
        let [here, there] = [&cluster[round % 2], &cluster[(round + 1) % 2]];
        let last = Member::join(here, "presence-r", "last");
        let mut client = Client::connect(there);
        ask_to_join(&mut client, "presence-r", &who("new"));
        drop(last);
        let mut new = Member::of(client, "presence-r");
        let mut watcher = Member::join(here, "presence-r", "watcher");
        for member in [&mut new, &mut watcher] {
            member.sees(&["new", "watcher"]);
        }
    }
    expect_no_topic_keys(&cluster.redis);
}

/// New topics of one connection that reach Redis: so many at once,
const BURST: u64 = 5000;
/// and so many more in each second of the long run.
const PER_SECOND: u64 = 2000;
/// Keys of one connection that are there at a time: what it is subscribed to, what it
/// has left and is not taken out, and that of the nodes.
const AT_ONCE: u64 = 6000;

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(3);

/// Bytes of a frame as a client writes it, masked with zeros.
fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap()];
    assert!(text.len() < 126, "its length fits into the second byte");
    bytes.extend([0; 4]);
    bytes.extend(text.bytes());
    bytes
}

/// Subscribes to public channels, each another one, for [`FLOOD`] and as fast as they
/// are taken, and unsubscribes from each after so many more.
fn flood(node: &Node, held: u64) -> JoinHandle<u64> {
    /// Channels between two pings, and pings that may be without an answer: what is
    /// written when the time is over has to be read soon.
    const BETWEEN: u64 = 200;
    const AHEAD: usize = 5;
    let mut stream = tcp(node);
    let copy = Box::new(stream.try_clone().unwrap());
    let mut client = Client::over(copy, &format!("/app/{KEY}"), &[]);
    client.established();
    let (sender, pongs) = mpsc::sync_channel(AHEAD);
    let reader = BufReader::with_capacity(1 << 16, stream.try_clone().unwrap());
    std::thread::spawn(move || read_pongs(reader, &sender));
    std::thread::spawn(move || {
        let until = Instant::now() + FLOOD;
        let mut next: u64 = 0;
        let mut ahead = 0;
        while Instant::now() < until {
            let mut bytes = Vec::new();
            for n in next..next + BETWEEN {
                let subscribe =
                    json!({ "event": "pusher:subscribe", "data": { "channel": format!("c{n}") } });
                bytes.extend(frame(&subscribe.to_string()));
                if let Some(n) = n.checked_sub(held) {
                    let unsubscribe = json!({ "event": "pusher:unsubscribe", "data": { "channel": format!("c{n}") } });
                    bytes.extend(frame(&unsubscribe.to_string()));
                }
            }
            bytes.extend(frame(r#"{"event":"pusher:ping","data":{}}"#));
            stream.write_all(&bytes).unwrap();
            next += BETWEEN;
            ahead += 1;
            while ahead == AHEAD {
                match pongs.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(()) => ahead -= 1,
                    Err(mpsc::RecvTimeoutError::Timeout) => break,
                    Err(error) => panic!("the connection was closed: {error}"),
                }
            }
        }
        // Both ends close it: what was written and not read is worth nothing.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        drop(client);
        next
    })
}

/// Tells each answer to a ping, until the connection ends.
fn read_pongs(mut reader: BufReader<TcpStream>, pongs: &mpsc::SyncSender<()>) {
    let mut payload = Vec::new();
    let mut next = || -> std::io::Result<bool> {
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                reader.read_exact(&mut length)?;
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        payload.resize(length, 0);
        reader.read_exact(&mut payload)?;
        Ok(payload == br#"{"event":"pusher:pong"}"#)
    };
    while let Ok(is_pong) = next() {
        if is_pong && pongs.send(()).is_err() {
            return;
        }
    }
}

/// Counts the keys that are made from now on, until a message says `end`.
fn count_new_keys(redis: &Redis) -> JoinHandle<u64> {
    let set = redis.command(&["CONFIG", "SET", "notify-keyspace-events", "En"]);
    assert_eq!(set, "OK");
    let mut listener = Bystander::listening_to(redis.port, NEW_KEYS);
    std::thread::spawn(move || {
        let mut keys = 0;
        while listener.next_message().1 != b"end" {
            keys += 1;
        }
        keys
    })
}

/// Where Redis announces them.
const NEW_KEYS: &str = "__keyevent@0__:new";

fn a_flood_is_bounded(held: u64) {
    let cluster = Cluster::start(2, &[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
    let redis = &cluster.redis;
    let counting = count_new_keys(redis);
    let flooding = flood(&cluster[0], held);
    let mut peak = 0;
    while !flooding.is_finished() {
        let size = redis.command(&["DBSIZE"]);
        peak = peak.max(size.parse::<u64>().unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    let asked = flooding.join().unwrap();
    let stopped = Instant::now();
    let is_gone = soon(GONE, || topic_keys(redis).is_empty());
    let took = stopped.elapsed();
    let left = topic_keys(redis).len();
    Bystander::connect(redis.port).publish(NEW_KEYS.as_bytes(), b"end");
    let made = counting.join().unwrap();
    let summary = format!(
        "{asked} channels were asked for, {made} keys made, at most {peak} there at a time, \
         {left} left after {took:?}"
    );
    assert!(held == 0 || made > held, "there was no flood: {summary}");
    assert!(made <= BURST + PER_SECOND * FLOOD.as_secs(), "{summary}");
    assert!(peak <= AT_ONCE, "{summary}");
    assert!(is_gone, "{summary}");
    for node in cluster.nodes() {
        assert!(node.is_connected(), "{}", node.log());
        assert_eq!(node.counter("links"), 1, "{}", node.log());
    }
}

#[test]
fn one_connection_makes_so_many_keys_and_no_more_if_it_leaves_each_channel_later() {
    a_flood_is_bounded(500);
}

#[test]
fn one_connection_makes_so_many_keys_and_no_more_if_it_leaves_each_channel_at_once() {
    a_flood_is_bounded(0);
}

/// The limit is for those who do not stop: a page with much to show has it at once.
#[test]
fn a_connection_with_many_channels_is_in_all_of_them_soon() {
    const MANY: usize = 2000;
    let cluster = Cluster::start(1, &[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
    let mut client = Client::connect(&cluster[0]);
    let begin = Instant::now();
    for n in 0..MANY {
        client.ask(&format!("c{n}"));
    }
    let mut joined = 0;
    let all = soon(Duration::from_secs(5), || {
        let frames = arrived(&mut client);
        joined += (frames.iter())
            .filter(|frame| frame["event"] == "pusher_internal:subscription_succeeded")
            .count();
        joined == MANY
    });
    assert!(all, "in {joined} of {MANY} after {:?}", begin.elapsed());
}

/// What the last events of cache channels take in Redis together, in bytes.
fn kept_bytes(redis: &Redis) -> u64 {
    let sum = "local sum = 0
        for _, key in ipairs(redis.call('KEYS', '*:e')) do
            sum = sum + redis.call('STRLEN', key)
        end
        return sum";
    redis.command(&["EVAL", sum, "0"]).parse().unwrap()
}

#[test]
fn the_last_events_of_an_application_take_no_more_of_redis_than_they_may() {
    const MAX: u64 = 1_000_000;
    const EVENTS: usize = 3000;
    const EVENT: usize = 10_000;
    // Each node may have one more on its way when it looks.
    const BOUND: u64 = MAX + 2 * (EVENT as u64 + 200);
    let cluster = Cluster::start(2, &[("RESOUND_CACHE_MAX_BYTES", &MAX.to_string())]);
    let mut publishers = [0, 1].map(|node| Http::connect(&cluster[node]));
    let channel = |n: usize| format!("cache-{n}");
    let data = |n: usize| format!("{n:0EVENT$}");
    let mut peak = 0;
    for n in 0..EVENTS {
        publishers[n % 2].publish(&[&channel(n)], "ev", &data(n));
        if n % 100 == 99 {
            peak = peak.max(kept_bytes(&cluster.redis));
        }
    }
    let after = kept_bytes(&cluster.redis);
    assert!(
        peak.max(after) <= BOUND,
        "{peak} bytes at most, {after} in the end: more than {BOUND}"
    );
    // Half of what there is room for, whoever counts it.
    let newest = usize::try_from(MAX).unwrap() / EVENT / 2;
    for n in EVENTS - newest..EVENTS {
        let mut client = Client::connect(&cluster[(n + 1) % 2]);
        client.subscribe(&channel(n));
        client.expect(&event("ev", &data(n), &channel(n)));
    }
}

/// Where they are on other shards than what is known of them together.
#[test]
fn the_last_events_of_an_application_are_bounded_in_a_redis_cluster_too() {
    const MAX: u64 = 100_000;
    const EVENT: usize = 1000;
    let shards = Shards::start();
    let settings = shards
        .settings()
        .with(&[("RESOUND_CACHE_MAX_BYTES", &MAX.to_string())]);
    let node = Node::start(&settings);
    let mut publisher = Http::connect(&node);
    for n in 0..500 {
        let data = format!("{n:0EVENT$}");
        publisher.publish(&[&format!("cache-{n}")], "ev", &data);
    }
    let kept = || -> u64 { shards.servers.iter().map(kept_bytes).sum() };
    let bound = MAX + 5 * EVENT as u64;
    assert!(soon(GONE, || kept() <= bound), "{} bytes are kept", kept());
    assert!(kept() > MAX / 2, "only {} bytes are kept", kept());
}
