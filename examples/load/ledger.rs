//! The account of what was published and what arrived: it finds lost, repeated
//! and disordered deliveries, and it keeps the latencies.
//!
//! It holds nothing per delivery but one number per subscriber and slot of a
//! ring, so that a delivery costs a few lines of cache and no allocation. A slot
//! is used again only when its message has reached everybody: what is missing
//! stays visible to the end.

use crate::message::Mark;
use hdrhistogram::Histogram;

/// Latencies are kept up to this many nanoseconds; longer ones count as this.
const MAX_NANOS: u64 = 60_000_000_000;

/// The subscribers that are to get a message: some with consecutive numbers,
/// without the one that sent it if it is one of them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Audience {
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) sender: Option<u32>,
}

impl Audience {
    fn size(self) -> u32 {
        self.count - u32::from(self.sender.is_some())
    }
}

/// One message on its way. The default is a slot that has not been used yet.
#[derive(Clone, Default)]
struct Slot {
    sequence: u32,
    publisher: u32,
    audience: Audience,
    remaining: u32,
    rejected: bool,
    /// Whether its latencies count.
    measured: bool,
    /// The moment its latencies count from.
    sent: u64,
}

/// What has been counted up to some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    /// Messages that reached every subscriber.
    pub(crate) completed: u64,
    pub(crate) delivered: u64,
    pub(crate) duplicates: u64,
    pub(crate) out_of_order: u64,
    /// Deliveries of messages that were never published, or were refused, or
    /// were for others.
    pub(crate) unexpected: u64,
}

impl Counts {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            published: self.published - before.published,
            completed: self.completed - before.completed,
            delivered: self.delivered - before.delivered,
            duplicates: self.duplicates - before.duplicates,
            out_of_order: self.out_of_order - before.out_of_order,
            unexpected: self.unexpected - before.unexpected,
        }
    }
}

pub(crate) struct Ledger {
    subscribers: usize,
    publishers: usize,
    slots: Vec<Slot>,
    /// Per place in an audience and slot, the last sequence that arrived there.
    seen: Vec<u32>,
    /// Per subscriber and publisher, the highest sequence that arrived.
    highest: Vec<u32>,
    next: u32,
    in_flight: usize,
    counts: Counts,
    measuring: bool,
    latencies: Histogram<u64>,
}

impl Ledger {
    /// A ledger whose ring holds at least `span` messages, each of which is for
    /// everybody.
    pub(crate) fn new(subscribers: usize, publishers: usize, span: usize) -> Self {
        Self::with_audiences(subscribers, subscribers, publishers, span)
    }

