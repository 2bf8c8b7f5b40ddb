//! Messages that wait for the fan-out, each channel's in its order, the channels
//! in turn: a channel with one subscriber does not wait for all that a channel
//! with thousands has to be sent.

use std::collections::{HashMap, VecDeque};

use crate::hub::Broadcast;

#[derive(Default)]
pub(super) struct Lanes {
    by_channel: HashMap<u64, VecDeque<Broadcast>>,
    /// Channels that have something waiting; the first one's turn is now.
    turn: VecDeque<u64>,
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.turn.is_empty()
    }

    /// Whether a message of this channel would have to wait for an earlier one.
    pub(super) fn holds(&self, channel: u64) -> bool {
        self.by_channel.contains_key(&channel)
    }

    pub(super) fn push(&mut self, broadcast: Broadcast) {
        let lane = self.by_channel.entry(broadcast.channel).or_default();
        if lane.is_empty() {
            self.turn.push_back(broadcast.channel);
        }
        lane.push_back(broadcast);
    }

    /// Channels that have something waiting.
    pub(super) fn len(&self) -> usize {
        self.turn.len()
    }

    /// The message that [`Self::pop`] would return.
    pub(super) fn peek(&self) -> Option<&Broadcast> {
        self.by_channel.get(self.turn.front()?)?.front()
    }

    /// The next message of the channel whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Broadcast> {
        let channel = *self.turn.front()?;
        let lane = self.by_channel.get_mut(&channel)?;
        let broadcast = lane.pop_front();
        if lane.is_empty() {
            self.by_channel.remove(&channel);
            self.turn.pop_front();
        }
        broadcast
    }

    /// The next channel's turn.
    pub(super) fn rotate(&mut self) {
        if let Some(channel) = self.turn.pop_front() {
            self.turn.push_back(channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Recipients;
    use crate::protocol::message;

    #[test]
    fn each_channel_keeps_its_order_and_they_take_turns() {
        let broadcast = |channel, seq| Broadcast {
            channel,
            seq,
            frame: message::ping(),
            to: Recipients::All,
            since: std::time::Instant::now(),
        };
        let mut lanes = Lanes::default();
        for (channel, seq) in [(1, 1), (1, 2), (1, 3), (2, 1), (1, 4)] {
            lanes.push(broadcast(channel, seq));
        }
        assert!(lanes.holds(2) && !lanes.holds(3));
        let mut order = Vec::new();
        while let Some(broadcast) = lanes.pop() {
            order.push((broadcast.channel, broadcast.seq));
            lanes.rotate();
        }
        assert_eq!(order, [(1, 1), (2, 1), (1, 2), (1, 3), (1, 4)]);
        assert!(lanes.is_empty() && lanes.by_channel.is_empty());
    }
}
