//! What the server sends, as encoded frames.
//!
//! `data` of the server's own events is a *string* that holds JSON, as Pusher
//! documents and Reverb does (for `pusher:error` too). Keys stand in Reverb's
//! order: event, data, channel.

use serde::Serialize;

use super::channel::ChannelName;
use super::close::ErrorCode;
use super::frame::{Frame, TextFrame};
use super::socket_id::SocketId;

/// Serialises as a JSON string that holds the JSON of its content.
fn nested<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("the values are plain data")
}

/// The first frame on every accepted connection. `activity_timeout` is in
/// seconds and never 0, which pusher-js refuses.
pub fn connection_established(socket_id: SocketId, activity_timeout: u32) -> Frame {
    #[derive(Serialize)]
    struct Data {
        socket_id: String,
        activity_timeout: u32,
    }
    let data = nested(&Data {
        socket_id: socket_id.to_string(),
        activity_timeout,
    });
    TextFrame::with_capacity(128)
        .raw(r#"{"event":"pusher:connection_established","data":"#)
        .json(&data)
        .raw("}")
        .finish()
}

/// `pusher:error`.
pub fn error(code: ErrorCode, message: &str) -> Frame {
    #[derive(Serialize)]
    struct Data<'a> {
        code: u16,
        message: &'a str,
    }
    let data = nested(&Data {
        code: code.number(),
        message,
    });
    TextFrame::with_capacity(128)
        .raw(r#"{"event":"pusher:error","data":"#)
        .json(&data)
        .raw("}")
        .finish()
}

/// `pusher:ping`, which the client answers with `pusher:pong`.
pub fn ping() -> Frame {
    TextFrame::with_capacity(32)
        .raw(r#"{"event":"pusher:ping"}"#)
        .finish()
}

/// The answer to a client's `pusher:ping`.
pub fn pong() -> Frame {
    TextFrame::with_capacity(32)
        .raw(r#"{"event":"pusher:pong"}"#)
        .finish()
}

/// The answer to a subscription to a channel without members.
pub fn subscription_succeeded(channel: &ChannelName) -> Frame {
    TextFrame::with_capacity(256)
        .raw(r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":""#)
        .raw(channel.as_str())
        .raw(r#""}"#)
        .finish()
}

/// Tells the application *which* subscription was refused, so that Echo's
/// `.error()` and pusher-js's channel binding are called. Reverb does not send it.
///
/// The shape is that of the event that pusher-js itself raises when its
/// authorisation endpoint fails: `type`, `error`, `status`.
pub fn subscription_error(channel: &str, message: &str) -> Frame {
    #[derive(Serialize)]
    struct Data<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        error: &'a str,
        status: u16,
    }
    let data = nested(&Data {
        kind: "AuthError",
        error: message,
        status: 401,
    });
    TextFrame::with_capacity(256)
        .raw(r#"{"event":"pusher:subscription_error","data":"#)
        .json(&data)
        .raw(r#","channel":"#)
        .json(channel)
        .raw("}")
        .finish()
}

/// A channel's event. `name` and `data` are JSON texts and stay as they came,
/// escapes included.
pub fn event(name: &str, data: &str, channel: &ChannelName) -> Frame {
    TextFrame::with_capacity(name.len() + data.len() + channel.as_str().len() + 40)
        .raw(r#"{"event":"#)
        .raw(name)
        .raw(r#","data":"#)
        .raw(data)
        .raw(r#","channel":""#)
        .raw(channel.as_str())
        .raw(r#""}"#)
        .finish()
}

/// A client's event for the other subscribers. `data` is JSON and stays as it
/// came: an object, not a string, as Pusher and Reverb relay it.
pub fn client_event(name: &str, data: Option<&str>, channel: &ChannelName) -> Frame {
    let frame = TextFrame::with_capacity(
        name.len() + data.map_or(0, str::len) + channel.as_str().len() + 40,
    )
    .raw(r#"{"event":"#)
    .json(name)
    .raw(r#","channel":""#)
    .raw(channel.as_str())
    .raw("\"");
    let frame = match data {
        Some(data) => frame.raw(r#","data":"#).raw(data),
        None => frame,
    };
    frame.raw("}").finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: &Frame) -> String {
        let start = match frame.as_bytes()[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        String::from_utf8(frame.as_bytes()[start..].to_vec()).unwrap()
    }

    #[test]
    fn frames_are_byte_for_byte_reverbs() {
        let id = SocketId::parse("123.456").unwrap();
        let channel = ChannelName::parse("private-chat.1").unwrap();
        for (frame, expected) in [
            (
                connection_established(id, 30),
                r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"123.456\",\"activity_timeout\":30}"}"#,
            ),
            (
                error(ErrorCode::Unauthorized, "Connection is unauthorized"),
                r#"{"event":"pusher:error","data":"{\"code\":4009,\"message\":\"Connection is unauthorized\"}"}"#,
            ),
            (pong(), r#"{"event":"pusher:pong"}"#),
            (
                subscription_succeeded(&channel),
                r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"private-chat.1"}"#,
            ),
            (
                event(r#""message.sent""#, r#""{\"a\":\"\\u00e9\"}""#, &channel),
                r#"{"event":"message.sent","data":"{\"a\":\"\\u00e9\"}","channel":"private-chat.1"}"#,
            ),
            (
                client_event("client-typing", Some(r#"{"a": 1}"#), &channel),
                r#"{"event":"client-typing","channel":"private-chat.1","data":{"a": 1}}"#,
            ),
            (
                client_event("client-\"", None, &channel),
                r#"{"event":"client-\"","channel":"private-chat.1"}"#,
            ),
        ] {
            assert_eq!(text(&frame), expected);
        }
    }

    #[test]
    fn a_refused_channel_name_is_escaped() {
        let frame = subscription_error("a\"b", "no");
        let value: serde_json::Value = serde_json::from_str(&text(&frame)).unwrap();
        assert_eq!(value["channel"], "a\"b");
        assert_eq!(value["event"], "pusher:subscription_error");
    }
}
