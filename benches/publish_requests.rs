//! How long does it take to read a publish request and to check all of it?
//!
//! [`Publish::parse`] and [`Publish::parse_batch`] turn the body of a signed
//! request into values in which nothing has to be checked again. Bytes are those
//! of the body.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use resound::protocol::publish::{EventLimits, Publish};

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    events(&mut criterion);
    escapes(&mut criterion);
    batches(&mut criterion);
    refused(&mut criterion);
    criterion.final_summary();
}

/// An event as pusher-http-php sends it: its data is JSON in a JSON string.
fn event(data: &str, channels: usize) -> String {
    let names: Vec<String> = (0..channels)
        .map(|n| format!(r#""private-App.Models.User.{n}""#))
        .collect();
    let names = names.join(",");
    format!(
        r#"{{"name":"App\\Events\\MessageSent","data":"{{\"text\":\"{data}\"}}","channels":[{names}]}}"#
    )
}

fn events(criterion: &mut Criterion) {
    let (short, long) = ("x".repeat(200), "x".repeat(2000));
    let with_socket = event(&short, 1).replacen('{', r#"{"socket_id":"123.456","#, 1);
    let with_info =
        event(&short, 1).replacen('{', r#"{"info":"user_count,subscription_count","#, 1);
    let cases = [
        ("200 bytes for one channel", event(&short, 1)),
        ("200 bytes for ten channels", event(&short, 10)),
        ("200 bytes for a hundred channels", event(&short, 100)),
        ("200 bytes for all but its sender", with_socket),
        ("200 bytes, asking for counts", with_info),
        ("2 KB for one channel", event(&long, 1)),
        ("2 KB for ten channels", event(&long, 10)),
        ("100 KB for one channel", event(&"x".repeat(100_000), 1)),
        (
            "40 KB that are 120 KB of escapes",
            event(&r"\u00e9".repeat(20_000), 1),
        ),
    ];
    measure(criterion, "an event is checked", &cases);
}

fn escapes(criterion: &mut Criterion) {
    let cases = [
        ("no escape", event(&"x".repeat(2000), 1)),
        ("quotes", event(&r#"\\\""#.repeat(500), 1)),
        ("escaped Unicode", event(&r"\\u00e9".repeat(286), 1)),
        ("plain Unicode", event(&"é".repeat(1000), 1)),
    ];
    measure(criterion, "2 KB of data are checked that have", &cases);
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a batch is checked");
    for (name, events, bytes) in [
        ("ten events of 200 bytes", 10, 200),
        ("ten events of 2 KB", 10, 2000),
        ("a hundred events of 200 bytes", 100, 200),
    ] {
        let item = event(&"x".repeat(bytes), 1).replace("\"channels\":[", "\"channel\":");
        let item = item.replace("]}", "}");
        let body = format!(r#"{{"batch":[{}]}}"#, vec![item; events].join(","));
        let limits = EventLimits::default();
        let parsed = Publish::parse_batch(body.as_bytes(), &limits);
        assert_eq!(parsed.map(|batch| batch.len()), Ok(events), "{body}");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| Publish::parse_batch(black_box(body.as_bytes()), &limits));
        });
    }
}

fn refused(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("an event is refused that");
    for (name, body) in [
        ("is no JSON", "{nope".to_owned()),
        ("has no fields", "{}".to_owned()),
        ("has 200 KB of data", event(&"x".repeat(200_000), 1)),
        ("has a thousand channels", event("x", 1000)),
    ] {
        let limits = EventLimits::default();
        assert!(Publish::parse(body.as_bytes(), &limits).is_err(), "{name}");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| Publish::parse(black_box(body.as_bytes()), &limits));
        });
    }
}

fn measure(criterion: &mut Criterion, sentence: &str, cases: &[(&str, String)]) {
    let mut group = criterion.benchmark_group(sentence);
    let limits = EventLimits::default();
    for (name, body) in cases {
        let parsed = Publish::parse(body.as_bytes(), &limits);
        assert!(parsed.is_ok(), "{name}: {parsed:?}");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(*name, |b| {
            b.iter(|| Publish::parse(black_box(body.as_bytes()), &limits));
        });
    }
}
