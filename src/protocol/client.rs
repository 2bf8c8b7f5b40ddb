//! What a client sends: one JSON object per text message.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A client's message, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    /// `pusher:subscribe`.
    Subscribe {
        /// The channel's name, not yet checked.
        channel: Cow<'a, str>,
        /// `KEY:SIGNATURE`, for channels that need it.
        auth: Option<Cow<'a, str>>,
        /// A presence member's data: the exact text that was signed.
        channel_data: Option<Cow<'a, str>>,
    },
    /// `pusher:unsubscribe`; has no answer.
    Unsubscribe {
        /// The channel's name, not yet checked.
        channel: Cow<'a, str>,
    },
    /// `pusher:signin`.
    Signin {
        /// `KEY:SIGNATURE`.
        auth: Cow<'a, str>,
        /// The user's data: the exact text that was signed.
        user_data: Cow<'a, str>,
    },
    /// `pusher:ping`.
    Ping,
    /// `pusher:pong`.
    Pong,
    /// `client-…`: for the other members of a channel.
    ClientEvent {
        /// The event's name, `client-` included.
        event: Cow<'a, str>,
        /// The channel's name, not yet checked.
        channel: Cow<'a, str>,
        /// The payload's JSON as it came.
        data: Option<&'a str>,
    },
    /// An event without a prefix that means anything to a server. Reverb
    /// ignores it without a word, and so do we.
    Ignored,
}

/// A message that is none of the above. Answered with `pusher:error` 4200; the
/// connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid message format")]
pub struct InvalidFrame;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// `null` is a value like any other; only what is not there is absent.
pub(super) fn present<'de, D: Deserializer<'de>>(
    json: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(json).map(Some)
}

#[derive(Deserialize)]
struct Subscription {
    channel: String,
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    channel_data: Option<String>,
}

#[derive(Deserialize)]
struct Signin {
    auth: String,
    user_data: String,
}

impl<'a> ClientFrame<'a> {
    /// Whether other clients may have to be sent it.
    pub fn concerns_others(&self) -> bool {
        match self {
            Self::Subscribe { .. }
            | Self::Unsubscribe { .. }
            | Self::Signin { .. }
            | Self::ClientEvent { .. } => true,
            Self::Ping | Self::Pong | Self::Ignored => false,
        }
    }

    /// What it is, in a word of the protocol.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Subscribe { .. } => "pusher:subscribe",
            Self::Unsubscribe { .. } => "pusher:unsubscribe",
            Self::Signin { .. } => "pusher:signin",
            Self::Ping => "pusher:ping",
            Self::Pong => "pusher:pong",
            Self::ClientEvent { .. } => "client event",
            Self::Ignored => "ignored",
        }
    }

    /// Reads one text message.
    pub fn parse(text: &'a str) -> Result<Self, InvalidFrame> {
        let Envelope {
            event,
            channel,
            data,
        } = object(text)?;
        match event.as_ref() {
            "pusher:subscribe" => {
                let Subscription {
                    channel,
                    auth,
                    channel_data,
                } = nested(data)?;
                Ok(Self::Subscribe {
                    channel: channel.into(),
                    auth: auth.map(Cow::from),
                    channel_data: channel_data.map(Cow::from),
                })
            }
            "pusher:unsubscribe" => {
                let Subscription { channel, .. } = nested(data)?;
                Ok(Self::Unsubscribe {
                    channel: channel.into(),
                })
            }
            "pusher:signin" => {
                let Signin { auth, user_data } = nested(data)?;
                Ok(Self::Signin {
                    auth: auth.into(),
                    user_data: user_data.into(),
                })
            }
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "" => Err(InvalidFrame),
            name if name.starts_with("pusher:") => Err(InvalidFrame),
            name if name.starts_with("client-") => {
                let channel = channel.ok_or(InvalidFrame)?;
                Ok(Self::ClientEvent {
                    event,
                    channel,
                    data: data.map(RawValue::get),
                })
            }
            _ => Ok(Self::Ignored),
        }
    }
}

/// `data` as an object, or as a string that holds one.
fn nested<T: DeserializeOwned>(data: Option<&RawValue>) -> Result<T, InvalidFrame> {
    let data = data.ok_or(InvalidFrame)?.get();
    if !data.starts_with('"') {
        return object(data);
    }
    let text: String = serde_json::from_str(data).map_err(|_| InvalidFrame)?;
    object(&text)
}

