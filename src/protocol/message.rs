//! What the server sends, as encoded frames.
//!
//! `data` of the server's own events is a *string* that holds JSON, as Pusher
//! documents and Reverb does; of `pusher:error` and `pusher:signin_success` it is an
//! object, as Pusher documents. Keys stand in Reverb's order: event, data, channel.

use serde::Serialize;

use super::channel::ChannelName;
use super::close::ErrorCode;
use super::frame::{Frame, TextFrame};
use super::member::Member;
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

/// `pusher:error`. Its `data` is an object, as Pusher documents it: Pusher's clients
/// for Swift and .NET drop the string that Reverb sends, and Pysher does not find its
/// code; pusher-js and the clients for Java and Dart read both.
pub fn error(code: ErrorCode, message: &str) -> Frame {
    #[derive(Serialize)]
    struct Data<'a> {
        code: u16,
        message: &'a str,
    }
    let data = Data {
        code: code.number(),
        message,
    };
    TextFrame::with_capacity(128)
        .raw(r#"{"event":"pusher:error","data":"#)
        .json(&data)
        .raw("}")
        .finish()
}

/// The JSON text of a frame that holds one message; what [`Frame`] was encoded of.
pub fn text(frame: &Frame) -> &str {
    let bytes = frame.as_bytes();
    let header = match bytes[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    std::str::from_utf8(&bytes[header..]).expect("frames are encoded from texts")
}

/// A frame of a message that another node encoded.
pub fn relayed(text: &str) -> Frame {
    TextFrame::with_capacity(text.len()).raw(text).finish()
}

/// `pusher:ping`, which the client answers with `pusher:pong`. Neither has `data`, as
/// with Reverb: no client reads any of an event of the connection (in the sources of
/// Pusher's for Java, Swift and .NET, and of Pysher).
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
pub fn subscription_error(channel: &str, code: ErrorCode, message: &str) -> Frame {
    #[derive(Serialize)]
    struct Data<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        error: &'a str,
        status: u16,
    }
    let (kind, status) = match code {
        ErrorCode::Unauthorized => ("AuthError", 401),
        ErrorCode::OverCapacity => ("LimitReached", 403),
        _ => ("InvalidSubscription", 400),
    };
    let data = nested(&Data {
        kind,
        error: message,
        status,
    });
    TextFrame::with_capacity(256)
        .raw(r#"{"event":"pusher:subscription_error","data":"#)
        .json(&data)
        .raw(r#","channel":"#)
        .json(channel)
        .raw("}")
        .finish()
}

/// Tells a client that the application has ended its subscription. The shape is that of
/// [`subscription_error`].
pub fn unsubscribed(channel: &ChannelName) -> Frame {
    const DATA: &str = r#"{"type":"Unsubscribed","error":"The application has ended this subscription","status":403}"#;
    TextFrame::with_capacity(256)
        .raw(r#"{"event":"pusher:subscription_error","data":"#)
        .json(DATA)
        .raw(r#","channel":"#)
        .json(channel.as_str())
        .raw("}")
        .finish()
}

/// What a presence channel tells of one member, ready to be put into frames:
/// joins of big channels copy it and encode nothing.
#[derive(Clone, Debug)]
pub struct EncodedMember {
    /// The id as JSON, escaped for a JSON string.
    id: Box<str>,
    /// `"id":info`, escaped likewise.
    entry: Box<str>,
}

impl EncodedMember {
    /// Encodes a member.
    pub fn new(member: &Member) -> Self {
        let escaped = |json: &str| {
            let quoted = nested(&json);
            Box::from(&quoted[1..quoted.len() - 1])
        };
        let entry = format!("{}:{}", nested(&&*member.id), member.info_json);
        Self {
            id: escaped(&member.id_json),
            entry: escaped(&entry),
        }
    }

    /// The `info_json` of the member that was encoded, whose id as text this is.
    pub fn info_json(&self, id: &str) -> Box<str> {
        let entry: String = serde_json::from_str(&format!("\"{}\"", self.entry))
            .expect("it is what stands in a JSON string");
        let before = nested(&id).len() + 1;
        entry.get(before..).unwrap_or("{}").into()
    }
}

/// The answer to a subscription to a presence channel: everybody who is there,
/// each user once. `hash` is an object also when it is empty.
pub fn presence_succeeded<'a>(
    channel: &ChannelName,
    members: impl ExactSizeIterator<Item = &'a EncodedMember> + Clone,
) -> Frame {
    let room: usize = members
        .clone()
        .map(|member| member.id.len() + member.entry.len() + 2)
        .sum();
    let mut frame = TextFrame::with_capacity(room + channel.as_str().len() + 160)
        .raw(r#"{"event":"pusher_internal:subscription_succeeded","data":"{\"presence\":{\"count\":"#)
        .json(&members.len())
        .raw(r#",\"ids\":["#);
    for (index, member) in members.clone().enumerate() {
        frame = frame.raw(if index == 0 { "" } else { "," }).raw(&member.id);
    }
    frame = frame.raw(r#"],\"hash\":{"#);
    for (index, member) in members.enumerate() {
        frame = frame
            .raw(if index == 0 { "" } else { "," })
            .raw(&member.entry);
    }
    frame
        .raw(r#"}}}","channel":""#)
        .raw(channel.as_str())
        .raw(r#""}"#)
        .finish()
}

/// Tells the others that a user's first connection joined.
pub fn member_added(channel: &ChannelName, member: &Member) -> Frame {
    let data = format!(
        r#"{{"user_id":{},"user_info":{}}}"#,
        member.id_json, member.info_json
    );
    internal("member_added", &data, channel)
}

/// Tells the others that a user's last connection left.
pub fn member_removed(channel: &ChannelName, id_json: &str) -> Frame {
    internal(
        "member_removed",
        &format!(r#"{{"user_id":{id_json}}}"#),
        channel,
    )
}

/// How many subscriptions a channel has (an event that an application opts into).
pub fn subscription_count(channel: &ChannelName, count: usize) -> Frame {
    internal(
        "subscription_count",
        &format!(r#"{{"subscription_count":{count}}}"#),
        channel,
    )
}

fn internal(event: &str, data: &str, channel: &ChannelName) -> Frame {
    TextFrame::with_capacity(data.len() + channel.as_str().len() + 96)
        .raw(r#"{"event":"pusher_internal:"#)
        .raw(event)
        .raw(r#"","data":"#)
        .json(data)
        .raw(r#","channel":""#)
        .raw(channel.as_str())
        .raw(r#""}"#)
        .finish()
}

/// Tells a new subscriber of a cache channel that there is no last event. Reverb
/// sends it without `data`, which Pusher's Java client fails to read.
pub fn cache_miss(channel: &ChannelName) -> Frame {
    TextFrame::with_capacity(96)
        .raw(r#"{"event":"pusher:cache_miss","data":"{}","channel":""#)
        .raw(channel.as_str())
        .raw(r#""}"#)
        .finish()
}

/// The answer to `pusher:signin`. `data` is an object here, as Pusher documents it.
pub fn signin_success(user_data: &str) -> Frame {
    TextFrame::with_capacity(user_data.len() + 80)
        .raw(r#"{"event":"pusher:signin_success","data":{"user_data":"#)
        .json(user_data)
        .raw("}}")
        .finish()
}

/// Which watched users are online and which offline; the shape is pusher-js's.
pub fn watchlist_events(online: &[&str], offline: &[&str]) -> Frame {
    #[derive(Serialize)]
    struct Event<'a> {
        name: &'a str,
        user_ids: &'a [&'a str],
    }
    #[derive(Serialize)]
    struct Data<'a> {
        events: Vec<Event<'a>>,
    }
    let events = [("online", online), ("offline", offline)]
        .into_iter()
        .filter(|(_, user_ids)| !user_ids.is_empty())
        .map(|(name, user_ids)| Event { name, user_ids })
        .collect();
    TextFrame::with_capacity(128)
        .raw(r#"{"event":"pusher_internal:watchlist_events","data":"#)
        .json(&nested(&Data { events }))
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
/// came: an object, not a string, as Pusher and Reverb relay it. Without any it is
/// null, as Reverb has it: Pusher's Java client fails to read an event without
/// `data`. `user_id` is that of a member of a presence channel, as JSON.
pub fn client_event(
    name: &str,
    data: Option<&str>,
    channel: &ChannelName,
    user_id: Option<&str>,
) -> Frame {
    let frame = TextFrame::with_capacity(
        name.len() + data.map_or(0, str::len) + channel.as_str().len() + 40,
    )
    .raw(r#"{"event":"#)
    .json(name)
    .raw(r#","channel":""#)
    .raw(channel.as_str())
    .raw(r#"","data":"#)
    .raw(data.unwrap_or("null"));
    let frame = match user_id {
        Some(user_id) => frame.raw(r#","user_id":"#).raw(user_id),
        None => frame,
    };
    frame.raw("}").finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_clients_of_pusher_and_reverb_read() {
        let id = SocketId::parse("123.456").unwrap();
        let channel = ChannelName::parse("private-chat.1", 164).unwrap();
        for (frame, expected) in [
            (
                connection_established(id, 30),
                r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"123.456\",\"activity_timeout\":30}"}"#,
            ),
            (
                error(ErrorCode::Unauthorized, "Connection is unauthorized"),
                r#"{"event":"pusher:error","data":{"code":4009,"message":"Connection is unauthorized"}}"#,
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
                client_event("client-typing", Some(r#"{"a": 1}"#), &channel, Some("7")),
                r#"{"event":"client-typing","channel":"private-chat.1","data":{"a": 1},"user_id":7}"#,
            ),
            (
                client_event("client-\"", None, &channel, None),
                r#"{"event":"client-\"","channel":"private-chat.1","data":null}"#,
            ),
            (
                cache_miss(&channel),
                r#"{"event":"pusher:cache_miss","data":"{}","channel":"private-chat.1"}"#,
            ),
        ] {
            assert_eq!(text(&frame), expected);
        }
    }

    #[test]
    fn presence_frames_hold_each_member_whatever_its_texts() {
        let channel = ChannelName::parse("presence-a", 164).unwrap();
        let odd = r#"{"user_id":"a\"b","user_info":{"name":"\\ \" é"}}"#;
        let members = [r#"{"user_id":1,"user_info":{"n":1}}"#, odd]
            .map(|data| Member::parse(data, 100).unwrap());
        let encoded: Vec<EncodedMember> = members.iter().map(EncodedMember::new).collect();
        for count in 0..=2 {
            let frame = presence_succeeded(&channel, encoded[..count].iter());
            let value: serde_json::Value = serde_json::from_str(text(&frame)).unwrap();
            let data: serde_json::Value =
                serde_json::from_str(value["data"].as_str().unwrap()).unwrap();
            let hash = [
                ("1", serde_json::json!({"n":1})),
                ("a\"b", serde_json::json!({"name":"\\ \" é"})),
            ];
            let ids = [serde_json::json!(1), serde_json::json!("a\"b")];
            assert_eq!(data["presence"]["count"], count);
            assert_eq!(data["presence"]["ids"], serde_json::json!(ids[..count]));
            let expected: serde_json::Map<_, _> = hash[..count]
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.clone()))
                .collect();
            assert_eq!(
                data["presence"]["hash"],
                serde_json::Value::Object(expected)
            );
        }
        assert_eq!(
            text(&member_added(&channel, &members[0])),
            r#"{"event":"pusher_internal:member_added","data":"{\"user_id\":1,\"user_info\":{\"n\":1}}","channel":"presence-a"}"#
        );
        assert_eq!(
            text(&member_removed(&channel, &members[0].id_json)),
            r#"{"event":"pusher_internal:member_removed","data":"{\"user_id\":1}","channel":"presence-a"}"#
        );
        assert_eq!(
            text(&watchlist_events(&["1"], &[])),
            r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"1\"]}]}"}"#
        );
    }

    #[test]
    fn a_refused_channel_name_is_escaped() {
        let frame = subscription_error("a\"b", ErrorCode::Unauthorized, "no");
        let value: serde_json::Value = serde_json::from_str(text(&frame)).unwrap();
        assert_eq!(value["channel"], "a\"b");
        assert_eq!(value["event"], "pusher:subscription_error");
    }
}
