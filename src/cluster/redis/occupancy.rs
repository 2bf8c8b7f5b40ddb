//! Which channels are occupied on any node, while the whole deployment tracks that.
//!
//! Each node enters itself into the facts of every channel that it has subscribers in, also
//! of public ones, so that Redis decides who was the first and who the last. The channels
//! of a node are in a set, too: when it dies, the others take it out of each, and Redis
//! decides once more who has taken out the last.
//!
//! While Redis is away nothing is decided; what has changed meanwhile is when it is back.
//! If Redis loses its data, or the link breaks between a decision and its answer, a channel
//! may be vacated without a word. If all nodes die at once, their sets expire in an hour.

use std::sync::Arc;

use redis::Value;

use super::pipeline::Expect;
use super::session::Session;
use super::snapshot;
use crate::hub::{NodeId, Topic};
use crate::protocol::ChannelName;

/// Channels of a node that is gone which are taken out at a time.
const MAX_REAPED: usize = 500;

impl Session<'_> {
    fn tracked(&self, bus: &str) -> Option<(String, Vec<u8>)> {
        if !self.state.info.track_occupancy {
            return None;
        }
        let topic = self.state.views.get(bus).map(|view| &view.topic);
        let topic = topic.or_else(|| self.state.left.get(bus))?;
        let Topic::Channel(app, name) = topic else {
            return None;
        };
        let key = self.state.keys.occupied(self.state.node);
        Some((key, format!("{}\n{name}", app.id()).into_bytes()))
    }

    /// A channel has subscribers on this node.
    pub(super) fn track(&mut self, bus: &str) {
        if let Some((key, channel)) = self.tracked(bus) {
            let mut command = redis::cmd("SADD");
            command.arg(&key).arg(channel);
            self.add(&key, command, Expect::Anything);
        }
    }

    /// A channel has none any more.
    pub(super) fn untrack(&mut self, bus: &str) {
        if let Some((key, channel)) = self.tracked(bus) {
            let mut command = redis::cmd("SREM");
            command.arg(&key).arg(channel);
            self.add(&key, command, Expect::Anything);
        }
    }

    /// This node was the first to enter a channel, or the last to leave it.
    pub(super) fn decided(&self, topic: &Topic, is_occupied: bool) {
        if self.state.info.track_occupancy {
            self.state.hub.emit_occupancy(topic, is_occupied);
        }
    }

    /// A node is gone: its channels are taken out, some at a time.
    pub(super) fn reap_channels(&mut self, node: NodeId) {
        if self.state.info.track_occupancy {
            let key = self.state.keys.occupied(node);
            let mut command = redis::cmd("SRANDMEMBER");
            command.arg(&key).arg(MAX_REAPED);
            self.add(&key, command, Expect::Occupied(node));
        }
    }

    /// Some of the channels of a node that is gone.
    pub(super) fn reap_some(&mut self, node: NodeId, channels: &Value) {
        let (Value::Array(channels) | Value::Set(channels)) = channels else {
            return;
        };
        // It has come back, and entered them again.
        if channels.is_empty() || self.state.nodes.contains(node) {
            return;
        }
        let key = self.state.keys.occupied(node);
        for channel in channels {
            let topic = snapshot::text(channel).and_then(|text| {
                let (app, name) = text.split_once('\n')?;
                let app = self.state.apps.by_id(app)?;
                let name = ChannelName::parse(name, name.len()).ok()?;
                Some(Topic::Channel(app, name))
            });
            if let Some(topic) = topic {
                let keys = self.state.keys.of(&topic);
                let command = self.state.scripts.reap(&keys, &[node]);
                self.add(&keys.bus, command, Expect::Reaped(topic));
            }
            let mut command = redis::cmd("SREM");
            command
                .arg(&key)
                .arg(snapshot::bytes(channel).unwrap_or_default());
            self.add(&key, command, Expect::Anything);
        }
        self.reap_channels(node);
    }

    /// Keeps the set of this node's channels from expiring; makes it anew if it was lost.
    pub(super) fn refresh_occupied(&mut self) {
        if self.state.info.track_occupancy {
            let key = self.state.keys.occupied(self.state.node);
            self.add(
                &key,
                super::scripts::Scripts::refresh(&key),
                Expect::Anything,
            );
        }
    }

    /// Whether nobody had entered a topic before, as Redis says; nothing if this node had.
    pub(super) fn entered_first(&mut self, bus: &Arc<str>, is_first: bool) {
        if let Some(view) = self.state.views.get(bus)
            && is_first
            && view.is_new()
        {
            let topic = view.topic.clone();
            self.decided(&topic, true);
        }
    }
}
