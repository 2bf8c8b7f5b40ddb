//! How long do the small texts take that requests and frames are full of: names
//! of channels, ids of sockets, members and users?
//!
//! A publish parses the name of each of its channels, a subscription one. Bytes
//! are those of the text.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use resound::protocol::{ChannelKind, ChannelName, Member, SocketId, User};

/// What is allowed if nothing is configured.
const MAX_NAME: usize = 164;
const LARGEST_MEMBER: usize = 10_000;

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    channels(&mut criterion);
    kinds(&mut criterion);
    sockets(&mut criterion);
    members(&mut criterion);
    users(&mut criterion);
    criterion.final_summary();
}

fn channels(criterion: &mut Criterion) {
    let longest = "x".repeat(MAX_NAME);
    let mut group = criterion.benchmark_group("the name of a channel is parsed");
    for (case, name) in [
        ("a short one", "lobby"),
        ("a private one", "private-App.Models.User.1042"),
        ("the longest", longest.as_str()),
    ] {
        assert!(ChannelName::parse(name, MAX_NAME).is_ok(), "{name}");
        group.throughput(Throughput::Bytes(name.len() as u64));
        group.bench_function(case, |b| {
            b.iter(|| ChannelName::parse(black_box(name), MAX_NAME));
        });
    }
}

fn kinds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("the kind of a channel is told");
    group.throughput(Throughput::Elements(1));
    for (case, name) in [
        ("public", "orders.1042"),
        ("private", "private-App.Models.User.1042"),
        ("presence", "presence-room.7"),
    ] {
        group.bench_function(case, |b| b.iter(|| ChannelKind::of(black_box(name))));
    }
}

fn sockets(criterion: &mut Criterion) {
    let text = "123456789.987654321";
    let id = SocketId::parse(text).expect("the id is valid");
    let mut group = criterion.benchmark_group("the id of a socket");
    group.throughput(Throughput::Elements(1));
    group.bench_function("is parsed", |b| b.iter(|| SocketId::parse(black_box(text))));
    group.bench_function("is printed", |b| b.iter(|| black_box(id).to_string()));
}

fn members(criterion: &mut Criterion) {
    let large = format!(
        r#"{{"user_id":"42","user_info":{{"about":"{}"}}}}"#,
        "x".repeat(2000)
    );
    let mut group = criterion.benchmark_group("a presence member is parsed");
    for (case, data) in [
        ("a number and nothing else", r#"{"user_id":42}"#),
        (
            "with a name and a picture",
            r#"{"user_id":"42","user_info":{"name":"Ana Example","avatar":"/a/42.png"}}"#,
        ),
        ("with 2 KB of information", large.as_str()),
    ] {
        assert!(Member::parse(data, LARGEST_MEMBER).is_ok(), "{data}");
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(case, |b| {
            b.iter(|| Member::parse(black_box(data), LARGEST_MEMBER));
        });
    }
}

fn users(criterion: &mut Criterion) {
    let ids: Vec<String> = (0..100).map(|n| format!(r#""user-{n}""#)).collect();
    let watching = format!(r#"{{"id":"42","watchlist":[{}]}}"#, ids.join(","));
    let mut group = criterion.benchmark_group("a user who signs in is parsed");
    for (case, data) in [
        ("with a name", r#"{"id":"42","user_info":{"name":"Ana"}}"#),
        ("with a watchlist of a hundred", watching.as_str()),
    ] {
        assert!(User::parse(data, LARGEST_MEMBER).is_ok(), "{data}");
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(case, |b| {
            b.iter(|| User::parse(black_box(data), LARGEST_MEMBER));
        });
    }
}
