//! `resound check`: what it shows to a person, what to a program, and how it ends.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Output, Stdio};

use resound::config::setting::{SETTINGS, Section, Setting};
use serde_json::{Value, json};

use super::cli::{APP, resound, run, write_expired_certificate};

/// How many settings there are without webhooks, which have their own.
fn settings() -> usize {
    let of_webhooks = |setting: &&Setting| setting.section == Section::Webhook;
    SETTINGS.len() - SETTINGS.iter().filter(of_webhooks).count()
}

fn project(env: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".env"), env).unwrap();
    dir
}

const ENV: &str = "REVERB_APP_ID=my-app-id\nREVERB_APP_KEY=my-app-key\nREVERB_APP_SECRET=hunter2\nREVERB_SERVER_PORT=9000\n";

/// What `check --json` prints with the arguments, and its exit code. It prints nothing else.
fn document(dir: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, out, error) = run(dir, &[&["check", "--json"], arguments].concat());
    assert_eq!(error, "", "{arguments:?}");
    assert!(out.ends_with("}\n") && !out.contains("hunter2"), "{out}");
    (code, serde_json::from_str(&out).unwrap())
}

#[test]
fn it_shows_what_was_set_and_where_and_ends_with_a_verdict() {
    let dir = project(ENV);
    let (code, out, error) = run(dir.path(), &["check", "--path", "ws"]);
    assert_eq!(code, Some(0), "{error}");
    let expected = format!(
        "server.port     9000        .env line 4, REVERB_SERVER_PORT\n\
         server.path     ws          flag --path\n\
         apps[0].id      my-app-id   .env line 1, REVERB_APP_ID\n\
         apps[0].key     my-app-key  .env line 2, REVERB_APP_KEY\n\
         apps[0].secret  (hidden)    .env line 3, REVERB_APP_SECRET\n\
         left at their defaults: {} settings (--all shows them)\n\
         ok: 1 application, host 0.0.0.0, port 9000, path /ws, no warnings\n",
        settings() - 5
    );
    assert_eq!(out, expected);
    let here = dir.path().canonicalize().unwrap();
    let read = format!("resound: settings read from {}/.env\n", here.display());
    assert_eq!(error, read);
}

#[test]
fn with_all_it_shows_every_setting_and_the_verdict() {
    let dir = project(ENV);
    let (code, out, error) = run(dir.path(), &["check", "--all"]);
    assert_eq!(code, Some(0), "{error}");
    let lines: Vec<String> = out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for expected in [
        "server.host 0.0.0.0 default",
        "server.port 9000 .env line 4, REVERB_SERVER_PORT",
        "server.path - default",
        "apps[0].key my-app-key .env line 2, REVERB_APP_KEY",
        "apps[0].secret (hidden) .env line 3, REVERB_APP_SECRET",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected}: {out}"
        );
    }
    assert_eq!(lines.len(), settings() + 1);
    assert_eq!(
        lines.last().unwrap(),
        "ok: 1 application, host 0.0.0.0, port 9000, no warnings"
    );
    assert!(!out.contains("hunter2"));
}

#[test]
fn the_verdict_counts_and_names_what_would_start() {
    let dir = project("REVERB_APP_PINGINTERVAL=1\nREVERB_APP_PONGINTERVAL=1\nREVERB_PORT=8081\n");
    let toml = "[server]\nport = 443\nhost = \"::1\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n\
        [scaling]\nenabled = true\n\
        [[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"hunter2\"\n\
        [[apps]]\nid = \"2\"\nkey = \"l\"\nsecret = \"hunter2\"\n";
    std::fs::write(dir.path().join("resound.toml"), toml).unwrap();
    write_expired_certificate(dir.path());
    let (code, out, error) = run(dir.path(), &["check", "--config", "resound.toml"]);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(
        out.lines().last().unwrap(),
        "ok: 2 applications, host ::1, port 443, TLS, scaling through Redis, 3 warnings, 1 note"
    );
    assert!(
        out.contains("\ncertificate cert.pem for localhost ends at 2020-01-01T00:00:00Z\nok: "),
        "{out}"
    );
    assert!(
        out.contains("apps[1].key  ") && !out.contains("hunter2"),
        "{out}"
    );
    let count = |kind: &str| error.matches(&format!("\nresound: {kind}: ")).count();
    assert_eq!((count("warning"), count("note")), (3, 1), "{error}");

    let env = [
        ("REVERB_SERVER_PORT", "0"),
        ("REVERB_APP_PINGINTERVAL", "1"),
    ];
    let output = resound(tempfile::tempdir().unwrap().path())
        .arg("check")
        .args(APP)
        .envs(env)
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        out.lines().last().unwrap(),
        "ok: 1 application, host 0.0.0.0, port 0, 1 warning"
    );
}

