//! Bodies of the publish calls, `events` and `batch_events`.
//!
//! A body becomes [`Publish`] values in which nothing has to be checked again.
//! What is wrong with it is told as Laravel tells it, in a bag of messages per
//! field, which Reverb's users know.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::channel::ChannelName;
use super::socket_id::SocketId;

/// Most channels that one event may name (Pusher's HTTP API, "POST event").
pub const MAX_CHANNELS: usize = 100;

/// One event for some channels.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The event's name: a JSON string as it came, quotes and escapes included.
    pub name: &'a str,
    /// The payload: a JSON string as it came.
    pub data: &'a str,
    /// 1 to [`MAX_CHANNELS`] channels.
    pub channels: Vec<ChannelName>,
    /// The connection that does not get the event: its sender's (`toOthers()`).
    pub except: Option<SocketId>,
}

/// Why a body is refused. Nothing of a refused body is published.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not JSON, or not an object.
    #[error("The request body is not a JSON object: {0}.")]
    Json(String),
    /// Fields that are missing or of the wrong type: messages by field.
    #[error("The request body has invalid fields.")]
    Fields(BTreeMap<&'static str, Vec<String>>),
    /// An event's `data` is over the limit.
    #[error(
        "Payload too large. The data of an event has {size} bytes, {limit} are allowed (max_event_size)."
    )]
    TooLarge {
        /// Bytes of the decoded string.
        size: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channels: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channel: Option<&'a RawValue>,
    #[serde(borrow, default)]
    socket_id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow, default)]
    batch: Option<&'a RawValue>,
}

type Fields = BTreeMap<&'static str, Vec<String>>;

impl<'a> Publish<'a> {
    /// Reads the body of `POST /apps/{id}/events`. `limit` is in bytes of `data`.
    pub fn parse(body: &'a [u8], limit: usize) -> Result<Self, PublishError> {
        let body: Body<'a> = object(body)?;
        body.check(limit, "")
    }

    /// Reads the body of `POST /apps/{id}/batch_events`.
    pub fn parse_batch(body: &'a [u8], limit: usize) -> Result<Vec<Self>, PublishError> {
        let batch: Batch<'a> = object(body)?;
        let Some(batch) = present(batch.batch) else {
            return Err(field("batch", "The batch field is required."));
        };
        let items: Vec<&'a RawValue> = serde_json::from_str(batch.get())
            .map_err(|_| field("batch", "The batch field must be an array."))?;
        items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let body: Body<'a> = serde_json::from_str(item.get()).map_err(|_| {
                    field(
                        "batch",
                        &format!("The batch.{index} field must be an object."),
                    )
                })?;
                body.check(limit, &format!("batch.{index}."))
            })
            .collect()
    }
}

impl<'a> Body<'a> {
    /// `prefix` stands before field names in messages: empty, or `batch.3.`.
    fn check(self, limit: usize, prefix: &str) -> Result<Publish<'a>, PublishError> {
        let mut fields = Fields::new();
        let name = required_string(self.name, "name", prefix, &mut fields);
        if name.is_some_and(is_reserved_event) {
            let text =
                format!("The {prefix}name field may not start with pusher: or pusher_internal:.");
            fields.entry("name").or_default().push(text);
        }
        let data = required_string(self.data, "data", prefix, &mut fields);
        let channels = channels(self.channels, self.channel, prefix, &mut fields);
        let except = except(self.socket_id, prefix, &mut fields);
        let (Some(name), Some(data), true) = (name, data, fields.is_empty()) else {
            return Err(PublishError::Fields(fields));
        };
        check_size(data, limit)?;
        Ok(Publish {
            name,
            data,
            channels,
            except,
        })
    }
}

fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, PublishError> {
    if body.is_empty() {
        return Err(PublishError::Json("it is empty".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| PublishError::Json(error.to_string()))
}

fn field(name: &'static str, message: &str) -> PublishError {
    PublishError::Fields(Fields::from([(name, vec![message.to_owned()])]))
}

/// `null` counts as absent, as it does for Laravel's `required`.
fn present(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| value.get() != "null")
}

/// The JSON text of a string that is not empty.
fn required_string<'a>(
    value: Option<&'a RawValue>,
    name: &'static str,
    prefix: &str,
    fields: &mut Fields,
) -> Option<&'a str> {
    let text = match present(value).map(RawValue::get) {
        None | Some("\"\"") => format!("The {prefix}{name} field is required."),
        Some(text) if !text.starts_with('"') => {
            format!("The {prefix}{name} field must be a string.")
        }
        Some(text) => return Some(text),
    };
    fields.entry(name).or_default().push(text);
    None
}

