//! The program as a person runs it: exit codes, messages, signals.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub(super) const APP: [&str; 6] = ["--app-id", "a", "--app-key", "k", "--app-secret", "hunter2"];

/// The program in an empty directory and environment.
pub(super) fn resound(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_resound"));
    command.current_dir(dir).env_clear();
    command
}

pub(super) fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = resound(dir).args(arguments).output().unwrap();
    (
        status.code(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// It ends with a test that fails.
struct Started(Child);

impl Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it and waits until it has said where it listens: what it has said, and
/// what it will say.
fn started(mut command: Command) -> (Started, String, BufReader<impl Read>) {
    let mut child = Started(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("server on ") {
        assert!(log.read_line(&mut said).unwrap() > 0, "it ended: {said}");
    }
    (child, said, log)
}

fn address(said: &str) -> &str {
    said.split("server on ")
        .nth(1)
        .unwrap()
        .split([' ', '/', '\n'])
        .next()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill")
            .args([name, &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn help_and_version_are_no_errors() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["--help"][..],
        &["start", "--help"],
        &["check", "--help"],
        &["demo", "--help"],
        &["health", "--help"],
        &["--version"],
    ] {
        let (code, out, _) = run(dir.path(), arguments);
        assert_eq!(code, Some(0), "{arguments:?}");
        assert!(out.contains("resound"), "{out}");
    }
}

#[test]
fn what_cannot_be_configured_ends_with_64_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.toml"), "[server]\nprot = 1\n").unwrap();
    std::fs::write(dir.path().join("bad.env"), "A=1\nB=b c\n").unwrap();
    std::fs::write(dir.path().join("empty.pem"), "").unwrap();
    for (arguments, text) in [
        (&["--nothing"][..], "unexpected argument '--nothing'"),
        (&["strat"], "unrecognized subcommand 'strat'"),
        (
            &["start", "--port"],
            "a value is required for '--port <PORT>'",
        ),
        (&["start"], "apps"),
        (
            &["start", "--port", "http"],
            "server.port = \"http\" (flag --port): expected a whole number from 0 to 65535",
        ),
        (
            &["start", "--config", "none.toml"],
            "--config: cannot read none.toml: No such file",
        ),
        (
            &["start", "--config", "bad.toml"],
            "bad.toml line 2: there is no setting \"prot\" in server",
        ),
        (
            &["start", "--env-file", "bad.env"],
            "bad.env line 2: B: white space inside a value needs quotes",
        ),
        (
            &["start", "--tls-cert", "x.pem"],
            "server.tls_key is missing",
        ),
        (
            &["start", "--tls-cert", "x.pem", "--tls-key", "y.pem"],
            "server.tls_cert: cannot use x.pem: No such file",
        ),
        (
            &["check", "--tls-cert", "empty.pem", "--tls-key", "empty.pem"],
            "empty.pem: it has no PEM certificate",
        ),
        (
            &["demo", "--port", "x"],
            "server.port = \"x\" (flag --port)",
        ),
    ] {
        let mut all = arguments.to_vec();
        if text != "apps" && arguments.len() > 2 && arguments[0] != "demo" {
            all.extend(APP);
        }
        let (code, out, error) = run(dir.path(), &all);
        assert_eq!(code, Some(64), "{arguments:?}: {error}");
        assert!(error.contains(text), "{arguments:?}: {error}");
        assert!(out.is_empty() && !error.contains("hunter2"), "{out}{error}");
    }
    let (_, _, error) = run(dir.path(), &["start"]);
    for name in [
        "REVERB_APP_ID",
        "REVERB_APP_KEY",
        "REVERB_APP_SECRET",
        "--app-id",
        "[[apps]]",
    ] {
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn it_starts_by_default_says_where_and_ends_with_0_on_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, name) in [(&[][..], "-TERM"), (&["start"], "-INT")] {
        let mut command = resound(dir.path());
        command
            .args(arguments)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .args(APP);
        let (mut child, said, _log) = started(command);
        std::net::TcpStream::connect(address(&said)).unwrap();
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_port_in_use_ends_with_1_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let arguments = [&["--host", "127.0.0.1", "--port", &port][..], &APP].concat();
    let (code, _, error) = run(dir.path(), &arguments);
    assert_eq!(code, Some(1));
    assert!(
        error.contains(&format!(
            "cannot listen on 127.0.0.1:{port}: Address already in use"
        )),
        "{error}"
    );
    assert!(
        error.contains("is Reverb or another Resound still running?"),
        "{error}"
    );
    let (code, _, error) = run(
        dir.path(),
        &[&["--host", "192.0.2.1", "--port", "0"][..], &APP].concat(),
    );
    assert_eq!(code, Some(1));
    assert!(
        error.contains("this machine does not have that address"),
        "{error}"
    );
}

#[test]
fn the_demo_ignores_the_environment_and_stays_on_127_0_0_1() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join(".env"),
        "REVERB_APP_KEY=other\nREVERB_SERVER_HOST=0.0.0.0\n",
    )
    .unwrap();
    let mut command = resound(dir.path());
    command
        .args(["demo", "--port", "0"])
        .env("REVERB_SERVER_HOST", "0.0.0.0");
    let (mut child, said, mut log) = started(command);
    let address = address(&said);
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    assert!(
        line.contains(&format!("Open http://{address}/demo in a browser")),
        "{line}"
    );
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn health_tells_a_server_that_is_up_from_one_that_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let flags = [&["--port", &port, "--path", "/ws"][..], &APP].concat();
    let (code, _, error) = run(dir.path(), &[&["health"], &flags[..]].concat());
    assert_eq!(code, Some(1));
    assert!(
        error.contains(&format!("127.0.0.1:{port}: Connection refused")),
        "{error}"
    );
    let mut command = resound(dir.path());
    command.args(["start"]).args(&flags);
    let (mut child, _, _log) = started(command);
    let (code, _, error) = run(dir.path(), &[&["health"], &flags[..]].concat());
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let (code, _, error) = run(
        dir.path(),
        &[
            "health",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--path",
            "ws",
        ],
    );
    assert_eq!((code, error.as_str()), (Some(0), ""), "without credentials");
    signal(&child, "-TERM");
    child.wait().unwrap();
    assert_eq!(run(dir.path(), &["health", "--port", "x"]).0, Some(64));
}

/// It asks what listens, for which it needs no application, and none that is right.
#[test]
fn health_needs_no_application() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let tls = ["--tls-cert", "c.pem", "--tls-key", "k.pem"];
    let asked = [&["health", "--port", &port][..], &tls].concat();
    assert_eq!(run(dir.path(), &asked).0, Some(0));
    std::fs::write(
        dir.path().join(".env"),
        "REVERB_APP_ID=1\nREVERB_APP_PING_INTERVAL=x\n",
    )
    .unwrap();
    assert_eq!(run(dir.path(), &asked).0, Some(0));
    drop(listener);
    let (code, _, error) = run(dir.path(), &asked);
    assert_eq!(code, Some(1));
    assert!(error.contains("Connection refused"), "{error}");
}

#[test]
fn without_an_application_it_says_what_was_looked_for_where_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().canonicalize().unwrap().display().to_string();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let says = |arguments: &[&str], texts: &[&str]| {
        let (code, _, error) = run(dir.path(), arguments);
        assert_eq!(code, Some(64), "{arguments:?}: {error}");
        for text in texts {
            assert!(error.contains(text), "{arguments:?}: {text}: {error}");
        }
    };
    let no_env = format!("there is no .env in {here}: start it in the Laravel project's directory");
    let files = [
        &no_env,
        "--env-file",
        "looked in the environment and the flags",
    ];
    says(&["start"], &files);
    says(&["check"], &files);
    says(
        &["start", "--env-file", "app/.env"],
        &[&format!(
            "--env-file: cannot read app/.env: No such file or directory (os error 2) (it would be {here}/app/.env)"
        )],
    );
    says(
        &["start", "--env-file", "."],
        &["cannot read .: it is a directory; name the file in it"],
    );

    // TOML as a .env, and the reverse, by name and by content.
    write("resound.toml", "#: [server]\n");
    write("settings", "[server]\nport = 1\n");
    write(".env", "REVERB_APP_ID=1\n");
    write("production.env", "REVERB_APP_ID=1\n");
    says(
        &["start", "--env-file", "resound.toml"],
        &[
            "this is TOML by its name",
            "give it as --config resound.toml",
        ],
    );
    says(
        &["start", "--env-file", "settings"],
        &[
            "settings line 1: ",
            "settings looks like TOML",
            "give it as --config settings",
        ],
    );
    says(
        &["start", "--config", ".env"],
        &[
            "this is a Laravel .env by its name",
            "give it as --env-file .env",
        ],
    );
    says(
        &["start", "--config", "production.env"],
        &[
            "looks like a Laravel .env",
            "give it as --env-file production.env",
        ],
    );

    // Part of it, and Pusher's names.
    says(
        &["start"],
        &[
            "apps.key is missing",
            &format!("looked in {here}/.env, the environment and the flags"),
        ],
    );
    write(
        ".env",
        "PUSHER_APP_ID=1\nPUSHER_APP_KEY=k\nPUSHER_APP_SECRET=hunter2\n",
    );
    says(
        &["start"],
        &[
            &format!("looked in {here}/.env"),
            "there is PUSHER_APP_ID, PUSHER_APP_KEY, PUSHER_APP_SECRET (.env line 1)",
            "REVERB_APP_ID=\"${PUSHER_APP_ID}\"",
        ],
    );
    let (_, _, error) = run(dir.path(), &["start"]);
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn files_that_no_settings_are_in_end_with_64_and_not_with_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let line = |n: u32| format!("A{n}=\"{}\"\n", format!("${{A{}}}", n - 1).repeat(10));
    let lines: String = (1..=10).map(line).collect();
    write("growing.env", &format!("A0=0123456789\n{lines}"));
    write("big.env", &"A=1\n".repeat(300_000));
    std::fs::write(dir.path().join("binary.env"), b"A=1\nB=\xff\n").unwrap();
    for (file, text) in [
        (
            "growing.env",
            "growing.env line 5: A4: the value has more than 65536 bytes",
        ),
        ("big.env", "big.env: it has more than 1048576 bytes"),
        ("/dev/zero", "/dev/zero: it has more than 1048576 bytes"),
        ("binary.env", "binary.env: line 2 is not valid UTF-8"),
    ] {
        let (code, _, error) = run(dir.path(), &["check", "--env-file", file]);
        assert_eq!(code, Some(64), "{file}: {error}");
        assert!(error.contains(text), "{error}");
    }
    let (code, _, error) = run(dir.path(), &["check", "--config", "/dev/zero"]);
    assert_eq!(code, Some(64));
    assert!(error.contains("more than 1048576 bytes"), "{error}");
}

