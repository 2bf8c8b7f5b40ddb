//! `resound import` and `--config-json`: what another server's configuration means here.
//! `scripts/test laravel` asks a real Laravel.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cli::{self, run};
use crate::support::process::follow;

/// `config('reverb')` as Reverb 1.10 publishes it, on a project of `reverb:install`.
fn reverb() -> Value {
    json!({
        "default": "reverb",
        "servers": { "reverb": {
            "host": "0.0.0.0", "port": 8080, "path": "", "hostname": "localhost",
            "options": { "tls": [] },
            "max_request_size": 10000,
            "scaling": {
                "enabled": false, "channel": "reverb",
                "server": {
                    "url": null, "host": "127.0.0.1", "port": "6379", "username": null,
                    "password": null, "database": "0", "timeout": 60,
                },
            },
            "pulse_ingest_interval": 15, "telescope_ingest_interval": 15,
        } },
        "apps": { "provider": "config", "apps": [{
            "key": "my-app-key", "secret": "my-app-secret", "app_id": "123456",
            "options": { "host": "localhost", "port": "8080", "scheme": "http", "useTLS": false },
            "allowed_origins": ["*"],
            "ping_interval": 60, "activity_timeout": 30, "max_connections": null,
            "max_message_size": 10000, "accept_client_events_from": "members",
            "rate_limiting": {
                "enabled": false, "max_attempts": 60, "decay_seconds": 60, "terminate_on_limit": false,
            },
        }] },
    })
}

fn document(reverb: &Value) -> Value {
    json!({
        "format": 1, "app_url": "http://localhost", "reverb": reverb,
        "broadcasting": { "default": "reverb", "connections": { "reverb": {
            "driver": "reverb", "key": "my-app-key", "secret": "my-app-secret", "app_id": "123456",
        } } },
        "redis": { "default": { "url": null, "host": "10.0.0.1", "password": null, "port": "6380", "database": "1" } },
        "websockets": null,
    })
}

/// Two applications, and whatever else Reverb can be told.
fn everything() -> Value {
    let mut reverb = reverb();
    let server = &mut reverb["servers"]["reverb"];
    server["host"] = "127.0.0.1".into();
    server["port"] = "6001".into();
    server["path"] = "ws".into();
    server["max_request_size"] = 20_000.into();
    server["scaling"]["enabled"] = true.into();
    server["scaling"]["server"]["password"] = "p\"w\\d".into();
    let app = reverb["apps"]["apps"][0].clone();
    let mut other = app.clone();
    other["app_id"] = 7.into();
    other["key"] = "0123".into();
    other["secret"] = "42".into();
    other["allowed_origins"] = json!(["example.com", "*.example.com"]);
    other["max_connections"] = 100.into();
    other["ping_interval"] = 20.into();
    other["accept_client_events_from"] = "nobody".into();
    other["rate_limiting"] = json!({ "enabled": true, "max_attempts": 5 });
    reverb["apps"]["apps"] = json!([app, other]);
    reverb
}

/// Imports a document: exit code, the file, and what is said of it.
fn import(document: &Value) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("d.json"), document.to_string()).unwrap();
    run(dir.path(), &["import", "--from-json", "d.json", "--stdout"])
}

fn imported(document: &Value) -> (String, String) {
    let (code, toml, notes) = import(document);
    assert_eq!(code, Some(0), "{notes}");
    (toml, notes)
}

/// The settings without the comment before them.
fn settings(toml: &str) -> &str {
    toml.split_once("\n\n").unwrap().1
}

#[test]
fn reverbs_own_configuration_means_the_same_here() {
    let (toml, notes) = imported(&document(&reverb()));
    assert_eq!(
        settings(&toml),
        r#"[server]
host = ["0.0.0.0"]
port = 8080
hostname = "localhost"

[[apps]]
id = "123456"
key = "my-app-key"
secret = "my-app-secret"
allowed_origins = ["*"]
ping_interval = 60
activity_timeout = 30
max_message_size = 10000
accept_client_events_from = "members"
"#
    );
    assert!(
        toml.starts_with("# Made by resound import of d.json. It contains secrets.\n"),
        "{toml}"
    );
    let expected = "resound: note: reverb.servers.reverb.max_request_size is 10000, Reverb's default: left at Resound's \
                    1048576, so that larger events arrive\n";
    assert!(notes.starts_with(expected), "{notes}");
    // The secret of this test is in every manual.
    assert_eq!(notes.lines().count(), 2, "{notes}");
    assert!(notes.contains("stands in published examples"), "{notes}");
}