/// Names that only the service itself may send. `name` is a JSON text; a name
/// that hides the colon behind an escape is decoded first.
fn is_reserved_event(name: &str) -> bool {
    let decoded: Cow<'_, str> = if name.contains('\\') {
        serde_json::from_str::<String>(name)
            .unwrap_or_default()
            .into()
    } else {
        name.trim_matches('"').into()
    };
    decoded.starts_with("pusher:") || decoded.starts_with("pusher_internal:")
}

fn channels(
    list: Option<&RawValue>,
    single: Option<&RawValue>,
    prefix: &str,
    fields: &mut Fields,
) -> Vec<ChannelName> {
    let mut fail = |field: &'static str, text: String| {
        fields.entry(field).or_default().push(text);
        Vec::new()
    };
    let names: Vec<Cow<'_, str>> = match (present(list), present(single)) {
        (Some(list), _) => match serde_json::from_str::<Vec<Cow<'_, str>>>(list.get()) {
            Ok(names) if !names.is_empty() => names,
            Ok(_) => {
                return fail(
                    "channels",
                    format!("The {prefix}channels field is required."),
                );
            }
            Err(_) => {
                return fail(
                    "channels",
                    format!("The {prefix}channels field must be an array of strings."),
                );
            }
        },
        (None, Some(single)) => match serde_json::from_str(single.get()) {
            Ok(name) => vec![name],
            Err(_) => {
                return fail(
                    "channel",
                    format!("The {prefix}channel field must be a string."),
                );
            }
        },
        (None, None) => {
            fail(
                "channels",
                format!("The {prefix}channels field is required when channel is not present."),
            );
            return fail(
                "channel",
                format!("The {prefix}channel field is required when channels is not present."),
            );
        }
    };
    if names.len() > MAX_CHANNELS {
        let text = format!(
            "The {prefix}channels field has {} channels, {MAX_CHANNELS} are allowed.",
            names.len()
        );
        return fail("channels", text);
    }
    match names.iter().map(|name| ChannelName::parse(name)).collect() {
        Ok(names) => names,
        Err(error) => fail(
            if present(list).is_some() {
                "channels"
            } else {
                "channel"
            },
            format!("{error}."),
        ),
    }
}

fn except(value: Option<&RawValue>, prefix: &str, fields: &mut Fields) -> Option<SocketId> {
    let text: Cow<'_, str> = match serde_json::from_str(present(value)?.get()) {
        Ok(text) => text,
        Err(_) => {
            let text = format!("The {prefix}socket id field must be a string.");
            fields.entry("socket_id").or_default().push(text);
            return None;
        }
    };
    SocketId::parse(&text)
}

