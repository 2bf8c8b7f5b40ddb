//! Settings that are wrong, and a Redis on which somebody talks nonsense.

use std::any::Any;
use std::net::TcpListener;
use std::rc::Rc;

use crate::bus::Bystander;
use crate::frames::event;
use crate::node::Node;
use crate::nodes::{Cluster, await_nodes};
use crate::people::{Member, has_users, signed_in};
use crate::port;
use crate::redis::{Certificates, Options, Redis};
use crate::settings::Settings;
use crate::support::Client;
use crate::wait::{eventually, eventually_is};

/// Settings with which Redis cannot be used.
struct Unusable {
    what: &'static str,
    settings: Settings,
    /// What a start that requires Redis ends with: 64 if somebody has to change a
    /// setting, 1 if it is worth trying again.
    code: i32,
    /// What has to be reported.
    texts: Vec<String>,
    /// What has to be there meanwhile.
    keep: Box<dyn Any>,
}

impl Unusable {
    /// `text` has to be reported beside the address.
    fn redis(what: &'static str, redis: Redis, settings: &[(&str, &str)], text: &str) -> Self {
        Self {
            what,
            settings: redis.settings().with(settings),
            code: 64,
            texts: vec![format!("127.0.0.1:{}", redis.port), text.to_owned()],
            keep: Box::new(redis),
        }
    }

    fn nobody(what: &'static str, address: &str, settings: &[(&str, &str)]) -> Self {
        Self {
            what,
            settings: Settings::of(settings),
            code: 1,
            texts: vec![address.to_owned()],
            keep: Box::new(()),
        }
    }
}

