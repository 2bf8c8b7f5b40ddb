//! What is counted, and where it can be asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use resound::apps::AppRegistry;
use resound::broker::Broker;
use resound::cluster::Node;
use resound::config::Config;
use resound::hub::{Capacity, Hub, HubEvent, HubEventKind, Sink, Sinks};
use resound::lifecycle::Lifecycle;
use resound::metrics::Metrics;
use resound::server::Server;
use resound::webhooks::Webhooks;
use resound::worker::{BacklogTotal, ConnectionPermits};
use serde_json::json;

use crate::support::http::{Answer, body, parsed};
use crate::support::{APP_ID, At, Client, Http, KEY, PATIENCE, SECRET, TestServer, hmac, server};

/// Where a server's metrics are.
struct Observed(SocketAddr);

impl At for Observed {
    fn address(&self) -> SocketAddr {
        self.0
    }
}

fn observed(settings: &[(&str, &str)]) -> (TestServer, Observed) {
    let mut all = vec![("RESOUND_METRICS_PORT", "0")];
    all.extend(settings);
    let server = TestServer::with(&all);
    let at = Observed(server.metrics.unwrap());
    (server, at)
}

fn ask(at: &impl At, target: &str) -> Answer {
    Http::connect(at).request("GET", target, "")
}

/// All series by their names and labels, as they are written.
type Series = BTreeMap<String, f64>;

