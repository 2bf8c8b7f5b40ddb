//! One channel.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::inbox::{Address, Audience, Cast, Inbox, Letter};
use super::lock;
use crate::protocol::message::{self, EncodedMember};
use crate::protocol::{ChannelName, Frame, Member};

/// Subscribers from which on count events are held back (Pusher Channels,
/// "Subscription count events").
const MANY: usize = 100;

/// How long they are held back.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// A channel with at least one subscriber.
#[derive(Debug)]
pub struct Channel {
    id: u64,
    app: usize,
    name: ChannelName,
    /// Whether subscribers are told how many they are.
    counts: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Number of the last message; the first is 1.
    seq: u64,
    /// Subscribers by worker.
    subscribers: Box<[usize]>,
    /// Of a presence channel, by identity; the order is that of joining until
    /// somebody leaves.
    members: IndexMap<Arc<str>, Present>,
    counted: Option<Instant>,
    /// Whether a count was held back.
    count_due: bool,
    /// Whether somebody will come back for it.
    count_queued: bool,
}

/// A user that is in a presence channel.
#[derive(Debug)]
struct Present {
    encoded: EncodedMember,
    id_json: Box<str>,
    connections: usize,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections.
    pub subscriptions: usize,
    /// Users of a presence channel, each once.
    pub users: usize,
}

/// The presence channel has all the members that it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The presence channel has all the {0} members it may have")]
pub struct Full(pub usize);

impl State {
    fn total(&self) -> usize {
        self.subscribers.iter().sum()
    }
}

impl Channel {
    pub(super) fn new(
        id: u64,
        app: usize,
        name: ChannelName,
        workers: usize,
        counts: bool,
    ) -> Self {
        let state = State {
            seq: 0,
            subscribers: vec![0; workers].into(),
            members: IndexMap::new(),
            counted: None,
            count_due: false,
            count_queued: false,
        };
        let counts = counts && !name.kind().is_presence();
        Self {
            id,
            app,
            name,
            counts,
            state: Mutex::new(state),
        }
    }

    /// Unique in this process, also over a channel's lives.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// [`crate::app::App::index`] of its application.
    pub fn app(&self) -> usize {
        self.app
    }

    /// How many subscribers and members there are.
    pub fn counts(&self) -> Counts {
        let state = lock(&self.state);
        Counts {
            subscriptions: state.total(),
            users: state.members.len(),
        }
    }

    /// Ids of the members as JSON.
    pub fn member_ids(&self) -> Vec<Box<str>> {
        lock(&self.state)
            .members
            .values()
            .map(|present| present.id_json.clone())
            .collect()
    }

    /// Answers one subscriber, in order.
    pub(super) fn answer_again(&self, to: Address, cached: Option<Frame>, inboxes: &[Arc<Inbox>]) {
        let state = lock(&self.state);
        for frame in [Some(self.welcome_of(&state)), cached]
            .into_iter()
            .flatten()
        {
            let cast = Cast {
                channel: self.id,
                seq: state.seq,
                frame,
                to: Audience::Only(to),
            };
            inboxes[to.worker].push(Letter::Cast(cast));
        }
    }

    fn welcome_of(&self, state: &State) -> Frame {
        if self.name.kind().is_presence() {
            message::presence_succeeded(
                &self.name,
                state.members.values().map(|present| &present.encoded),
            )
        } else {
            message::subscription_succeeded(&self.name)
        }
    }

    /// Adds a subscriber, and tells the others if it is its user's first. Gives
    /// back the number of the last message and the answer to the subscription.
    pub(super) fn join(
        &self,
        seat: Address,
        member: Option<&Member>,
        most: usize,
        inboxes: &[Arc<Inbox>],
    ) -> Result<(u64, Frame), Full> {
        let mut state = lock(&self.state);
        if let Some(member) = member {
            if let Some(present) = state.members.get_mut(&member.id) {
                present.connections += 1;
            } else if state.members.len() >= most {
                return Err(Full(most));
            } else {
                let present = Present {
                    encoded: EncodedMember::new(member),
                    id_json: member.id_json.clone(),
                    connections: 1,
                };
                state.members.insert(Arc::clone(&member.id), present);
                self.cast_in(
                    &mut state,
                    &message::member_added(&self.name, member),
                    Audience::All,
                    inboxes,
                );
            }
        }
        state.subscribers[seat.worker] += 1;
        let joined = (state.seq, self.welcome_of(&state));
        self.tell_count(&mut state, inboxes);
        Ok(joined)
    }

    /// Takes a subscriber away, and tells the others if it was its user's last.
    /// Gives back how many are left.
    pub(super) fn leave(&self, worker: usize, user: Option<&str>, inboxes: &[Arc<Inbox>]) -> usize {
        let mut state = lock(&self.state);
        state.subscribers[worker] -= 1;
        if let Some(user) = user
            && let Some(present) = state.members.get_mut(user)
        {
            present.connections -= 1;
            if present.connections == 0
                && let Some(gone) = state.members.swap_remove(user)
            {
                self.cast_in(
                    &mut state,
                    &message::member_removed(&self.name, &gone.id_json),
                    Audience::All,
                    inboxes,
                );
            }
        }
        self.tell_count(&mut state, inboxes);
        state.total()
    }

    /// Numbers a frame and puts it into the inbox of each worker that has a
    /// subscriber. Gives back the number of subscribers.
    pub(super) fn cast(&self, frame: &Frame, to: Audience, inboxes: &[Arc<Inbox>]) -> usize {
        self.cast_in(&mut lock(&self.state), frame, to, inboxes)
    }

    fn cast_in(
        &self,
        state: &mut State,
        frame: &Frame,
        to: Audience,
        inboxes: &[Arc<Inbox>],
    ) -> usize {
        state.seq += 1;
        for (inbox, _) in inboxes
            .iter()
            .zip(&state.subscribers)
            .filter(|(_, count)| **count > 0)
        {
            inbox.push(Letter::Cast(Cast {
                channel: self.id,
                seq: state.seq,
                frame: frame.clone(),
                to,
            }));
        }
        state.total()
    }

    /// Tells subscribers how many they are: at once, or, when they are many, at
    /// most every five seconds.
    fn tell_count(&self, state: &mut State, inboxes: &[Arc<Inbox>]) {
        let total = state.total();
        if !self.counts || total == 0 {
            return;
        }
        let now = Instant::now();
        let recent = state
            .counted
            .is_some_and(|counted| now.saturating_duration_since(counted) < COUNT_INTERVAL);
        if total > MANY && recent {
            state.count_due = true;
            return;
        }
        state.counted = Some(now);
        state.count_due = false;
        self.cast_in(
            state,
            &message::subscription_count(&self.name, total),
            Audience::All,
            inboxes,
        );
    }

    /// Whether a count was held back that nobody will come back for yet; whoever
    /// asks has to call [`Self::tell_held_back_count`] later.
    pub(super) fn must_be_queued(&self) -> bool {
        if !self.counts {
            return false;
        }
        let mut state = lock(&self.state);
        let must = state.count_due && !state.count_queued;
        state.count_queued |= must;
        must
    }

    /// Sends a count that was held back long enough.
    pub(super) fn tell_held_back_count(&self, inboxes: &[Arc<Inbox>]) {
        let mut state = lock(&self.state);
        state.count_queued = false;
        if state.count_due {
            self.tell_count(&mut state, inboxes);
        }
    }
}
