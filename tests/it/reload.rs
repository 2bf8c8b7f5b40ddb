//! Settings that are read anew while the server runs, and who may ask for that.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{APP_ID, Client, Http, KEY, PATIENCE, Process, Signed, body, hmac};

const SOCKET: &[(&str, &str)] = &[("RESOUND_CONTROL_SOCKET", "control.sock")];

/// What a `.env` says beside the application of the environment.
fn with_dotenv(text: &str) -> Process {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".env"), text).unwrap();
    Process::within(dir, "", SOCKET)
}

fn path(server: &Process, name: &str) -> PathBuf {
    server.dir.path().join(name)
}

fn write(server: &Process, text: &str) {
    fs::write(path(server, ".env"), text).unwrap();
}

/// Exit code, standard output, standard error.
fn reload(server: &Process) -> (i32, String, String) {
    server.command(&["reload"], SOCKET)
}

/// Publishes data of so many bytes; the status.
fn publish(server: &Process, bytes: usize) -> u16 {
    let event = body(&["lobby"], "e", &"x".repeat(bytes));
    Http::connect(server).post("events", &event).status
}

#[test]
fn a_reload_changes_what_was_changed_and_says_so() {
    let server = with_dotenv("REVERB_APP_MAX_MESSAGE_SIZE=1000\nRESOUND_WORKERS=3\n");
    let mut before = Client::connect(&server);
    before.subscribe("lobby");
    let nothing = "reloaded: nothing has changed\n".to_owned();
    assert_eq!(reload(&server), (0, nothing, String::new()));
    write(
        &server,
        "REVERB_APP_MAX_MESSAGE_SIZE=2000\nRESOUND_MAX_EVENT_SIZE=3\nREVERB_SERVER_PATH=/ws\nREVERB_SERVER_PORT=1\n\
         RESOUND_LOG_FORMAT=json\n",
    );
    let expected = format!(
        "apps[{APP_ID:?}].max_event_size: 102400 -> 3\n\
         apps[{APP_ID:?}].max_message_size: 1000 -> 2000\n\
         server.log_format: text -> json (needs a restart)\n\
         server.path: (none) -> /ws\n\
         reloaded: 3 changed, and 1 that needs a restart\n"
    );
    assert_eq!(reload(&server), (0, expected, String::new()));
    server.logged("a setting was changed setting=server.path before=\"\" after=/ws");
    server.logged("a setting was changed and holds after a restart only setting=server.log_format");
    // Who was there stays, and what is checked at each request is another at once.
    before.expect_alive();
    assert_eq!((publish(&server, 3), publish(&server, 4)), (200, 413));
    assert!(before.next_text().contains(r#""data":"xxx""#));
    let mut http = Http::connect(&server);
    assert_eq!(http.request("GET", "/ws/up", "").status, 200);
    let again = "server.log_format: text -> json (needs a restart)\nreloaded: 0 changed, and 1 that needs a restart\n";
    assert_eq!(reload(&server).1, again, "until it comes");
}

#[test]
fn a_broken_file_is_refused_as_a_whole_and_the_server_goes_on() {
    let server = with_dotenv("RESOUND_MAX_EVENT_SIZE=5\n");
    let mut client = Client::connect(&server);
    for (text, expected) in [
        (
            "RESOUND_PONG_TIMEOUT=soon\nREVERB_APP_PING_INTERVAL=-1\n",
            "server.pong_timeout = \"soon\" (.env line 2, RESOUND_PONG_TIMEOUT): expected a whole number",
        ),
        (
            "REVERB_APP_PING_INTERVAL=-1\n",
            "apps.ping_interval = \"-1\" (.env line 2",
        ),
        ("A=\"\n", ".env line 2: A: a double quote is not closed"),
        (
            "RESOUND_TLS_CERT=none.pem\nRESOUND_TLS_KEY=none.key\n",
            "server.tls_cert: cannot use none.pem: No such file",
        ),
    ] {
        write(&server, &format!("RESOUND_MAX_EVENT_SIZE=9\n{text}"));
        let (code, out, error) = reload(&server);
        assert_eq!((code, out.as_str()), (64, ""), "{error}");
        assert!(
            error.contains(expected) && error.contains("not reloaded"),
            "{error}"
        );
        server.signal("-HUP");
        server.logged(&format!("reload: {expected}"));
        assert_eq!((publish(&server, 5), publish(&server, 6)), (200, 413));
        client.expect_alive();
    }
    server.logged("not reloaded: the settings from before go on");
    fs::remove_file(path(&server, ".env")).unwrap();
    assert_eq!(reload(&server).0, 0, "no file is one without settings");
    assert_eq!(publish(&server, 6), 200);
}

/// Sockets of the others notice nothing.
#[test]
fn applications_come_change_and_go_while_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let toml = dir.path().join("resound.toml");
    let app = |id: &str, more: &str| {
        format!("[[apps]]\nid = \"{id}\"\nkey = \"key-{id}\"\nsecret = \"secret-{id}\"\n{more}\n")
    };
    fs::write(&toml, app("a", "")).unwrap();
    let server = Process::run(dir, "--config resound.toml", "", SOCKET);
    let reload = || server.command(&["reload"], SOCKET);
    let open = |id: &str| Client::open(&server, &format!("/app/key-{id}"), &[]);
    let mut stays = Client::connect(&server);
    stays.subscribe("lobby");
    let mut first = open("a");
    first.established();
    fs::write(&toml, app("a", "max_connections = 1") + &app("b", "")).unwrap();
    let (code, out, _) = reload();
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "application \"b\" added\napps[\"a\"].max_connections: (none) -> 1\nreloaded: 2 changed\n"
        )
    );
    let mut third = open("a");
    third.next();
    third.closed_with(4004, "Application is over connection quota");
    let mut second = open("b");
    second.established();
    fs::write(&toml, app("b", "")).unwrap();
    assert_eq!(
        reload().1,
        "application \"a\" removed\nreloaded: 1 changed\n"
    );
    first.expect_error(4001, "Application does not exist");
    first.closed_with(4001, "Application does not exist");
    for client in [&mut stays, &mut second] {
        client.expect_alive();
    }
    assert_eq!(publish(&server, 1), 200);
    assert!(stays.next_text().contains("lobby"));
    // Two of one key: all stays as it is.
    fs::write(
        &toml,
        app("b", "") + &app("c", "").replace("key-c", "key-b"),
    )
    .unwrap();
    let (code, _, error) = reload();
    assert!(
        code == 64 && error.contains("two applications have the key \"key-b\""),
        "{error}"
    );
    open("b").established();
}