fn scrape(at: &Observed) -> Series {
    let answer = ask(at, "/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Scrapes until these series have these values.
fn await_values(at: &Observed, expected: &[(String, f64)]) -> Series {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let series = scrape(at);
        let differs = |(name, value): &&(String, f64)| series.get(name) != Some(value);
        let Some((name, value)) = expected.iter().find(differs) else {
            return series;
        };
        let is = series.get(name);
        assert!(Instant::now() < deadline, "{name} is {is:?}, not {value}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn of_app(name: &str, labels: &str, value: f64) -> (String, f64) {
    let more = if labels.is_empty() { "" } else { "," };
    let text = format!("resound_{name}{{app_id=\"{APP_ID}\"{more}{labels}}}");
    (text, value)
}

fn join(client: &mut Client, channel: &str, user: &str) {
    let data = json!({ "user_id": user }).to_string();
    let auth = hmac(SECRET, &format!("{}:{channel}:{data}", client.id));
    let data = json!({ "channel": channel, "auth": format!("{KEY}:{auth}"), "channel_data": data });
    client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
    while !client.next_text().contains("subscription_succeeded") {}
}

#[test]
fn connections_channels_and_members_are_counted_as_they_come_and_go() {
    let (server, at) = observed(&[]);
    let port = server.address.port();
    let with_port = format!("port=\"{port}\"");
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    for (client, user) in clients.iter_mut().zip(["ana", "ana", "ben"]) {
        client.subscribe("news");
        join(client, "presence-room", user);
    }
    clients[0].ask("cache-last");
    while !clients[0].next_text().contains("cache_miss") {}
    await_values(
        &at,
        &[
            of_app("connected", &with_port, 3.0),
            of_app("new_connections_total", &with_port, 3.0),
            of_app("channels", "kind=\"public\"", 1.0),
            of_app("channels", "kind=\"presence\"", 1.0),
            of_app("channels", "kind=\"private\"", 0.0),
            of_app("subscriptions", "kind=\"public\"", 3.0),
            of_app("subscriptions", "kind=\"presence\"", 3.0),
            of_app("presence_members", "", 2.0),
            of_app("cache_misses_total", "", 1.0),
        ],
    );
    clients[2].unsubscribe("presence-room");
    drop(clients.remove(0));
    await_values(
        &at,
        &[
            of_app("connected", &with_port, 2.0),
            of_app("new_disconnections_total", &with_port, 1.0),
            of_app("connections_closed_total", "reason=\"gone\"", 1.0),
            of_app("subscriptions", "kind=\"presence\"", 1.0),
            of_app("presence_members", "", 1.0),
            of_app("channels", "kind=\"cache\"", 0.0),
        ],
    );
    drop(clients);
    await_values(
        &at,
        &[
            of_app("connected", &with_port, 0.0),
            of_app("channels", "kind=\"public\"", 0.0),
            of_app("channels", "kind=\"presence\"", 0.0),
            of_app("subscriptions", "kind=\"public\"", 0.0),
            of_app("presence_members", "", 0.0),
            of_app("connections_closed_total", "reason=\"gone\"", 3.0),
        ],
    );
}

#[test]
fn events_bytes_and_times_are_counted() {
    let (server, at) = observed(&[]);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.subscribe("cache-a");
        assert_eq!(client.next_json()["event"], "pusher:cache_miss");
    }
    let before = scrape(&at);
    let of = |series: &Series, name: &str| series[&of_app(name, "", 0.0).0];
    let mut http = Http::connect(&server);
    let mut sent = 0;
    for _ in 0..5 {
        let text = body(&["cache-a"], "e", "data");
        sent += text.len();
        assert_eq!(http.post("events", &text).body, "{}");
    }
    let frame = r#"{"event":"e","data":"data","channel":"cache-a"}"#;
    for client in &mut clients {
        (0..5).for_each(|_| client.expect(frame));
    }
    clients[0].send(r#"{"event":"client-e","channel":"cache-a","data":{"a":1}}"#);
    for client in &mut clients[1..] {
        assert_eq!(client.next_json()["event"], "client-e");
    }
    let mut late = Client::connect(&server);
    late.subscribe("cache-a");
    late.expect(frame);
    let published = "kind=\"cache\"";
    let after = await_values(
        &at,
        &[
            of_app("events_published_total", published, 5.0),
            of_app("client_events_total", published, 1.0),
            of_app("http_requests_total", "", 5.0),
            of_app("http_received_bytes_total", "", sent as f64),
            of_app("http_sent_bytes_total", "", 10.0),
            of_app("cache_hits_total", "", 1.0),
            of_app("cache_misses_total", "", 4.0),
            of_app("publish_duration_seconds_count", "", 5.0),
        ],
    );
    let more = |name: &str| of(&after, name) - of(&before, name);
    // Five events to four, the client's to three, and established, succeeded and the last
    // event to who came late.
    assert_eq!(more("messages_sent_total"), 26.0);
    assert_eq!(more("messages_received_total"), 2.0);
    let least = 23.0 * frame.len() as f64;
    let bytes = more("websocket_sent_bytes_total");
    assert!(bytes > least && bytes < least * 2.0, "{bytes}");
    assert!(more("websocket_received_bytes_total") > 60.0);
    let delay = more("delivery_delay_seconds_count");
    assert!((1.0..=12.0).contains(&delay), "{delay} were followed");
    assert!(more("delivery_delay_seconds_sum") < 12.0 * PATIENCE.as_secs_f64());
}

#[test]
fn refusals_are_counted_by_their_reasons() {
    let (server, at) = observed(&[
        ("REVERB_ALLOWED_ORIGINS", "example.com"),
        ("RESOUND_ALLOW_MISSING_ORIGIN", "true"),
        ("RESOUND_CLIENT_EVENT_MAX_PER_SECOND", "1"),
    ]);
    let mut stranger = Client::open(&server, "/app/unknown?protocol=7", &[]);
    stranger.expect_error(4001, "Application does not exist");
    let target = format!("/app/{KEY}?protocol=7");
    let mut other = Client::open(&server, &target, &[("Origin", "https://evil.test")]);
    other.expect_error(4009, "Origin not allowed");
    assert_eq!(ask(&server, &target).status, 426);
    let mut http = Http::connect(&server);
    assert_eq!(
        http.request("POST", &format!("/apps/{APP_ID}/events"), "{}")
            .status,
        401
    );
    assert_eq!(http.post("events", "[]").status, 400);
    assert_eq!(http.post("events", "{}").status, 422);
    assert_eq!(
        http.request("GET", "/apps/unknown/channels", "").status,
        404
    );
    assert_eq!(http.request("GET", "/nowhere", "").status, 404);
    let mut client = Client::connect(&server);
    client.send(r#"{"event":"pusher:subscribe","data":{"channel":"private-p","auth":"x:y"}}"#);
    assert_eq!(client.next_json()["event"], "pusher:subscription_error");
    client.send(r#"{"event":"pusher:subscribe","data":{"channel":"no space"}}"#);
    client.ask("a");
    while !client.next_text().contains("subscription_succeeded") {}
    for _ in 0..3 {
        client.send(r#"{"event":"client-e","channel":"a"}"#);
    }
    let nobody = |name: &str, reason: &str, value: f64| {
        let text = format!("resound_{name}{{app_id=\"\",reason=\"{reason}\"}}");
        (text, value)
    };
    await_values(
        &at,
        &[
            nobody(
                "connections_refused_total",
                "application_does_not_exist",
                1.0,
            ),
            of_app(
                "connections_refused_total",
                "reason=\"origin_not_allowed\"",
                1.0,
            ),
            of_app("handshakes_refused_total", "reason=\"not_upgrade\"", 1.0),
            of_app("requests_refused_total", "reason=\"auth_missing\"", 1.0),
            of_app("requests_refused_total", "reason=\"invalid_json\"", 1.0),
            of_app("requests_refused_total", "reason=\"invalid_fields\"", 1.0),
            nobody("requests_refused_total", "unknown_app", 1.0),
            nobody("requests_refused_total", "not_found", 1.0),
            of_app("subscriptions_refused_total", "reason=\"auth_key\"", 1.0),
            of_app(
                "subscriptions_refused_total",
                "reason=\"invalid_channel\"",
                1.0,
            ),
            of_app("rate_limited_total", "limit=\"client_events\"", 2.0),
        ],
    );
}

#[test]
fn whoever_looks_after_it_is_told_how_it_stands() {
    let (server, at) = observed(&[]);
    let _client = Client::connect(&server);
    let lifecycle = server.control.lifecycle().clone();
    for place in [at.0, server.address] {
        let at = Observed(place);
        let live = ask(&at, "/live");
        assert_eq!((live.status, &*live.body), (200, r#"{"live":true}"#));
        let up = ask(&at, "/up");
        assert_eq!((up.status, &*up.body), (200, r#"{"health":"OK"}"#));
        let ready = ask(&at, "/ready");
        let mut said = parsed(&ready);
        assert!(said["uptime"].take().is_u64());
        let expected = json!({
            "ready": true,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime": null,
            "connections": 1,
            "lifecycle": "running",
        });
        assert_eq!((ready.status, said), (200, expected));
        for path in ["/live", "/ready", "/up"] {
            let refused = Http::connect(&at).request("POST", path, "");
            assert_eq!(refused.status, 405, "{path}");
            assert_eq!(refused.header("allow"), Some("GET, HEAD"));
        }
    }
    assert_eq!(ask(&at, "/app").status, 404);
    assert_eq!(ask(&server, "/metrics").status, 404, "not for everybody");
    let later = tokio::time::Instant::now() + Duration::from_secs(3600);
    lifecycle.drain(later, later);
    let ready = ask(&at, "/ready");
    assert_eq!(
        (ready.status, parsed(&ready)["lifecycle"].clone()),
        (503, json!("draining"))
    );
    assert_eq!(ask(&at, "/live").status, 200);
    let series = scrape(&at);
    assert_eq!(
        (series["resound_ready"], series["resound_draining"]),
        (0.0, 1.0)
    );
}

/// Keeps the worker that a client connects to for a while.
struct Blocker;

impl Sink for Blocker {
    fn accept(&self, event: &HubEvent<'_>) {
        if let HubEventKind::ChannelOccupied { .. } = event.kind {
            thread::sleep(Duration::from_secs(4));
        }
    }
}

#[test]
fn a_worker_that_does_not_turn_is_named() {
    let settings = server::sources(&[("RESOUND_METRICS_PORT", "0")]);
    let config = Config::load(&settings).unwrap();
    let sinks = Sinks::new(vec![Arc::new(Blocker)]);
    let server = TestServer::run(Server::bind_with_sinks(&config, false, sinks).unwrap());
    let at = Observed(server.metrics.unwrap());
    assert_eq!(ask(&at, "/live").status, 200);
    let mut client = Client::connect(&server);
    client.ask("a");
    thread::sleep(Duration::from_millis(200));
    let live = ask(&at, "/live");
    assert_eq!(live.status, 503);
    let silent = parsed(&live)["silent_workers"].clone();
    assert!(silent == json!([0]) || silent == json!([1]), "{silent}");
    assert_eq!(client.next_json()["channel"], "a");
    assert_eq!(ask(&at, "/live").status, 200);
}

/// There are more of them than can time out, 32 a second, while the last one waits: the
/// oldest go.
#[test]
fn scrapers_that_say_nothing_hold_up_nobody_for_long() {
    let (server, at) = observed(&[]);
    let mut client = Client::connect(&server);
    client.subscribe("a");
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(at.0).unwrap())
        .collect();
    let mut late = TcpStream::connect(at.0).unwrap();
    late.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    Http::connect(&server).publish(&["a"], "e", "x");
    client.expect(r#"{"event":"e","data":"x","channel":"a"}"#);
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    late.read_to_string(&mut text).unwrap();
    assert!(text.contains("resound_connected"), "{text}");
    drop(silent);
}

/// With so many applications that an answer does not fit into what the kernel holds.
#[test]
fn scrapers_that_do_not_read_hold_up_nobody_for_long() {
    let mut toml = String::new();
    for number in 0..99 {
        toml += &format!("[[apps]]\nid = \"{number}\"\nkey = \"k{number}\"\nsecret = \"s\"\n");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resound.toml");
    fs::write(&file, toml).unwrap();
    let mut sources = server::sources(&[("RESOUND_METRICS_PORT", "0")]);
    sources.config_file = Some(file);
    let server = TestServer::from_sources(&sources, false);
    let at = Observed(server.metrics.unwrap());
    let ask_slowly = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&at.0.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        stream
    };
    let slow: Vec<TcpStream> = (0..32).map(|_| ask_slowly()).collect();
    // One that is cut off before its answer begins reads nothing.
    assert_eq!(slow[0].peek(&mut [0]).unwrap(), 1);
    let mut client = Client::connect(&server);
    client.subscribe("a");
    Http::connect(&server).publish(&["a"], "e", "x");
    client.expect(r#"{"event":"e","data":"x","channel":"a"}"#);
    let mut late = TcpStream::connect(at.0).unwrap();
    late.set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    late.write_all(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    late.read_to_string(&mut text).unwrap();
    assert!(text.ends_with(r#"{"health":"OK"}"#), "{text}");
    // The first one was cut off in the middle.
    let mut text = Vec::new();
    let _ = (&slow[0]).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    assert!(
        text.contains("resound_") && !text.contains("process_threads"),
        "{} bytes, from {:?} to {:?}",
        text.len(),
        text.get(..200),
        text.lines().last(),
    );
}

#[test]
fn many_scrapes_leave_nothing() {
    let (_server, at) = observed(&[]);
    let before = scrape(&at);
    for _ in 0..3000 {
        assert_eq!(ask(&at, "/metrics").status, 200);
    }
    let after = scrape(&at);
    let files = |series: &Series| series["process_open_fds"];
    assert!((files(&after) - files(&before)).abs() < 40.0);
    assert_eq!(before.keys().len(), after.keys().len());
}

#[test]
fn a_port_that_is_taken_matters_if_somebody_asked_for_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (setting, value, text) in [
        ("RESOUND_METRICS_PORT", &*port, "RESOUND_METRICS_PORT"),
        ("RESOUND_METRICS_HOST", "192.0.2.1", "RESOUND_METRICS_HOST"),
    ] {
        let mut all = vec![("RESOUND_METRICS_PORT", "0")];
        all.push((setting, value));
        let config = Config::load(&server::sources(&all)).unwrap();
        let error = Server::bind(&config, false).err().unwrap();
        assert!(error.to_string().contains(text), "{error}");
        assert!(!error.is_configuration());
        assert!(Server::bind(&config, true).is_ok(), "a demo has none");
    }
    let both = server::sources(&[
        ("REVERB_SERVER_PORT", "8080"),
        ("REVERB_SERVER_HOST", "0.0.0.0"),
        ("RESOUND_METRICS_PORT", "8080"),
    ]);
    let error = Config::load(&both).unwrap_err().to_string();
    assert!(error.contains("is server.port, too"), "{error}");
    for wrong in ["x", "65536", "-1", "on"] {
        let error = Config::load(&server::sources(&[("RESOUND_METRICS_PORT", wrong)]));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("from 0 to 65535, or off"), "{error}");
    }
}

/// All of them, those of several nodes included.
fn table() -> String {
    let settings = server::sources(&[("REVERB_SCALING_ENABLED", "true")]);
    let config = Config::load(&settings).unwrap();
    let node = Node::new(config.scaling.as_ref().unwrap()).unwrap();
    let capacity = Capacity {
        inbox_bytes: 1,
        sockets: 1,
    };
    let hub = Arc::new(Hub::new(1, capacity));
    let broker = Broker::new(Arc::clone(&hub), Some(node.cluster()));
    let metrics = Metrics {
        apps: Arc::new(AppRegistry::new(config.apps).unwrap()),
        hub,
        broker,
        backlog: Arc::new(BacklogTotal::new(1)),
        permits: Arc::new(ConnectionPermits::new(1, 1, None)),
        workers: 1,
        lifecycle: Lifecycle::new(),
        certificates: Arc::default(),
        webhooks: Webhooks::new(&config.webhooks),
        started: SystemTime::UNIX_EPOCH,
        port: 8080,
    };
    metrics.table()
}

/// With `UPDATE_DOCS=1`, they are made so.
#[test]
fn the_list_in_the_docs_is_that_of_the_server() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(&path).unwrap();
    let begin = text.find("| metric |").expect("there is a list");
    let list = format!(
        "| metric | type | labels | what |\n|---|---|---|---|\n{}",
        table()
    );
    let right = format!("{}{list}", &text[..begin]);
    if std::env::var("UPDATE_DOCS").is_ok() {
        fs::write(&path, &right).unwrap();
    }
    assert!(text == right, "run it again with UPDATE_DOCS=1");
}
