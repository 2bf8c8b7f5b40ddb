//! What receivers are told, and how it is written.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::apps::{AppHandle, WebhookKind};
use crate::protocol::ChannelName;

/// A channel, or a user in a presence channel: what is there or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Topic {
    pub(super) app: AppHandle,
    pub(super) channel: ChannelName,
    /// Its id; none for the channel itself.
    pub(super) user: Option<Arc<str>>,
}

/// Something that happened, as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) app: AppHandle,
    pub(super) kind: WebhookKind,
    /// When, in Unix milliseconds.
    pub(super) at: u64,
    /// What is told in order: the channel's name, or else the connection's id.
    pub(super) lane: Box<str>,
    /// Whether that is a channel.
    pub(super) has_channel: bool,
    /// Tells it from all others, on all nodes.
    pub(super) id: Box<str>,
    /// The whole object, `id` included.
    pub(super) json: Box<str>,
    /// Dropped when every receiver has it or will never have it.
    #[expect(dead_code, reason = "it is there to be dropped")]
    pub(super) receipt: Option<Arc<Receipt>>,
}

/// An entry of the queue that all nodes share, which goes when this is dropped.
#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) entry: String,
    pub(super) done: Arc<Done>,
}

/// Entries of that queue that are done with.
#[derive(Debug, Default)]
pub(super) struct Done(Mutex<Option<Vec<String>>>);

/// The fields of an event, in the order in which they are written; [`Event::new`] sets the name,
/// the channel and the id.
#[derive(Debug, Default, Serialize)]
pub(super) struct Fields<'a> {
    pub(super) name: &'a str,
    pub(super) channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) socket_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subscription_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<u64>,
    pub(super) id: &'a str,
}

/// What is read of an event that another node has written.
#[derive(Deserialize)]
struct Read<'a> {
    name: &'a str,
    channel: &'a str,
    #[serde(default)]
    socket_id: &'a str,
    id: &'a str,
}

impl Topic {
    /// The kind of event that it is there, or not any more.
    pub(super) fn kind(&self, is_there: bool) -> WebhookKind {
        match (&self.user, is_there) {
            (None, true) => WebhookKind::ChannelOccupied,
            (None, false) => WebhookKind::ChannelVacated,
            (Some(_), true) => WebhookKind::MemberAdded,
            (Some(_), false) => WebhookKind::MemberRemoved,
        }
    }

    /// That it is there, or not any more.
    pub(super) fn event(&self, is_there: bool, id: String) -> Event {
        let fields = Fields {
            user_id: self.user.as_deref(),
            ..Fields::default()
        };
        let kind = self.kind(is_there);
        Event::new(&self.app, kind, Some(&self.channel), id, fields)
    }

    /// How it is called in Redis, where its application is in the key.
    pub(super) fn text(&self) -> String {
        let mut text = self.channel.as_str().to_owned();
        if let Some(user) = &self.user {
            // No channel has this character in its name.
            text.push('\n');
            text.push_str(user);
        }
        text
    }

    /// The topic of that text.
    pub(super) fn of_text(app: &AppHandle, text: &str) -> Option<Self> {
        let (channel, user) = match text.split_once('\n') {
            Some((channel, user)) => (channel, Some(Arc::from(user))),
            None => (text, None),
        };
        Some(Self {
            app: app.clone(),
            channel: ChannelName::parse(channel, channel.len()).ok()?,
            user,
        })
    }
}

impl Event {
    /// One that happens now. Without a channel it is told in the order of its connection.
    pub(super) fn new(
        app: &AppHandle,
        kind: WebhookKind,
        channel: Option<&ChannelName>,
        id: String,
        fields: Fields<'_>,
    ) -> Self {
        let channel = channel.map(ChannelName::as_str);
        Self::named(app, kind, channel, id, fields)
    }

    /// The same of a channel whose name need not be one.
    pub(super) fn named(
        app: &AppHandle,
        kind: WebhookKind,
        channel: Option<&str>,
        id: String,
        fields: Fields<'_>,
    ) -> Self {
        let lane = channel.or(fields.socket_id).unwrap_or_default().into();
        let fields = Fields {
            name: kind.name(),
            channel: channel.unwrap_or_default(),
            id: &id,
            ..fields
        };
        let json = serde_json::to_string(&fields).expect("it is texts and numbers");
        Self {
            app: app.clone(),
            kind,
            at: now(),
            lane,
            has_channel: channel.is_some(),
            json: json.into(),
            id: id.into(),
            receipt: None,
        }
    }

