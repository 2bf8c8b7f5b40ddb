//! The commands that ask a server: publish, listen, channels, users, terminate, apps.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::cli;
use crate::support::{APP_ID, At, Client, Http, KEY, PATIENCE, Process, SECRET, hmac};

const CREDENTIALS: [(&str, &str); 3] = [
    ("REVERB_APP_ID", APP_ID),
    ("REVERB_APP_KEY", KEY),
    ("REVERB_APP_SECRET", SECRET),
];

/// Runs a command as somebody who has the credentials and the server's address.
fn ask(server: &Process, arguments: &[&str]) -> (i32, String, String) {
    let url = format!("http://{}", server.address);
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--url", &url]).collect();
    server.command(&arguments, &CREDENTIALS)
}

/// What it prints if it succeeds.
fn answer(server: &Process, arguments: &[&str]) -> String {
    let (code, out, err) = ask(server, arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
    out
}

/// `resound listen`, which has joined its channels.
struct Listener {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    /// What it says to people.
    said: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Listener {
    fn start(server: &Process, arguments: &[&str]) -> Self {
        let url = format!("http://{}", server.address);
        Self::with(&[arguments, &["--url", &url]].concat(), &CREDENTIALS)
    }

    fn with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_resound"))
            .arg("listen")
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut listener = Self { child, lines, said };
        listener.told("listening as socket ");
        listener
    }

    /// Waits until it has told people this, and returns the line.
    fn told(&mut self, text: &str) -> String {
        let mut all = String::new();
        for line in self.said.by_ref().map_while(Result::ok) {
            if line.contains(text) {
                return line;
            }
            all.push_str(&(line + "\n"));
        }
        panic!("it ended and did not say {text:?}: {all}")
    }

    /// The next event, without its time.
    fn next(&mut self) -> Value {
        let line = self.lines.next().unwrap().unwrap();
        let mut event: Value = serde_json::from_str(&line).unwrap();
        let time = event.as_object_mut().unwrap().remove("time_ms").unwrap();
        assert!(time.as_u64().unwrap() > 1_700_000_000_000, "{line}");
        event
    }

    fn exit_code(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_event_is_published_as_a_back_end_does() {
    let server = Process::start("");
    let mut client = Client::connect(&server);
    client.subscribe("chat.1");
    client.subscribe("private-b");
    let data = r#"{"text":"ein \"ü\" / 1"}"#;
    let out = answer(&server, &["publish", "chat.1", "MessageSent", data]);
    assert_eq!(out, "MessageSent published to chat.1\n");
    client.expect(&format!(
        r#"{{"event":"MessageSent","data":{},"channel":"chat.1"}}"#,
        json!(data)
    ));
    let event = r"App\Events\Two";
    let several = ["publish", "chat.1", event, "[1]", "--channel", "private-b"];
    let out = answer(&server, &several);
    assert_eq!(out, format!("{event} published to chat.1, private-b\n"));
    for channel in ["chat.1", "private-b"] {
        client.expect(&format!(
            r#"{{"event":"App\\Events\\Two","data":"[1]","channel":"{channel}"}}"#
        ));
    }
    let id = client.id.clone();
    answer(&server, &["publish", "chat.1", "mine", "--except", &id]);
    client.expect_silence();
    answer(&server, &["publish", "chat.1", "nothing"]);
    client.expect(r#"{"event":"nothing","data":"{}","channel":"chat.1"}"#);
}

#[test]
fn an_events_data_comes_from_standard_input() {
    let server = Process::start("");
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let url = format!("http://{}", server.address);
    let mut child = Command::new(env!("CARGO_BIN_EXE_resound"))
        .args(["publish", "a", "e", "-", "--url", &url])
        .env_clear()
        .envs(CREDENTIALS)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"n\": 1}\n").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    client.expect(r#"{"event":"e","data":"{\"n\": 1}","channel":"a"}"#);
}

#[test]
fn what_arrives_is_a_line_of_json_each() {
    let server = Process::start("");
    let channels = ["a", "private-b", "presence-c"];
    let arguments = [&channels[..], &["--as", "7", "--count", "4"]].concat();
    let mut listener = Listener::start(&server, &arguments);
    let mut http = Http::connect(&server);
    http.publish(&["a"], "text", "no json");
    http.publish(&["private-b"], "object", r#"{"n":1}"#);
    assert_eq!(
        listener.next(),
        json!({ "channel": "a", "event": "text", "data": "no json" })
    );
    assert_eq!(
        listener.next(),
        json!({ "channel": "private-b", "event": "object", "data": { "n": 1 } })
    );
    assert_eq!(answer(&server, &["users", "presence-c"]), "7\n");
    let mut other = Client::connect(&server);
    let data = r#"{"user_id":8}"#;
    let auth = hmac(SECRET, &format!("{}:presence-c:{data}", other.id));
    let auth = format!("{KEY}:{auth}");
    let data = json!({ "channel": "presence-c", "auth": auth, "channel_data": data });
    other.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
    other.next();
    let joined = listener.next();
    assert_eq!(joined["event"], "pusher_internal:member_added");
    assert_eq!(joined["data"]["user_id"], 8);
    let typing = json!({ "event": "client-typing", "channel": "presence-c", "data": { "on": 1 } });
    other.send(&typing.to_string());
    let whisper = listener.next();
    assert_eq!(
        (&whisper["user_id"], &whisper["data"]),
        (&json!("8"), &json!({ "on": 1 }))
    );
    assert_eq!(listener.exit_code(), 0);
}

#[test]
fn a_person_sees_events_without_colours_in_a_pipe_and_without_control_characters() {
    let server = Process::start("");
    let arguments = ["a", "--format", "text", "--count", "1"];
    let mut listener = Listener::start(&server, &arguments);
    Http::connect(&server).publish(&["a"], "e\u{1b}[2J", "x\u{7}");
    let lines: Vec<String> = listener.lines.by_ref().map(Result::unwrap).collect();
    assert_eq!(lines, ["e\\u{1b}[2J a", "  x\\u{7}"]);
    assert_eq!(listener.exit_code(), 0);
}

#[test]
fn a_listener_comes_back_when_the_server_does() {
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port().to_string()
    };
    let start = || {
        let dir = tempfile::tempdir().unwrap();
        Process::run(dir, &format!("--port {port}"), "", &[])
    };
    let server = start();
    let mut listener = Listener::start(&server, &["a"]);
    drop(server);
    listener.told("; again in ");
    let server = start();
    listener.told("listening as socket ");
    Http::connect(&server).publish(&["a"], "e", "1");
    assert_eq!(listener.next()["data"], 1);
}

/// Whoever reads its output, such as `head`, has had enough.
#[test]
fn a_listener_ends_with_its_reader() {
    let server = Process::start("");
    let mut listener = Listener::start(&server, &["a"]);
    drop(std::mem::replace(&mut listener.lines, no_lines()));
    let mut http = Http::connect(&server);
    http.publish(&["a"], "e", "1");
    assert_eq!(listener.exit_code(), 0);
}

/// The output of a process that has none.
fn no_lines() -> std::io::Lines<BufReader<ChildStdout>> {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    child.wait().unwrap();
    BufReader::new(child.stdout.take().unwrap()).lines()
}

#[test]
fn channels_are_listed_with_their_counts() {
    let server = Process::start("");
    assert_eq!(answer(&server, &["channels"]), "no channel is occupied\n");
    let _listener = Listener::start(&server, &["presence-room", "chat.1"]);
    let mut client = Client::connect(&server);
    client.subscribe("chat.1");
    assert_eq!(
        answer(&server, &["channels"]),
        "CHANNEL        SUBSCRIPTIONS  USERS\n\
         chat.1                     2\n\
         presence-room                     1\n"
    );
    assert_eq!(
        answer(&server, &["channels", "presence-r"]),
        "CHANNEL        SUBSCRIPTIONS  USERS\n\
         presence-room                     1\n"
    );
    let document: Value =
        serde_json::from_str(&answer(&server, &["channels", "chat", "--json"])).unwrap();
    assert_eq!(document["channels"]["chat.1"]["subscription_count"], 2);
    assert!(
        document["channels"].as_object().unwrap().len() == 1,
        "{document}"
    );
    let document: Value =
        serde_json::from_str(&answer(&server, &["users", "presence-room", "--json"])).unwrap();
    assert_eq!(document, json!({ "users": [{ "id": "resound-listen" }] }));
}

#[test]
fn a_users_connections_are_closed() {
    let server = Process::start("");
    let mut client = Client::connect(&server);
    let user = r#"{"id":"ana@example.com"}"#;
    let auth = hmac(SECRET, &format!("{}::user::{user}", client.id));
    let data = json!({ "auth": format!("{KEY}:{auth}"), "user_data": user });
    client.send(&json!({ "event": "pusher:signin", "data": data }).to_string());
    client.next();
    let out = answer(&server, &["terminate", "ana@example.com"]);
    assert_eq!(
        out,
        "connections of user ana@example.com are being closed\n"
    );
    client.next();
    client.closed_with(4009, "Connection terminated by the application");
}

/// The server that the settings describe is asked, without a URL.
#[test]
fn a_server_of_this_machine_is_found_by_its_settings() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("r.sock");
    let socket = socket.to_str().unwrap().to_owned();
    let server = Process::within(
        dir,
        "",
        &[
            ("REVERB_SERVER_PATH", "/ws"),
            ("RESOUND_SOCKET", &socket),
            ("RESOUND_TRUSTED_PROXIES", "127.0.0.1"),
            ("RESOUND_PROXY_PROTOCOL", "true"),
        ],
    );
    let port = server.address.port().to_string();
    let common = [CREDENTIALS.to_vec(), vec![("REVERB_SERVER_PATH", "/ws")]].concat();
    let trusting = [
        ("RESOUND_TRUSTED_PROXIES", "127.0.0.1"),
        ("RESOUND_PROXY_PROTOCOL", "true"),
    ];
    let by_port = [
        ("REVERB_SERVER_HOST", "0.0.0.0"),
        ("REVERB_SERVER_PORT", &*port),
    ];
    let by_socket = [("REVERB_SERVER_HOST", "off"), ("RESOUND_SOCKET", &*socket)];
    for way in [by_port, by_socket] {
        let settings = [&common[..], &way, &trusting].concat();
        let (code, out, err) = server.command(&["channels"], &settings);
        assert_eq!((code, err.as_str()), (0, ""), "{way:?}");
        assert_eq!(out, "no channel is occupied\n");
        let mut listener = Listener::with(&["a", "--count", "1"], &settings);
        let published = server.command(&["publish", "a", "e", "1"], &settings);
        assert_eq!(published.0, 0, "{published:?}");
        assert_eq!(listener.next()["data"], 1);
    }
}

#[test]
fn a_server_that_speaks_tls_is_asked_by_those_who_trust_it() {
    let tls = crate::tls::authority();
    let (cert, key) = (tls.cert(), tls.key());
    let settings = [("RESOUND_TLS_CERT", cert), ("RESOUND_TLS_KEY", key)];
    let server = Process::with("", &settings);
    let port = server.address.port();
    let url = format!("https://localhost:{port}");
    let asked = |url: &str, more: &[(&str, &str)]| {
        let settings = [&CREDENTIALS, more].concat();
        server.command(&["channels", "--url", url], &settings)
    };
    let trusted = asked(&url, &[("SSL_CERT_FILE", cert)]);
    assert_eq!(trusted.0, 0, "{trusted:?}");
    // Without a URL, it is asked by the name that it goes by.
    let port_text = port.to_string();
    let settings = [
        &CREDENTIALS[..],
        &settings,
        &[
            ("REVERB_SERVER_HOST", "127.0.0.1"),
            ("REVERB_SERVER_PORT", &port_text),
            ("REVERB_HOST", "localhost"),
            ("SSL_CERT_FILE", cert),
        ],
    ]
    .concat();
    let by_settings = server.command(&["channels"], &settings);
    assert_eq!(by_settings.0, 0, "{by_settings:?}");
    let other = crate::tls::authority();
    for (url, file, told) in [
        (&url, other.cert(), "is trusted with SSL_CERT_FILE=FILE"),
        (&format!("https://127.0.0.1:{port}"), cert, "not valid for"),
        (
            &format!("http://localhost:{port}"),
            cert,
            "ended without an answer",
        ),
    ] {
        let (code, out, err) = asked(url, &[("SSL_CERT_FILE", file)]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(told), "{err}");
    }
    let (code, _, err) = asked(&url, &[("SSL_CERT_FILE", "/nowhere")]);
    assert_eq!(code, 1);
    assert!(
        err.contains("cannot read the system's certificates"),
        "{err}"
    );
}

#[test]
fn of_several_applications_one_has_to_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let apps = "[[apps]]\nid=\"1\"\nkey=\"k1\"\nsecret=\"s1\"\n[[apps]]\nid=\"2\"\nkey=\"k2\"\nsecret=\"s2\"\n";
    std::fs::write(dir.path().join("r.toml"), apps).unwrap();
    let server = Process::run(dir, "--config r.toml", "", &[]);
    let url = format!("http://{}", server.address);
    let asked = |more: &[&str]| {
        let arguments = [&["channels", "--config", "r.toml", "--url", &url], more].concat();
        server.command(&arguments, &[])
    };
    let (code, _, err) = asked(&[]);
    assert_eq!(code, 64);
    assert_eq!(
        err.trim_end(),
        "resound: there are 2 applications (1, 2): say with --app-id which one is meant"
    );
    let named = asked(&["--app-id", "2"]);
    assert_eq!(named.0, 0, "{named:?}");
}

#[test]
fn arguments_that_cannot_be_used_are_told_before_anybody_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let ask = |arguments: &[&str]| {
        let mut command = cli::resound(dir.path());
        let output = command.args(arguments).envs(CREDENTIALS).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), output.stdout.is_empty(), err)
    };
    for (arguments, told) in [
        (
            &["publish", "a b", "e"][..],
            "channel \"a b\": The channel name has ' '",
        ),
        (
            &["publish", "", "e"],
            "channel \"\": The channel name is empty",
        ),
        (&["publish", "a", ""], "the event has no name"),
        (
            &["publish", "a", "e", "{x}"],
            "not JSON: key must be a string at line 1 column 2",
        ),
        (&["publish", "a", "e", "hello"], "'\"text\"'"),
        (&["publish", "a", "e", "-"], "not JSON: EOF while parsing"),
        (
            &["publish", "private-encrypted-a", "e", "{}"],
            "only the application has the key for that",
        ),
        (&["publish", "a"], "<EVENT>"),
        (
            &["publish", "a", "e", "1", "--channel", "x/y"],
            "channel \"x/y\"",
        ),
        (&["listen"], "<CHANNEL>"),
        (&["listen", "a", "ö"], "channel \"ö\""),
        (&["listen", "a", "--count", "0"], "--count"),
        (&["users", "?"], "channel \"?\""),
        (&["terminate", ""], "the user has no id"),
        (
            &["channels", "--url", "example.com"],
            "--url \"example.com\" is no URL",
        ),
        (
            &["channels", "--url", "http://h/app/k"],
            "leave /app/… and /apps/… away",
        ),
        (
            &["channels", "--timeout", "0"],
            "a whole number from 1 to 3600",
        ),
        (&["channels", "--config", "none.toml"], "none.toml"),
        (&["channels", "--env-file", "none"], "none"),
        (&["channels", "--app-id", "9"], "REVERB_APP_ID"),
        (
            &["apps", "new", "--format", "xml"],
            "[possible values: env, toml, json]",
        ),
        (&["apps"], "new"),
    ] {
        let (code, is_silent, err) = ask(arguments);
        if arguments == ["channels", "--app-id", "9"] {
            // The flag names another application than the environment: it is a new one, which
            // nobody serves here.
            assert_eq!(code, Some(1), "{err}");
            continue;
        }
        assert_eq!((code, is_silent), (Some(64), true), "{arguments:?}: {err}");
        assert!(err.contains(told), "{arguments:?}: {err}");
    }
    let mut bare = cli::resound(dir.path());
    let output = bare.args(["channels"]).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(err.contains("REVERB_APP_ID"), "{err}");
}

