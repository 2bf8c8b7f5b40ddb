//! The program as a person runs it: exit codes, messages, signals.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const APP: [&str; 6] = ["--app-id", "a", "--app-key", "k", "--app-secret", "hunter2"];

/// The program in an empty directory and environment.
fn resound(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_resound"));
    command.current_dir(dir).env_clear();
    command
}

fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
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

/// Starts it and waits until it has said where it listens: what it has said, and
/// what it will say.
fn started(mut command: Command) -> (Child, String, BufReader<impl Read>) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
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
            "bad.env line 2: white space inside a value needs quotes",
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
fn check_shows_values_and_sources_and_hides_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let env = "REVERB_APP_ID=my-app-id\nREVERB_APP_KEY=my-app-key\nREVERB_APP_SECRET=hunter2\nREVERB_SERVER_PORT=9000\n";
    std::fs::write(dir.path().join(".env"), env).unwrap();
    let (code, out, error) = run(dir.path(), &["check", "--path", "/ws"]);
    assert_eq!(code, Some(0), "{error}");
    let lines: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for expected in [
        &[
            "server.port",
            "9000",
            ".env",
            "line",
            "4,",
            "REVERB_SERVER_PORT",
        ][..],
        &["server.path", "/ws", "flag", "--path"],
        &["server.host", "0.0.0.0", "default"],
        &[
            "apps[0].key",
            "my-app-key",
            ".env",
            "line",
            "2,",
            "REVERB_APP_KEY",
        ],
        &[
            "apps[0].secret",
            "(hidden)",
            ".env",
            "line",
            "3,",
            "REVERB_APP_SECRET",
        ],
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected:?}\n{out}"
        );
    }
    assert!(!out.contains("hunter2"));
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
    signal(&child, "-TERM");
    child.wait().unwrap();
    assert_eq!(run(dir.path(), &["health", "--port", "x"]).0, Some(64));
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
fn the_soft_limit_of_open_files_is_raised_and_a_low_one_is_told() {
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
