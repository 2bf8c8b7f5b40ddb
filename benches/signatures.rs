//! How long does it take to see that a request or a subscription is signed, and
//! what would it cost to prepare the secret each time?
//!
//! A secret is hashed into the state of an HMAC once for each application; a
//! signature copies that state. Requests are checked as a whole, query and digest
//! of the body included, with the clock passed in.

use std::hint::black_box;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use hyper::Request;
use hyper::http::request::Parts;
use md5::{Digest, Md5};
use resound::api::auth::{Rules, Signed};
use resound::apps::AppHandle;
use resound::protocol::signature::{Pair, Secret, canonical_query, of_subscription};

mod support;

/// The server's clock, which is that of the requests.
const NOW: u64 = 1_760_000_000;

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    secrets(&mut criterion);
    subscriptions(&mut criterion);
    queries(&mut criterion);
    requests(&mut criterion);
    bodies(&mut criterion);
    criterion.final_summary();
}

fn secrets(criterion: &mut Criterion) {
    let text = "7ad3773142a6692b25b8";
    let secret = Secret::new(text);
    let signed = b"123456789.987654321:private-App.Models.User.1042";
    let mut group = criterion.benchmark_group("a secret");
    group.throughput(Throughput::Elements(1));
    group.bench_function("is prepared", |b| b.iter(|| Secret::new(black_box(text))));
    group.bench_function("signs once it is prepared", |b| {
        b.iter(|| secret.sign(&[black_box(signed)]));
    });
    group.bench_function("is prepared and signs", |b| {
        b.iter(|| Secret::new(black_box(text)).sign(&[black_box(signed)]));
    });
}

fn subscriptions(criterion: &mut Criterion) {
    let secret = Secret::new("7ad3773142a6692b25b8");
    let (socket, room) = ("123456789.987654321", "presence-room.7");
    let data = r#"{"user_id":"42","user_info":{"name":"Ana Example","avatar":"/a/42.png"}}"#;
    let alone = secret.sign(&[format!("{socket}:{room}").as_bytes()]);
    let with_data = secret.sign(&[format!("{socket}:{room}:{data}").as_bytes()]);
    let wrong = "0".repeat(64);
    let mut group = criterion.benchmark_group("the signature of a subscription is checked");
    group.throughput(Throughput::Elements(1));
    for (case, signature, data, right) in [
        ("to a private channel", &alone, None, true),
        ("to a presence channel", &with_data, Some(data), true),
        ("that is wrong", &wrong, None, false),
    ] {
        let verify = || {
            let signed = of_subscription(black_box(socket), room, data);
            secret.verify(&signed, black_box(signature))
        };
        assert_eq!(verify(), right, "{case}");
        group.bench_function(case, |b| b.iter(verify));
    }
}

fn pairs(body: &[u8]) -> Vec<Pair<'static>> {
    let digest = hex::encode(Md5::digest(body));
    [
        ("auth_key", "key"),
        ("auth_timestamp", &NOW.to_string()),
        ("auth_version", "1.0"),
        ("body_md5", &digest),
    ]
    .map(|(name, value)| (name.into(), value.to_owned().into()))
    .into()
}

fn queries(criterion: &mut Criterion) {
    let pairs = pairs(b"{}");
    let mut group = criterion.benchmark_group("a query");
    group.throughput(Throughput::Bytes(canonical_query(&pairs).len() as u64));
    group.bench_function("is put into the order that is signed", |b| {
        b.iter(|| canonical_query(black_box(&pairs)));
    });
}

/// A request that is signed for `path` and arrives at `/apps/1/events`.
fn head(app: &AppHandle, body: &[u8], path: &str) -> Parts {
    let query = canonical_query(&pairs(body));
    let signature = app
        .settings()
        .secret
        .sign(&[format!("POST\n{path}\n{query}").as_bytes()]);
    let uri = format!("/apps/1/events?{query}&auth_signature={signature}");
    let request = Request::post(uri).header("content-length", body.len());
    let request = request.body(()).expect("the parts are valid");
    request.into_parts().0
}

fn requests(criterion: &mut Criterion) {
    let apps = support::apps();
    let app = apps.by_id("1").expect("it is the one that there is");
    let mut group = criterion.benchmark_group("the head of a request is checked");
    group.throughput(Throughput::Elements(1));
    for (case, signed, prefix, right) in [
        ("that is signed", "/apps/1/events", "", true),
        ("signed behind a prefix", "/ws/apps/1/events", "/ws", true),
        ("that is signed wrongly", "/apps/2/events", "", false),
        ("wrong, with a prefix", "/apps/2/events", "/ws", false),
    ] {
        let head = head(&app, b"{}", signed);
        let verify = || Signed::verify(black_box(&head), app.clone(), &rules(prefix));
        assert_eq!(verify().is_ok(), right, "{case}");
        group.bench_function(case, |b| b.iter(verify));
    }
}

fn rules(prefix: &str) -> Rules<'_> {
    Rules {
        tolerance: Some(Duration::from_secs(600)),
        prefix,
        now: UNIX_EPOCH + Duration::from_secs(NOW),
    }
}

fn bodies(criterion: &mut Criterion) {
    let apps = support::apps();
    let app = apps.by_id("1").expect("it is the one that there is");
    let mut group = criterion.benchmark_group("the digest of a body is checked");
    for (case, bytes) in [("200 bytes", 200), ("2 KB", 2000), ("100 KB", 100_000)] {
        let body = Bytes::from(vec![b'x'; bytes]);
        let head = head(&app, &body, "/apps/1/events");
        let signed = || Signed::verify(&head, app.clone(), &rules("")).expect("it is signed");
        assert!(signed().with_body(body.clone()).is_ok(), "{case}");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(case, |b| {
            let check = |signed: Signed<'_>| signed.with_body(body.clone()).is_ok();
            b.iter_batched(signed, check, BatchSize::SmallInput);
        });
    }
}