#[test]
fn all_applications_and_limits_are_carried_over() {
    let (toml, _) = imported(&document(&everything()));
    assert_eq!(
        settings(&toml),
        r#"[server]
host = ["127.0.0.1"]
port = 6001
path = "ws"
hostname = "localhost"
max_request_size = 20000

[scaling]
enabled = true
channel = "reverb"
host = "127.0.0.1"
port = 6379
password = 'p"w\d'
database = 0
timeout = 60

[[apps]]
id = "123456"
key = "my-app-key"
secret = "my-app-secret"
allowed_origins = ["*"]
ping_interval = 60
activity_timeout = 30
max_message_size = 10000
accept_client_events_from = "members"

[[apps]]
id = "7"
key = "0123"
secret = "42"
allowed_origins = ["example.com", "*.example.com"]
ping_interval = 20
activity_timeout = 30
max_connections = 100
max_message_size = 10000
accept_client_events_from = "none"
rate_limiting.enabled = true
rate_limiting.max_attempts = 5
rate_limiting.decay_seconds = 1
rate_limiting.terminate_on_limit = false
"#
    );
}

/// What was written and the document itself are the same settings.
#[test]
fn a_document_and_the_file_made_of_it_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let document = document(&everything()).to_string();
    fs::write(dir.path().join("d.json"), &document).unwrap();
    let (code, out, _) = run(dir.path(), &["import", "--from-json", "d.json"]);
    assert_eq!((code, out.as_str()), (Some(0), "resound.toml written\n"));
    let values = |arguments: &[&str]| {
        let arguments = [&["check", "--all", "--json"], arguments].concat();
        let (code, out, err) = run(dir.path(), &arguments);
        assert_eq!(code, Some(0), "{err}");
        let checked: Value = serde_json::from_str(&out).unwrap();
        let settings = checked["settings"].as_array().unwrap();
        assert!(settings.len() > 80);
        let named = |it: &Value| (it["name"].clone(), it["value"].clone());
        settings.iter().map(named).collect::<Vec<_>>()
    };
    let of_file = values(&["--config", "resound.toml"]);
    assert_eq!(values(&["--config-json", "d.json"]), of_file);
}