/// A Laravel project whose settings say more than the `.env` that is read.
#[test]
fn start_and_check_name_the_files_they_read_and_what_is_not_as_it_looks() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().canonicalize().unwrap().display().to_string();
    let env = "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=my-app-secret\nREVERB_HOST=shop.example\n";
    std::fs::write(dir.path().join(".env"), env).unwrap();
    std::fs::create_dir(dir.path().join("config")).unwrap();
    let php = "<?php return ['apps' => ['apps' => [['app_id' => 1, 'allowed_origins' => ['shop.example']]]]];\n";
    std::fs::write(dir.path().join("config/reverb.php"), php).unwrap();
    let (code, out, error) = run(dir.path(), &["check"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(!out.contains("reverb.php"), "{out}");
    let expected = [
        format!("settings read from {here}/.env"),
        format!("warning: {here}/config/reverb.php is not read"),
        format!("warning: {here}/config/reverb.php line 1 seems to restrict allowed_origins"),
        "warning: apps[0].secret (.env line 3, REVERB_APP_SECRET) stands in published examples"
            .to_owned(),
        "note: Laravel dials https://shop.example:443".to_owned(),
    ];
    for text in &expected {
        assert!(error.contains(text), "{text}: {error}");
    }
    let mut command = resound(dir.path());
    command.args(["--port", "0"]);
    let (mut child, said, _log) = started(command);
    for text in &expected[1..4] {
        let text = text.trim_start_matches("warning: ");
        let line = said.lines().find(|line| line.contains(text));
        assert!(
            line.is_some_and(|line| line.contains("WARN")),
            "{text}: {said}"
        );
    }
    assert!(said.contains(&format!("settings={here}/.env")), "{said}");
    signal(&child, "-TERM");
    child.wait().unwrap();
    let mut command = resound(&dir.path().join("config"));
    command
        // Another test may have the port of metrics, which would be warned of.
        .args(["--port", "0", "--host", "127.0.0.1", "--metrics-port", "0"])
        .args(APP);
    let (mut child, said, _log) = started(command);
    assert!(
        said.contains("settings=\"no file\"") && !said.contains("WARN"),
        "{said}"
    );
    signal(&child, "-TERM");
    child.wait().unwrap();
}

#[test]
fn too_few_open_files_end_the_start_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_resound");
    let script = format!(
        "ulimit -n 16 && exec {program} --host 127.0.0.1 --port 0 --workers 8 {}",
        APP.join(" ")
    );
    let mut command = Command::new("sh");
    command
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .args(["-c", &script]);
    let Output { status, stderr, .. } = command.output().unwrap();
    let error = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{error}");
    assert!(error.contains("Too many open files"), "{error}");
}

