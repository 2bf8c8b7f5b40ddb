//! How long does a worker need to understand what a client says?
//!
//! Each text message of each socket goes through [`ClientFrame::parse`], on the
//! thread that also writes the broadcasts. Bytes are those of the JSON text.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use resound::protocol::{ClientFrame, InvalidFrame};

const AUTH: &str = "key:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
const MEMBER: &str =
    r#"{\"user_id\":\"42\",\"user_info\":{\"name\":\"Ana Example\",\"avatar\":\"/a/42.png\"}}"#;

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    understood(&mut criterion);
    client_events(&mut criterion);
    refused(&mut criterion);
    criterion.final_summary();
}

fn frame(event: &str, data: &str) -> String {
    format!(r#"{{"event":"{event}","data":{data}}}"#)
}

fn understood(criterion: &mut Criterion) {
    let public = r#"{"channel":"orders.1042"}"#;
    let private = format!(r#"{{"auth":"{AUTH}","channel":"private-App.Models.User.1042"}}"#);
    let presence =
        format!(r#"{{"auth":"{AUTH}","channel_data":"{MEMBER}","channel":"presence-room.7"}}"#);
    let in_a_string = format!("{private:?}");
    let signin = format!(r#"{{"auth":"{AUTH}","user_data":"{{\"id\":\"42\"}}"}}"#);
    let cases = [
        ("a ping", r#"{"event":"pusher:ping","data":{}}"#.to_owned()),
        ("a pong", r#"{"event":"pusher:pong","data":{}}"#.to_owned()),
        (
            "a subscription to a public channel",
            frame("pusher:subscribe", public),
        ),
        (
            "a subscription to a private channel",
            frame("pusher:subscribe", &private),
        ),
        (
            "a subscription whose data is a string",
            frame("pusher:subscribe", &in_a_string),
        ),
        (
            "a subscription to a presence channel",
            frame("pusher:subscribe", &presence),
        ),
        ("an unsubscription", frame("pusher:unsubscribe", public)),
        ("a sign-in", frame("pusher:signin", &signin)),
    ];
    measure(criterion, "a client's frame is parsed", &cases, |frame| {
        frame.is_ok()
    });
}

fn client_events(criterion: &mut Criterion) {
    let event = |payload: usize| {
        let text = "x".repeat(payload);
        format!(
            r#"{{"event":"client-typing","channel":"private-chat.7","data":{{"text":"{text}"}}}}"#
        )
    };
    let cases = [
        ("200 bytes", event(200)),
        ("2 KB", event(2000)),
        ("the most that is allowed by default", event(9_900)),
    ];
    measure(criterion, "a client event is parsed", &cases, |frame| {
        frame.is_ok()
    });
}

fn refused(criterion: &mut Criterion) {
    let cases = [
        ("no JSON", "hello there".to_owned()),
        (
            "an unknown event of the service",
            frame("pusher:nonsense", "{}"),
        ),
        (
            "lists in lists, in data, up to 10 KB",
            frame(
                "client-a",
                &format!("{}{}", "[".repeat(4900), "]".repeat(4900)),
            ),
        ),
    ];
    measure(criterion, "a frame is refused", &cases, |frame| {
        frame.is_err()
    });
}

fn measure(
    criterion: &mut Criterion,
    sentence: &str,
    cases: &[(&str, String)],
    expected: fn(&Result<ClientFrame<'_>, InvalidFrame>) -> bool,
) {
    let mut group = criterion.benchmark_group(sentence);
    for (name, text) in cases {
        assert!(expected(&ClientFrame::parse(text)), "{name}: {text}");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(*name, |b| b.iter(|| ClientFrame::parse(black_box(text))));
    }
}