/// A server that takes connections and does with them what it is told.
fn fake(act: impl Fn(std::net::TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            act(stream.unwrap());
        }
    });
    url
}

/// One that says this, whatever it is asked.
fn saying(text: &'static str) -> String {
    fake(move |mut stream| {
        let mut head = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while head.read_line(&mut line).unwrap_or(0) > 2 {
            line.clear();
        }
        // Whoever has heard enough is gone.
        let _ = stream.write_all(text.as_bytes());
    })
}

#[test]
fn what_is_wrong_with_a_server_is_told() {
    let server = Process::with("", &[("REVERB_ALLOWED_ORIGINS", "good.example")]);
    let good = format!("http://{}", server.address);
    let nobody = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", free.local_addr().unwrap())
    };
    let silent = fake(|stream| {
        std::thread::sleep(PATIENCE);
        drop(stream);
    });
    let closing = fake(drop);
    let html = saying("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n<h1>hi</h1>");
    let missing = saying("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno");
    let wrong_secret = ["channels", "--app-secret", "wrong", "--url", &good];
    let wrong_path = format!("{good}/nowhere");
    for (arguments, told) in [
        (&["channels", "--url", &nobody][..], "nothing listens there"),
        (
            &["channels", "--url", "http://none.invalid"],
            "none.invalid: there is no address of that name",
        ),
        (
            &["channels", "--timeout", "1", "--url", &silent],
            "no answer in 1 s",
        ),
        (
            &["listen", "a", "--timeout", "1", "--url", &silent],
            "no answer in 1 s",
        ),
        (
            &["channels", "--url", &closing],
            "the connection has ended without an answer",
        ),
        (
            &["listen", "a", "--url", &closing],
            "the connection has ended without an answer",
        ),
        (&["channels", "--url", &html], "is not JSON: <h1>hi</h1>"),
        (
            &["listen", "a", "--url", &html],
            "answers 200 to GET /app/my-app-key",
        ),
        (
            &["channels", "--url", &missing],
            "is it a Pusher-compatible server",
        ),
        (
            &["listen", "a", "--url", &missing],
            "is its path in the URL?",
        ),
        (
            &["channels", "--url", &wrong_path],
            "answers 404 to GET /apps/my-app-id/channels",
        ),
        (
            &wrong_secret,
            "answers 401 to GET /apps/my-app-id/channels: Authentication signature invalid",
        ),
        (&["users", "a", "--url", &good], "answers 400 to GET"),
        (
            &["listen", "a", "--app-key", "no", "--url", &good],
            "4001 Application does not exist",
        ),
        (
            &["listen", "a", "--url", &good],
            "--origin says which one this is",
        ),
    ] {
        let (code, out, err) = server.command(arguments, &CREDENTIALS);
        assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}: {err}");
        assert!(err.contains(told), "{arguments:?}: {err}");
    }
    let from_page = ["private-a", "--origin", "https://good.example"];
    let listener = Listener::start(&server, &from_page);
    drop(listener);
    let refused = ["listen", "private-a", "--origin", "https://good.example"];
    let refused = [&refused[..], &["--app-secret", "wrong", "--url", &good]].concat();
    let (code, _, err) = server.command(&refused, &CREDENTIALS);
    assert_eq!(code, 1);
    assert!(err.starts_with("resound: private-a: "), "{err}");
}