#[test]
fn the_soft_limit_of_open_files_is_raised_and_a_low_one_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_resound");
    let start = |limits: &str| {
        let mut command = Command::new("sh");
        let script = format!(
            "{limits} && exec {program} --host 127.0.0.1 --port 0 {}",
            APP.join(" ")
        );
        command
            .current_dir(dir.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .args(["-c", &script]);
        started(command)
    };
    let (mut child, _, _log) = start("ulimit -Sn 100 && ulimit -Hn 12000");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let files: Vec<&str> = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(files[3..5], ["12000", "12000"]);
    signal(&child, "-TERM");
    child.wait().unwrap();
    let (mut child, log, _) = start("ulimit -n 500");
    assert!(
        log.contains("few open files are allowed") && log.contains("500"),
        "{log}"
    );
    signal(&child, "-TERM");
    child.wait().unwrap();
}

/// `cert.pem` and `key.pem` of a certificate that nobody accepts any more.
pub(super) fn write_expired_certificate(dir: &Path) {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap().pem();
    std::fs::write(dir.join("cert.pem"), cert).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn an_expired_certificate_is_warned_of_at_start_and_check() {
    let dir = tempfile::tempdir().unwrap();
    write_expired_certificate(dir.path());
    let flags = ["--host", "127.0.0.1", "--port", "0"];
    let tls = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let text = "server.tls_cert: the certificate in cert.pem expired at 2020-01-01T00:00:00Z";
    let (code, _, error) = run(dir.path(), &[&["check"][..], &flags, &tls, &APP].concat());
    assert_eq!(code, Some(0));
    assert!(error.contains(&format!("warning: {text}")), "{error}");
    let mut command = resound(dir.path());
    command.args(flags).args(tls).args(APP);
    let (mut child, said, _log) = started(command);
    let line = said.lines().find(|line| line.contains(text)).unwrap();
    assert!(line.contains("WARN"), "{said}");
    signal(&child, "-TERM");
    child.wait().unwrap();
}
