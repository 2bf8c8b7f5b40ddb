//! Events that clients send each other.

use crate::support::{Client, TestServer};

fn whisper(client: &mut Client, channel: &str, data: &str) {
    client.send(&format!(
        r#"{{"event":"client-typing","channel":"{channel}","data":{data}}}"#
    ));
}

fn pair(server: &TestServer, channel: &str) -> (Client, Client) {
    let (mut one, mut two) = (Client::connect(server), Client::connect(server));
    one.subscribe(channel);
    two.subscribe(channel);
    (one, two)
}

#[test]
fn members_reach_the_others_and_not_themselves() {
    let server = TestServer::start();
    for channel in ["private-a", "public-a", "private-encrypted-a"] {
        let (mut sender, mut other) = pair(&server, channel);
        for data in [r#"{"name":"Ana \u00e9"}"#, r#""text""#, "[1]"] {
            whisper(&mut sender, channel, data);
            other.expect(&format!(
                r#"{{"event":"client-typing","channel":"{channel}","data":{data}}}"#
            ));
        }
        sender.send(&format!(
            r#"{{"event":"client-typing","channel":"{channel}","user_id":"forged","foo":1}}"#
        ));
        // Pusher's Java client fails on an event that has no `data` at all.
        other.expect(&format!(
            r#"{{"event":"client-typing","channel":"{channel}","data":null}}"#
        ));
        sender.expect_silence();
    }
}

/// The libraries of other clients fail on it. In texts it is the application's own affair.
#[test]
fn data_that_others_could_not_read_is_refused_with_the_limit() {
    let server = TestServer::start();
    let (mut sender, mut other) = pair(&server, "private-a");
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let number = |length: usize| format!(r#"{{"n":{}}}"#, "1".repeat(length));
    let text = format!(r#""{}""#, deep(600));
    for (data, refused) in [
        (deep(512), None),
        (deep(513), Some("is nested more than 512 deep")),
        (deep(4000), Some("is nested more than 512 deep")),
        (number(64), None),
        (number(65), Some("has a number of more than 64 characters")),
        (
            number(5000),
            Some("has a number of more than 64 characters"),
        ),
        (text, None),
    ] {
        whisper(&mut sender, "private-a", &data);
        if let Some(what) = refused {
            sender.expect_error(4301, &format!("The data of the client event {what}"));
        } else {
            other.expect(&format!(
                r#"{{"event":"client-typing","channel":"private-a","data":{data}}}"#
            ));
        }
    }
    other.expect_silence();
    sender.expect_alive();
}

#[test]
fn who_is_not_a_member_is_refused() {
    let server = TestServer::start();
    let (mut member, _other) = pair(&server, "private-a");
    let mut outsider = Client::connect(&server);
    whisper(&mut outsider, "private-a", "{}");
    outsider.expect_error(4009, "The client is not a member of the specified channel.");
    whisper(&mut outsider, "nobody", "{}");
    outsider.expect_error(4009, "The client is not a member of the specified channel.");
    whisper(&mut outsider, "bad name", "{}");
    let bad = "The channel name has ' ', allowed are letters, digits and _ - = @ , . ;";
    outsider.expect_error(4200, bad);
    member.expect_silence();
}

#[test]
fn each_mode_lets_through_what_it_says() {
    for (mode, private, public, outsider) in [
        ("none", false, false, false),
        ("private", true, false, false),
        ("members", true, true, false),
        ("all", true, true, true),
    ] {
        let server = TestServer::with(&[("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", mode)]);
        for (channel, allowed) in [("private-a", private), ("public-a", public)] {
            let (mut sender, mut other) = pair(&server, channel);
            whisper(&mut sender, channel, "{}");
            if allowed {
                other.expect(&format!(
                    r#"{{"event":"client-typing","channel":"{channel}","data":{{}}}}"#
                ));
            } else {
                assert_eq!(
                    sender.next_json()["event"],
                    "pusher:error",
                    "{mode} {channel}"
                );
            }
            whisper(&mut Client::connect(&server), channel, "{}");
            if outsider {
                other.expect(&format!(
                    r#"{{"event":"client-typing","channel":"{channel}","data":{{}}}}"#
                ));
            }
            other.expect_silence();
        }
    }
}
