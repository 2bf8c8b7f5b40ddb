//! The calls that ask about channels.

use crate::support::http::parsed;
use crate::support::{Client, Http, KEY, SECRET, Signed, TestServer, body, hmac};
use serde_json::json;

/// Two in `lobby`, one in `private-h`, users 1 (twice) and 2 in `presence-h`.
fn populated(server: &TestServer) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(server)).collect();
    clients[0].subscribe("lobby");
    clients[1].subscribe("lobby");
    clients[1].subscribe("private-h");
    for (client, user) in clients.iter_mut().zip(["\"1\"", "\"1\"", "2"]) {
        let data = format!(r#"{{"user_id":{user}}}"#);
        let auth = format!(
            "{KEY}:{}",
            hmac(SECRET, &format!("{}:presence-h:{data}", client.id))
        );
        let data = json!({ "channel": "presence-h", "auth": auth, "channel_data": data });
        client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
        while !client.next_text().contains("subscription_succeeded") {}
    }
    clients
}

#[test]
fn channels_are_listed_with_what_was_asked() {
    let server = TestServer::start();
    let mut http = Http::connect(&server);
    assert_eq!(
        http.get("channels", &[]).body,
        r#"{"channels":{}}"#,
        "an object, also when it is empty"
    );
    let _clients = populated(&server);
    for (query, expected) in [
        (
            &[][..],
            json!({ "lobby": {}, "private-h": {}, "presence-h": {} }),
        ),
        (
            &[("filter_by_prefix", "presence-")],
            json!({ "presence-h": {} }),
        ),
        (
            &[("filter_by_prefix", "presence-"), ("info", "user_count")],
            json!({ "presence-h": { "user_count": 2 } }),
        ),
        (
            &[("info", "user_count")],
            json!({ "lobby": {}, "private-h": {}, "presence-h": { "user_count": 2 } }),
        ),
        (
            &[("info", "subscription_count")],
            json!({ "lobby": { "subscription_count": 2 }, "private-h": { "subscription_count": 1 }, "presence-h": {} }),
        ),
        (&[("filter_by_prefix", "nobody")], json!({})),
        (
            &[("info", "nonsense"), ("filter_by_prefix", "l")],
            json!({ "lobby": {} }),
        ),
    ] {
        assert_eq!(
            parsed(&http.get("channels", query)),
            json!({ "channels": expected }),
            "{query:?}"
        );
    }
}

#[test]
fn a_channel_its_users_its_stats_and_the_connections_are_returned() {
    let server = TestServer::start();
    let _clients = populated(&server);
    let _idle = Client::connect(&server);
    let mut http = Http::connect(&server);
    let all = &[("info", "user_count,subscription_count,cache")][..];
    for (path, query, status, expected) in [
        ("channels/lobby", &[][..], 200, json!({ "occupied": true })),
        (
            "channels/lobby",
            all,
            200,
            json!({ "occupied": true, "subscription_count": 2 }),
        ),
        (
            "channels/presence-h",
            all,
            200,
            json!({ "occupied": true, "user_count": 2 }),
        ),
        ("channels/nobody", all, 200, json!({ "occupied": false })),
        (
            "channels/cache-nobody",
            all,
            200,
            json!({ "occupied": false, "cache": null }),
        ),
        (
            "channels/presence-h/users",
            &[],
            200,
            json!({ "users": [{ "id": "1" }, { "id": "2" }] }),
        ),
        ("channels/lobby/users", &[], 400, json!({})),
        ("channels/nobody/users", &[], 400, json!({})),
        (
            "channels/presence-nobody/users",
            &[],
            200,
            json!({ "users": [] }),
        ),
        (
            "channels/lobby/stats",
            &[],
            200,
            json!({ "occupied": true, "connection_count": 2 }),
        ),
        (
            "channels/presence-h/stats",
            &[],
            200,
            json!({ "occupied": true, "connection_count": 3, "user_count": 2 }),
        ),
        ("connections", &[], 200, json!({ "connections": 4 })),
    ] {
        let answer = http.get(path, query);
        assert_eq!(
            (answer.status, parsed(&answer)),
            (status, expected),
            "{path} {query:?}"
        );
    }
}

