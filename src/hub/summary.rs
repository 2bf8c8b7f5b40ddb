//! What is asked about an application's channels, and the answer.

use indexmap::IndexSet;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// How many connections there are.
    Connections,
    /// One channel; with the ids of its members or without.
    Channel {
        /// Its name.
        name: String,
        /// Whether members are wanted.
        users: bool,
    },
    /// All channels whose names begin so.
    Channels {
        /// With this.
        prefix: String,
        /// Whether members are wanted.
        users: bool,
    },
}

/// How many there are in a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Its subscribers.
    pub subscriptions: u64,
    /// The ids of its members, each once, as text.
    pub users: IndexSet<Box<str>>,
}

impl ChannelSummary {
    /// Adds what there is on another node, or more of it.
    pub fn add(&mut self, other: Self) {
        self.subscriptions = self.subscriptions.saturating_add(other.subscriptions);
        self.users.extend(other.users);
    }
}
