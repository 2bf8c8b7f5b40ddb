//! `resound doctor`: what it prints, and its exit codes. What it finds out is shown by
//! `scripts/test doctor`, with real proxies and a real Laravel.

use serde_json::Value;

use crate::support::{APP_ID, KEY, Process, SECRET};

const CREDENTIALS: [(&str, &str); 4] = [
    ("REVERB_APP_ID", APP_ID),
    ("REVERB_APP_KEY", KEY),
    ("REVERB_APP_SECRET", SECRET),
    // Examples' secrets are warned of elsewhere.
    ("REVERB_SERVER_HOST", "127.0.0.1"),
];

fn doctor(server: &Process, arguments: &[&str]) -> (i32, String, String) {
    let url = format!("http://{}", server.address);
    let arguments = [&["doctor", &url], arguments].concat();
    server.command(&arguments, &CREDENTIALS)
}

#[test]
fn a_server_that_is_right_is_told_line_by_line() {
    let server = Process::start("");
    let (code, out, err) = doctor(&server, &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let begins: Vec<&str> = out
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(
        begins,
        [
            "note     laravel",
            "ok       settings",
            "note     machine",
            "ok       connect",
            "ok       signature",
            "ok       body-size",
            "ok       socket",
            "ok       private-channel",
            "ok       delivery",
            "note     auth-endpoint",
            "note     idle",
        ],
        "{out}"
    );
    assert!(!out.contains('\x1b'), "colours are for terminals: {out}");
}

#[test]
fn what_is_wrong_stands_with_what_to_change_in_both_forms() {
    let server = Process::start("");
    let wrong = ["--app-secret", "hunter2"];
    let (code, out, _) = doctor(&server, &wrong);
    assert_eq!(code, 2, "{out}");
    let (_, rest) = out.split_once("error    signature: GET /apps/").unwrap();
    let mut lines = rest.lines();
    assert!(
        lines.next().unwrap().contains("is answered with 401"),
        "{out}"
    );
    let fix = lines.next().unwrap();
    assert!(
        fix.starts_with("         -> make REVERB_APP_SECRET ("),
        "{out}"
    );

    let (code, out, err) = doctor(&server, &[&wrong[..], &["--json"]].concat());
    assert_eq!((code, err.as_str()), (2, ""));
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["worst"], "error");
    let checks = document["checks"].as_array().unwrap();
    let found = checks.iter().find(|it| it["level"] == "error").unwrap();
    assert_eq!(found["check"], "signature");
    assert!(
        found["fix"]
            .as_str()
            .unwrap()
            .starts_with("make REVERB_APP_SECRET (")
    );
    assert!(!out.contains("hunter2"), "no secret is told: {out}");
}

#[test]
fn arguments_that_cannot_be_used_are_told_before_anything_is_asked() {
    let server = Process::start("");
    for (arguments, told) in [
        (&["ws.example.com"][..], "is no URL"),
        (&["ftp://ws.example.com"], "begins with https://"),
        (&["http://h/app/key"], "leave /app/… and /apps/… away"),
        (
            &["http://h", "--page", "shop"],
            "--page \"shop\": expected a URL",
        ),
        (
            &["http://h", "--auth", "ftp://shop"],
            "--auth \"ftp://shop\"",
        ),
        (
            &["http://h", "--header", "Bearer"],
            "--header: expected a name",
        ),
        (&["http://h", "--timeout", "0"], "from 1 to 3600"),
        (&["http://h", "--project"], "a value is required"),
    ] {
        let arguments = [&["doctor"], arguments].concat();
        let (code, out, err) = server.command(&arguments, &CREDENTIALS);
        assert_eq!((code, out.as_str()), (64, ""), "{arguments:?}: {err}");
        assert!(err.contains(told), "{arguments:?}: {err}");
    }
}

#[test]
fn what_cannot_be_read_is_a_finding() {
    let server = Process::start("");
    for (arguments, check, told) in [
        (
            &["--project", "/no/such"][..],
            "laravel",
            "is no Laravel project",
        ),
        (
            &["--config", "/no/such.toml"],
            "settings",
            "cannot read /no/such.toml",
        ),
        (
            &["--env-file", "/no/such.env"],
            "settings",
            "cannot read /no/such.env",
        ),
    ] {
        let (code, out, err) = doctor(&server, arguments);
        assert_eq!((code, err.as_str()), (2, ""), "{out}");
        let line = out.lines().find(|line| line.starts_with("error")).unwrap();
        assert!(line.starts_with(&format!("error    {check}: ")), "{out}");
        assert!(line.contains(told), "{out}");
    }
}
