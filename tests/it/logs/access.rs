//! The access log: one line of JSON for each publish request.

use serde_json::{Value, json};

use super::{Log, start};
use crate::support::{APP_ID, Client, Http, Signed, body};

fn access_lines(log: &Log) -> Vec<Value> {
    let lines = log.lines();
    let lines = lines.iter().filter(|line| line.contains("\"access\""));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Whatever the format and the levels are.
#[test]
fn a_publish_is_one_line_with_what_came_of_it() {
    for levels in ["", "error"] {
        let settings = [("RESOUND_ACCESS_LOG", "on"), ("RUST_LOG", levels)];
        let mut server = super::Server::start("", &[], &settings, std::process::Stdio::piped());
        let log = Log::of(&mut server);
        let mut clients = [0; 3].map(|_| Client::connect(&server));
        clients
            .iter_mut()
            .for_each(|client| client.subscribe("lobby"));
        clients[0].subscribe("private-a");
        let mut http = Http::connect(&server);
        let event = body(&["lobby", "private-a", "nobody"], "ev", "x");
        let answer = http.post("events", &event);
        log.wait_for(&["\"access\""]);
        let mut line = access_lines(&log).remove(0);
        let fields = line.as_object_mut().unwrap();
        let seconds = fields.remove("seconds").unwrap().as_f64().unwrap();
        assert!((0.0..10.0).contains(&seconds), "{seconds}");
        assert!(
            fields
                .remove("timestamp")
                .unwrap()
                .as_str()
                .unwrap()
                .ends_with('Z')
        );
        let peer = fields.remove("peer").unwrap();
        assert!(peer.as_str().unwrap().starts_with("127.0.0.1:"), "{peer}");
        let expected = json!({
            "level": "INFO",
            "target": "access",
            "app": APP_ID,
            "request_id": answer.header("x-request-id").unwrap(),
            "method": "POST",
            "path": format!("/apps/{APP_ID}/events"),
            "status": 200,
            "channels": 3,
            "names": ["lobby", "private-a", "nobody"],
            "events": 1,
            "bytes": event.len(),
            "subscribers": 4,
        });
        assert_eq!(line, expected);
    }
}

#[test]
fn batches_channel_events_and_refusals_are_lines_and_queries_are_none() {
    let (server, log) = start(&[], &[("RESOUND_ACCESS_LOG", "on")]);
    let mut client = Client::connect(&server);
    client.subscribe("c1");
    let mut http = Http::connect(&server);
    let events: Vec<Value> = (0..12)
        .map(|n| json!({ "name": "ev", "channel": format!("c{n}"), "data": "x" }))
        .chain([json!({ "name": "ev", "channel": "c1", "data": "x" })])
        .collect();
    http.get("channels", &[]);
    http.post("batch_events", &json!({ "batch": events }).to_string());
    http.request(
        "POST",
        &Signed::post("channels/c1/events", "x")
            .set("name", "ev")
            .target(),
        "x",
    );
    http.post("events", "{}");
    http.request(
        "POST",
        &format!("/apps/{APP_ID}/events?auth_key=x"),
        "12345",
    );
    http.request("POST", "/apps/nobody/events", "{}");
    http.request("POST", "/apps/nobody/users/a/terminate_connections", "{}");
    http.request("GET", &format!("/apps/{APP_ID}/events"), "");
    // The last to be logged.
    http.post("events", &body(&["last"], "ev", "x"));
    log.wait_for(&["\"access\"", "\"last\""]);
    let lines = access_lines(&log);
    let numbers = ["status", "channels", "events", "bytes", "subscribers"];
    let rows: Vec<[Value; 5]> = lines
        .iter()
        .map(|line| numbers.map(|name| line[name].clone()))
        .collect();
    let none = Value::Null;
    let row = |status: i32, channels: i32, events: i32, bytes: &Value, subscribers: i32| {
        [
            status.into(),
            channels.into(),
            events.into(),
            bytes.clone(),
            subscribers.into(),
        ]
    };
    let batch_bytes = json!({ "batch": events }).to_string().len();
    assert_eq!(
        rows[..5],
        [
            row(200, 13, 13, &batch_bytes.into(), 2),
            row(202, 1, 1, &1.into(), 1),
            row(422, 0, 0, &2.into(), 0),
            row(401, 0, 0, &none, 0),
            row(404, 0, 0, &none, 0),
        ],
        "{lines:#?}"
    );
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0]["names"].as_array().unwrap().len(), 10);
    assert_eq!(
        (&lines[3]["app"], &lines[4]["app"]),
        (&APP_ID.into(), &none)
    );
    assert_eq!(lines[3]["path"], format!("/apps/{APP_ID}/events"));
}

#[test]
fn there_is_none_unless_it_was_asked_for() {
    let (server, log) = start(&["--debug"], &[]);
    Http::connect(&server).publish(&["a"], "ev", "x");
    log.wait_for(&["answered", "status=200"]);
    assert_eq!(access_lines(&log), Vec::<Value>::new());
}
