//! Both formats, and what is said of one that there is not.

use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

use super::{cause_all_lines, fields_of, parts_of, start};
use crate::support::{APP_ID, Client, Http, SECRET};

fn parsed(lines: &[String]) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    lines.iter().map(parse).collect()
}

#[test]
fn every_line_of_text_is_prose_and_then_fields_that_parse_by_key() {
    let (server, log) = start(&["--debug"], &[]);
    cause_all_lines(&server);
    log.wait_for(&["unknown application key (4001)"]);
    let (mut of_connection, mut of_publish) = (0, 0);
    for line in log.lines() {
        let (prose, fields) = parts_of(&line);
        assert!(!prose.contains('='), "{line}");
        of_connection += usize::from(fields.contains_key("socket_id"));
        of_publish += usize::from(fields.get("event").is_some_and(|event| event == "ev"));
    }
    assert!(
        of_connection > 15 && of_publish >= 5,
        "{of_connection}, {of_publish}"
    );
    let line = log.wait_for(&["connecting", "origin="]);
    assert_eq!(fields_of(&line)["origin"], "https://a b", "{line}");
}

#[test]
fn every_line_of_json_is_an_object_whose_values_are_those_of_the_fields() {
    let (mut server, log) = start(
        &["--debug", "--log-format", "json"],
        &[("RESOUND_ACCESS_LOG", "on")],
    );
    cause_all_lines(&server);
    log.wait_for(&["unknown application key (4001)"]);
    log.wait_for(&["disconnected"]);
    server.expect_end();
    let lines = parsed(&log.lines());
    for line in &lines {
        for name in ["timestamp", "level", "target"] {
            assert!(line[name].is_string(), "{line}");
        }
        assert!(
            line["message"].is_string() || line["target"] == "access",
            "{line}"
        );
    }
    let find = |message: &str| {
        let found = lines.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("no {message} in {lines:#?}"))
    };
    let published = find("published");
    assert_eq!(
        (&published["event"], &published["app"]),
        (&"ev".into(), &APP_ID.into())
    );
    assert_eq!(published["subscribers"], 1);
    assert_eq!(published["target"], "resound::api::events");
    let ended = find("disconnected");
    assert!(ended["seconds"].is_f64() && ended["messages"].is_u64() && ended["bytes"].is_u64());
    assert_eq!(find("received")["target"], "resound::frames");
    let refused = find("connection refused: unknown application key (4001)");
    assert_eq!(
        (&refused["level"], &refused["key"]),
        (&"INFO".into(), &"wrong".into())
    );
}

/// What a server says that does not start, and lines that were lost.
#[test]
fn what_no_event_has_made_is_json_too() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, _, said) = run(
        &["start", "--host", "127.0.0.1", "--port", &port],
        &[("RESOUND_LOG_FORMAT", "json")],
    );
    assert_eq!(code, Some(1));
    let lines: Vec<String> = said.lines().map(str::to_owned).collect();
    let last = parsed(&lines).pop().unwrap();
    let message = last["message"].as_str().unwrap();
    assert!(message.starts_with("cannot listen on 127.0.0.1:"), "{last}");
    assert_eq!(last["level"], "ERROR");
    let mut server = super::Server::start(
        "",
        &["--debug", "--log-format", "json"],
        &[],
        std::process::Stdio::piped(),
    );
    server.log_lines(10_000);
    let log = super::Log::of(&mut server);
    let line = log.wait_for(&["log lines were dropped"]);
    server.expect_end();
    assert_eq!(parsed(&[line])[0]["level"], "WARN");
    parsed(&log.lines());
}

fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_resound"))
        .args(arguments)
        .args(["--app-id", "a", "--app-key", "k", "--app-secret", SECRET])
        .current_dir(dir.path())
        .env_clear()
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    (status.code(), stdout, stderr)
}

#[test]
fn an_unknown_format_or_level_ends_start_and_check_with_64() {
    for command in ["start", "check"] {
        for (name, value, expected) in [
            (
                "RESOUND_LOG_FORMAT",
                "xml",
                "server.log_format = \"xml\" (environment variable RESOUND_LOG_FORMAT): expected text or json",
            ),
            (
                "RUST_LOG",
                "resound=loud",
                "server.log_levels = \"resound=loud\" (environment variable RUST_LOG): expected levels",
            ),
            ("RUST_LOG", "verbose", "server.log_levels = \"verbose\""),
            ("RESOUND_ACCESS_LOG", "often", "expected true or false"),
        ] {
            let (code, _, said) = run(&[command], &[(name, value)]);
            assert_eq!(code, Some(64), "{said}");
            assert!(said.contains(expected), "{said}");
        }
    }
    let (code, shown, said) = run(
        &["check", "--host", "127.0.0.1", "--log-format", "json"],
        &[("RUST_LOG", "warn,resound::cluster=debug")],
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(shown.contains("warn,resound::cluster=debug"), "{shown}");
}

#[test]
fn levels_hold_for_their_target() {
    let (server, log) = start(&[], &[("RUST_LOG", "info,resound::ws=debug")]);
    drop(Client::connect(&server));
    log.wait_for(&["disconnected"]);
    Http::connect(&server).request("GET", "/up", "");
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.contains("DEBUG connected ")));
    assert!(
        !lines.iter().any(|line| line.contains("DEBUG request ")),
        "{lines:#?}"
    );
}
