//! Channel names and the kinds that their prefixes stand for.

use std::fmt;
use std::sync::Arc;

/// What the name of a signed-in user's own channel begins with.
const USER_PREFIX: &str = "#server-to-user-";

/// What a subscriber has to show before it may join, and what the channel keeps.
///
/// A kind is decided by the prefix **with** its dash: `private-x` is private,
/// `privateer` is public. (Reverb looks at the bare prefix.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// No prefix: anybody who knows the application key may join.
    Public,
    /// `private-`: needs a signature.
    Private,
    /// `private-encrypted-`: needs a signature; payloads are opaque.
    PrivateEncrypted,
    /// `presence-`: needs a signature over the member's data too.
    Presence,
    /// `cache-`: public, and keeps its last event.
    Cache,
    /// `private-cache-`.
    PrivateCache,
    /// `private-encrypted-cache-`.
    PrivateEncryptedCache,
    /// `presence-cache-`.
    PresenceCache,
}

impl ChannelKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::Public,
        Self::Private,
        Self::PrivateEncrypted,
        Self::Presence,
        Self::Cache,
        Self::PrivateCache,
        Self::PrivateEncryptedCache,
        Self::PresenceCache,
    ];

    /// Its name in metrics: the prefix, or `public`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::PrivateEncrypted => "private-encrypted",
            Self::Presence => "presence",
            Self::Cache => "cache",
            Self::PrivateCache => "private-cache",
            Self::PrivateEncryptedCache => "private-encrypted-cache",
            Self::PresenceCache => "presence-cache",
        }
    }

    /// The longest prefix wins, so the order of this table matters.
    const PREFIXES: [(&'static str, Self); 7] = [
        ("private-encrypted-cache-", Self::PrivateEncryptedCache),
        ("private-encrypted-", Self::PrivateEncrypted),
        ("private-cache-", Self::PrivateCache),
        ("private-", Self::Private),
        ("presence-cache-", Self::PresenceCache),
        ("presence-", Self::Presence),
        ("cache-", Self::Cache),
    ];

    /// The kind that `name`'s prefix stands for.
    pub fn of(name: &str) -> Self {
        Self::PREFIXES
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or(Self::Public, |(_, kind)| *kind)
    }

    /// Whether a subscription needs a signature.
    pub fn needs_signature(self) -> bool {
        !matches!(self, Self::Public | Self::Cache)
    }

    /// Whether payloads are encrypted end to end.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::PrivateEncrypted | Self::PrivateEncryptedCache)
    }

    /// Whether subscribers are members with an identity.
    pub fn is_presence(self) -> bool {
        matches!(self, Self::Presence | Self::PresenceCache)
    }

    /// Whether the channel keeps its last event for later subscribers.
    pub fn is_cache(self) -> bool {
        matches!(
            self,
            Self::Cache | Self::PrivateCache | Self::PrivateEncryptedCache | Self::PresenceCache
        )
    }
}

/// A valid channel name: `A-Z a-z 0-9 _ - = @ , . ;`, with a leading `#` only for
/// the service's own channels. 164 bytes at most, prefix included, unless the
/// application is configured otherwise (Pusher Channels, "Channel naming conventions").
///
/// The characters need no escaping in JSON, which the encoders rely on.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// Why a text is not a channel name. The texts are sent to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    /// The empty name.
    #[error("The channel name is empty")]
    Empty,
    /// Longer than allowed.
    #[error(
        "The channel name has {length} bytes, {limit} are allowed \
         (max_channel_name_length, RESOUND_MAX_CHANNEL_NAME_LENGTH)"
    )]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The bytes that are allowed.
        limit: usize,
    },
    /// A character outside the set.
    #[error("The channel name has {0:?}, allowed are letters, digits and _ - = @ , . ;")]
    Character(char),
}

impl ChannelName {
    /// Checks a name, which may have `limit` bytes.
    pub fn parse(name: &str, limit: usize) -> Result<Self, ChannelNameError> {
        if name.is_empty() {
            return Err(ChannelNameError::Empty);
        }
        // A user's own channel is as long as its id, which has a limit of its own.
        if name.len() > limit && !name.starts_with(USER_PREFIX) {
            return Err(ChannelNameError::TooLong {
                length: name.len(),
                limit,
            });
        }
        let body = name.strip_prefix('#').unwrap_or(name);
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-=@,.;".contains(c);
        match body.chars().find(|c| !allowed(*c)) {
            Some(c) => Err(ChannelNameError::Character(c)),
            None => Ok(Self(name.into())),
        }
    }

    /// The text, shared.
    pub fn to_arc(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind that the prefix stands for.
    pub fn kind(&self) -> ChannelKind {
        ChannelKind::of(&self.0)
    }

    /// The channel of a signed-in user, whatever the limit of names is.
    pub fn of_user(id: &str) -> Result<Self, ChannelNameError> {
        Self::parse(&format!("{USER_PREFIX}{id}"), usize::MAX)
    }

    /// The user to whom a `#server-to-user-…` channel belongs.
    pub fn user(&self) -> Option<&str> {
        self.0.strip_prefix(USER_PREFIX)
    }

    /// Whether the name belongs to the service itself (`#server-to-user-…`), so
    /// that no client may simply subscribe to it.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('#')
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_with_its_dash_decides_the_kind() {
        for (name, kind) in [
            ("lobby", ChannelKind::Public),
            ("private", ChannelKind::Public),
            ("privateer", ChannelKind::Public),
            ("presenceless", ChannelKind::Public),
            ("cachement", ChannelKind::Public),
            ("PRIVATE-x", ChannelKind::Public),
            ("private-x", ChannelKind::Private),
            ("private-", ChannelKind::Private),
            ("private-encrypted-x", ChannelKind::PrivateEncrypted),
            (
                "private-encrypted-cache-x",
                ChannelKind::PrivateEncryptedCache,
            ),
            ("private-cache-x", ChannelKind::PrivateCache),
            ("presence-x", ChannelKind::Presence),
            ("presence-cache-x", ChannelKind::PresenceCache),
            ("cache-x", ChannelKind::Cache),
        ] {
            assert_eq!(ChannelKind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn names_follow_pushers_characters_and_length() {
        for good in [
            "a",
            "private-App.Models.User.1",
            "_-=@,.;",
            "#server-to-user-1",
        ] {
            assert!(ChannelName::parse(good, 164).is_ok(), "{good}");
        }
        assert!(ChannelName::parse(&"x".repeat(164), 164).is_ok());
        for (bad, error) in [
            ("", ChannelNameError::Empty),
            ("with space", ChannelNameError::Character(' ')),
            ("ünïcode", ChannelNameError::Character('ü')),
            ("a/b", ChannelNameError::Character('/')),
            ("a\"b", ChannelNameError::Character('"')),
            ("a:b", ChannelNameError::Character(':')),
            ("a#b", ChannelNameError::Character('#')),
        ] {
            assert_eq!(ChannelName::parse(bad, 164), Err(error), "{bad}");
        }
        let long = "x".repeat(165);
        assert_eq!(
            ChannelName::parse(&long, 164),
            Err(ChannelNameError::TooLong {
                length: 165,
                limit: 164
            })
        );
    }
}