#[test]
fn the_file_is_its_owners_and_nothing_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resound.toml");
    fs::write(dir.path().join("d.json"), document(&reverb()).to_string()).unwrap();
    let import = |more: &[&str]| {
        run(
            dir.path(),
            &[&["import", "--from-json", "d.json"], more].concat(),
        )
    };
    assert_eq!(import(&[]).0, Some(0));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::write(&path, "mine").unwrap();
    let (code, out, err) = import(&[]);
    assert_eq!((code, out.as_str()), (Some(64), ""));
    assert_eq!(
        err,
        "resound: resound.toml is there already: --force writes over it, --output takes another name, --stdout writes none\n"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(import(&["--force"]).0, Some(0));
    assert!(fs::read_to_string(&path).unwrap().contains("[[apps]]"));
    let (code, _, err) = import(&["--output", "none/r.toml"]);
    assert_eq!(code, Some(1));
    assert!(
        err.starts_with("resound: cannot write none/r.toml: "),
        "{err}"
    );
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn what_has_no_counterpart_is_said() {
    let mut reverb = reverb();
    let server = &mut reverb["servers"]["reverb"];
    server["options"]["tls"] = json!({ "local_cert": "c.pem", "passphrase": "x", "ciphers": "HIGH", "verify_peer": false });
    server["scaling"]["enabled"] = true.into();
    server["scaling"]["server"] = json!([]);
    server["worker"] = 3.into();
    let app = &mut reverb["apps"]["apps"][0];
    app["accept_client_events_from"].take();
    app["rate_limiting"]["enabled"] = "true".into();
    app["webhooks"] = json!(["x"]);
    reverb["apps"]["provider"] = "database".into();
    let mut document = document(&reverb);
    document["broadcasting"]["connections"]["reverb"]["secret"] = "other".into();
    document["websockets"] = json!({ "apps": [] });
    let (toml, notes) = imported(&document);
    for line in [
        "tls_cert = [\"c.pem\"]\ntls_key = [\"c.pem\"]\n",
        "[scaling]\nenabled = true\nchannel = \"reverb\"\nhost = \"10.0.0.1\"\nport = 6380\ndatabase = 1\n",
        "accept_client_events_from = \"all\"\n",
    ] {
        assert!(toml.contains(line), "{line}{toml}");
    }
    assert!(!toml.contains("rate_limiting"), "{toml}");
    for note in [
        "websockets, the configuration of laravel-websockets, is left out: reverb is there, too",
        "reverb.servers.reverb.options.tls.passphrase has no counterpart: write the key without one, with openssl pkey",
        "reverb.servers.reverb.options.tls.ciphers has no counterpart",
        "reverb.servers.reverb.worker has no counterpart",
        "reverb.apps.apps[0].accept_client_events_from is not set, which Reverb takes for \"all\"",
        "reverb.apps.apps[0].rate_limiting.enabled is \"true\", which Reverb does not take for true",
        "reverb.apps.apps[0].webhooks has no counterpart",
        "reverb.apps.provider is \"database\": its applications are copied as they are now",
        "broadcasting.connections.reverb.secret is not that of the server's application \"123456\"",
    ] {
        assert!(notes.contains(&format!("note: {note}")), "{note}\n{notes}");
    }
    document["broadcasting"]["connections"]["reverb"]["app_id"] = "9".into();
    let (_, notes) = imported(&document);
    assert!(
        notes.contains("app_id is \"9\", and the server has no application with this id"),
        "{notes}"
    );
    document["broadcasting"] =
        json!({ "default": "log", "connections": { "log": { "driver": "log" } } });
    let (_, notes) = imported(&document);
    assert!(
        notes.contains("broadcasting.default is \"log\", so Laravel does not publish"),
        "{notes}"
    );
}

#[test]
fn a_document_that_cannot_be_used_names_the_place() {
    let with = |path: &str, value: Value| {
        let mut document = document(&reverb());
        *document.pointer_mut(path).unwrap() = value;
        document
    };
    let app = "/reverb/apps/apps/0";
    for (document, told) in [
        (json!({}), "d.json: format: expected 1"),
        (json!({ "format": 2 }), "d.json: format: expected 1"),
        (
            json!({ "format": 1 }),
            "the project has no config/reverb.php and no config/websockets.php",
        ),
        (json!([1]), "d.json: format: expected 1"),
        (
            with("/reverb/apps/apps", json!([])),
            "d.json: reverb.apps.apps: expected an application",
        ),
        (
            with("/reverb/apps/apps", json!(3)),
            "d.json: reverb.apps.apps: expected a list",
        ),
        (
            with(&format!("{app}/key"), json!(["a"])),
            "reverb.apps.apps[0].key: expected a single value",
        ),
        (
            with(&format!("{app}/secret"), Value::Null),
            "apps.secret is missing",
        ),
        (
            with(&format!("{app}/allowed_origins"), json!([])),
            "nobody may connect",
        ),
        (
            with(&format!("{app}/allowed_origins"), json!(["a,b"])),
            "expected hosts, and \"a,b\" is none",
        ),
        (
            with(&format!("{app}/ping_interval"), json!("often")),
            "apps.ping_interval = \"often\" (the document at reverb.apps.apps[0].ping_interval): expected a whole number",
        ),
        (
            with("/reverb/servers/reverb/port", json!(70000)),
            "(the document at reverb.servers.reverb.port): expected a whole number from 0 to 65535",
        ),
    ] {
        let (code, out, err) = import(&document);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{err}");
        assert!(err.contains(told), "{told}\n{err}");
    }
}

#[test]
fn files_and_programs_that_are_not_there_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("project");
    fs::create_dir(&project).unwrap();
    fs::write(dir.path().join("bad.json"), "{").unwrap();
    fs::write(project.join("artisan"), "").unwrap();
    for (arguments, told) in [
        (
            &["."][..],
            "resound: . is no Laravel project: it has no artisan",
        ),
        (&["none"], "none is no Laravel project"),
        (&["project", "--php", "none-such"], "cannot run none-such: "),
        (
            &["project", "--php", "none-such"],
            "resound import --from-json reverb.json",
        ),
        (
            &["project", "--php", "false"],
            "project does not boot (PHP ended with exit status: 1)",
        ),
        (&["--from-json", "none.json"], "cannot read none.json"),
        (
            &["--from-json", "bad.json"],
            "bad.json: not JSON: EOF while parsing",
        ),
        (&["--from-json", "project"], "cannot read project"),
        (&["--soketi", "none.json"], "cannot read none.json"),
        (&["--soketi", "bad.json"], "bad.json: not JSON"),
        (
            &["--soketi", "a", "--from-json", "b"],
            "cannot be used with",
        ),
    ] {
        let (code, out, err) = run(dir.path(), &[&["import"], arguments].concat());
        assert_eq!((code, out.as_str()), (Some(64), ""), "{arguments:?}: {err}");
        assert!(err.contains(told), "{arguments:?}: {err}");
        assert!(!dir.path().join("resound.toml").exists());
    }
    let (code, script, _) = run(dir.path(), &["import", "--script"]);
    assert_eq!(code, Some(0));
    assert!(script.starts_with("<?php\n"), "{script}");
}

