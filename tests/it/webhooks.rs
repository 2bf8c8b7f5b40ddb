//! What applications are told of, by one server.

mod receiver;

use std::time::Duration;

use serde_json::{Value, json};

use crate::presence::joined;
use crate::support::{Client, Http, Process, TestServer};
use receiver::{Answer, Receiver};

const ALL: &str = "channel_occupied,channel_vacated,member_added,member_removed,client_event,cache_miss,\
                   subscription_count,connection_established,connection_closed,subscription_refused";

/// Settings that have a receiver told, at once and without smoothing.
fn settings(receiver: &Receiver, events: &str) -> Vec<(&'static str, String)> {
    [
        ("RESOUND_WEBHOOK_URL", receiver.url()),
        ("RESOUND_WEBHOOK_EVENTS", events.to_owned()),
        ("RESOUND_WEBHOOK_ALLOW_LOCAL", "true".to_owned()),
        ("RESOUND_WEBHOOK_BATCH_MS", "0".to_owned()),
        ("RESOUND_WEBHOOK_SMOOTHING_MS", "100".to_owned()),
    ]
    .into()
}

fn server(receiver: &Receiver, events: &str, more: &[(&'static str, &str)]) -> TestServer {
    let settings = settings(receiver, events);
    let settings = settings.iter().map(|(name, value)| (*name, &**value));
    let all: Vec<(&str, &str)> = settings.chain(more.iter().copied()).collect();
    TestServer::with(&all)
}

fn without_id(event: &Value) -> Value {
    let mut event = event.clone();
    let id = event.as_object_mut().unwrap().remove("id").unwrap();
    assert!(id.as_str().unwrap().len() > 16, "{id}");
    event
}

#[test]
fn each_kind_is_told_with_its_fields() {
    let receiver = Receiver::start();
    let server = server(&receiver, ALL, &[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
    let mut ana = joined(&server, "presence-a", r#"{"user_id":"ana"}"#);
    let socket = ana.id.clone();
    ana.send(r#"{"event":"client-typing","channel":"presence-a","data":{"a":"<b>"}}"#);
    ana.subscribe("cache-c");
    let mut ben = Client::connect(&server);
    ben.send(r#"{"event":"pusher:subscribe","data":{"channel":"private-p","auth":"x:y"}}"#);
    let (other, cache) = (ben.id.clone(), "cache-c");
    let mut told = receiver.events(9);
    drop((ana, ben));
    told.extend(receiver.events(5));
    let told: Vec<Value> = told.iter().map(without_id).collect();
    let established =
        |id| json!({ "name": "connection_established", "channel": "", "socket_id": id });
    let closed = |id| json!({ "name": "connection_closed", "channel": "", "socket_id": id, "reason": "gone", "seconds": 0 });
    let of = |name: &str, channel: &str| json!({ "name": name, "channel": channel });
    let member = |name: &str| json!({ "name": name, "channel": "presence-a", "user_id": "ana" });
    for expected in [
        established(&socket),
        of("channel_occupied", "presence-a"),
        member("member_added"),
        json!({ "name": "client_event", "channel": "presence-a", "event": "client-typing",
                "data": r#"{"a":"<b>"}"#, "socket_id": socket, "user_id": "ana" }),
        of("channel_occupied", cache),
        json!({ "name": "subscription_count", "channel": cache, "subscription_count": 1 }),
        of("cache_miss", cache),
        established(&other),
        json!({ "name": "subscription_refused", "channel": "private-p", "socket_id": other, "reason": "" }),
        closed(&socket),
        closed(&other),
        of("channel_vacated", cache),
        member("member_removed"),
        of("channel_vacated", "presence-a"),
    ] {
        let is_same = |event: &&Value| match expected["name"].as_str() {
            // Why, the client is told in the same words.
            Some("subscription_refused") => {
                event["name"] == expected["name"] && event["reason"] != ""
            }
            _ => **event == expected,
        };
        assert_eq!(
            told.iter().filter(is_same).count(),
            1,
            "{expected} in {told:#?}"
        );
    }
    assert_eq!(told.len(), 14, "{told:#?}");
    let of_presence: Vec<&Value> = told
        .iter()
        .filter(|it| it["channel"] == "presence-a")
        .map(|it| &it["name"])
        .collect();
    assert_eq!(
        of_presence,
        [
            "channel_occupied",
            "member_added",
            "client_event",
            "member_removed",
            "channel_vacated"
        ]
    );
}

#[test]
fn who_is_back_in_time_was_never_away_and_several_sockets_count_once() {
    let receiver = Receiver::start();
    let events = "member_added,member_removed,channel_occupied,channel_vacated";
    let server = server(
        &receiver,
        events,
        &[("RESOUND_WEBHOOK_SMOOTHING_MS", "1500")],
    );
    let ana = || joined(&server, "presence-a", r#"{"user_id":"ana"}"#);
    let first = ana();
    assert_eq!(receiver.events(2).len(), 2);
    let second = ana();
    drop(first);
    drop(second);
    let third = ana();
    joined(&server, "presence-b", r#"{"user_id":"ben"}"#);
    // Of the one who stays, nothing; of the other one, everything.
    let told: Vec<Value> = receiver
        .events(4)
        .iter()
        .map(|it| it["channel"].clone())
        .collect();
    assert_eq!(told, ["presence-b"; 4]);
    drop(third);
    let told: Vec<Value> = receiver
        .events(2)
        .iter()
        .map(|it| it["name"].clone())
        .collect();
    assert_eq!(told, ["member_removed", "channel_vacated"]);
}

#[test]
fn a_receiver_that_does_not_take_it_is_told_again_with_the_same_id_and_body() {
    let other = Receiver::start();
    for wrong in [
        Answer::Status(500),
        Answer::Redirect(other.url()),
        Answer::Garbage,
        Answer::HalfWay,
        Answer::Hang,
    ] {
        let receiver = Receiver::start();
        receiver.answer(wrong.clone());
        let server = server(
            &receiver,
            "channel_occupied",
            &[("RESOUND_WEBHOOK_TIMEOUT", "1")],
        );
        let mut client = Client::connect(&server);
        client.subscribe("a");
        let first = receiver.requests(2);
        receiver.answer(Answer::Status(200));
        let told = receiver.events(1);
        assert_eq!(told[0]["channel"], "a");
        for got in receiver.got() {
            assert_eq!(
                (&got.id, &got.body),
                (&first[0].id, &first[0].body),
                "{wrong:?}"
            );
        }
        // While it failed, nothing was lost that came later.
        client.subscribe("b");
        assert_eq!(receiver.events(1)[0]["channel"], "b");
    }
    assert_eq!(other.got().len(), 0, "nothing is followed");
}

#[test]
fn an_answer_without_an_end_is_one() {
    let receiver = Receiver::start();
    receiver.answer(Answer::Endless);
    let server = server(&receiver, "channel_occupied", &[]);
    let mut client = Client::connect(&server);
    for channel in ["a", "b"] {
        client.subscribe(channel);
        assert_eq!(receiver.events(1)[0]["channel"], channel);
    }
    assert_eq!(receiver.taken().len(), 2, "told once each");
}

#[test]
fn events_go_together_and_connections_are_kept() {
    let receiver = Receiver::start();
    let more = [
        ("RESOUND_WEBHOOK_BATCH_MS", "300"),
        ("RESOUND_WEBHOOK_BATCH_EVENTS", "10"),
    ];
    let server = server(&receiver, "channel_occupied", &more);
    let mut client = Client::connect(&server);
    for number in 0..25 {
        client.subscribe(&format!("c{number}"));
    }
    assert_eq!(receiver.events(25).len(), 25);
    let sizes: Vec<usize> = receiver
        .got()
        .iter()
        .map(|it| receiver::events_of(&it.body).len())
        .collect();
    assert!(
        sizes.len() <= 5 && sizes.iter().all(|size| *size <= 10),
        "{sizes:?}"
    );
    for number in 25..30 {
        client.subscribe(&format!("c{number}"));
        receiver.events(1);
    }
    assert!(
        receiver.connections() <= sizes.len(),
        "{}",
        receiver.connections()
    );
}

#[test]
fn a_dead_receiver_delays_no_other_and_filters_and_headers_hold() {
    let (alive, dead) = (Receiver::start(), Receiver::start());
    dead.answer(Answer::Hang);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resound.toml");
    let webhook = |receiver: &Receiver, more: &str| {
        format!("[[apps.webhooks]]\nurl = \"{}\"\n{more}\n", receiver.url())
    };
    let text = format!(
        "[webhooks]\nallow_local = true\nbatch_ms = 0\nsmoothing_ms = 0\n\
         [[apps]]\nid = \"my-app-id\"\nkey = \"my-app-key\"\nsecret = \"my-app-secret\"\n{}{}",
        webhook(&dead, ""),
        webhook(
            &alive,
            "channels = [\"presence-*\", \"*-orders\", \"news\"]\nevents = [\"channel_occupied\"]\nheaders = { \"X-Team\" = \"chat, and more\" }"
        )
    );
    std::fs::write(&file, text).unwrap();
    let server = Process::run(dir, "--config resound.toml", "", &[]);
    let mut client = Client::connect(&server);
    for channel in ["other", "news", "shop-orders", "orders", "newsletter"] {
        client.subscribe(channel);
    }
    let told: Vec<Value> = alive
        .events(2)
        .iter()
        .map(|it| it["channel"].clone())
        .collect();
    assert_eq!(told, ["news", "shop-orders"]);
    let got = alive.got();
    assert!(
        got[0].head.contains("X-Team: chat, and more\r\n"),
        "{}",
        got[0].head
    );
    assert!(
        got[0]
            .head
            .starts_with("POST /hook?token=secret HTTP/1.1\r\n"),
        "{}",
        got[0].head
    );
    client.subscribe("late-orders");
    assert_eq!(alive.events(1)[0]["channel"], "late-orders");
    assert!(!dead.got().is_empty());
}

#[test]
fn what_waits_is_told_when_the_server_stops() {
    let receiver = Receiver::start();
    let more = [
        ("RESOUND_WEBHOOK_BATCH_MS", "60000"),
        ("RESOUND_WEBHOOK_SMOOTHING_MS", "60000"),
    ];
    let events = "member_added,member_removed";
    let mut server = server(&receiver, events, &more);
    let here = joined(&server, "presence-a", r#"{"user_id":"ana"}"#);
    drop(joined(&server, "presence-a", r#"{"user_id":"ben"}"#));
    receiver.answer(Answer::After(Duration::from_millis(300)));
    server.begin_shutdown();
    server.join();
    drop(here);
    let mut told: Vec<String> = receiver
        .events(4)
        .iter()
        .map(|it| format!("{} {}", it["name"], it["user_id"]))
        .collect();
    told.sort();
    let expected = [
        "added\" \"ana\"",
        "added\" \"ben\"",
        "removed\" \"ana\"",
        "removed\" \"ben\"",
    ];
    assert_eq!(told, expected.map(|it| format!("\"member_{it}")));
}

#[test]
fn a_reload_brings_receivers_and_takes_them_away() {
    let receiver = Receiver::start();
    let control: &[(&str, &str)] = &[("RESOUND_CONTROL_SOCKET", "control.sock")];
    let server = Process::within(tempfile::tempdir().unwrap(), "", control);
    let mut client = Client::connect(&server);
    client.subscribe("before");
    let file = server.dir.path().join(".env");
    let settings = settings(&receiver, "channel_occupied,channel_vacated");
    let lines: String = settings
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    std::fs::write(&file, lines).unwrap();
    assert_eq!(server.command(&["reload"], control).0, 0);
    // Also what is there already is told.
    assert_eq!(receiver.events(1)[0]["channel"], "before");
    client.subscribe("between");
    assert_eq!(receiver.events(1)[0]["channel"], "between");
    let (code, out, error) = server.command(&["webhooks", "tail", "--help"], control);
    assert_eq!((code, error), (0, String::new()), "{out}");
    std::fs::write(&file, "").unwrap();
    assert_eq!(server.command(&["reload"], control).0, 0);
    client.subscribe("after");
    client.unsubscribe("before");
    Http::connect(&server).publish(&["after"], "e", "1");
    assert_eq!(client.next_json()["event"], "e");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(receiver.got().len(), 2);
}

/// A server that reads a file of settings, with these in it.
fn reloaded(server: &Process, receiver: &Receiver, events: &str, more: &str) {
    let settings = settings(receiver, events);
    let lines = settings
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"));
    let text = lines.collect::<String>() + more;
    std::fs::write(server.dir.path().join(".env"), text).unwrap();
    let control: &[(&str, &str)] = &[("RESOUND_CONTROL_SOCKET", "control.sock")];
    let (code, out, error) = server.command(&["reload"], control);
    assert_eq!(code, 0, "{out}{error}");
}

fn reloadable() -> Process {
    let control: &[(&str, &str)] = &[("RESOUND_CONTROL_SOCKET", "control.sock")];
    Process::within(tempfile::tempdir().unwrap(), "", control)
}

#[test]
fn a_reload_that_changes_a_receiver_loses_nothing_that_waits_for_it() {
    let receiver = Receiver::start();
    receiver.answer(Answer::Status(403));
    let server = reloadable();
    reloaded(&server, &receiver, "channel_occupied", "");
    let mut client = Client::connect(&server);
    for channel in ["a", "b"] {
        client.subscribe(channel);
        receiver.requests(1);
    }
    let more = "RESOUND_WEBHOOK_CHANNELS=a,b,c\n";
    reloaded(&server, &receiver, "channel_occupied,channel_vacated", more);
    receiver.answer(Answer::Status(200));
    client.subscribe("c");
    let mut told: Vec<Value> = receiver
        .events(3)
        .iter()
        .map(|it| it["channel"].clone())
        .collect();
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, ["a", "b", "c"]);
}

#[test]
fn who_went_while_nobody_wanted_to_know_is_new_when_he_comes_again() {
    let receiver = Receiver::start();
    let server = reloadable();
    reloaded(&server, &receiver, "channel_occupied", "");
    let mut client = Client::connect(&server);
    client.subscribe("a");
    assert_eq!(receiver.events(1)[0]["channel"], "a");
    reloaded(&server, &receiver, "client_event", "");
    client.unsubscribe("a");
    client.expect_alive();
    reloaded(&server, &receiver, "channel_occupied,channel_vacated", "");
    client.subscribe("a");
    let event = &receiver.events(1)[0];
    assert_eq!(
        (&event["name"], &event["channel"]),
        (&json!("channel_occupied"), &json!("a"))
    );
}

#[test]
fn urls_that_are_none_and_this_machine_are_refused_by_name() {
    for (settings, expected) in [
        (
            vec![("RESOUND_WEBHOOK_URL", "receiver")],
            "apps.webhooks.url = \"receiver\" (environment variable RESOUND_WEBHOOK_URL): expected an http:// or https:// URL",
        ),
        (
            vec![("RESOUND_WEBHOOK_URL", "ftp://a/")],
            "expected an http:// or https:// URL",
        ),
        (
            vec![("RESOUND_WEBHOOK_URL", "http://ana:secret@a/")],
            "without user and password",
        ),
        (
            vec![("RESOUND_WEBHOOK_URL", "http://127.0.0.1:8000/a?token=t")],
            "apps.webhooks.url = \"http://127.0.0.1:8000/a\" is this machine's own: allow that with webhooks.allow_local = true (RESOUND_WEBHOOK_ALLOW_LOCAL)",
        ),
        (
            vec![
                ("RESOUND_WEBHOOK_URL", "http://a/"),
                ("RESOUND_WEBHOOK_EVENTS", "member_add"),
            ],
            "expected a list of channel_occupied, ",
        ),
        (
            vec![
                ("RESOUND_WEBHOOK_URL", "http://a/"),
                ("RESOUND_WEBHOOK_CHANNELS", "a*b"),
            ],
            "presence-* and *-orders",
        ),
        (
            vec![("RESOUND_WEBHOOK_URL", "http://a:99999/?token=hunter2")],
            "apps.webhooks.url = \"http://a:99999/\" (",
        ),
        (
            vec![("RESOUND_WEBHOOK_EVENTS", "member_added")],
            "apps.webhooks.url = \"\"",
        ),
    ] {
        let sources = crate::support::server::sources(&settings);
        let error = resound::config::Config::load(&sources)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(
            !error.contains("hunter2") && !error.contains("ana:secret"),
            "{error}"
        );
    }
}

#[test]
fn addresses_of_this_machine_are_not_told_unless_they_may_be() {
    let receiver = Receiver::start();
    let control: &[(&str, &str)] = &[("RESOUND_CONTROL_SOCKET", "control.sock")];
    // A name that has only such an address.
    let port = receiver.url().split([':', '/']).nth(4).unwrap().to_owned();
    let url = format!("http://localhost.localdomain:{port}/");
    let settings = [
        control,
        &[
            ("RESOUND_WEBHOOK_URL", &*url),
            ("RESOUND_WEBHOOK_BATCH_MS", "0"),
        ],
    ]
    .concat();
    let server = Process::within(tempfile::tempdir().unwrap(), "", &settings);
    let mut client = Client::connect(&server);
    client.subscribe("a");
    server.logged("a webhook's receiver does not take what it is sent");
    assert_eq!(receiver.got().len(), 0);
}
