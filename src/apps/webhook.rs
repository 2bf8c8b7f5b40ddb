//! What an application wants to be told of, and where.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use url::{Host, Url};

/// Kinds of events that webhooks tell of. Those of Pusher, and three of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookKind {
    /// A channel has a first subscriber.
    ChannelOccupied,
    /// A channel has none any more.
    ChannelVacated,
    /// A user has come into a presence channel.
    MemberAdded,
    /// A user has left it.
    MemberRemoved,
    /// A client has sent an event.
    ClientEvent,
    /// A subscriber of a cache channel found it empty.
    CacheMiss,
    /// A channel has another number of subscribers.
    SubscriptionCount,
    /// A WebSocket was let in.
    ConnectionEstablished,
    /// It has ended.
    ConnectionClosed,
    /// A subscription was refused.
    SubscriptionRefused,
}

impl WebhookKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::CacheMiss,
        Self::SubscriptionCount,
        Self::ConnectionEstablished,
        Self::ConnectionClosed,
        Self::SubscriptionRefused,
    ];

    /// Its name, in settings and in what is sent.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
            Self::ConnectionEstablished => "connection_established",
            Self::ConnectionClosed => "connection_closed",
            Self::SubscriptionRefused => "subscription_refused",
        }
    }

    /// The kind of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookKinds(u16);

impl WebhookKinds {
    /// Whether one is in it.
    pub fn has(self, kind: WebhookKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    /// Whether none is.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<WebhookKind> for WebhookKinds {
    fn from_iter<T: IntoIterator<Item = WebhookKind>>(kinds: T) -> Self {
        Self(
            kinds
                .into_iter()
                .fold(0, |set, kind| set | 1 << kind as u16),
        )
    }
}

/// A place that is told.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where it is: `http` or `https`.
    pub url: Url,
    /// Of what.
    pub kinds: WebhookKinds,
    /// Of which channels; none for all.
    pub channels: Vec<ChannelPattern>,
    /// Headers that each request has beside ours.
    pub headers: Vec<(String, String)>,
}

impl Webhook {
    /// Whether it is told of an event; `channel` is empty for one that concerns none.
    pub fn wants(&self, kind: WebhookKind, channel: &str) -> bool {
        let is_wanted = |pattern: &ChannelPattern| pattern.matches(channel);
        self.kinds.has(kind)
            && (self.channels.is_empty()
                || channel.is_empty()
                || self.channels.iter().any(is_wanted))
    }

    /// Where it is, without what may be secret in it.
    pub fn shown(&self) -> String {
        let mut shown = self.url.clone();
        shown.set_query(None);
        shown.into()
    }

    /// Whether its host is, by its name alone, this machine or its link.
    pub fn is_local(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                name == "localhost" || name.ends_with(".localhost")
            }
            Some(Host::Ipv4(address)) => is_local(address.into()),
            Some(Host::Ipv6(address)) => is_local(address.into()),
            None => false,
        }
    }
}

/// For logs: neither its headers nor its query are.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &self.shown())
            .field("kinds", &self.kinds)
            .finish_non_exhaustive()
    }
}

/// Whether an address is this machine's own or reaches only its link, where clouds have what is
/// nobody else's business: 169.254.169.254, and fd00:ec2::254. Also if it is written as another
/// one (RFC 4291, 2.5.5; RFC 6052, 2.1).
pub fn is_local(address: IpAddr) -> bool {
    let address = match address.to_canonical() {
        IpAddr::V6(address) => embedded(address).map_or(IpAddr::V6(address), IpAddr::V4),
        address @ IpAddr::V4(_) => address,
    };
    address.is_loopback()
        || address.is_unspecified()
        || match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => {
                address.is_unicast_link_local() || address.segments()[..2] == [0xfd00, 0x0ec2]
            }
        }
}

/// The address that a NAT64 makes of one, and of those that are written in one.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let is_embedded = segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] || segments[..6] == [0; 6];
    let [.., a, b, c, d] = address.octets();
    // :: and ::1 are themselves.
    (is_embedded && segments[..7] != [0; 7]).then(|| Ipv4Addr::new(a, b, c, d))
}

/// The names of channels that begin or end so, or one name: `presence-*`, `*-orders`, `news`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelPattern {
    /// This one.
    Is(String),
    /// All that begin so.
    Prefix(String),
    /// All that end so.
    Suffix(String),
}

