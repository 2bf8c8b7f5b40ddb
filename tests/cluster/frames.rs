//! Frames as the server writes them, and reading what has come.

use serde_json::{Value, json};

use crate::support::{Client, KEY, SECRET, hmac};
use crate::wait::{LONG, soon};

/// An event of the application.
pub(crate) fn event(name: &str, data: &str, channel: &str) -> String {
    format!(
        r#"{{"event":"{name}","data":{},"channel":"{channel}"}}"#,
        json!(data)
    )
}

pub(crate) fn cache_miss(channel: &str) -> String {
    format!(r#"{{"event":"pusher:cache_miss","data":"{{}}","channel":"{channel}"}}"#)
}

pub(crate) fn subscription_count(count: usize, channel: &str) -> String {
    let data = json!(format!(r#"{{"subscription_count":{count}}}"#));
    format!(
        r#"{{"event":"pusher_internal:subscription_count","data":{data},"channel":"{channel}"}}"#
    )
}

/// `data` is what the member joined with.
pub(crate) fn member_added(data: &str, channel: &str) -> String {
    let data = json!(data);
    format!(r#"{{"event":"pusher_internal:member_added","data":{data},"channel":"{channel}"}}"#)
}

pub(crate) fn member_removed(user: &str, channel: &str) -> String {
    let data = json!(json!({ "user_id": user }).to_string());
    format!(r#"{{"event":"pusher_internal:member_removed","data":{data},"channel":"{channel}"}}"#)
}

/// The `data` of the server's own events, which is a text that holds JSON.
pub(crate) fn data_of(frame: &Value) -> Value {
    let text = frame["data"]
        .as_str()
        .unwrap_or_else(|| panic!("no text in the data of {frame}"));
    serde_json::from_str(text).unwrap()
}

/// Sends a client event, whose data is JSON.
pub(crate) fn whisper(client: &mut Client, channel: &str, data: &str) {
    client.send(&format!(
        r#"{{"event":"client-typing","channel":"{channel}","data":{data}}}"#
    ));
}

pub(crate) fn whispered(channel: &str, data: &str) -> String {
    format!(r#"{{"event":"client-typing","channel":"{channel}","data":{data}}}"#)
}

/// Asks for a subscription to a presence channel.
pub(crate) fn ask_to_join(client: &mut Client, channel: &str, data: &str) {
    let text = format!("{}:{channel}:{data}", client.id);
    let auth = format!("{KEY}:{}", hmac(SECRET, &text));
    let data = json!({ "channel": channel, "auth": auth, "channel_data": data });
    client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
}

/// Everything that came before the answer to a ping.
pub(crate) fn arrived(client: &mut Client) -> Vec<Value> {
    client.send(r#"{"event":"pusher:ping","data":{}}"#);
    let mut frames = Vec::new();
    loop {
        let frame = client.next_json();
        if frame["event"] == "pusher:pong" {
            return frames;
        }
        frames.push(frame);
    }
}

/// Reads frames until one is exactly this text; returns those before it.
/// For what may take longer than a read waits.
pub(crate) fn until(client: &mut Client, text: &str) -> Vec<Value> {
    let expected: Value = serde_json::from_str(text).unwrap();
    let mut before = Vec::new();
    let came = soon(LONG, || {
        before.extend(arrived(client));
        before.last() == Some(&expected)
    });
    assert!(came, "expected {text} in the end, got {before:#?}");
    before.pop();
    before
}