#[test]
fn levels_change_with_a_reload() {
    let server = with_dotenv("");
    drop(Client::connect(&server));
    write(&server, "RESOUND_DEBUG=true\n");
    assert_eq!(reload(&server).0, 0);
    assert!(!server.log.lock().unwrap().contains("DEBUG"));
    Client::connect(&server).expect_alive();
    for text in ["DEBUG connected", "DEBUG received", "pusher:ping"] {
        server.logged(text);
    }
    write(&server, "RUST_LOG=error\n");
    assert_eq!(reload(&server).0, 0);
    let before = server.log.lock().unwrap().len();
    Client::connect(&server).expect_alive();
    assert_eq!(publish(&server, 200_000), 413);
    assert_eq!(server.log.lock().unwrap().get(before..), Some(""));
}

#[test]
fn the_control_socket_is_for_its_own_user_and_ends_with_the_server() {
    let mut server = with_dotenv("");
    let socket = path(&server, "control.sock");
    let file = fs::symlink_metadata(&socket).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(server.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "nothing else is left: {names:?}");
    let _client = Client::connect(&server);
    let (code, out, _) = server.command(&["status"], SOCKET);
    assert_eq!(code, 0);
    for line in [
        format!("process      {}", server.child.id()),
        "state        running, ready".to_owned(),
        format!("application  {APP_ID}, 1 connections"),
        "reloads      none".to_owned(),
    ] {
        assert!(out.lines().any(|said| said == line), "{line}: {out}");
    }
    reload(&server);
    let (_, out, _) = server.command(&["status", "--json"], SOCKET);
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["apps"], json!([{"id": APP_ID, "connections": 1}]));
    assert_eq!(
        (&status["reloads"], &status["last_reload"]["ok"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(status["lifecycle"], "running");
    server.signal("-TERM");
    server.child.wait().unwrap();
    assert!(!socket.exists());
    let (code, _, error) = server.command(&["status"], SOCKET);
    assert_eq!(code, 1);
    assert!(
        error.contains("no server with this control socket is running"),
        "{error}"
    );
}

#[test]
fn whatever_is_said_to_the_control_socket_is_answered_or_dropped() {
    let server = with_dotenv("");
    let socket = path(&server, "control.sock");
    let say = |text: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(text);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for text in [&b"stop\n"[..], b"\n", b"reload now\n"] {
        let answer: Value = serde_json::from_str(&say(text)).unwrap();
        assert_eq!(answer["ok"], false);
        assert!(
            answer["text"]
                .as_str()
                .unwrap()
                .contains("expected reload, status or webhooks NUMBER")
        );
    }
    say(b"\xff\xff\n");
    say(&[b'x'; 100_000]);
    // One that says nothing keeps nobody waiting.
    let silent = UnixStream::connect(&socket).unwrap();
    assert!(say(b"status\n").contains(r#""ok":true"#));
    drop(silent);
    assert_eq!(reload(&server).0, 0);
}

/// Only root can be somebody else: for other users there is nothing to try.
#[test]
fn another_user_gets_nothing_of_the_control_socket() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = with_dotenv("");
    let socket = path(&server, "control.sock");
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(server.dir.path(), 0o755);
    let status = || {
        let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                      s.sendall(b'status\\n'); print(s.recv(100))";
        let run = Command::new("/usr/bin/python3")
            .args(["-c", script])
            .arg(&socket)
            .current_dir("/")
            .uid(NOBODY)
            .output()
            .unwrap();
        let said = [run.stdout, run.stderr].concat();
        String::from_utf8(said).unwrap()
    };
    assert!(status().contains("PermissionError"));
    // Even if somebody has opened it to all.
    open(&socket, 0o666);
    let said = status();
    assert!(
        said == "b''\n" || said.contains("ConnectionResetError") || said.contains("BrokenPipe"),
        "{said}"
    );
    server.logged("closed a connection of another user to the control socket");
    // Nor is one of another user taken away.
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("control.sock");
    drop(UnixListener::bind(&theirs).unwrap());
    std::os::unix::fs::chown(&theirs, Some(NOBODY), None).unwrap();
    let refused = refused(dir.path(), SOCKET);
    assert!(refused.contains("it is another user's"), "{refused}");
    assert!(theirs.exists());
}

/// Starts one in this directory that does not come to listen; its last line.
fn refused(dir: &std::path::Path, settings: &[(&str, &str)]) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_resound"))
        .args([
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--metrics-port",
            "off",
        ])
        .current_dir(dir)
        .env_clear()
        .envs([
            ("REVERB_APP_ID", "1"),
            ("REVERB_APP_KEY", KEY),
            ("REVERB_APP_SECRET", "s"),
        ])
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1));
    let error = String::from_utf8(run.stderr).unwrap();
    error.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_path_that_is_taken_is_left_alone_and_a_dead_servers_socket_is_replaced() {
    let server = with_dotenv("");
    let folder = server.dir.path();
    let at = |path: &str| refused(folder, &[("RESOUND_CONTROL_SOCKET", path)]);
    assert!(at("control.sock").contains("another server listens there"));
    assert!(at(".env").contains("something is there that is no socket"));
    assert!(at("none/control.sock").contains("its directory has to exist"));
    assert!(at(&format!("{}.sock", "x".repeat(120))).contains("RESOUND_CONTROL_SOCKET"));
    assert_eq!(reload(&server).0, 0, "the first one goes on");
    assert_eq!(fs::read(folder.join(".env")).unwrap(), b"");
    let pid = |path: &str| refused(folder, &[("RESOUND_PID_FILE", path)]);
    let said = pid("none/pid");
    assert!(said.contains("cannot write none/pid"), "{said}");
    fs::write(folder.join("theirs"), "hello\n").unwrap();
    std::os::unix::fs::symlink("/dev/null", folder.join("device")).unwrap();
    for path in ["theirs", "device", "control.sock"] {
        let said = pid(path);
        assert!(said.contains("is left alone (RESOUND_PID_FILE)"), "{said}");
    }
    assert_eq!(fs::read(folder.join("theirs")).unwrap(), b"hello\n");
    assert!(folder.join("device").is_symlink());
    // One whose queue is full is there, too.
    let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    full.bind(&SockAddr::unix(folder.join("full")).unwrap())
        .unwrap();
    full.listen(0).unwrap();
    let _waiting = UnixStream::connect(folder.join("full")).unwrap();
    assert!(at("full").contains("another server listens there"));
    // What a server leaves that was killed.
    let dir = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(dir.path().join("control.sock")).unwrap());
    let server = Process::within(dir, "", SOCKET);
    assert_eq!(reload(&server).0, 0);
}