    /// A ledger of messages that are for `widest` subscribers at most.
    pub(crate) fn with_audiences(
        widest: usize,
        subscribers: usize,
        publishers: usize,
        span: usize,
    ) -> Self {
        let slots = span.next_power_of_two();
        Self {
            subscribers,
            publishers,
            slots: vec![Slot::default(); slots],
            seen: vec![0; widest * slots],
            highest: vec![0; subscribers * publishers],
            next: 1,
            in_flight: 0,
            counts: Counts::default(),
            measuring: false,
            latencies: Histogram::new_with_bounds(1, MAX_NANOS, 3)
                .expect("the bounds are in order"),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn latencies(&self) -> &Histogram<u64> {
        &self.latencies
    }

    /// From now on, the latencies of new messages count.
    pub(crate) fn begin_to_measure(&mut self) {
        self.measuring = true;
    }

    /// Whether the next message has a slot: the ring is full when the message
    /// that used the slot last is still on its way.
    pub(crate) fn has_room(&self) -> bool {
        self.slots[self.slot_of(self.next)].remaining == 0
    }

    /// Enters a message to everybody that is about to be sent; there must be room.
    pub(crate) fn publish(&mut self, publisher: u32) -> Mark {
        let audience = Audience {
            first: 0,
            count: self.subscribers as u32,
            sender: None,
        };
        self.publish_to(audience, publisher)
    }

    /// Enters a message to some.
    pub(crate) fn publish_to(&mut self, audience: Audience, publisher: u32) -> Mark {
        let sequence = self.next;
        let index = self.slot_of(sequence);
        self.slots[index] = Slot {
            sequence,
            publisher,
            audience,
            remaining: audience.size(),
            rejected: false,
            measured: self.measuring,
            sent: 0,
        };
        self.next += 1;
        self.in_flight += 1;
        self.counts.published += 1;
        Mark {
            publisher,
            sequence,
        }
    }

    /// Enters the moment from which the message's latencies count.
    pub(crate) fn sent(&mut self, mark: Mark, sent: u64) {
        let index = self.slot_of(mark.sequence);
        self.slots[index].sent = sent;
    }

    /// Strikes a message that the server refused: nobody is to get it.
    pub(crate) fn reject(&mut self, mark: Mark) {
        let index = self.slot_of(mark.sequence);
        let slot = &mut self.slots[index];
        if slot.sequence == mark.sequence && slot.remaining > 0 {
            slot.remaining = 0;
            slot.rejected = true;
            self.in_flight -= 1;
        }
    }

    /// Enters one arrival at one subscriber; whether it was the message's last.
    #[inline]
    pub(crate) fn deliver(&mut self, subscriber: usize, mark: Mark, now: u64) -> bool {
        let index = self.slot_of(mark.sequence);
        let ring = self.slots.len();
        let slot = &mut self.slots[index];
        let known = slot.sequence == mark.sequence && slot.publisher == mark.publisher;
        if !known || slot.rejected {
            self.stray(mark);
            return false;
        }
        let audience = slot.audience;
        let place = (subscriber as u32).wrapping_sub(audience.first);
        if place >= audience.count || audience.sender == Some(subscriber as u32) {
            self.counts.unexpected += 1;
            return false;
        }
        let seen = &mut self.seen[place as usize * ring + index];
        if *seen == mark.sequence {
            self.counts.duplicates += 1;
            return false;
        }
        *seen = mark.sequence;
        let highest = &mut self.highest[subscriber * self.publishers + mark.publisher as usize];
        if mark.sequence < *highest {
            self.counts.out_of_order += 1;
        } else {
            *highest = mark.sequence;
        }
        self.counts.delivered += 1;
        slot.remaining -= 1;
        let complete = slot.remaining == 0;
        if complete {
            self.in_flight -= 1;
            self.counts.completed += 1;
        }
        if slot.measured {
            self.latencies
                .saturating_record(now.saturating_sub(slot.sent));
        }
        complete
    }

    /// The deliveries that are still missing; once nothing more is to be waited
    /// for, these are lost.
    pub(crate) fn missing(&self) -> u64 {
        self.slots
            .iter()
            .map(|slot| u64::from(slot.remaining))
            .sum()
    }

    /// A delivery whose slot belongs to another message: of an older one, it is
    /// a repetition, since slots are used again only after everybody was served.
    #[cold]
    fn stray(&mut self, mark: Mark) {
        let slot = &self.slots[self.slot_of(mark.sequence)];
        if mark.sequence > 0 && mark.sequence < slot.sequence {
            self.counts.duplicates += 1;
        } else {
            self.counts.unexpected += 1;
        }
    }

    #[inline]
    fn slot_of(&self, sequence: u32) -> usize {
        sequence as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{Audience, Counts, Ledger};
    use crate::message::Mark;

    #[test]
    fn what_is_missing_is_lost_and_keeps_its_slot() {
        let mut ledger = Ledger::new(2, 1, 2);
        let first = ledger.publish(0);
        ledger.deliver(0, first, 5);
        let second = ledger.publish(0);
        ledger.deliver(0, second, 5);
        ledger.deliver(1, second, 5);
        assert_eq!((ledger.missing(), ledger.in_flight()), (1, 1));
        assert!(!ledger.has_room(), "the first message is still on its way");
    }

    #[test]
    fn repetitions_are_found_early_and_late() {
        let mut ledger = Ledger::new(1, 1, 2);
        let first = ledger.publish(0);
        ledger.deliver(0, first, 5);
        ledger.deliver(0, first, 5);
        for _ in 0..2 {
            let mark = ledger.publish(0);
            ledger.deliver(0, mark, 5);
        }
        ledger.deliver(0, first, 5);
        assert_eq!(ledger.counts().duplicates, 2);
        assert_eq!((ledger.counts().delivered, ledger.missing()), (3, 0));
    }

    #[test]
    fn order_counts_per_subscriber_and_publisher() {
        let mut ledger = Ledger::new(2, 2, 4);
        let marks = [0, 1, 0].map(|publisher| ledger.publish(publisher));
        for at in [1, 0, 2] {
            ledger.deliver(0, marks[at], 5);
        }
        assert_eq!(
            ledger.counts().out_of_order,
            0,
            "publishers may overtake each other"
        );
        for at in [2, 1, 0] {
            ledger.deliver(1, marks[at], 5);
        }
        assert_eq!(ledger.counts().out_of_order, 1);
        assert_eq!(ledger.counts().completed, 3);
    }

    #[test]
    fn a_message_is_for_its_audience_without_its_sender() {
        let mut ledger = Ledger::with_audiences(3, 6, 3, 2);
        let audience = Audience {
            first: 3,
            count: 3,
            sender: Some(4),
        };
        let mark = ledger.publish_to(audience, 1);
        for (subscriber, completes) in [(3, false), (2, false), (4, false), (5, true)] {
            assert_eq!(ledger.deliver(subscriber, mark, 5), completes);
        }
        let counts = ledger.counts();
        assert_eq!((counts.delivered, counts.unexpected), (2, 2));
        assert_eq!((ledger.missing(), ledger.in_flight()), (0, 0));
    }

    #[test]
    fn what_was_refused_or_never_sent_is_unexpected() {
        let mut ledger = Ledger::new(1, 1, 2);
        let refused = ledger.publish(0);
        ledger.reject(refused);
        ledger.deliver(0, refused, 5);
        ledger.deliver(
            0,
            Mark {
                publisher: 7,
                sequence: 2,
            },
            5,
        );
        let expected = Counts {
            published: 1,
            unexpected: 2,
            ..Counts::default()
        };
        assert_eq!(ledger.counts(), expected);
    }
}