#[test]
fn a_value_with_control_characters_stays_in_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let Output { status, stdout, .. } = resound(dir.path())
        .args(["check", "--app-id", "1\nok: \u{1b}[2J"])
        .args(&APP[2..])
        .output()
        .unwrap();
    let out = String::from_utf8(stdout).unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(
        out.contains("apps[0].id      \"1\\nok: \\u{1b}[2J\"  flag --app-id\n"),
        "{out}"
    );
}

#[test]
fn a_program_gets_everything_in_one_document() {
    let dir = project(&format!("{ENV}REVERB_PORT=8081\nREDIS_PASSWORD=hunter2\n"));
    write_expired_certificate(dir.path());
    let tls = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let (code, found) = document(dir.path(), &tls);
    assert_eq!(code, Some(0));
    let here = dir.path().canonicalize().unwrap();
    assert_eq!(found["ok"], true);
    assert_eq!(found["files"], json!([format!("{}/.env", here.display())]));
    let found_settings = found["settings"].as_array().unwrap();
    assert_eq!(found_settings.len(), settings());
    for (name, value, source, default, needs_restart) in [
        ("server.host", "0.0.0.0", "default", true, true),
        ("server.path", "", "default", true, false),
        (
            "server.port",
            "9000",
            ".env line 4, REVERB_SERVER_PORT",
            false,
            true,
        ),
        (
            "server.tls_cert",
            "cert.pem",
            "flag --tls-cert",
            false,
            false,
        ),
        (
            "scaling.password",
            "(hidden)",
            ".env line 6, REDIS_PASSWORD",
            false,
            true,
        ),
        (
            "apps[0].secret",
            "(hidden)",
            ".env line 3, REVERB_APP_SECRET",
            false,
            false,
        ),
    ] {
        let setting = json!({"name": name, "value": value, "source": source, "default": default, "needs_restart": needs_restart});
        assert!(found_settings.contains(&setting), "{setting}: {found:#}");
    }
    let texts = |key: &str| found[key].as_array().unwrap().clone();
    let (warnings, notes) = (texts("warnings"), texts("notes"));
    assert!(
        warnings.len() == 1
            && warnings[0]
                .as_str()
                .unwrap()
                .contains("expired at 2020-01-01"),
        "{warnings:?}"
    );
    assert!(
        notes.len() == 1 && notes[0].as_str().unwrap().starts_with("Laravel dials "),
        "{notes:?}"
    );
    let certificate = json!({
        "path": "cert.pem",
        "names": ["localhost"],
        "not_after": "2020-01-01T00:00:00Z",
    });
    assert_eq!(found["certificates"], json!([certificate]));
    assert_eq!(found.as_object().unwrap().len(), 6);
    let all = document(dir.path(), &[&["--all"][..], &tls].concat());
    assert_eq!(all, (Some(0), found), "--all changes nothing");
}