#[test]
fn one_path_is_not_for_two_and_may_be_as_long_as_a_socket_can_have() {
    let dir = tempfile::tempdir().unwrap();
    let both = [("RESOUND_CONTROL_SOCKET", "x"), ("RESOUND_PID_FILE", "x")];
    let mut check = crate::cli::resound(dir.path());
    let check = check.arg("check").args(crate::cli::APP).envs(both);
    let run = check.output().unwrap();
    assert_eq!(run.status.code(), Some(64));
    let error = String::from_utf8(run.stderr).unwrap();
    let expected = "server.control_socket (RESOUND_CONTROL_SOCKET) and server.pid_file (RESOUND_PID_FILE) are the same path";
    assert!(error.contains(expected), "{error}");
    let room = 107 - dir.path().as_os_str().len() - 1;
    let path = dir.path().join("s".repeat(room));
    let settings = [("RESOUND_CONTROL_SOCKET", path.to_str().unwrap())];
    let server = Process::with("", &settings);
    assert_eq!(server.command(&["status"], &settings).0, 0);
}

/// A file that does not come, as on a network that is gone: here a pipe.
#[test]
fn a_reload_that_waits_for_a_file_keeps_nobody_else_waiting() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("env"), "").unwrap();
    let settings = [SOCKET[0], ("RESOUND_PID_FILE", "pid")];
    let mut server = Process::run(dir, "--env-file env", "", &settings);
    let (dotenv, pipe) = (path(&server, "env"), path(&server, "pipe"));
    let pid = || fs::read_to_string(path(&server, "pid")).unwrap();
    let await_pid = |end: &str| {
        let deadline = Instant::now() + PATIENCE;
        while !pid().contains(end) {
            assert!(Instant::now() < deadline, "no {end:?} in {}", pid());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let stall = || {
        fs::remove_file(&dotenv).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        fs::hard_link(&pipe, &dotenv).unwrap();
        server.signal("-HUP");
    };
    stall();
    await_pid("\n1 running\n");
    let (code, out, _) = server.command(&["status"], SOCKET);
    assert_eq!(code, 0);
    assert!(out.contains("reloads      none"), "{out}");
    // Who asks now has changed something after the one under way has begun.
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| server.command(&["reload"], &settings[1..]));
        std::thread::sleep(Duration::from_millis(300));
        fs::rename(&dotenv, path(&server, "old")).unwrap();
        fs::write(&dotenv, "RESOUND_PONG_TIMEOUT=x\n").unwrap();
        fs::write(&pipe, "").unwrap();
        asking.join().unwrap()
    });
    assert_eq!(asked.0, 64, "{asked:?}");
    await_pid("\n2 refused\n");
    // Nor does the end wait for one that does not come.
    fs::remove_file(&pipe).unwrap();
    stall();
    await_pid("\n3 running\n");
    server.signal("-TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

/// They are what somebody wants to know about.
#[test]
fn settings_that_cannot_be_used_keep_nobody_from_asking() {
    let dir = tempfile::tempdir().unwrap();
    let settings = "RESOUND_CONTROL_SOCKET=control.sock\n";
    fs::write(dir.path().join(".env"), settings).unwrap();
    let server = Process::within(dir, "", &[]);
    let ask = |command: &str| server.command(&[command], &[]);
    write(&server, &format!("{settings}RESOUND_PONG_TIMEOUT=x\n"));
    let (code, _, error) = ask("reload");
    assert_eq!(code, 64);
    assert!(
        error.contains("not reloaded: the settings from before go on"),
        "{error}"
    );
    let (code, out, _) = ask("status");
    assert_eq!(code, 0);
    assert!(out.contains("RESOUND_PONG_TIMEOUT"), "{out}");
    // Of a file that cannot be read at all, the flag does.
    write(&server, "\"\n");
    assert_eq!(ask("status").0, 64);
    let (code, ..) = server.command(&["status", "--control-socket", "control.sock"], &[]);
    assert_eq!(code, 0);
}

/// Else the server would go on, and its next start would fail.
#[test]
fn what_the_next_start_would_refuse_is_refused() {
    let server = with_dotenv("");
    for (text, expected) in [
        (
            "RESOUND_SOCKET=s\nRESOUND_SOCKET_GROUP=nobody-has-this\n",
            "there is no such group",
        ),
        (
            "REVERB_SCALING_ENABLED=true\nREDIS_SCHEME=tls\nRESOUND_REDIS_TLS_CA=none.pem\n",
            "none.pem",
        ),
    ] {
        write(&server, text);
        let (code, _, error) = reload(&server);
        assert_eq!(code, 64, "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_number_that_is_no_processs_is_sent_nothing() {
    let server = with_dotenv("");
    for text in ["-1\n", "0\n", "4294967295\n", "", "x\n"] {
        fs::write(path(&server, "pid"), text).unwrap();
        let settings = [("RESOUND_PID_FILE", "pid")];
        let (code, _, error) = server.command(&["reload"], &settings);
        assert_eq!(code, 1);
        let expected = "it does not begin with the number of a process";
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_reload_goes_by_the_file_of_the_processs_number_too() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".env"), "RESOUND_MAX_EVENT_SIZE=5\n").unwrap();
    let settings = &[("RESOUND_PID_FILE", "resound.pid")];
    let mut server = Process::within(dir, "", settings);
    let file = path(&server, "resound.pid");
    let number = format!("{}\n", server.child.id());
    assert_eq!(fs::read_to_string(&file).unwrap(), number);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o644
    );
    let reload = |server: &Process| server.command(&["reload"], settings);
    write(&server, "RESOUND_MAX_EVENT_SIZE=6\n");
    let (code, out, _) = reload(&server);
    assert_eq!(
        (code, out),
        (
            0,
            format!("apps[{APP_ID:?}].max_event_size: 5 -> 6\nreloaded: 1 changed\n")
        )
    );
    write(&server, "RESOUND_MAX_EVENT_SIZE=many\n");
    let (code, _, error) = reload(&server);
    assert!(
        code == 64 && error.contains("apps.max_event_size = \"many\""),
        "{error}"
    );
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(&format!("{number}2 refused\n")), "{text}");
    server.signal("-TERM");
    server.child.wait().unwrap();
    assert!(!file.exists());
    assert!(reload(&server).2.contains("is the server running?"));
    // A number that is somebody else's.
    fs::write(&file, format!("{}\n", std::process::id())).unwrap();
    let (code, _, error) = reload(&server);
    assert!(
        code == 1 && error.contains("its process is no Resound"),
        "{error}"
    );
    let (code, _, error) = server.command(&["reload"], &[]);
    assert!(
        code == 1 && error.contains("set RESOUND_CONTROL_SOCKET"),
        "{error}"
    );
}

