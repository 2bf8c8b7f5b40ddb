//! Subscriptions.

use crate::support::{Client, Http, KEY, SECRET, TestServer, hmac};
use serde_json::{Value, json};

/// Expects the two frames of a refused subscription.
fn expect_refusal(client: &mut Client, channel: &str, code: u16, text: &str) {
    let frame = client.next_json();
    assert_eq!(
        (&frame["event"], &frame["channel"]),
        (&json!("pusher:subscription_error"), &json!(channel))
    );
    let data: Value = serde_json::from_str(frame["data"].as_str().unwrap()).unwrap();
    assert_eq!(
        data,
        match code {
            4009 => json!({ "type": "AuthError", "error": text, "status": 401 }),
            _ => json!({ "type": "InvalidSubscription", "error": text, "status": 400 }),
        }
    );
    client.expect_error(
        code,
        if code == 4009 {
            "Connection is unauthorized"
        } else {
            text
        },
    );
}

#[test]
fn public_private_and_encrypted_channels_are_joined() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    for channel in [
        "lobby",
        "private-chat.1",
        "private-encrypted-x",
        "private-App.Models.User.1",
        "_-=@,.;",
    ] {
        client.subscribe(channel);
    }
    assert_eq!(server.occupied(), 5);
}

#[test]
fn data_may_be_a_string_that_holds_json() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.send(r#"{"event":"pusher:subscribe","data":"{\"channel\":\"lobby\"}"}"#);
    client.expect(
        r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"lobby"}"#,
    );
}

#[test]
fn a_wrong_auth_is_refused_with_its_reason_and_the_socket_stays_open() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    let other = Client::connect(&server);
    let channel = "private-chat.1";
    let good = client.auth(channel);
    let signature = good.split_once(':').unwrap().1;
    let invalid = "The signature in auth is not valid for this socket, channel and secret";
    for (auth, text) in [
        (None, "The subscription carries no auth"),
        (Some(String::new()), "auth is not of the form key:signature"),
        (
            Some(signature.to_owned()),
            "auth is not of the form key:signature",
        ),
        (
            Some(format!("other-key:{signature}")),
            "auth was made with the key of another application",
        ),
        (Some(format!("{KEY}:{}", "0".repeat(64))), invalid),
        (Some(format!("{KEY}:")), invalid),
        (Some(format!("{KEY}:{}", &signature[..63])), invalid),
        (Some(other.auth(channel)), invalid),
        (Some(client.auth("private-chat.2")), invalid),
        (
            Some(format!(
                "{KEY}:{}",
                hmac("other-secret", &format!("{}:{channel}", client.id))
            )),
            invalid,
        ),
    ] {
        let mut data = json!({ "channel": channel });
        if let Some(auth) = auth {
            data["auth"] = auth.into();
        }
        client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
        expect_refusal(&mut client, channel, 4009, text);
    }
    assert_eq!(
        server.occupied(),
        0,
        "a refused subscription leaves nothing behind"
    );
    client.subscribe(channel);
}

#[test]
fn channel_data_is_part_of_what_is_signed() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    let text = format!("{}:private-x:{{\"a\":1}}", client.id);
    let data = json!({ "channel": "private-x", "auth": format!("{KEY}:{}", hmac(SECRET, &text)), "channel_data": "{\"a\":1}" });
    client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
    client.expect(
        r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"private-x"}"#,
    );
}

#[test]
fn bad_names_and_the_servers_own_channels_are_refused() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    let long = "x".repeat(165);
    for (channel, code, text) in [
        ("", 4200, "The channel name is empty".to_owned()),
        (
            "with space",
            4200,
            "The channel name has ' ', allowed are letters, digits and _ - = @ , . ;".to_owned(),
        ),
        (
            &long,
            4200,
            "The channel name has 165 bytes, 164 are allowed (max_channel_name_length, RESOUND_MAX_CHANNEL_NAME_LENGTH)".to_owned(),
        ),
        (
            "#server-to-user-1",
            4009,
            "The channel belongs to another user".to_owned(),
        ),
    ] {
        client.ask(channel);
        expect_refusal(&mut client, channel, code, &text);
    }
    assert_eq!(server.occupied(), 0);
}

#[test]
fn a_second_subscription_is_answered_again_and_counts_once() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    client.subscribe("lobby");
    Http::connect(&server).publish(&["lobby"], "ev", "x");
    client.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
    client.expect_silence();
    client.unsubscribe("lobby");
    client.expect_alive();
    assert_eq!(server.occupied(), 0);
}

#[test]
fn who_unsubscribed_gets_nothing_more() {
    let server = TestServer::start();
    let (mut stays, mut goes) = (Client::connect(&server), Client::connect(&server));
    stays.subscribe("lobby");
    goes.subscribe("lobby");
    goes.unsubscribe("never-joined");
    goes.unsubscribe("lobby");
    goes.expect_alive();
    Http::connect(&server).publish(&["lobby"], "ev", "x");
    stays.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
    goes.expect_silence();
    goes.subscribe("lobby");
    Http::connect(&server).publish(&["lobby"], "ev", "y");
    goes.expect(r#"{"event":"ev","data":"y","channel":"lobby"}"#);
}

#[test]
fn a_connection_that_ends_leaves_every_channel_however_it_ends() {
    let server = TestServer::start();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        for channel in ["lobby", "a", "b", "private-c"] {
            client.subscribe(channel);
        }
    }
    let mut closes = clients.pop().unwrap();
    closes.socket.close(None).unwrap();
    while closes.socket.read().is_ok() {}
    let mut breaks = clients.pop().unwrap();
    breaks.socket.get_mut().write_all(&[0xff, 0xff]).unwrap();
    drop(breaks);
    drop(clients);
    server.expect_empty();
}
