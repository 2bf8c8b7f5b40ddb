//! A request is found by its id and its trace in every line about it.

use super::{fields_of, start};
use crate::support::http::Answer;
use crate::support::{APP_ID, Client, Http, Signed, body};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn post(http: &mut Http, target: &str, body: &str, headers: &str) -> Answer {
    http.write(&format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    ));
    http.answer()
}

fn id_of(answer: &Answer) -> &str {
    answer.header("x-request-id").unwrap()
}

#[test]
fn a_publish_is_found_by_its_id_which_is_given_back() {
    let (server, log) = start(&["--debug"], &[]);
    let mut http = Http::connect(&server);
    let event = body(&["a", "b"], "ev", "x");
    let batch = r#"{"batch":[{"name":"ev","channel":"c","data":"x"}]}"#;
    let one = Signed::post("channels/d/events", "x").set("name", "ev");
    for (target, body, channel) in [
        (Signed::post("events", &event).target(), &*event, "b"),
        (Signed::post("batch_events", batch).target(), batch, "c"),
        (one.target(), "x", "d"),
    ] {
        let id = format!("of-{channel}/1.2:3");
        let answer = post(&mut http, &target, body, &format!("X-Request-Id: {id}\r\n"));
        assert_eq!((answer.status / 100, id_of(&answer)), (2, &*id));
        let line = log.wait_for(&["published", &format!("channel={channel} ")]);
        assert_eq!(fields_of(&line)["request_id"], id, "{line}");
        let answer = post(&mut http, &target, body, "");
        let made = id_of(&answer).to_owned();
        assert!(
            made.len() == 16 && made.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{made}"
        );
        log.wait_for(&["published", &format!("request_id={made}")]);
    }
}

#[test]
fn a_refusal_has_an_id_too_and_an_id_that_is_none_is_not_taken() {
    let (server, log) = start(&[], &[]);
    let mut http = Http::connect(&server);
    let long = "x".repeat(129);
    let event = body(&["a"], "ev", "x");
    let unsigned = format!("/apps/{APP_ID}/events");
    for (target, body, status) in [
        ("/apps/nobody/events", "{}", 404),
        (&*unsigned, "{}", 401),
        (&*Signed::post("events", "{}").target(), "{}", 422),
    ] {
        let answer = post(&mut http, target, body, "X-Request-Id: mine\r\n");
        assert_eq!((answer.status, id_of(&answer)), (status, "mine"));
        let cause = format!("({status})");
        log.wait_for(&["request refused", &cause, "request_id=mine"]);
        let answer = post(
            &mut http,
            target,
            body,
            &format!("X-Request-Id: {long}\r\n"),
        );
        let made = id_of(&answer).to_owned();
        assert_eq!(made.len(), 16);
        log.wait_for(&["request refused", &cause, &format!("request_id={made}")]);
    }
    for id in ["gr\u{f6}\u{df}e", "a\tb", ""] {
        let target = Signed::post("events", &event).target();
        let answer = post(
            &mut http,
            &target,
            &event,
            &format!("X-Request-Id: {id}\r\n"),
        );
        assert_eq!((answer.status, id_of(&answer).len()), (200, 16), "{id}");
    }
}

#[test]
fn the_trace_of_a_publish_is_in_its_lines() {
    let (server, log) = start(&["--debug"], &[("RESOUND_ACCESS_LOG", "true")]);
    let mut http = Http::connect(&server);
    let event = body(&["a"], "ev", "x");
    let trace = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n");
    let (trace_id, span_id) = (format!("trace_id={TRACE}"), format!("span_id={SPAN}"));
    post(
        &mut http,
        &Signed::post("events", &event).target(),
        &event,
        &trace,
    );
    log.wait_for(&["published", &trace_id, &span_id]);
    log.wait_for(&["\"access\"", TRACE, SPAN]);
    post(&mut http, "/apps/nobody/events", "{}", &trace);
    log.wait_for(&["request refused", &trace_id, &span_id]);
    log.clear();
    let wrong = format!("traceparent: 00-{TRACE}-{SPAN}\r\n");
    post(&mut http, "/apps/nobody/events", "{}", &wrong);
    let line = log.wait_for(&["request refused"]);
    assert!(!line.contains("trace_id"), "{line}");
}

#[test]
fn other_calls_have_an_id_and_other_answers_have_none() {
    let (server, _log) = start(&[], &[]);
    let mut http = Http::connect(&server);
    assert!(http.get("channels", &[]).header("x-request-id").is_some());
    assert_eq!(http.request("GET", "/up", "").header("x-request-id"), None);
    Client::connect(&server).expect_alive();
}
