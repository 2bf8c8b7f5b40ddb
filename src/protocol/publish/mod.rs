//! Bodies of the publish calls, `events` and `batch_events`.
//!
//! A body becomes [`Publish`] values in which nothing has to be checked again.
//! What is wrong with it is reported as Laravel does, in a bag of messages per
//! field, which Reverb's users know.

mod check;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::channel::ChannelName;
use super::socket_id::SocketId;
use check::Check;

/// Messages by field, as Laravel's validator has them: `name`, `batch.3.name`.
pub type Fields = BTreeMap<String, Vec<String>>;

/// What events are held to. The defaults are Pusher's, where a Laravel application
/// would not run into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimits {
    /// Bytes of `data`, as a decoded string.
    pub data: usize,
    /// Bytes of an event's name.
    pub name: usize,
    /// Bytes of a channel's name.
    pub channel: usize,
    /// Channels of one event.
    pub channels: usize,
    /// Events of one batch.
    pub batch: usize,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self {
            data: 102_400,
            name: 200,
            channel: 164,
            channels: 100,
            batch: usize::MAX,
        }
    }
}

/// One event for some channels.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The event's name: a JSON string as it came, quotes and escapes included.
    pub name: &'a str,
    /// The payload: a JSON string as it came.
    pub data: &'a str,
    /// At least one channel.
    pub channels: Vec<ChannelName>,
    /// The connection that does not get the event: its sender's (`toOthers()`).
    pub except: Option<SocketId>,
    /// What the publisher wants to know of the channels.
    pub info: Option<Info>,
}

/// What a caller wants to know of channels: a comma list of attributes. Those that
/// do not apply to a channel, and unknown ones, are left out of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Users of a presence channel.
    pub user_count: bool,
    /// Subscriptions of a channel that is no presence channel.
    pub subscription_count: bool,
    /// The last event of a cache channel.
    pub cache: bool,
}

impl Info {
    /// Reads a comma list.
    pub fn parse(list: &str) -> Self {
        let has = |name: &str| list.split(',').any(|item| item.trim() == name);
        Self {
            user_count: has("user_count"),
            subscription_count: has("subscription_count"),
            cache: has("cache"),
        }
    }
}

/// Why a body is refused. Nothing of a refused body is published.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not JSON, or not an object.
    #[error("The request body is not a JSON object: {0}.")]
    Json(String),
    /// Fields that are missing or of the wrong type: messages by field.
    #[error("The request body has invalid fields. {}", sentences(.0))]
    Fields(Fields),
    /// An event's `data` is over the limit.
    #[error(
        "Payload too large. The data of an event has {size} bytes, {limit} are allowed \
         (max_event_size, RESOUND_MAX_EVENT_SIZE)."
    )]
    TooLarge {
        /// Bytes of the decoded string.
        size: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
}

/// All messages, for where there is no room for a bag of them.
fn sentences(fields: &Fields) -> String {
    let all: Vec<&str> = fields.values().flatten().map(String::as_str).collect();
    all.join(" ")
}

#[derive(Default, Deserialize)]
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
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow, default)]
    batch: Option<&'a RawValue>,
}

impl<'a> Publish<'a> {
    /// Reads the body of `POST /apps/{id}/events`.
    pub fn parse(body: &'a [u8], limits: &EventLimits) -> Result<Self, PublishError> {
        let body: Body<'a> = object(body)?;
        let mut check = Check::new("");
        let publish = check.event(&body, limits);
        finished(check, publish, limits)
    }

    /// Reads the body of `POST /apps/{id}/batch_events`.
    pub fn parse_batch(body: &'a [u8], limits: &EventLimits) -> Result<Vec<Self>, PublishError> {
        let batch: Batch<'a> = object(body)?;
        let Some(batch) = check::present(batch.batch) else {
            return Err(PublishError::of_field(
                "batch",
                "The batch field is required.",
            ));
        };
        let items: Vec<&'a RawValue> = serde_json::from_str(batch.get())
            .map_err(|_| PublishError::of_field("batch", "The batch field must be an array."))?;
        if items.len() > limits.batch {
            let text = format!(
                "The batch field has {} events, {} are allowed \
                 (max_events_per_batch, RESOUND_MAX_EVENTS_PER_BATCH).",
                items.len(),
                limits.batch
            );
            return Err(PublishError::of_field("batch", &text));
        }
        let item = |(index, item): (usize, &&'a RawValue)| {
            // What is no object has none of the fields that it needs.
            let body: Body<'a> = object(item.get().as_bytes()).unwrap_or_default();
            let mut check = Check::new(&format!("batch.{index}."));
            let publish = check.event(&body, limits);
            finished(check, publish, limits)
        };
        items.iter().enumerate().map(item).collect()
    }
}

fn finished<'a>(
    check: Check,
    publish: Option<Publish<'a>>,
    limits: &EventLimits,
) -> Result<Publish<'a>, PublishError> {
    match publish {
        Some(publish) if check.fields.is_empty() => {
            check_size(publish.data, limits.data)?;
            Ok(publish)
        }
        _ => Err(PublishError::Fields(check.fields)),
    }
}

fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, PublishError> {
    match body.trim_ascii_start().first() {
        None => Err(PublishError::Json("it is empty".to_owned())),
        // serde would take a list for the fields in their order.
        Some(b'[') => Err(PublishError::Json("it is a list".to_owned())),
        Some(_) => {
            // Each text would be checked for itself if the whole was not before.
            let parsed = match str::from_utf8(body) {
                Ok(text) => serde_json::from_str(text),
                Err(_) => serde_json::from_slice(body),
            };
            parsed.map_err(|error| PublishError::Json(error.to_string()))
        }
    }
}

impl PublishError {
    /// One field that is missing or wrong.
    pub fn of_field(name: &str, message: &str) -> Self {
        Self::Fields(Fields::from([(name.to_owned(), vec![message.to_owned()])]))
    }
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

    const LIMITS: EventLimits = EventLimits {
        data: 100,
        name: 20,
        channel: 164,
        channels: 100,
        batch: 2,
    };

    fn parse(body: &str) -> Result<Publish<'_>, PublishError> {
        Publish::parse(body.as_bytes(), &LIMITS)
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
    fn invalid_fields_are_reported_as_laravel_does() {
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
                r#"{"channels":["The channels field must be an array."]}"#,
            ),
            (
                r#"{"name":"a","data":"x","channels":[null]}"#,
                r#"{"channels":["The channels field must be an array of strings."]}"#,
            ),
            (
                r#"{"name":"a","data":"x","channels":[]}"#,
                r#"{"channel":["The channel field is required when channels is not present."],"channels":["The channels field is required when channel is not present."]}"#,
            ),
            (
                r#"{"name":"a","data":"x","channel":["a"]}"#,
                r#"{"channel":["The channel field must be a string."]}"#,
            ),
            (
                r#"{"name":"a","data":"x","channel":"a b"}"#,
                r#"{"channel":["The channel field is invalid: The channel name has ' ', allowed are letters, digits and _ - = @ , . ;."]}"#,
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
            r#"{"channels":["The channels field has 101 channels, 100 are allowed (max_channels_per_event, RESOUND_MAX_CHANNELS_PER_EVENT)."]}"#
        );
    }

    #[test]
    fn the_text_of_a_refusal_names_the_fields() {
        let error = parse(r#"{"name":"a","data":{}}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The request body has invalid fields. \
             The channel field is required when channels is not present. \
             The channels field is required when channel is not present. \
             The data field must be a string."
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
            Publish::parse(b"{\"name\":\"\xff\"}", &LIMITS),
            Err(PublishError::Json(_))
        ));
    }

    #[test]
    fn what_php_makes_of_a_list_with_holes_is_a_list() {
        let publish = parse(r#"{"name":"a","data":"b","channels":{"0":"c","2":"d"}}"#).unwrap();
        let names: Vec<&str> = publish.channels.iter().map(ChannelName::as_str).collect();
        assert_eq!(names, ["c", "d"]);
    }

    #[test]
    fn a_channel_that_is_named_twice_gets_the_event_once() {
        let publish = parse(r#"{"name":"a","data":"b","channels":["c","d","c"]}"#).unwrap();
        assert_eq!(publish.channels.len(), 2);
    }

    #[test]
    fn one_bad_item_refuses_the_whole_batch_and_is_named() {
        let good = r#"{"batch":[{"name":"a","data":"x","channel":"c"},{"name":"b","data":"y","channel":"d"}]}"#;
        let batch = Publish::parse_batch(good.as_bytes(), &LIMITS).unwrap();
        assert_eq!(
            batch.iter().map(|p| p.data).collect::<Vec<_>>(),
            ["\"x\"", "\"y\""]
        );
        assert_eq!(
            Publish::parse_batch(br#"{"batch":[]}"#, &LIMITS),
            Ok(Vec::new())
        );
        for (body, expected) in [
            ("{}", r#"{"batch":["The batch field is required."]}"#),
            (
                r#"{"batch":"x"}"#,
                r#"{"batch":["The batch field must be an array."]}"#,
            ),
            (
                r#"{"batch":[1,2,3]}"#,
                r#"{"batch":["The batch field has 3 events, 2 are allowed (max_events_per_batch, RESOUND_MAX_EVENTS_PER_BATCH)."]}"#,
            ),
            (
                r#"{"batch":["x"]}"#,
                r#"{"batch.0.channel":["The batch.0.channel field is required when channels is not present."],"batch.0.data":["The batch.0.data field is required."],"batch.0.name":["The batch.0.name field is required."]}"#,
            ),
            (
                r#"{"batch":[{"name":"a","data":"x","channel":"c"},{"name":"b","channel":"c"}]}"#,
                r#"{"batch.1.data":["The batch.1.data field is required."]}"#,
            ),
        ] {
            let Err(PublishError::Fields(fields)) = Publish::parse_batch(body.as_bytes(), &LIMITS)
            else {
                panic!("{body}")
            };
            assert_eq!(serde_json::to_string(&fields).unwrap(), expected, "{body}");
        }
    }
}
