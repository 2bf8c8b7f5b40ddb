//! What receivers are told, and how it is written.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize, Serializer};

use crate::apps::{AppHandle, WebhookKind};
use crate::protocol::{ChannelName, SocketId};

/// What comes before and after an event's id, which is its last field.
const ID_BEGIN: &str = "\"id\":\"";
const ID_END: &str = "\"}";

/// Bytes that most events have room in.
const JSON_SIZE: usize = 192;

/// Kinds for which it has to be known whether a channel is occupied: counts are of a channel as
/// long as it is.
pub(super) const OF_CHANNELS: [WebhookKind; 3] = [
    WebhookKind::ChannelOccupied,
    WebhookKind::ChannelVacated,
    WebhookKind::SubscriptionCount,
];

/// Kinds for which it has to be known who is in a channel.
pub(super) const OF_MEMBERS: [WebhookKind; 2] =
    [WebhookKind::MemberAdded, WebhookKind::MemberRemoved];

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
    /// What is told in order: of a channel, or else of a connection. A hash; two that have the
    /// same are told in order, too.
    pub(super) lane: u64,
    /// The channel's name, if it concerns one.
    channel: Option<Arc<str>>,
    /// The whole object, which ends with [`Self::id`].
    pub(super) json: String,
    /// Dropped when every receiver has it or will never have it.
    pub(super) receipt: Option<Arc<Receipt>>,
}

/// What tells an event from all others, on all nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Id<'a> {
    /// Of this process.
    prefix: &'a str,
    number: u64,
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
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub(super) socket_id: Option<SocketId>,
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
    pub(super) id: Id<'a>,
}

fn as_text<S: Serializer>(socket: &Option<SocketId>, to: S) -> Result<S::Ok, S::Error> {
    match socket {
        Some(socket) => to.collect_str(socket),
        None => to.serialize_none(),
    }
}

/// What is read of an event that another node has written.
#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    socket_id: Cow<'a, str>,
}

impl Topic {
    /// The kinds for which it has to be known.
    pub(super) fn kinds(&self) -> &'static [WebhookKind] {
        match self.user {
            None => &OF_CHANNELS,
            Some(_) => &OF_MEMBERS,
        }
    }

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
    pub(super) fn event(&self, is_there: bool, id: Id<'_>) -> Event {
        let fields = Fields {
            user_id: self.user.as_deref(),
            ..Fields::default()
        };
        let kind = self.kind(is_there);
        Event::new(&self.app, kind, Some(self.channel.to_arc()), id, fields)
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

impl<'a> Id<'a> {
    /// The one of this number.
    pub(super) fn of(prefix: &'a str, number: u64) -> Self {
        Self { prefix, number }
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.prefix, self.number)
    }
}

impl Serialize for Id<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Event {
    /// One that happens now. Without a channel it is told in the order of its connection.
    pub(super) fn new(
        app: &AppHandle,
        kind: WebhookKind,
        channel: Option<Arc<str>>,
        id: Id<'_>,
        fields: Fields<'_>,
    ) -> Self {
        let lane = match &channel {
            Some(channel) => lane_of(channel),
            None => lane_of(fields.socket_id),
        };
        let fields = Fields {
            name: kind.name(),
            channel: channel.as_deref().unwrap_or_default(),
            id,
            ..fields
        };
        let mut json = Vec::with_capacity(JSON_SIZE);
        serde_json::to_writer(&mut json, &fields).expect("it is texts and numbers");
        Self {
            app: app.clone(),
            kind,
            at: now(),
            lane,
            json: String::from_utf8(json).expect("JSON is text"),
            channel,
            receipt: None,
        }
    }

    /// The channel; empty for none.
    pub(super) fn channel(&self) -> &str {
        self.channel.as_deref().unwrap_or_default()
    }

    /// Tells it from all others, on all nodes.
    pub(super) fn id(&self) -> &str {
        let begin = self
            .json
            .rfind(ID_BEGIN)
            .map_or(0, |at| at + ID_BEGIN.len());
        self.json[begin..].trim_end_matches(ID_END)
    }

    /// Bytes that it takes while it waits.
    pub(super) fn cost(&self) -> usize {
        size_of::<Self>() + self.json.capacity() + self.channel().len() + 128
    }

    /// How it is written into the queue that nodes share.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.at, self.json)
    }

    /// Reads such a text; `None` if it is none.
    pub(super) fn of_text(app: &AppHandle, text: &str) -> Option<Self> {
        let (at, json) = text.split_once(' ')?;
        let read: Read<'_> = serde_json::from_str(json).ok()?;
        if !json.ends_with(ID_END) || !json.contains(ID_BEGIN) {
            return None;
        }
        let channel = (!read.channel.is_empty()).then(|| Arc::from(&*read.channel));
        Some(Self {
            app: app.clone(),
            kind: WebhookKind::of(&read.name)?,
            at: at.parse().ok()?,
            lane: match &channel {
                Some(channel) => lane_of(channel),
                None => lane_of(&read.socket_id),
            },
            json: json.to_owned(),
            channel,
            receipt: None,
        })
    }
}

/// A hash.
fn lane_of(what: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(what)
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
        let added = topic(Some("7\"")).event(true, Id::of("x", 1));
        assert_eq!(
            added.json,
            r#"{"name":"member_added","channel":"presence-a","user_id":"7\"","id":"x-1"}"#
        );
        let vacated = topic(None).event(false, Id::of("x", 2));
        assert_eq!(
            vacated.json,
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
            let event = topic.event(true, Id::of("x", 1));
            let read = Event::of_text(&app, &event.text()).unwrap();
            assert_eq!(
                (read.kind, &read.json, read.at),
                (event.kind, &event.json, event.at)
            );
            assert_eq!((read.channel(), read.id()), ("presence-a", "x-1"));
        }
        let fields = Fields {
            socket_id: SocketId::parse("1.2"),
            ..Fields::default()
        };
        let kind = WebhookKind::ConnectionEstablished;
        let event = Event::new(&app, kind, None, Id::of("x", 1), fields);
        let read = Event::of_text(&app, &event.text()).unwrap();
        assert_eq!((read.channel(), read.id()), ("", "x-1"));
        for broken in ["", "1", "x {}", "1 {\"name\":\"a\"}", "1 {"] {
            assert!(Event::of_text(&app, broken).is_none(), "{broken}");
        }
    }
}