#[test]
fn a_publish_is_answered_with_what_it_asks_of_its_channels() {
    let server = TestServer::start();
    let _clients = populated(&server);
    let mut http = Http::connect(&server);
    let event = json!({ "name": "ev", "data": "x", "channels": ["lobby", "presence-h", "nobody"], "info": "user_count,subscription_count" });
    let channels = json!({ "lobby": { "subscription_count": 2 }, "presence-h": { "user_count": 2 }, "nobody": {} });
    assert_eq!(
        parsed(&http.post("events", &event.to_string())),
        json!({ "channels": channels })
    );
    let batch = json!({ "batch": [
        { "name": "ev", "data": "x", "channel": "nobody" },
        { "name": "ev", "data": "x", "channel": "lobby", "info": "subscription_count" },
    ] });
    assert_eq!(
        parsed(&http.post("batch_events", &batch.to_string())),
        json!({ "batch": [{}, { "subscription_count": 2 }] })
    );
}

/// Pusher's SDK for Go fails on anything but `{}`, although the events went out.
#[test]
fn a_batch_that_asks_for_nothing_is_answered_with_an_empty_object() {
    let server = TestServer::start();
    let mut http = Http::connect(&server);
    for batch in [
        r#"{"batch":[{"name":"ev","data":"x","channel":"a"}]}"#,
        r#"{"batch":[]}"#,
    ] {
        let answer = http.post("batch_events", batch);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "{}"),
            "{batch}"
        );
    }
}

#[test]
fn parameters_may_be_in_the_query_and_the_deprecated_call_works() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("a");
    client.subscribe("b");
    let mut http = Http::connect(&server);
    let mut signed = Signed::post("events", "")
        .without("body_md5")
        .set("name", "ev")
        .set("data", "x");
    signed.query.push(("channels[]".to_owned(), "a".to_owned()));
    signed.query.push(("channels[]".to_owned(), "b".to_owned()));
    assert_eq!(http.request("POST", &signed.target(), "").body, "{}");
    client.expect(r#"{"event":"ev","data":"x","channel":"a"}"#);
    client.expect(r#"{"event":"ev","data":"x","channel":"b"}"#);
    // As PHP's http_build_query writes a list.
    let signed = Signed::post("events", "")
        .without("body_md5")
        .set("name", "ev")
        .set("data", "y")
        .set("channels[0]", "a");
    assert_eq!(http.request("POST", &signed.target(), "").body, "{}");
    client.expect(r#"{"event":"ev","data":"y","channel":"a"}"#);
    let signed = Signed::post("channels/a/events", "raw \"data\"").set("name", "old");
    let answer = http.request("POST", &signed.target(), "raw \"data\"");
    assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    client.expect(r#"{"event":"old","data":"raw \"data\"","channel":"a"}"#);
    let nameless = Signed::post("channels/a/events", "x");
    assert_eq!(http.request("POST", &nameless.target(), "x").status, 422);
}

/// The PyPI SDK signs the digest of an empty body.
#[test]
fn the_digest_of_an_empty_body_is_accepted_on_get() {
    let server = TestServer::start();
    let mut signed = Signed::post("channels", "");
    signed.method = "GET";
    assert_eq!(
        Http::connect(&server)
            .request("GET", &signed.target(), "")
            .status,
        200
    );
    let answer = Http::connect(&server).request("GET", "/apps/my-app-id/channels", "");
    assert_eq!(answer.status, 401, "a query has to be signed, too");
}

#[test]
fn limits_of_events_are_settable() {
    let server = TestServer::with(&[
        ("RESOUND_MAX_EVENT_NAME_LENGTH", "5"),
        ("RESOUND_MAX_CHANNEL_NAME_LENGTH", "6"),
        ("RESOUND_MAX_CHANNELS_PER_EVENT", "2"),
        ("RESOUND_MAX_EVENTS_PER_BATCH", "1"),
        ("RESOUND_MAX_SUBSCRIPTIONS", "2"),
    ]);
    let mut http = Http::connect(&server);
    for (channels, name, status) in [
        (&["a", "b"][..], "12345", 200),
        (&["a"], "123456", 422),
        (&["1234567"], "ev", 422),
        (&["a", "b", "c"], "ev", 422),
    ] {
        assert_eq!(
            http.post("events", &body(channels, name, "x")).status,
            status,
            "{channels:?} {name}"
        );
    }
    let item = r#"{"name":"ev","data":"x","channel":"a"}"#;
    assert_eq!(
        http.post("batch_events", &format!(r#"{{"batch":[{item}]}}"#))
            .status,
        200
    );
    assert_eq!(
        http.post("batch_events", &format!(r#"{{"batch":[{item},{item}]}}"#))
            .status,
        422
    );
    let mut client = Client::connect(&server);
    client.subscribe("a");
    client.subscribe("b");
    client.subscribe("b");
    client.ask("c");
    assert_eq!(client.next_json()["event"], "pusher:subscription_error");
    client.expect_error(
        4100,
        "The connection has all the 2 subscriptions it may have (max_subscriptions, RESOUND_MAX_SUBSCRIPTIONS)",
    );
}
