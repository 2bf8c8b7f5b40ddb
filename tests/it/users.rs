//! Signed-in users.

use crate::support::{Client, Http, KEY, SECRET, TestServer, hmac};
use serde_json::{Value, json};

fn ask_signin(client: &mut Client, user_data: &str) {
    let auth = format!(
        "{KEY}:{}",
        hmac(SECRET, &format!("{}::user::{user_data}", client.id))
    );
    let data = json!({ "auth": auth, "user_data": user_data });
    client.send(&json!({ "event": "pusher:signin", "data": data }).to_string());
}

fn sign_in(client: &mut Client, user_data: &str) {
    ask_signin(client, user_data);
    let data = json!({ "user_data": user_data });
    client.expect(&format!(
        r#"{{"event":"pusher:signin_success","data":{data}}}"#
    ));
}

pub(crate) fn signed_in(server: &TestServer, user_data: &str) -> Client {
    let mut client = Client::connect(server);
    sign_in(&mut client, user_data);
    client
}

fn watchlist(online: &[&str], offline: &[&str]) -> String {
    let events: Vec<Value> = [("online", online), ("offline", offline)]
        .iter()
        .filter(|(_, ids)| !ids.is_empty())
        .map(|(name, ids)| json!({ "name": name, "user_ids": ids }))
        .collect();
    let data = json!({ "events": events }).to_string();
    format!(
        r#"{{"event":"pusher_internal:watchlist_events","data":{}}}"#,
        json!(data)
    )
}

const ANA: &str = r#"{"id":"ana","user_info":{"name":"Ana"}}"#;