    /// The channel; empty for none.
    pub(super) fn channel(&self) -> &str {
        if self.has_channel { &self.lane } else { "" }
    }

    /// Bytes that it takes while it waits.
    pub(super) fn cost(&self) -> usize {
        size_of::<Self>() + self.json.len() + self.lane.len() + self.id.len() + 64
    }

    /// How it is written into the queue that nodes share.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.at, self.json)
    }

    /// Reads such a text; `None` if it is none.
    pub(super) fn of_text(app: &AppHandle, text: &str) -> Option<Self> {
        let (at, json) = text.split_once(' ')?;
        let read: Read<'_> = serde_json::from_str(json).ok()?;
        let has_channel = !read.channel.is_empty();
        let lane = if has_channel {
            read.channel
        } else {
            read.socket_id
        };
        Some(Self {
            app: app.clone(),
            kind: WebhookKind::of(read.name)?,
            at: at.parse().ok()?,
            lane: lane.into(),
            has_channel,
            id: read.id.into(),
            json: json.into(),
            receipt: None,
        })
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.done.put(std::mem::take(&mut self.entry));
    }
}

impl Done {
    /// Entries are done with from now on until [`Self::close`].
    pub(super) fn open(&self) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get_or_insert_default();
    }

    /// What is dropped from now on is somebody else's.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn put(&self, entry: String) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = &mut *entries {
            entries.push(entry);
        }
    }

    /// Takes all that are done with.
    pub(super) fn take(&self) -> Vec<String> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// The body of a request.
pub(super) fn body(events: &[Arc<Event>]) -> String {
    let size: usize = events.iter().map(|event| event.json.len() + 1).sum();
    let mut body = String::with_capacity(size + 48);
    write!(body, "{{\"time_ms\":{},\"events\":[", now()).expect("a String takes every text");
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        body.push_str(&event.json);
    }
    body.push_str("]}");
    body
}

/// Unix milliseconds.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::tests::handle;

    fn topic(user: Option<&str>) -> Topic {
        Topic {
            app: handle("a"),
            channel: ChannelName::parse("presence-a", 100).unwrap(),
            user: user.map(Arc::from),
        }
    }

    #[test]
    fn events_are_written_as_pusher_does_with_an_id_behind() {
        let added = topic(Some("7\"")).event(true, "x-1".to_owned());
        assert_eq!(
            &*added.json,
            r#"{"name":"member_added","channel":"presence-a","user_id":"7\"","id":"x-1"}"#
        );
        let vacated = topic(None).event(false, "x-2".to_owned());
        assert_eq!(
            &*vacated.json,
            r#"{"name":"channel_vacated","channel":"presence-a","id":"x-2"}"#
        );
        let events = [Arc::new(added), Arc::new(vacated)];
        let body: serde_json::Value = serde_json::from_str(&body(&events)).unwrap();
        assert_eq!(body["events"][1]["name"], "channel_vacated");
        assert!(body["time_ms"].as_u64().unwrap() > 1_700_000_000_000);
    }

    #[test]
    fn what_another_node_has_written_is_read_again() {
        let app = handle("a");
        for user in [None, Some("7"), Some("a\nb")] {
            let topic = topic(user);
            let read = Topic::of_text(&topic.app, &topic.text()).unwrap();
            assert_eq!(read, topic);
            let event = topic.event(true, "x-1".to_owned());
            let read = Event::of_text(&app, &event.text()).unwrap();
            assert_eq!(
                (read.kind, &read.json, read.at),
                (event.kind, &event.json, event.at)
            );
            assert_eq!((read.channel(), &read.id), ("presence-a", &event.id));
        }
        let fields = Fields {
            socket_id: Some("1.2"),
            ..Fields::default()
        };
        let kind = WebhookKind::ConnectionEstablished;
        let event = Event::new(&app, kind, None, "x-1".to_owned(), fields);
        let read = Event::of_text(&app, &event.text()).unwrap();
        assert_eq!((read.channel(), &*read.lane), ("", "1.2"));
        for broken in ["", "1", "x {}", "1 {\"name\":\"a\"}", "1 {"] {
            assert!(Event::of_text(&app, broken).is_none(), "{broken}");
        }
    }
}
