//! Does it matter for the hub how many there are: subscribers, members, workers?
//!
//! The hub counts the subscribers of each worker and leaves sockets to the
//! workers, so a publish should cost the same for one subscriber as for a
//! thousand, and more only for more workers. What is published is taken out of the
//! inboxes again, as workers do when they are busy: many messages at a time.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Bencher, Criterion, Throughput};
use resound::broker::Broker;
use resound::hub::Publisher;
use resound::protocol::publish::{EventLimits, Publish};
use resound::protocol::{Frame, User, message};
use room::Room;

#[path = "hub/room.rs"]
mod room;
mod support;

/// Messages that are published before the workers take them.
const BURST: u64 = 100;

const APPLICATION: Publisher<'_> = Publisher::Application { except: None };

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    publishing(&mut criterion);
    requests(&mut criterion);
    joining(&mut criterion);
    signing_in(&mut criterion);
    criterion.final_summary();
}

fn data() -> String {
    format!(r#""{}""#, "x".repeat(200))
}

fn publishing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("200 bytes are published");
    group.throughput(Throughput::Elements(BURST));
    for (to, subscribers, workers) in [
        ("to nobody", 0, 1),
        ("to one subscriber", 1, 1),
        ("to a thousand subscribers of one worker", 1000, 1),
        ("to a thousand subscribers of two workers", 1000, 2),
        ("to a thousand subscribers of eight workers", 1000, 8),
    ] {
        let room = Room::of("orders.1042", subscribers, workers);
        let data = data();
        let encode = || message::event(r#""message.sent""#, &data, &room.channel);
        group.bench_function(to, |b| bursts(b, &room, encode));
    }
    let room = Room::of("cache-orders.1042", 1000, 1);
    let frame = message::event(r#""message.sent""#, &data(), &room.channel);
    group.bench_function("to a cache channel", |b| {
        b.iter(|| {
            for _ in 0..BURST {
                let (hub, app) = (&room.hub, room.app());
                black_box(hub.publish_and_keep(app, &room.channel, None, frame.clone()));
            }
            room.drain();
        });
    });
}

fn bursts(bencher: &mut Bencher<'_>, room: &Room, encode: impl Fn() -> Frame) {
    bencher.iter(|| {
        for _ in 0..BURST {
            black_box(
                room.hub
                    .publish(room.app(), &room.channel, APPLICATION, &encode),
            );
        }
        room.drain();
    });
}

/// All that a publish request costs between its signature and the inboxes.
fn requests(criterion: &mut Criterion) {
    let room = Room::of("orders.1042", 1000, 1);
    let broker = Broker::new(Arc::clone(&room.hub), None);
    let body = format!(
        r#"{{"name":"message.sent","data":{},"channels":["orders.1042"]}}"#,
        data()
    );
    let limits = EventLimits::default();
    let mut group = criterion.benchmark_group("a request with 200 bytes");
    group.throughput(Throughput::Elements(BURST));
    group.bench_function("is checked and published", |b| {
        b.iter(|| {
            for _ in 0..BURST {
                let publish = Publish::parse(black_box(body.as_bytes()), &limits);
                broker.publish(room.app(), &publish.expect("it is valid"), |_, _| {});
            }
            room.drain();
        });
    });
}

fn joining(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a subscriber joins and leaves");
    group.throughput(Throughput::Elements(1));
    for (case, channel, others) in [
        ("a new channel", "orders.1042", 0),
        ("a thousand others", "orders.1042", 1000),
        ("a new presence channel", "presence-room.7", 0),
        ("ten members", "presence-room.7", 10),
        ("a thousand members", "presence-room.7", 1000),
    ] {
        let room = Room::of(channel, others, 1);
        let member = room.member(others + 1);
        let user = member.as_ref().map(|member| &*member.id);
        group.bench_function(case, |b| {
            b.iter(|| {
                let joined = room.join(others + 1, member.as_ref());
                room.hub
                    .leave(&joined.channel, room.connection_ref(others + 1), user);
                room.drain();
                joined
            });
        });
    }
}

fn signing_in(criterion: &mut Criterion) {
    let room = Room::of("orders.1042", 0, 1);
    let ids: Vec<String> = (0..100).map(|n| format!(r#""user-{n}""#)).collect();
    let watching = format!(r#"{{"id":"42","watchlist":[{}]}}"#, ids.join(","));
    let mut group = criterion.benchmark_group("a user signs in and out");
    group.throughput(Throughput::Elements(1));
    for (case, data) in [
        ("who watches nobody", r#"{"id":"42"}"#),
        ("who watches a hundred", watching.as_str()),
    ] {
        let user = User::parse(data, 10_000).expect("the user is valid");
        group.bench_function(case, |b| {
            b.iter(|| {
                drop(room.hub.sign_in(
                    room.app(),
                    room.connection_ref(1),
                    user.clone(),
                    message::pong(),
                ));
                room.drain();
            });
        });
    }
}