impl ChannelPattern {
    /// Reads one; `None` if it has a `*` elsewhere than at one end, or is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let pattern = match (text.strip_suffix('*'), text.strip_prefix('*')) {
            (Some(prefix), _) => Self::Prefix(prefix.to_owned()),
            (None, Some(suffix)) => Self::Suffix(suffix.to_owned()),
            (None, None) => Self::Is(text.to_owned()),
        };
        let (Self::Is(rest) | Self::Prefix(rest) | Self::Suffix(rest)) = &pattern;
        (!text.is_empty() && !rest.contains('*')).then_some(pattern)
    }

    fn matches(&self, channel: &str) -> bool {
        match self {
            Self::Is(name) => channel == name,
            Self::Prefix(prefix) => channel.starts_with(&**prefix),
            Self::Suffix(suffix) => channel.ends_with(&**suffix),
        }
    }
}

/// All places that an application wants told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Webhooks {
    all: Arc<[Arc<Webhook>]>,
    kinds: WebhookKinds,
}

impl Webhooks {
    /// These.
    pub fn new(all: Vec<Webhook>) -> Self {
        let each = WebhookKind::ALL.into_iter();
        let kinds = each.filter(|kind| all.iter().any(|webhook| webhook.kinds.has(*kind)));
        Self {
            kinds: kinds.collect(),
            all: all.into_iter().map(Arc::new).collect(),
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Webhook>> {
        self.all.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether it is the same list, and not only one that says the same.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.all, &other.all)
    }

    /// What any of them wants to be told of.
    pub fn kinds(&self) -> WebhookKinds {
        self.kinds
    }

    /// Whether any of them wants to be told of one of these in a channel.
    pub fn want(&self, kinds: &[WebhookKind], channel: &str) -> bool {
        let is_wanted = |kind: &WebhookKind| {
            self.kinds.has(*kind) && self.all.iter().any(|it| it.wants(*kind, channel))
        };
        kinds.iter().any(is_wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_one_star_at_one_end() {
        for (pattern, matching, other) in [
            ("presence-*", "presence-a", "private-presence-"),
            ("*-orders", "shop-orders", "-orders-1"),
            ("news", "news", "news2"),
            ("*", "anything", ""),
        ] {
            let pattern = ChannelPattern::parse(pattern).unwrap();
            assert!(pattern.matches(matching), "{pattern:?}");
            assert!(!pattern.matches(other) || other.is_empty(), "{pattern:?}");
        }
        for none in ["", "a*b", "*a*", "**"] {
            assert_eq!(ChannelPattern::parse(none), None, "{none}");
        }
    }

    #[test]
    fn addresses_of_this_machine_and_its_link_are_local() {
        for (url, is_local) in [
            ("http://127.0.0.1/", true),
            ("http://127.9.9.9:8000/x", true),
            ("http://localhost/", true),
            ("http://api.localhost./", true),
            ("http://[::1]/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://169.254.169.254/latest", true),
            ("http://[fe80::1]/", true),
            ("http://0.0.0.0/", true),
            ("http://[fd00:ec2::254]/", true),
            ("http://[64:ff9b::7f00:1]/", true),
            ("http://[64:ff9b::a9fe:a9fe]/", true),
            ("http://[::127.0.0.1]/", true),
            ("http://[64:ff9b::c000:201]/", false),
            ("http://[2001:db8::1]/", false),
            ("http://2130706433/", true),
            ("http://10.0.0.1/", false),
            ("https://example.com/", false),
            ("https://localhost.example.com/", false),
        ] {
            let webhook = Webhook {
                url: url.parse().unwrap(),
                kinds: WebhookKinds::default(),
                channels: Vec::new(),
                headers: Vec::new(),
            };
            assert_eq!(webhook.is_local(), is_local, "{url}");
        }
    }

    #[test]
    fn an_event_without_a_channel_passes_every_filter() {
        let webhook = Webhook {
            url: "http://a/?token=secret".parse().unwrap(),
            kinds: [WebhookKind::ClientEvent, WebhookKind::ConnectionClosed]
                .into_iter()
                .collect(),
            channels: vec![ChannelPattern::parse("a-*").unwrap()],
            headers: Vec::new(),
        };
        assert!(webhook.wants(WebhookKind::ConnectionClosed, ""));
        assert!(webhook.wants(WebhookKind::ClientEvent, "a-1"));
        assert!(!webhook.wants(WebhookKind::ClientEvent, "b-1"));
        assert!(!webhook.wants(WebhookKind::MemberAdded, "a-1"));
        assert_eq!(webhook.shown(), "http://a/");
        let all = Webhooks::new(vec![webhook]);
        assert!(all.want(&[WebhookKind::MemberAdded, WebhookKind::ClientEvent], "a-1"));
        assert!(!all.want(&[WebhookKind::MemberAdded], "a-1"));
    }
}
