//! The fields of one event, checked, with Laravel's sentences.

use std::borrow::Cow;

use indexmap::IndexSet;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Body, EventLimits, Fields, Info, Publish};
use crate::protocol::channel::ChannelName;
use crate::protocol::socket_id::SocketId;

/// Collects what is wrong with an event.
pub(super) struct Check {
    /// What stands before field names: nothing, or `batch.3.`.
    prefix: String,
    pub(super) fields: Fields,
}

/// A text of JSON, which is copied only if something in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// `null` counts as absent, as it does for Laravel's `required`.
pub(super) fn present(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| value.get() != "null")
}

impl Check {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            fields: Fields::new(),
        }
    }

    /// The event; what is wrong with it is in [`Self::fields`].
    pub(super) fn event<'a>(
        &mut self,
        body: &Body<'a>,
        limits: &EventLimits,
    ) -> Option<Publish<'a>> {
        let name = self.required_string(body.name, "name");
        if let Some(wrong) = name.and_then(|name| wrong_name(name, limits.name)) {
            self.fail("name", &wrong);
        }
        let data = self.required_string(body.data, "data");
        let channels = self.channels(body, limits);
        let except = self.optional_string(body.socket_id, "socket_id");
        let except = except.and_then(|text| SocketId::parse(&text));
        let info = self
            .optional_string(body.info, "info")
            .map(|list| Info::parse(&list));
        Some(Publish {
            name: name?,
            data: data?,
            channels: channels?,
            except,
            info,
        })
    }

    /// Notes a mistake: "The name field " and then `what` and a full stop.
    fn fail(&mut self, field: &str, what: &str) {
        let name = format!("{}{field}", self.prefix);
        let text = format!("The {} field {what}.", name.replace('_', " "));
        self.fields.entry(name).or_default().push(text);
    }

    /// The JSON text of a string that is not empty.
    fn required_string<'a>(&mut self, value: Option<&'a RawValue>, field: &str) -> Option<&'a str> {
        match present(value).map(RawValue::get) {
            None | Some("\"\"") => self.fail(field, "is required"),
            Some(text) if !text.starts_with('"') => self.fail(field, "must be a string"),
            Some(text) => return Some(text),
        }
        None
    }

    fn optional_string<'a>(
        &mut self,
        value: Option<&'a RawValue>,
        field: &str,
    ) -> Option<Cow<'a, str>> {
        let parsed: Option<Text<'a>> = serde_json::from_str(present(value)?.get()).ok();
        if parsed.is_none() {
            self.fail(field, "must be a string");
        }
        parsed.map(|Text(text)| text)
    }

    fn channels(&mut self, body: &Body<'_>, limits: &EventLimits) -> Option<Vec<ChannelName>> {
        let list = present(body.channels);
        let field = if list.is_some() {
            "channels"
        } else {
            "channel"
        };
        let names = match (list, present(body.channel)) {
            (Some(list), single) => self.listed(list, single.is_some())?,
            (None, Some(single)) => {
                let Ok(name) = serde_json::from_str::<Text<'_>>(single.get()) else {
                    self.fail(field, "must be a string");
                    return None;
                };
                vec![name.0]
            }
            (None, None) => return self.no_channel(),
        };
        if names.len() > limits.channels {
            let text = format!(
                "has {} channels, {} are allowed (max_channels_per_event, RESOUND_MAX_CHANNELS_PER_EVENT)",
                names.len(),
                limits.channels
            );
            self.fail(field, &text);
            return None;
        }
        let parse = |name: &str| ChannelName::parse(name, limits.channel);
        let parsed: Result<Vec<ChannelName>, _> = match &names[..] {
            [name] => parse(name).map(|name| vec![name]),
            // Each channel gets an event once, however often it is named.
            names => {
                let unique: IndexSet<&str> = names.iter().map(|name| &**name).collect();
                unique.into_iter().map(parse).collect()
            }
        };
        parsed
            .map_err(|error| self.fail(field, &format!("is invalid: {error}")))
            .ok()
    }

    /// The names in `channels`: a list, or an object's values, which is what PHP
    /// makes of a list with holes.
    fn listed<'a>(&mut self, list: &'a RawValue, single: bool) -> Option<Vec<Cow<'a, str>>> {
        // As it should be; all else is looked at more closely.
        if let Ok(names) = serde_json::from_str::<Vec<Text<'a>>>(list.get())
            && !names.is_empty()
        {
            return Some(names.into_iter().map(|Text(name)| name).collect());
        }
        let values: Vec<Value> = if let Ok(values) = serde_json::from_str(list.get()) {
            values
        } else if let Ok(values) = serde_json::from_str::<Map<String, Value>>(list.get()) {
            values.into_iter().map(|(_, value)| value).collect()
        } else {
            self.fail("channels", "must be an array");
            return None;
        };
        if values.is_empty() && !single {
            return self.no_channel();
        }
        let name = |value| match value {
            Value::String(name) => Some(Cow::Owned(name)),
            _ => None,
        };
        let names: Option<Vec<Cow<'_, str>>> = values.into_iter().map(name).collect();
        if names.is_none() {
            self.fail("channels", "must be an array of strings");
        }
        names
    }

    fn no_channel<T>(&mut self) -> Option<T> {
        if self.prefix.is_empty() {
            self.fail("channels", "is required when channel is not present");
        }
        self.fail("channel", "is required when channels is not present");
        None
    }
}

/// What is wrong with an event's name: no text, too long, or one that only the
/// service itself may send. `name` is a JSON text; escapes are decoded first.
fn wrong_name(name: &str, limit: usize) -> Option<String> {
    let Ok(Text(decoded)) = serde_json::from_str::<Text<'_>>(name) else {
        return Some("must be a string of Unicode characters".to_owned());
    };
    if decoded.starts_with("pusher:") || decoded.starts_with("pusher_internal:") {
        return Some("may not start with pusher: or pusher_internal:".to_owned());
    }
    let size = decoded.len();
    (size > limit).then(|| {
        format!(
            "has {size} bytes, {limit} are allowed (max_event_name_length, RESOUND_MAX_EVENT_NAME_LENGTH)"
        )
    })
}
