//! The settings of one application.

use std::fmt;
use std::time::Duration;

use super::origins::Origins;
use super::webhook::Webhooks;
use crate::protocol::publish::EventLimits;
use crate::protocol::signature::Secret;

/// One application (a "Pusher app"): its credentials and its limits.
///
/// They can change while the server runs. What is checked at each request, message or
/// event holds at once for everybody. Three kinds hold for what begins after the change:
///
/// - of new connections only: [`Self::key`] in the path, [`Self::origins`],
///   [`Self::max_connections`], [`Self::ping_interval`], [`Self::activity_timeout`],
///   [`Self::max_message_size`], [`Self::message_rate`], [`Self::client_event_rate`] and
///   [`Self::authorization_timeout`]; nobody is closed because of a lower limit;
/// - of new members and subscriptions only: [`Self::presence`] and
///   [`Self::max_subscriptions`]; nobody is taken out;
/// - of channels that become occupied later: [`Self::subscription_count`].
///
/// Lower [`Self::cache`] limits hold from the next event that is kept; an event that is
/// kept already keeps its time to live.
#[derive(Clone, PartialEq)]
pub struct App {
    /// The id in the path of the HTTP API; what tells applications apart.
    pub id: String,
    /// The public key in the path of the WebSocket.
    pub key: String,
    /// The secret that signs.
    pub secret: Secret,
    /// A key that is taken for [`Self::key`] while not everybody has the new one.
    pub previous_key: Option<String>,
    /// A secret that verifies as [`Self::secret`] does while not everybody has the new one.
    pub previous_secret: Option<Secret>,
    /// Silence after which the server pings a connection.
    pub ping_interval: Duration,
    /// Seconds of silence after which the client pings; sent to it when it connects.
    pub activity_timeout: u32,
    /// Maximum number of connections at a time, `None` for no limit.
    pub max_connections: Option<usize>,
    /// Maximum number of channels that a connection may have joined.
    pub max_subscriptions: usize,
    /// Bytes of a client's message.
    pub max_message_size: usize,
    /// Most messages of a connection, pings and pongs not counted.
    pub message_rate: Option<Rate>,
    /// Whether a connection over its rate is closed.
    pub terminate_on_limit: bool,
    /// Who may send client events.
    pub client_events: ClientEvents,
    /// Bytes of a client event's data.
    pub max_client_event_size: usize,
    /// Most client events of a connection.
    pub client_event_rate: Option<Rate>,
    /// Which pages may connect.
    pub origins: Origins,
    /// What the names and sizes of published events are held to.
    pub events: EventLimits,
    /// Limits of presence channels.
    pub presence: PresenceLimits,
    /// Limits of what cache channels keep.
    pub cache: CacheLimits,
    /// Whether subscription counts are sent.
    pub subscription_count: bool,
    /// How long a connection may neither sign in nor join a private or presence channel.
    pub authorization_timeout: Option<Duration>,
    /// Who is told of what happens.
    pub webhooks: Webhooks,
    /// How long the same publish request, by its signature, is answered as it was and not
    /// published again; `None` for not at all.
    pub duplicate_window: Option<Duration>,
    /// Whether clients that the application throws out come back to be authorised again.
    pub terminate_to_reconnect: bool,
}

/// Which of an application's credentials something was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Its own.
    Current,
    /// The one before, which is taken until it is not set any more.
    Previous,
}

impl App {
    /// Which of the application's keys this is; `None` for another one.
    pub fn find_key(&self, key: &str) -> Option<Credential> {
        if self.key == key {
            Some(Credential::Current)
        } else if self.previous_key.as_deref() == Some(key) {
            Some(Credential::Previous)
        } else {
            None
        }
    }

    /// Which of the application's secrets has made this signature of all `parts`, in
    /// hexadecimal digits; `None` if neither has.
    pub fn verify(&self, parts: &[&[u8]], signature: &str) -> Option<Credential> {
        if self.secret.verify(parts, signature) {
            return Some(Credential::Current);
        }
        let previous = self.previous_secret.as_ref()?;
        previous
            .verify(parts, signature)
            .then_some(Credential::Previous)
    }
}

/// So many in so much time, on average and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how much time.
    pub per: Duration,
}

/// Limits of presence channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceLimits {
    /// Users in a channel, `None` for no limit.
    pub max_members: Option<usize>,
    /// Bytes of a member's data.
    pub max_member_size: usize,
}

/// Limits of what cache channels keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of all of them.
    pub max_bytes: usize,
    /// How long an event is kept.
    pub ttl: Duration,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("id", &self.id)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Who may send `client-` events (`accept_client_events_from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvents {
    /// Nobody.
    None,
    /// Members of private and presence channels: Pusher's rule.
    Private,
    /// Members of any channel: Reverb's rule, and the default.
    Members,
    /// Every connection, to any channel.
    All,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An application with the default limits, for tests of the layers above.
    pub(crate) fn app(id: &str) -> App {
        App {
            id: id.to_owned(),
            key: id.to_owned(),
            secret: Secret::new("s"),
            previous_key: None,
            previous_secret: None,
            ping_interval: Duration::from_secs(60),
            activity_timeout: 30,
            max_connections: None,
            max_subscriptions: 10_000,
            max_message_size: 10_000,
            message_rate: None,
            terminate_on_limit: false,
            client_events: ClientEvents::Members,
            max_client_event_size: 10_000,
            client_event_rate: None,
            origins: Origins::new(vec!["*".to_owned()], false),
            events: EventLimits::default(),
            presence: PresenceLimits {
                max_members: None,
                max_member_size: 10_000,
            },
            cache: CacheLimits {
                max_bytes: 1 << 20,
                ttl: Duration::from_secs(1800),
            },
            subscription_count: false,
            authorization_timeout: None,
            webhooks: Webhooks::default(),
            duplicate_window: None,
            terminate_to_reconnect: false,
        }
    }
}
