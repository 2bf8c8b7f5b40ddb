//! Names of keys and Redis channels, and the slots of a Redis Cluster that they are in.

use crate::apps::AppHandle;
use crate::hub::{NodeId, Topic};

/// Slots of a Redis Cluster (Redis Cluster specification, "Key distribution model").
pub(super) const SLOTS: u16 = 16_384;

/// What everything is called.
pub(in crate::cluster) struct Keys {
    namespace: String,
}

/// A request of an application that is carried out once.
pub(in crate::cluster) type Claim = (AppHandle, [u8; 16]);

/// The names of one topic, all in one slot.
pub(super) struct TopicKeys {
    /// Its Redis channel.
    pub(super) bus: String,
    /// The hash of its facts.
    pub(super) facts: String,
    /// The last event of a cache channel.
    pub(super) last: String,
}

/// The names of what is kept of an application's last events together.
pub(super) struct CacheKeys {
    /// The sorted set of channels by the time at which their events expire.
    pub(super) index: String,
    /// The hash of their sizes; the sum is that of the channel without a name.
    pub(super) sizes: String,
    /// What is before and after a channel's name in the key of its last event.
    pub(super) before: String,
    pub(super) after: String,
}

impl Keys {
    pub(in crate::cluster) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
        }
    }

    /// The Redis channel of a topic, which is what tells topics apart.
    pub(super) fn bus(&self, topic: &Topic) -> String {
        let (app, kind, name) = match topic {
            Topic::Channel(app, name) => (app, 'c', name.as_str()),
            Topic::User(app, id) => (app, 'u', &**id),
        };
        format!("{}:{{{}/{kind}/{name}}}", self.namespace, app.id())
    }

    pub(super) fn of(&self, topic: &Topic) -> TopicKeys {
        let bus = self.bus(topic);
        TopicKeys {
            facts: format!("{bus}:s"),
            last: format!("{bus}:e"),
            bus,
        }
    }

    /// The Redis channel that all nodes listen to.
    pub(super) fn all(&self) -> String {
        format!("{}:{{*}}", self.namespace)
    }

    /// The sorted set of nodes by their last heartbeat.
    pub(super) fn nodes(&self) -> String {
        format!("{}:{{*}}:nodes", self.namespace)
    }

    /// The hash of what nodes say of themselves.
    pub(super) fn infos(&self) -> String {
        format!("{}:{{*}}:infos", self.namespace)
    }

    /// The set of a node's channels, while it is tracked which are occupied.
    pub(super) fn occupied(&self, node: NodeId) -> String {
        format!("{}:{{node/{node}}}:occupied", self.namespace)
    }

    /// The Redis channel of one node.
    pub(super) fn node(&self, node: NodeId) -> String {
        format!("{}:{{node/{node}}}", self.namespace)
    }

    /// The Redis channel that a node listens to once it listens to all that it needs.
    pub(super) fn listens(&self, node: NodeId) -> String {
        format!("{}:{{listens/{node}}}", self.namespace)
    }

    pub(super) fn cache(&self, app: &AppHandle) -> CacheKeys {
        let (namespace, id) = (&self.namespace, app.id());
        CacheKeys {
            index: format!("{namespace}:{{{id}}}:cache"),
            sizes: format!("{namespace}:{{{id}}}:cache:sizes"),
            before: format!("{namespace}:{{{id}/c/"),
            after: "}:e".to_owned(),
        }
    }

    /// What is known of a request that is carried out once.
    pub(super) fn claim(&self, (app, id): &Claim) -> String {
        let id = hex::encode(id);
        format!("{}:{{{}/r/{id}}}", self.namespace, app.id())
    }

    /// The hash of an application's connections by node.
    pub(super) fn connections(&self, app: &AppHandle) -> String {
        format!("{}:{{{}}}:connections", self.namespace, app.id())
    }
}

/// The slot of a key: CRC16 (XMODEM) of what is between its first braces.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(key);
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::tests::handle;
    use crate::protocol::ChannelName;

    #[test]
    fn slots_are_those_of_redis() {
        // From CLUSTER KEYSLOT.
        for (key, expected) in [
            ("123456789", 12_739),
            ("foo", 12_182),
            ("x{foo}y", 12_182),
            ("{}foo", 9500),
        ] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }

    #[test]
    fn all_names_of_a_topic_are_in_one_slot_whatever_its_name() {
        let keys = Keys::new("reverb");
        let app = handle("a}b");
        for topic in [
            Topic::Channel(app.clone(), ChannelName::parse("presence-a", 100).unwrap()),
            Topic::User(app, "a}{b".into()),
        ] {
            let TopicKeys { bus, facts, last } = keys.of(&topic);
            assert_eq!((slot(&facts), slot(&last)), (slot(&bus), slot(&bus)));
        }
    }
}