#[test]
fn new_credentials_are_as_reverbs_installer_makes_them() {
    let dir = tempfile::tempdir().unwrap();
    let (code, env, err) = cli::run(dir.path(), &["apps", "new"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    std::fs::write(dir.path().join(".env"), &env).unwrap();
    let (code, _, err) = cli::run(dir.path(), &["check"]);
    assert_eq!(code, Some(0), "{err}");
    let value = |name: &str| {
        let line = env.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches('=').to_owned()
    };
    let id = value("REVERB_APP_ID");
    assert!(
        id.len() == 6 && id.bytes().all(|byte| byte.is_ascii_digit()),
        "{id}"
    );
    for name in ["REVERB_APP_KEY", "REVERB_APP_SECRET"] {
        let token = value(name);
        let is_token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        assert!(token.len() == 20 && token.bytes().all(is_token), "{token}");
    }
    assert!(
        env.contains("VITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"\n"),
        "{env}"
    );
    let (_, toml, _) = cli::run(dir.path(), &["apps", "new", "--format", "toml"]);
    std::fs::remove_file(dir.path().join(".env")).unwrap();
    std::fs::write(dir.path().join("r.toml"), toml).unwrap();
    let (code, _, err) = cli::run(dir.path(), &["check", "--config", "r.toml"]);
    assert_eq!(code, Some(0), "{err}");
    let secrets: HashSet<String> = (0..20)
        .map(|_| {
            let (_, json, _) = cli::run(dir.path(), &["apps", "new", "--format", "json"]);
            let app: Value = serde_json::from_str(&json).unwrap();
            assert_ne!(app["key"], app["secret"]);
            app["secret"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(secrets.len(), 20);
}

/// A server of this kind has an address.
#[test]
fn a_prefix_is_part_of_the_url() {
    let server = Process::with("", &[("REVERB_SERVER_PATH", "/ws")]);
    let url = format!("http://{}/ws/", server.address());
    let settings = CREDENTIALS;
    let published = server.command(&["publish", "a", "e", "--url", &url], &settings);
    assert_eq!(published.0, 0, "{published:?}");
    let mut listener = Listener::with(&["private-a", "--url", &url, "--count", "1"], &settings);
    server.command(
        &["publish", "private-a", "e", "2", "--url", &url],
        &settings,
    );
    assert_eq!(listener.next()["data"], 2);
}
