//! One connection that subscribes and unsubscribes as fast as it can write costs its
//! node a bounded amount of memory, and others nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::nodes::Cluster;
use crate::proxy::Weather;
use crate::support::client::tcp;
use crate::support::{At, Client, Http, KEY};
use crate::wait::eventually_is;

/// How long it goes on.
const LASTS: Duration = Duration::from_secs(6);

/// An event is published so often meanwhile.
const EVERY: Duration = Duration::from_millis(100);

/// How late it may arrive on another node.
const LATE: Duration = Duration::from_secs(1);

/// Bytes that a node may grow by.
const GROWTH: u64 = 64 << 20;

/// Requests in one write.
const TOGETHER: u64 = 500;

/// A text frame of a client. Its mask is zero, which is one like any other.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend(text.bytes());
    frame
}

/// A connection of which only the bytes matter from now on.
fn raw_connection(server: &impl At) -> TcpStream {
    let stream = tcp(server);
    let target = format!("/app/{KEY}?protocol=7&client=test&version=1");
    let mut client = Client::over(Box::new(stream.try_clone().unwrap()), &target, &[]);
    client.established();
    stream
}

/// Subscribes to channels and leaves them, and waits for nothing, until the connection
/// is shut down. Counts both.
fn churn(mut stream: &TcpStream, name: impl Fn(u64) -> String, requests: &AtomicU64) {
    stream.set_write_timeout(None).unwrap();
    for block in 0.. {
        let mut bytes = Vec::new();
        for n in 0..TOGETHER {
            let data = json!({ "channel": name(block * TOGETHER + n) });
            for event in ["pusher:subscribe", "pusher:unsubscribe"] {
                bytes.extend(masked(&format!(r#"{{"event":"{event}","data":{data}}}"#)));
            }
        }
        if stream.write_all(&bytes).is_err() {
            return;
        }
        requests.fetch_add(2 * TOGETHER, Ordering::Relaxed);
    }
}

/// Reads what comes, so that the node can write, until the connection is shut down.
fn drain(mut stream: &TcpStream) {
    let mut scratch = vec![0; 1 << 16];
    let mut is_open = true;
    while is_open {
        is_open = match stream.read(&mut scratch) {
            Ok(count) => count > 0,
            // Nothing came for some seconds.
            Err(error) => matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ),
        };
    }
}

/// When a subscriber got which event, until no more can come in time.
fn arrivals(client: &mut Client, has_ended: &AtomicBool) -> Vec<(u64, Instant)> {
    let mut arrivals = Vec::new();
    let mut until = None;
    while until.is_none_or(|until| Instant::now() < until) {
        if until.is_none() && has_ended.load(Ordering::Acquire) {
            until = Some(Instant::now() + 2 * LATE);
        }
        // Nothing may have come for a while.
        let Ok(message) = client.socket.read() else {
            continue;
        };
        let frame: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!(frame["event"], "ev", "{frame}");
        let n = frame["data"].as_str().unwrap().parse().unwrap();
        arrivals.push((n, Instant::now()));
    }
    arrivals
}

/// A subscriber of a channel that waits no longer than a second for the next frame.
fn subscriber(server: &impl At, channel: &str) -> Client {
    let stream = tcp(server);
    let target = format!("/app/{KEY}?protocol=7&client=test&version=1");
    let mut client = Client::over(Box::new(stream.try_clone().unwrap()), &target, &[]);
    client.established();
    client.subscribe(channel);
    stream.set_read_timeout(Some(LATE)).unwrap();
    client
}

/// Churns on the first node of two, and says what is wrong then.
fn faults_under_churn(network: Weather, name: impl Fn(u64) -> String + Send) -> Vec<String> {
    let cluster = Cluster::start(2, &[]);
    cluster.set_network(0, network);
    let mut there = subscriber(&cluster[1], "lobby");
    let stream = raw_connection(&cluster[0]);
    let mut http = Http::connect(&cluster[0]);
    let before = cluster[0].resident();
    let requests = AtomicU64::new(0);
    let has_ended = AtomicBool::new(false);
    let mut peak = before;
    let (sent, arrived) = std::thread::scope(|scope| {
        scope.spawn(|| churn(&stream, name, &requests));
        scope.spawn(|| drain(&stream));
        let arrivals = scope.spawn(|| arrivals(&mut there, &has_ended));
        let mut sent = Vec::new();
        let began = Instant::now();
        while began.elapsed() < LASTS {
            http.publish(&["lobby"], "ev", &sent.len().to_string());
            sent.push(Instant::now());
            peak = peak.max(cluster[0].resident());
            std::thread::sleep(EVERY);
        }
        // It may have been closed by the node.
        let _ = stream.shutdown(Shutdown::Both);
        has_ended.store(true, Ordering::Release);
        (sent, arrivals.join().unwrap())
    });
    let after = cluster[0].resident();
    peak = peak.max(after);
    let requests = requests.into_inner();
    eprintln!("{requests} requests, {before} bytes before, {peak} at most, {after} after");

    let mut faults = Vec::new();
    if requests < 1000 {
        faults.push(format!("only {requests} requests were taken"));
    }
    if peak > before + GROWTH {
        faults.push(format!("{before} bytes became {peak}, {after} in the end"));
    }
    let order: Vec<u64> = arrived.iter().map(|(n, _)| *n).collect();
    if !order.iter().copied().eq(0..sent.len() as u64) {
        faults.push(format!("of {} events these came: {order:?}", sent.len()));
    }
    let delay = |(n, at): &(u64, Instant)| {
        let sent = sent[usize::try_from(*n).unwrap()];
        at.saturating_duration_since(sent)
    };
    let slowest = arrived.iter().map(delay).max().unwrap_or_default();
    if slowest > LATE {
        faults.push(format!("an event came after {slowest:?}"));
    }
    for (n, node) in cluster.nodes().iter().enumerate() {
        let ready = node.ready();
        let counters = ["missed", "dropped", "links"].map(|name| ready[name].clone());
        if counters != [0, 0, 1].map(|count| json!(count)) {
            faults.push(format!("node {n} says {ready}"));
        }
    }
    if faults.is_empty() {
        // What it had joined is left, and nothing else is.
        for (node, count) in cluster.nodes().iter().zip([0, 1]) {
            eventually_is("what is listened to", &json!([true, count, count]), || {
                let ready = node.ready();
                json!([ready["ready"], ready["wanted"], ready["listening"]])
            });
        }
    }
    faults
}

#[test]
fn churn_of_distinct_channels_is_bounded_and_disturbs_nobody() {
    let faults = faults_under_churn(Weather::Fair, |n| format!("c{n}"));
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn churn_of_one_channel_is_bounded_and_disturbs_nobody() {
    let faults = faults_under_churn(Weather::Fair, |_| "c".to_owned());
    assert!(faults.is_empty(), "{faults:#?}");
}

/// More can be sent than is taken: a round trip takes a tenth of a second.
#[test]
fn churn_on_a_node_that_is_far_from_redis_is_bounded_and_disturbs_nobody() {
    let far = Weather::Slow(Duration::from_millis(50));
    let faults = faults_under_churn(far, |n| format!("c{n}"));
    assert!(faults.is_empty(), "{faults:#?}");
}