/// Each mistake once, for a person and for a program.
#[test]
fn what_is_not_usable_is_told_with_its_problems_and_64() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("broken.toml", "[server\nport = 1\n");
    write("settings", "[server]\nport = 1\n");
    write("production", "REVERB_APP_ID=1\n");
    let app = &APP[..];
    for (arguments, expected) in [
        (&[][..], &["no application: "][..]),
        (
            &["--app-id", "1"],
            &["apps.key is missing", "apps.secret is missing"],
        ),
        (
            &[app, &["--port", "http", "--workers", "0", "--path", "a b"]].concat(),
            &[
                "server.port = \"http\"",
                "server.path = ",
                "server.workers = \"0\"",
            ],
        ),
        (
            &["--config", "broken.toml"],
            &["broken.toml line 1: not valid TOML"],
        ),
        (
            &["--config", "none.toml"],
            &["--config: cannot read none.toml: No such file"],
        ),
        (
            &["--config", "."],
            &["--config: cannot read .: it is a directory"],
        ),
        // A hint belongs to its problem.
        (
            &["--config", "production"],
            &["production line 1: there is no section "],
        ),
        (&["--env-file", "settings"], &["settings line 1: "]),
        // What only loading shows.
        (
            &[app, &["--tls-cert", "x.pem", "--tls-key", "y.pem"]].concat(),
            &["server.tls_cert: cannot use x.pem: No such file"],
        ),
    ] {
        let (code, found) = document(dir.path(), arguments);
        assert_eq!(code, Some(64), "{found}");
        let problems = found["problems"].as_array().unwrap();
        assert_eq!(found, json!({"ok": false, "problems": problems}));
        assert_eq!(problems.len(), expected.len(), "{arguments:?}: {found:#}");
        for (problem, start) in problems.iter().zip(expected) {
            let problem = problem.as_str().unwrap();
            assert!(problem.starts_with(start), "{arguments:?}: {problem}");
        }

        let (code, out, error) = run(dir.path(), &[&["check"], arguments].concat());
        assert_eq!((code, out.as_str()), (Some(64), ""), "{arguments:?}");
        let verdict = match expected.len() {
            1 => "resound: not usable: 1 problem".to_owned(),
            count => format!("resound: not usable: {count} problems"),
        };
        assert_eq!(error.lines().last(), Some(verdict.as_str()), "{error}");
        let told = problems
            .iter()
            .flat_map(|text| text.as_str().unwrap().lines());
        let told: Vec<String> = told.map(|line| format!("resound: {line}")).collect();
        let count = told.len();
        assert_eq!(error.lines().take(count).collect::<Vec<_>>(), told);
        assert_eq!(error.lines().count(), count + 1, "{error}");
    }
}

/// They are nothing that `start` and the others would understand.
#[test]
fn its_flags_are_its_own() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["--all"][..],
        &["--json"],
        &["start", "--all"],
        &["start", "--json"],
        &["health", "--json"],
        &["demo", "--all"],
        &["check", "--al"],
        &["check", "--jsonl"],
        &["check", "--json", "all"],
        &["check", "--json=pretty"],
        &["check", "--all", "--all"],
    ] {
        let (code, out, error) = run(dir.path(), &[arguments, &APP[..]].concat());
        assert_eq!((code, out.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(error.starts_with("error: "), "{arguments:?}: {error}");
    }
}

#[test]
fn what_cannot_be_written_ends_with_1_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["check"][..],
        &["check", "--all"],
        &["check", "--json"],
        &["check", "--json", "--port", "http"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        for (out, text) in [
            (Stdio::from(full), "No space left on device"),
            (Stdio::from(closed), "Broken pipe"),
        ] {
            let mut command = resound(dir.path());
            command.args(arguments).args(APP);
            // `output` would take the pipe's place.
            let child = command.stdout(out).stderr(Stdio::piped()).spawn().unwrap();
            let Output { status, stderr, .. } = child.wait_with_output().unwrap();
            let error = String::from_utf8(stderr).unwrap();
            assert_eq!(status.code(), Some(1), "{arguments:?}: {error}");
            let expected = format!("resound: cannot write to standard output: {text}");
            assert!(error.contains(&expected), "{arguments:?}: {error}");
        }
    }
}