#[test]
fn a_signature_signs_in_once_and_as_one_user() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    let signin = |auth: &str| {
        json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": ANA } }).to_string()
    };
    for (auth, text) in [
        ("x", "auth is not of the form key:signature"),
        (
            "other:x",
            "auth was made with the key of another application",
        ),
        (
            &format!("{KEY}:{}", "0".repeat(64)),
            "The signature in auth is not valid for this socket, user data and secret",
        ),
    ] {
        client.send(&signin(auth));
        client.expect_error(4009, text);
    }
    ask_signin(&mut client, r#"{"id":null}"#);
    client.expect_error(
        4200,
        "user_data is not a JSON object with an id, a text or a number",
    );
    sign_in(&mut client, ANA);
    sign_in(&mut client, ANA);
    ask_signin(&mut client, r#"{"id":"ben"}"#);
    client.expect_error(4009, "The connection is signed in as another user");
    drop(client);
    server.expect_empty();
}

/// `$user->id` is a number in PHP. Clients only take a text from `signin_success`.
#[test]
fn a_user_whose_id_is_a_number_signs_in_as_the_same_text() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    let success = |id: &str| {
        let data = json!({ "user_data": id });
        format!(r#"{{"event":"pusher:signin_success","data":{data}}}"#)
    };
    for user_data in [
        r#"{"id":7,"watchlist":[8]}"#,
        r#"{"id":"7","watchlist":[8]}"#,
    ] {
        ask_signin(&mut client, user_data);
        client.expect(&success(r#"{"id":"7","watchlist":[8]}"#));
        if user_data.contains("\"id\":7") {
            client.expect(&watchlist(&[], &["8"]));
        }
    }
    let eight = signed_in(&server, r#"{"id":"8"}"#);
    client.expect(&watchlist(&["8"], &[]));
    client.subscribe("#server-to-user-7");
    // Where it joins without `channel_data`, it is that user.
    let auth = client.auth("presence-a");
    let data = json!({ "channel": "presence-a", "auth": auth });
    client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
    let joined = client.next_text();
    assert!(joined.contains(r#"\"ids\":[\"7\"]"#), "{joined}");
    drop(eight);
}

/// With Reverb anybody may listen to it.
#[test]
fn only_a_user_listens_to_its_own_channel() {
    let server = TestServer::start();
    let mut ana = signed_in(&server, ANA);
    let mut second = signed_in(&server, ANA);
    let mut ben = signed_in(&server, r#"{"id":"ben"}"#);
    let mut nobody = Client::connect(&server);
    for client in [&mut ana, &mut second] {
        client.subscribe("#server-to-user-ana");
    }
    for client in [&mut ben, &mut nobody] {
        client.ask("#server-to-user-ana");
        assert_eq!(client.next_json()["event"], "pusher:subscription_error");
        client.expect_error(4009, "Connection is unauthorized");
        client.send(r##"{"event":"client-a","channel":"#server-to-user-ana","data":{}}"##);
        assert_eq!(client.next_json()["event"], "pusher:error");
    }
    Http::connect(&server).publish(&["#server-to-user-ana"], "ev", "x");
    for client in [&mut ana, &mut second] {
        client.expect(r##"{"event":"ev","data":"x","channel":"#server-to-user-ana"}"##);
    }
    ben.expect_silence();
}

/// Neither a stranger in the mode that lets everybody send everywhere, nor the user.
#[test]
fn nobody_but_the_application_sends_to_a_users_channel() {
    for mode in ["members", "all"] {
        let server = TestServer::with(&[("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", mode)]);
        let (mut ana, mut second) = (signed_in(&server, ANA), signed_in(&server, ANA));
        ana.subscribe("#server-to-user-ana");
        second.subscribe("#server-to-user-ana");
        for client in [&mut Client::connect(&server), &mut second] {
            client.send(r##"{"event":"client-a","channel":"#server-to-user-ana","data":{}}"##);
            assert_eq!(client.next_json()["event"], "pusher:error", "{mode}");
        }
        ana.expect_silence();
    }
}

#[test]
fn an_id_that_cannot_be_sent_to_is_refused_at_the_sign_in() {
    let server = TestServer::with(&[("RESOUND_MAX_CHANNEL_NAME_LENGTH", "20")]);
    let mut client = Client::connect(&server);
    ask_signin(&mut client, r#"{"id":"a b"}"#);
    client.expect_error(
        4200,
        "The user id has characters other than letters, digits and _ - = @ , . ;",
    );
    sign_in(&mut client, r#"{"id":"0f0e0d0c-0b0a-4908"}"#);
    client.subscribe("#server-to-user-0f0e0d0c-0b0a-4908");
}

#[test]
fn the_authorisation_timeout_holds_also_when_a_ping_comes_first() {
    let server = TestServer::with(&[
        ("RESOUND_AUTHORIZATION_TIMEOUT", "2"),
        ("REVERB_APP_PING_INTERVAL", "1"),
        ("RESOUND_PONG_TIMEOUT", "60"),
    ]);
    let mut client = Client::connect(&server);
    client.expect(r#"{"event":"pusher:ping"}"#);
    client.next();
    client.send(r#"{"event":"pusher:pong"}"#);
    loop {
        match client.next_text() {
            text if text.contains("pusher:ping") => {
                client.next();
                client.send(r#"{"event":"pusher:pong"}"#);
            }
            text => break assert!(text.contains("4009"), "{text}"),
        }
    }
}

#[test]
fn a_signed_in_user_joins_presence_channels_without_channel_data() {
    let server = TestServer::start();
    let mut ana = signed_in(&server, ANA);
    let auth = ana.auth("presence-r");
    ana.send(
        &json!({ "event": "pusher:subscribe", "data": { "channel": "presence-r", "auth": auth } })
            .to_string(),
    );
    let answer = ana.next_json();
    let data: Value = serde_json::from_str(answer["data"].as_str().unwrap()).unwrap();
    assert_eq!(
        data["presence"]["hash"],
        json!({ "ana": { "name": "Ana" } })
    );
}

#[test]
fn terminating_a_user_closes_what_it_signed_in_and_where_it_is_present() {
    let server = TestServer::start();
    let mut signed = signed_in(&server, ANA);
    let mut present = Client::connect(&server);
    let data = r#"{"user_id":"ana"}"#;
    let auth = format!(
        "{KEY}:{}",
        hmac(SECRET, &format!("{}:presence-r:{data}", present.id))
    );
    present.subscribe("lobby");
    let subscribe = json!({ "channel": "presence-r", "auth": auth, "channel_data": data });
    present.send(&json!({ "event": "pusher:subscribe", "data": subscribe }).to_string());
    present.next();
    let mut other = signed_in(&server, r#"{"id":"ben"}"#);
    let mut http = Http::connect(&server);
    assert_eq!(
        http.post("users/ana/terminate_connections", "{}").body,
        "{}"
    );
    for client in [&mut signed, &mut present] {
        client.expect_error(4009, "Connection terminated by the application");
        client.closed_with(4009, "Connection terminated by the application");
    }
    assert_eq!(
        http.post("users/nobody/terminate_connections", "").status,
        200
    );
    other.expect_silence();
}

#[test]
fn a_watcher_is_sent_who_is_online_and_who_comes_and_goes() {
    let server = TestServer::start();
    let ben = signed_in(&server, r#"{"id":"ben"}"#);
    let mut ana = signed_in(&server, r#"{"id":"ana","watchlist":["ben","eve"]}"#);
    ana.expect(&watchlist(&["ben"], &["eve"]));
    let eve = signed_in(&server, r#"{"id":"eve"}"#);
    ana.expect(&watchlist(&["eve"], &[]));
    let second = signed_in(&server, r#"{"id":"eve"}"#);
    drop(eve);
    ana.expect_silence();
    drop(second);
    ana.expect(&watchlist(&[], &["eve"]));
    drop(ben);
    ana.expect(&watchlist(&[], &["ben"]));
    drop(ana);
    server.expect_empty();
}

#[test]
fn a_watchlist_over_the_limit_is_cut_with_an_error() {
    let server = TestServer::start();
    let ids: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    let mut client = signed_in(
        &server,
        &json!({ "id": "ana", "watchlist": ids }).to_string(),
    );
    client.expect_error(
        4302,
        "The watchlist has more than 100 users; the first 100 are kept",
    );
    assert_eq!(
        client.next_json()["event"],
        "pusher_internal:watchlist_events"
    );
}

#[test]
fn who_never_authorises_is_closed_if_the_application_wants_it() {
    let server = TestServer::with(&[("RESOUND_AUTHORIZATION_TIMEOUT", "1")]);
    let mut silent = Client::connect(&server);
    let mut public = Client::connect(&server);
    let mut signed = signed_in(&server, ANA);
    let mut member = Client::connect(&server);
    public.subscribe("lobby");
    member.subscribe("private-a");
    for client in [&mut silent, &mut public] {
        client.expect_error(4009, "Connection not authorized in time");
        client.closed_with(4009, "Connection not authorized in time");
    }
    for client in [&mut signed, &mut member] {
        client.expect_alive();
    }
}