/// A Laravel package starts it like this.
#[test]
fn a_server_starts_with_what_standard_input_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut reverb = everything();
    reverb["servers"]["reverb"]["port"] = 0.into();
    reverb["servers"]["reverb"]["scaling"]["enabled"] = false.into();
    let start = |document: &str, command: &str| {
        let mut child = cli::resound(dir.path())
            .args([command, "--config-json", "-"])
            .env("RESOUND_METRICS_PORT", "off")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(document.as_bytes()).unwrap();
        child
    };
    let mut child = start(&document(&reverb).to_string(), "start");
    let (said, log) = follow(&mut child);
    let address = said.split("server on ").nth(1).unwrap();
    assert!(
        address.starts_with("127.0.0.1:") && address.contains("/ws"),
        "{said}"
    );
    // What it has read once, it has still when it is to read its settings again.
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-HUP", &id])
            .status()
            .unwrap()
            .success()
    );
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while !log.lock().unwrap().contains("settings reloaded") {
        assert!(
            std::time::Instant::now() < deadline,
            "{}",
            log.lock().unwrap()
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for (document, told) in [
        ("", "--config-json standard input: not JSON"),
        ("{}", "--config-json standard input: format: expected 1"),
    ] {
        let output = start(document, "check").wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64));
        assert!(err.contains(told), "{err}");
    }
    let both = ["check", "--config-json", "d.json", "--config", "r.toml"];
    let (code, _, err) = run(dir.path(), &both);
    assert_eq!(code, Some(64));
    assert!(err.contains("cannot be used with"), "{err}");
}

fn soketi(dir: &Path, text: &str) -> (String, String) {
    fs::write(dir.join("soketi"), text).unwrap();
    let (code, toml, notes) = run(dir, &["import", "--soketi", "soketi", "--stdout"]);
    assert_eq!(code, Some(0), "{notes}");
    (settings(&toml).to_owned(), notes)
}