/// serde would take a list for the fields of an object in their order.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, InvalidFrame> {
    if text.trim_start().starts_with('[') {
        return Err(InvalidFrame);
    }
    serde_json::from_str(text).map_err(|_| InvalidFrame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_take_an_object_or_a_string_that_holds_one() {
        let expected = ClientFrame::Subscribe {
            channel: "private-a".into(),
            auth: Some("k:s".into()),
            channel_data: Some(r#"{"user_id":1}"#.into()),
        };
        for text in [
            r#"{"event":"pusher:subscribe","data":{"channel":"private-a","auth":"k:s","channel_data":"{\"user_id\":1}"}}"#,
            r#"{"data":{"auth":"k:s","channel":"private-a","x":[1],"channel_data":"{\"user_id\":1}"},"event":"pusher:subscribe"}"#,
            r#"{"event":"pusher:subscribe","data":"{\"channel\":\"private-a\",\"auth\":\"k:s\",\"channel_data\":\"{\\\"user_id\\\":1}\"}"}"#,
        ] {
            assert_eq!(
                ClientFrame::parse(text),
                Ok(expected_clone(&expected)),
                "{text}"
            );
        }
    }

    fn expected_clone<'a>(frame: &ClientFrame<'a>) -> ClientFrame<'a> {
        let ClientFrame::Subscribe {
            channel,
            auth,
            channel_data,
        } = frame
        else {
            unreachable!()
        };
        ClientFrame::Subscribe {
            channel: channel.clone(),
            auth: auth.clone(),
            channel_data: channel_data.clone(),
        }
    }

    #[test]
    fn pings_need_no_data_and_client_events_keep_theirs_as_it_came() {
        for (text, frame) in [
            (r#"{"event":"pusher:ping"}"#, ClientFrame::Ping),
            (r#"{"event":"pusher:ping","data":""}"#, ClientFrame::Ping),
            (r#"{"event":"pusher:pong","data":{}}"#, ClientFrame::Pong),
            (
                r#"{"event":"message.sent","channel":"a"}"#,
                ClientFrame::Ignored,
            ),
            (
                r#"{"event":"pusher:unsubscribe","data":{"channel":"a"}}"#,
                ClientFrame::Unsubscribe {
                    channel: "a".into(),
                },
            ),
            (
                r#"{"event":"client-typing","channel":"private-a","data": {"b": "\u00e9"} }"#,
                ClientFrame::ClientEvent {
                    event: "client-typing".into(),
                    channel: "private-a".into(),
                    data: Some(r#"{"b": "\u00e9"}"#),
                },
            ),
        ] {
            assert_eq!(ClientFrame::parse(text), Ok(frame), "{text}");
        }
    }

    #[test]
    fn anything_else_is_invalid_and_never_panics() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let nested = format!(r#"{{"event":"pusher:subscribe","data":{deep}}}"#);
        for text in [
            "",
            "null",
            "[]",
            "3",
            "{",
            "{}",
            r#"{"event":null}"#,
            r#"{"event":5}"#,
            r#"{"event":""}"#,
            r#"{"event":"pusher:"}"#,
            r#"{"event":"pusher:nothing"}"#,
            r#"{"event":"pusher:ping","event":"pusher:ping"}"#,
            r#"{"event":"pusher:connection_established"}"#,
            r#"{"event":"pusher:subscribe"}"#,
            r#"{"event":"pusher:subscribe","data":null}"#,
            r#"{"event":"pusher:subscribe","data":{}}"#,
            r#"{"event":"pusher:subscribe","data":"x"}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":12}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":5}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":"a","channel_data":{}}}"#,
            r#"{"event":"pusher:unsubscribe","data":{}}"#,
            r#"["pusher:ping"]"#,
            r#"{"event":"pusher:subscribe","data":["lobby"]}"#,
            r#"{"event":"pusher:subscribe","data":"[\"lobby\"]"}"#,
            r#"{"event":"pusher:signin"}"#,
            r#"{"event":"pusher:signin","data":{"auth":"k:s"}}"#,
            r#"{"event":"pusher:signin","data":{"auth":"k:s","user_data":{"id":"1"}}}"#,
            r#"{"event":"client-a"}"#,
            r#"{"event":"client-a","channel":["a"]}"#,
            &deep,
            &nested,
        ] {
            assert_eq!(
                ClientFrame::parse(text),
                Err(InvalidFrame),
                "{}",
                &text[..text.len().min(80)]
            );
        }
    }
}