/// A secret and a key are replaced without one refused request.
#[test]
fn credentials_are_replaced_under_traffic() {
    let dir = tempfile::tempdir().unwrap();
    let toml = dir.path().join("resound.toml");
    let apps = |key: &str, secret: &str, more: &str| {
        format!("[[apps]]\nid = \"7\"\nkey = \"{key}\"\nsecret = \"{secret}\"\n{more}\n")
    };
    fs::write(&toml, apps("old", "old-secret", "")).unwrap();
    let server = Process::run(dir, "--config resound.toml", "", SOCKET);
    let try_all = |key: &str, secret: &'static str| {
        let mut client = Client::open(&server, &format!("/app/{key}"), &[]);
        let first = client.next_json();
        if first["event"] == "pusher:error" {
            return [401, 4001, 4001];
        }
        let data: Value = serde_json::from_str(first["data"].as_str().unwrap()).unwrap();
        let socket_id = data["socket_id"].as_str().unwrap().to_owned();
        let channel = "private-room";
        let auth = format!("{key}:{}", hmac(secret, &format!("{socket_id}:{channel}")));
        client.send(
            &json!({"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth}})
                .to_string(),
        );
        let subscribed = client.next_json()["event"] == "pusher_internal:subscription_succeeded";
        let user = r#"{"id":"1"}"#;
        let auth = format!(
            "{key}:{}",
            hmac(secret, &format!("{socket_id}::user::{user}"))
        );
        client.send(
            &json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user}})
                .to_string(),
        );
        let mut event = client.next_json();
        if !subscribed {
            event = client.next_json();
        }
        let signed_in = event["event"] == "pusher:signin_success";
        let event = body(&["a"], "e", "x");
        let mut request = Signed::post("events", &event).set("auth_key", key);
        request.path = "/apps/7/events".to_owned();
        request.secret = secret;
        let answer = Http::connect(&server).request("POST", &request.target(), &event);
        [answer.status, u16::from(subscribed), u16::from(signed_in)]
    };
    let good = [200, 1, 1];
    assert_eq!(try_all("old", "old-secret"), good);
    fs::write(
        &toml,
        apps(
            "new",
            "new-secret",
            "previous_key = \"old\"\nprevious_secret = \"old-secret\"",
        ),
    )
    .unwrap();
    let (_, out, _) = reload(&server);
    assert!(
        out.ends_with("reloaded: 4 changed\n") && !out.contains("new-secret"),
        "{out}"
    );
    for (key, secret) in [
        ("old", "old-secret"),
        ("new", "new-secret"),
        ("new", "old-secret"),
    ] {
        assert_eq!(try_all(key, secret), good, "{key} {secret}");
    }
    fs::write(&toml, apps("new", "new-secret", "")).unwrap();
    assert_eq!(reload(&server).0, 0);
    assert_eq!(try_all("new", "new-secret"), good);
    assert_eq!(try_all("new", "old-secret"), [401, 0, 0]);
    assert_eq!(try_all("old", "old-secret"), [401, 4001, 4001]);
}