#[test]
fn soketis_file_and_variables_mean_the_same_here() {
    let dir = tempfile::tempdir().unwrap();
    let file = json!({
        "debug": false, "port": 6002, "pathPrefix": "/ws",
        "metrics": { "enabled": true, "port": 9602 },
        "adapter": { "driver": "redis" },
        "database": { "redis": { "host": "r", "port": 6390, "db": 2, "keyPrefix": "x:", "sentinels": [] } },
        "eventLimits": { "maxPayloadInKb": 50 },
        "cors": { "origin": ["a"] },
        "appManager": { "array": { "apps": [
            {
                "id": "1", "key": "k1", "secret": "s1", "maxConnections": -1, "enableClientMessages": true,
                "maxClientEventsPerSecond": 10, "maxPresenceMemberSizeInKb": 0.5, "maxBackendEventsPerSecond": 5,
                "webhooks": [{ "url": "http://x" }], "enableUserAuthentication": true,
            },
            { "id": "2", "key": "k2", "secret": "s2", "enabled": false },
        ] } },
    });
    let (toml, notes) = soketi(dir.path(), &file.to_string());
    assert_eq!(
        toml,
        r#"[server]
port = 6002
path = "/ws"

[metrics]
port = 9602

[scaling]
enabled = true
host = "r"
port = 6390
database = 2
prefix = "x:"

[[apps]]
id = "1"
key = "k1"
secret = "s1"
max_event_size = 51200
accept_client_events_from = "members"
client_events.max_per_second = 10
presence.max_member_size = 512
cache.ttl = 3600
authorization_timeout = 30
"#
    );
    for note in [
        "appManager.array.apps[1] is not enabled, and left out",
        "appManager.array.apps[0].webhooks is not taken over",
        "appManager.array.apps[0].maxBackendEventsPerSecond has no counterpart",
        "cors has no counterpart",
    ] {
        assert!(notes.contains(note), "{note}\n{notes}");
    }
    let variables = "SOKETI_DEFAULT_APP_ID=1\nSOKETI_DEFAULT_APP_KEY=k\nSOKETI_DEFAULT_APP_SECRET=\"s\"\n\
                     SOKETI_DEFAULT_APP_MAX_CONNS=9\nSOKETI_NONE=1\nAPP_NAME=x\n";
    let (toml, notes) = soketi(dir.path(), variables);
    assert_eq!(
        toml,
        "[server]\nport = 6001\n\n[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\nmax_connections = 9\n\
         accept_client_events_from = \"none\"\ncache.ttl = 3600\n"
    );
    assert!(notes.contains("SOKETI_NONE has no counterpart"), "{notes}");
    fs::write(dir.path().join("none"), "A=b\n").unwrap();
    let (code, _, err) = run(dir.path(), &["import", "--soketi", "none"]);
    assert_eq!(code, Some(64));
    assert!(
        err.contains("appManager.array.apps: expected an application that is enabled"),
        "{err}"
    );
}

#[test]
fn a_project_of_laravel_websockets_is_understood() {
    let websockets = json!({
        "dashboard": { "port": 6001 },
        "apps": [{
            "id": "1", "name": "x", "host": null, "key": "k", "secret": "s", "path": "p", "capacity": 50,
            "enable_client_messages": false, "enable_statistics": true, "allowed_origins": [],
        }],
        "replication": { "mode": "redis", "modes": { "redis": { "connection": "default" } } },
        "max_request_size_in_kb": 250,
        "ssl": { "local_cert": null, "local_pk": null },
    });
    let mut document = document(&Value::Null);
    document["websockets"] = websockets;
    document["broadcasting"] = json!({ "default": "pusher", "connections": { "pusher": {
        "driver": "pusher", "app_id": "1", "key": "k", "secret": "s",
    } } });
    let (toml, notes) = imported(&document);
    assert_eq!(
        settings(&toml),
        r#"[server]
port = 6001

[scaling]
enabled = true
host = "10.0.0.1"
port = 6380
database = 1

[[apps]]
id = "1"
key = "k"
secret = "s"
max_connections = 50
accept_client_events_from = "none"
"#
    );
    for note in [
        "websockets.apps[0].path is not carried over",
        "websockets.max_request_size_in_kb is 250, the default of laravel-websockets",
        "the dashboard and the statistics",
    ] {
        assert!(notes.contains(note), "{note}\n{notes}");
    }
    assert!(!notes.contains("refused"), "{notes}");
}
