//! How long does it take to encode what the server sends?
//!
//! A broadcast is encoded once, whoever receives it; an answer once for its one
//! client; the welcome of a presence channel once for each that joins, and it
//! holds all members. Bytes are those of the finished WebSocket frames.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use resound::protocol::frame::boundaries_around;
use resound::protocol::message::{self, EncodedMember};
use resound::protocol::{ChannelName, ErrorCode, Frame, Member, SocketId};

const SIZES: [(&str, usize); 3] = [("200 bytes", 200), ("2 KB", 2000), ("100 KB", 100_000)];

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    broadcasts(&mut criterion);
    answers(&mut criterion);
    presence(&mut criterion);
    boundaries(&mut criterion);
    criterion.final_summary();
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 164).expect("the names here are valid")
}

fn member(number: usize) -> Member {
    let data = format!(
        r#"{{"user_id":"{number}","user_info":{{"name":"Ana Example","avatar":"/a/{number}.png"}}}}"#
    );
    Member::parse(&data, 1000).expect("the member is valid")
}

fn broadcasts(criterion: &mut Criterion) {
    let chat = channel("private-chat.7");
    let mut group = criterion.benchmark_group("a broadcast is encoded");
    for (size, bytes) in SIZES {
        let data = format!(r#""{}""#, "x".repeat(bytes));
        let event = || message::event(r#""message.sent""#, black_box(&data), &chat);
        group.throughput(Throughput::Bytes(event().len() as u64));
        group.bench_function(format!("an event of {size}"), |b| b.iter(event));
        let event = || message::client_event("client-a", Some(black_box(&data)), &chat, None);
        group.throughput(Throughput::Bytes(event().len() as u64));
        group.bench_function(format!("a client event of {size}"), |b| b.iter(event));
    }
}

fn answers(criterion: &mut Criterion) {
    let chat = channel("private-chat.7");
    let id = SocketId::from_random(0x1234_5678_9abc_def0);
    let refusal = "The signature in auth is not valid for this socket, channel and secret";
    let unauthorized = ErrorCode::Unauthorized;
    let cases: [(&str, &dyn Fn() -> Frame); 6] = [
        ("a greeting", &|| message::connection_established(id, 30)),
        ("a pong", &message::pong),
        ("a subscription's success", &|| {
            message::subscription_succeeded(&chat)
        }),
        ("a subscription's refusal", &|| {
            message::subscription_error(chat.as_str(), unauthorized, refusal)
        }),
        ("an error", &|| message::error(unauthorized, refusal)),
        ("a count of subscribers", &|| {
            message::subscription_count(&chat, 1000)
        }),
    ];
    let mut group = criterion.benchmark_group("an answer is encoded");
    for (name, encode) in cases {
        group.throughput(Throughput::Bytes(encode().len() as u64));
        group.bench_function(name, |b| b.iter(encode));
    }
}

fn presence(criterion: &mut Criterion) {
    let room = channel("presence-room.7");
    let ana = member(42);
    let mut group = criterion.benchmark_group("a presence channel");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encodes a member who joins", |b| {
        b.iter(|| EncodedMember::new(black_box(&ana)));
    });
    group.bench_function("tells of a member who joins", |b| {
        b.iter(|| message::member_added(&room, black_box(&ana)));
    });
    group.bench_function("tells of a member who leaves", |b| {
        b.iter(|| message::member_removed(&room, black_box(&ana.id_json)));
    });
    for count in [10, 100, 1000] {
        let members: Vec<EncodedMember> = (0..count)
            .map(|number| EncodedMember::new(&member(number)))
            .collect();
        let welcome = || message::presence_succeeded(&room, black_box(&members).iter());
        group.throughput(Throughput::Bytes(welcome().len() as u64));
        group.bench_function(format!("welcomes into {count} members"), |b| {
            b.iter(welcome);
        });
    }
}

/// What a socket that would block costs: its backlog is cut at a frame's end.
fn boundaries(criterion: &mut Criterion) {
    let data = format!(r#""{}""#, "x".repeat(200));
    let frame = message::event(r#""message.sent""#, &data, &channel("private-chat.7"));
    let backlog = frame.as_bytes().repeat(1000);
    let middle = backlog.len() / 2 + 1;
    let mut group = criterion.benchmark_group("the boundaries of a frame are found");
    group.throughput(Throughput::Elements(500));
    group.bench_function("behind 500 others", |b| {
        b.iter(|| boundaries_around(black_box(&backlog), middle));
    });
}