/// What is begun before a reload is done with the settings of that time or of this, and
/// nothing is lost.
#[test]
fn reloads_one_after_the_other_disturb_nobody() {
    let server = with_dotenv("");
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    let end = Instant::now() + Duration::from_secs(2);
    let mut sent = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut size = 20;
            while Instant::now() < end {
                size += 1;
                // At once, so that none is read that is half written.
                let (new, text) = (
                    path(&server, "new"),
                    format!("RESOUND_MAX_EVENT_SIZE={size}\n"),
                );
                fs::write(&new, text).unwrap();
                fs::rename(new, path(&server, ".env")).unwrap();
                server.signal("-HUP");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut http = Http::connect(&server);
        while Instant::now() < end {
            http.publish(&["lobby"], "e", &format!("{sent}"));
            sent += 1;
        }
    });
    for number in 0..sent {
        client.expect(&format!(
            r#"{{"event":"e","data":"{number}","channel":"lobby"}}"#
        ));
    }
    assert!(sent > 100);
    client.expect_alive();
    write(&server, "RESOUND_MAX_EVENT_SIZE=5\n");
    assert_eq!(reload(&server).0, 0);
    assert_eq!((publish(&server, 5), publish(&server, 6)), (200, 413));
    let (_, out, _) = server.command(&["status", "--json"], SOCKET);
    let status: Value = serde_json::from_str(&out).unwrap();
    assert!(status["reloads"].as_u64().unwrap() > 50, "{out}");
    assert!(!server.log.lock().unwrap().contains("not reloaded"));
}