fn unusable() -> Vec<Unusable> {
    let port = port::free().to_string();
    let address = format!("127.0.0.1:{port}");
    let locked = Redis::single(Options {
        password: Some("right"),
        ..Options::default()
    });
    let with_acl = Redis::single(Options {
        user: Some(("worker", "s3cret")),
        ..Options::default()
    });
    let tls = Redis::single(Options {
        tls: Some(Rc::new(Certificates::new())),
        ..Options::default()
    });
    let stranger = Certificates::new();
    let ca = stranger.authority.to_str().unwrap().to_owned();
    let mut untrusted = Unusable::redis(
        "an authority that did not sign",
        tls,
        &[("RESOUND_REDIS_TLS_CA", &ca)],
        "ertificate",
    );
    untrusted.keep = Box::new((untrusted.keep, stranger));
    let wrong = &[("REDIS_PASSWORD", "hunter2")];
    let unknown = &[("REDIS_USERNAME", "nobody")];
    let direct = &[("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &*port)];
    vec![
        untrusted,
        Unusable::redis("a wrong password", locked, wrong, "WRONGPASS"),
        Unusable::redis("an unknown user", with_acl, unknown, "WRONGPASS"),
        Unusable::redis(
            "no such database",
            Redis::start(),
            &[("REDIS_DB", "99")],
            "DB index",
        ),
        Unusable::nobody("nobody listens", &address, direct),
        Unusable::nobody(
            "no cluster",
            &address,
            &[("RESOUND_REDIS_CLUSTER", &address)],
        ),
        Unusable::nobody(
            "no sentinel",
            &address,
            &[("RESOUND_REDIS_SENTINELS", &address)],
        ),
    ]
}

#[test]
fn whoever_requires_redis_gets_the_reason_why_it_cannot_be_used_and_nothing_starts() {
    for Unusable {
        what,
        settings,
        code: expected,
        texts,
        keep: _keep,
    } in unusable()
    {
        let required = settings.with(&[("RESOUND_REQUIRE_REDIS", "true")]);
        for (settings, flags) in [(&required, &[][..]), (&settings, &["--require-redis"])] {
            let (code, said) = Node::refused(settings, flags);
            assert_eq!(code, Some(expected), "{what}: {said}");
            for text in &texts {
                assert!(said.contains(text), "{what}: {text:?} is not in {said}");
            }
            assert!(!said.contains("hunter2"), "a password is secret: {said}");
        }
    }
}

#[test]
fn without_that_it_starts_alone_warns_and_is_not_ready() {
    for Unusable {
        what,
        settings,
        texts,
        keep: _keep,
        ..
    } in unusable()
    {
        let node = Node::start(&settings);
        let mut client = Client::connect(&node);
        client.subscribe("lobby");
        node.publish("lobby", "ev", "x");
        client.expect(&event("ev", "x", "lobby"));
        assert!(!node.is_connected(), "{what}");
        eventually(&format!("the warning of {what}"), || {
            texts.iter().all(|text| node.log_contains(text))
        });
        assert!(!node.log_contains("hunter2"), "a password is secret");
    }
}

/// Settings, and what has to be reported of them.
type Wrong = (
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const WRONG: &[Wrong] = &[
    (&[("REDIS_PORT", "tcp://x")], &["REDIS_PORT", "tcp://x"]),
    (&[("REDIS_PORT", "65536")], &["REDIS_PORT", "65536"]),
    (&[("REDIS_DB", "cache")], &["REDIS_DB", "cache"]),
    (&[("REDIS_SCHEME", "gopher")], &["REDIS_SCHEME", "gopher"]),
    (&[("REDIS_URL", "http://x")], &["REDIS_URL"]),
    (&[("REDIS_PREFIX", "{x}")], &["REDIS_PREFIX", "{x}"]),
    (
        &[("RESOUND_NODE_TIMEOUT", "1")],
        &["RESOUND_NODE_TIMEOUT", "\"1\""],
    ),
    (
        &[("RESOUND_NODE_TIMEOUT", "soon")],
        &["RESOUND_NODE_TIMEOUT", "soon"],
    ),
    (
        &[("RESOUND_REDIS_CLUSTER", "a:b")],
        &["RESOUND_REDIS_CLUSTER", "a:b"],
    ),
    (
        &[("RESOUND_REDIS_SENTINELS", ",")],
        &["RESOUND_REDIS_SENTINELS"],
    ),
    (
        &[
            ("RESOUND_REDIS_CLUSTER", "a:1"),
            ("RESOUND_REDIS_SENTINELS", "b:2"),
        ],
        &["cluster", "sentinels"],
    ),
    (
        &[("RESOUND_REDIS_CLUSTER", "a:1"), ("REDIS_DB", "1")],
        &["database"],
    ),
    (
        &[
            ("REDIS_SCHEME", "tls"),
            ("RESOUND_REDIS_TLS_CERT", "/x.pem"),
        ],
        &["tls_key"],
    ),
    (
        &[("RESOUND_CLUSTER_BUFFER_BYTES", "-1")],
        &["RESOUND_CLUSTER_BUFFER_BYTES", "-1"],
    ),
    (
        &[("RESOUND_REQUIRE_REDIS", "perhaps")],
        &["RESOUND_REQUIRE_REDIS", "perhaps"],
    ),
];

#[test]
fn settings_that_cannot_be_meant_are_refused_with_their_names() {
    let mut taken = Vec::new();
    let mut refuse = |settings: &[(&str, &str)], texts: &[&str]| {
        // Nobody listens there, should it start all the same.
        let all = Settings::of(&[("REDIS_PORT", "1")]).with(settings);
        let (code, said) = Node::refused(&all, &[]);
        if code != Some(64) || !texts.iter().all(|text| said.contains(text)) {
            taken.push(format!("{settings:?} ended with {code:?}: {said}"));
        }
    };
    for (settings, texts) in WRONG {
        refuse(settings, texts);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("no.pem");
    std::fs::write(&file, "not a certificate").unwrap();
    for file in ["/no/such.pem", file.to_str().unwrap()] {
        let settings = [("REDIS_SCHEME", "tls"), ("RESOUND_REDIS_TLS_CA", file)];
        refuse(&settings, &[file]);
    }
    assert!(taken.is_empty(), "{}", taken.join("\n"));
}

/// They are the application's, and it may well mean something by them.
#[test]
fn a_node_that_is_not_to_scale_does_not_look_at_redis_at_all() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let node = Node::start(&Settings::of(&[
        ("REVERB_SCALING_ENABLED", "false"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", &port),
        ("REDIS_DB", "cache"),
    ]));
    Client::connect(&node).subscribe("lobby");
    let (status, ready) = node.ready_with_status();
    assert_eq!((status, &ready["ready"]), (200, &true.into()));
    assert!(ready.get("redis").is_none(), "{ready}");
    assert!(listener.accept().is_err(), "nobody called");
}

/// What no node ever says: bytes of all kinds, and the beginnings of what was said.
fn nonsense(said: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        &b""[..],
        b"\0",
        b"\xff\xfe\xfd",
        b"{}",
        b"[]",
        b"null",
        br#"{"event":"ev","channel":"lobby","data":"x"}"#,
        br#"{"type":"message","application":"x","payload":{}}"#,
        b"resound",
    ]
    .map(<[u8]>::to_vec)
    .into();
    all.push(vec![0xff; 1 << 20]);
    all.push(vec![b'['; 100_000]);
    for message in said {
        // Another version or kind.
        let mut other = message.clone();
        other[0] ^= 0xff;
        all.push(other);
        all.extend((0..message.len().min(24)).map(|end| message[..end].to_vec()));
    }
    all
}

#[test]
fn nonsense_on_the_bus_is_ignored_and_counted_and_hurts_nobody() {
    let cluster = Cluster::start(2, &[]);
    let port = cluster.redis.port;
    let mut listener = Bystander::listening(port);
    let mut clients = [0, 1].map(|node| {
        let mut client = Client::connect(&cluster[node]);
        client.subscribe("lobby");
        client
    });
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let _ana = Member::join(&cluster[1], "presence-r", "ana");
    watcher.sees_changes(&["+ana"]);
    let _signed = signed_in(
        &cluster[0],
        &serde_json::json!({ "id": "ana", "watchlist": ["ben"] }),
    );
    cluster[0].publish("lobby", "ev", "real");
    clients
        .iter_mut()
        .for_each(|client| client.expect(&event("ev", "real", "lobby")));
    let mut said = Vec::new();
    while !said
        .iter()
        .any(|message: &Vec<u8>| message.windows(4).any(|four| four == b"real"))
    {
        said.push(listener.next_message().1);
    }
    drop(listener);

    let mut bystander = Bystander::connect(port);
    let channels = bystander.channels();
    assert!(
        channels.len() >= 2,
        "what the nodes listen to: {channels:?}"
    );
    let mut received = 0;
    let messages = nonsense(&said);
    for channel in &channels {
        // The big ones once, and everything else everywhere.
        for message in &messages {
            if message.len() < 1000 || channel == &channels[0] {
                received += bystander.publish(channel, message);
            }
        }
    }
    assert!(received > 100, "{received} were received");
    eventually_is("ignored messages", &received, || {
        cluster[0].counter("ignored") + cluster[1].counter("ignored")
    });
    cluster.await_whole();
    for node in cluster.nodes() {
        node.publish("lobby", "ev", "still here");
        for client in &mut clients {
            client.expect(&event("ev", "still here", "lobby"));
        }
        has_users(node, "presence-r", &["ana", "watcher"]);
    }
    clients.iter_mut().for_each(Client::expect_silence);
    assert_eq!(watcher.changes(), [""; 0]);
}

/// Somebody uses the same Redis for other things, with names that look alike.
#[test]
fn keys_of_others_are_left_alone() {
    let redis = Redis::start();
    for key in ["reverb", "lobby", "laravel_database_cache", "resound"] {
        assert_eq!(redis.command(&["SET", key, "theirs"]), "OK");
    }
    let mut nodes = [0, 1].map(|_| Node::start(&redis.settings()));
    await_nodes(&[&nodes[0], &nodes[1]], 2);
    let members = [0, 1].map(|n| Member::join(&nodes[n], "presence-r", "ana"));
    nodes[0].publish("cache-lobby", "ev", "x");
    drop(members);
    nodes.iter_mut().for_each(Node::stop);
    for key in ["reverb", "lobby", "laravel_database_cache", "resound"] {
        assert_eq!(redis.command(&["GET", key]), "theirs");
    }
}

/// Nothing of a cluster that has gone stays in Redis for ever.
#[test]
fn every_key_has_an_end() {
    let settings = [("REVERB_APP_MAX_CONNECTIONS", "100")];
    let mut cluster = Cluster::start(2, &settings);
    let mut members = [0, 1].map(|n| Member::join(&cluster[n], "presence-r", &format!("u{n}")));
    members
        .iter_mut()
        .for_each(|member| member.sees(&["u0", "u1"]));
    let _signed = signed_in(
        &cluster[0],
        &serde_json::json!({ "id": "ana", "watchlist": ["ben"] }),
    );
    cluster[0].publish("cache-a", "ev", "x");
    eventually("there are keys", || {
        cluster.redis.command(&["DBSIZE"]) != "0"
    });
    (0..2).for_each(|node| cluster[node].kill());
    let keys = cluster.redis.command(&["KEYS", "*"]);
    assert!(!keys.is_empty());
    for key in keys.lines() {
        let ttl = cluster.redis.command(&["TTL", key]);
        assert!(ttl.parse::<i64>().unwrap() > 0, "{key} stays: {ttl}");
    }
}

/// A change that arrives after its node was buried would stay for ever.
#[test]
fn a_change_of_a_node_that_nobody_knows_makes_no_member() {
    let cluster = Cluster::start(1, &[]);
    let mut member = Member::join(&cluster[0], "presence-r", "ana");
    let facts = "reverb:{my-app-id/c/presence-r}:s";
    let redis = &cluster.redis;
    let version = redis.command(&["HGET", facts, "v"]);
    let next = version.trim().parse::<u64>().unwrap() + 1;
    let node = "00000000000000aa";
    let ghost = r#"{"user_id":"ghost","user_info":{}}"#;
    redis.command(&["HSET", facts, "v", &next.to_string()]);
    redis.command(&["HSET", facts, &format!("{node}mghost"), ghost]);
    let change = format!("R1 C {next} {node}\nm{ghost}");
    let bus = b"reverb:{my-app-id/c/presence-r}";
    assert_eq!(
        Bystander::connect(redis.port).publish(bus, change.as_bytes()),
        1
    );
    // It was received before this is.
    let other = Member::join(&cluster[0], "presence-r", "ben");
    assert_eq!(other.here.len(), 2, "{:?}", other.here);
    assert_eq!(member.changes(), ["+ben"]);
}