/// Counts the decoded string only if its JSON text, which is never shorter, is
/// over the limit.
fn check_size(data: &str, limit: usize) -> Result<(), PublishError> {
    if data.len() - 2 <= limit {
        return Ok(());
    }
    let size = serde_json::from_str::<String>(data).map_or(data.len() - 2, |decoded| decoded.len());
    if size > limit {
        Err(PublishError::TooLarge { size, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Publish<'_>, PublishError> {
        Publish::parse(body.as_bytes(), 100)
    }

    fn messages(body: &str) -> String {
        match parse(body) {
            Err(PublishError::Fields(fields)) => serde_json::to_string(&fields).unwrap(),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn an_event_keeps_its_json_as_it_came() {
        let publish = parse(r#"{"name":"message.sent","data":"{\"a\":\"\\u00e9\"}","channels":["a","private-b"],"socket_id":"1.2"}"#).unwrap();
        assert_eq!(publish.name, r#""message.sent""#);
        assert_eq!(publish.data, r#""{\"a\":\"\\u00e9\"}""#);
        assert_eq!(
            publish
                .channels
                .iter()
                .map(ChannelName::as_str)
                .collect::<Vec<_>>(),
            ["a", "private-b"]
        );
        assert_eq!(publish.except, SocketId::parse("1.2"));
    }

    #[test]
    fn a_single_channel_and_a_null_socket_id_are_fine() {
        let publish = parse(r#"{"name":"a","data":"b","channel":"c","socket_id":null}"#).unwrap();
        assert_eq!((publish.channels.len(), publish.except), (1, None));
    }

    #[test]
    fn invalid_fields_are_told_as_laravel_tells_them() {
        for (body, expected) in [
            (
                "{}",
                r#"{"channel":["The channel field is required when channels is not present."],"channels":["The channels field is required when channel is not present."],"data":["The data field is required."],"name":["The name field is required."]}"#,
            ),
            (
                r#"{"name":"","data":"x","channel":"a"}"#,
                r#"{"name":["The name field is required."]}"#,
            ),
            (
                r#"{"name":5,"data":"x","channel":"a"}"#,
                r#"{"name":["The name field must be a string."]}"#,
            ),
            (
                r#"{"name":"a","data":{"x":1},"channel":"a"}"#,
                r#"{"data":["The data field must be a string."]}"#,
            ),
            (
                r#"{"name":"a","data":null,"channel":"a"}"#,
                r#"{"data":["The data field is required."]}"#,
            ),
            (
                r#"{"name":"a","data":"x","channels":"a"}"#,
                r#"{"channels":["The channels field must be an array of strings."]}"#,
            ),
            (
                r#"{"name":"a","data":"x","channels":[null]}"#,
                r#"{"channels":["The channels field must be an array of strings."]}"#,
            ),
            (
                r#"{"name":"a","data":"x","channels":[]}"#,
                r#"{"channels":["The channels field is required."]}"#,
            ),
            (
                r#"{"name":"a","data":"x","channel":["a"]}"#,
                r#"{"channel":["The channel field must be a string."]}"#,
            ),
            (
                r#"{"name":"a","data":"x","channel":"a b"}"#,
                r#"{"channel":["The channel name has ' ', allowed are letters, digits and _ - = @ , . ;."]}"#,
            ),
            (
                r#"{"name":"a","data":"x","channel":"a","socket_id":1.2}"#,
                r#"{"socket_id":["The socket id field must be a string."]}"#,
            ),
        ] {
            assert_eq!(messages(body), expected, "{body}");
        }
        let many = format!(
            r#"{{"name":"a","data":"x","channels":[{}"a"]}}"#,
            r#""a","#.repeat(100)
        );
        assert_eq!(
            messages(&many),
            r#"{"channels":["The channels field has 101 channels, 100 are allowed."]}"#
        );
    }

    #[test]
    fn only_the_service_sends_its_own_events() {
        for name in ["pusher:x", "pusher_internal:x", r"\u0070usher:x"] {
            let body = format!(r#"{{"name":"{name}","data":"x","channel":"a"}}"#);
            assert!(
                messages(&body).contains("may not start with pusher:"),
                "{name}"
            );
        }
    }

    #[test]
    fn the_size_of_data_is_that_of_the_decoded_string() {
        let escaped = r"\u00e9".repeat(50);
        assert!(
            parse(&format!(
                r#"{{"name":"a","data":"{escaped}","channel":"a"}}"#
            ))
            .is_ok()
        );
        let long = "x".repeat(101);
        assert_eq!(
            parse(&format!(r#"{{"name":"a","data":"{long}","channel":"a"}}"#)),
            Err(PublishError::TooLarge {
                size: 101,
                limit: 100
            })
        );
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for body in ["", "{nope", "\"x\"", "3", "null", "{\"name\":\"\u{1}\"}"] {
            assert!(matches!(parse(body), Err(PublishError::Json(_))), "{body}");
        }
        assert!(matches!(
            Publish::parse(b"{\"name\":\"\xff\"}", 9),
            Err(PublishError::Json(_))
        ));
    }

    #[test]
    fn one_bad_item_refuses_the_whole_batch_and_is_named() {
        let good = r#"{"batch":[{"name":"a","data":"x","channel":"c"},{"name":"b","data":"y","channel":"d"}]}"#;
        let batch = Publish::parse_batch(good.as_bytes(), 100).unwrap();
        assert_eq!(
            batch.iter().map(|p| p.data).collect::<Vec<_>>(),
            ["\"x\"", "\"y\""]
        );
        assert_eq!(
            Publish::parse_batch(br#"{"batch":[]}"#, 100),
            Ok(Vec::new())
        );
        for (body, text) in [
            ("{}", "The batch field is required."),
            (r#"{"batch":"x"}"#, "The batch field must be an array."),
            (r#"{"batch":["x"]}"#, "The batch.0 field must be an object."),
            (
                r#"{"batch":[{"name":"a","data":"x","channel":"c"},{"name":"b","channel":"c"}]}"#,
                "The batch.1.data field is required.",
            ),
        ] {
            let Err(PublishError::Fields(fields)) = Publish::parse_batch(body.as_bytes(), 100)
            else {
                panic!("{body}")
            };
            assert_eq!(fields.values().next().unwrap(), &[text], "{body}");
        }
    }
}
