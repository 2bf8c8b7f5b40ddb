//! Connections that go on in another worker of this process.
//!
//! For each channel, the move of a subscriber is one point in the channel's order. It is
//! made under the channel's lock: the subscriber counts to the new worker from then on, and
//! a mark is put into both inboxes ([`Recipients::Departed`], [`Recipients::Arrived`]).
//! What comes before the mark is for the old worker to deliver, what comes after it for the
//! new one. So nothing is lost and nothing comes twice, however far behind either is.
//!
//! Whoever waits in the hub for an answer is looked for and waits under its new reference. What
//! was sent to the old one before is in that worker's inbox, before the mark.

use std::sync::Arc;
use std::time::Instant;

use super::channel::Channel;
use super::outputs::{Broadcast, ConnectionRef, Outputs, Recipients, WorkerMessage};
use super::users::Users;
use super::{Hub, SignedIn};
use crate::protocol::{Frame, Member, message};

/// What a sign-in still waits for in the hub.
#[derive(Clone, Debug, Default)]
pub struct PendingSignIn {
    /// Its answer, if other nodes cannot know of the user yet.
    pub answer: Option<Frame>,
    /// Whether it has not been sent yet who of its watchlist is online.
    pub awaits_watchlist: bool,
}

impl Hub {
    /// A subscriber of a channel, who is `user` in it, goes on in another worker. Returns
    /// the number of the last message that its old worker has for it; none if it waits for
    /// the answer to its subscription.
    pub fn transfer(
        &self,
        channel: &Channel,
        user: Option<&str>,
        from: ConnectionRef,
        to: ConnectionRef,
    ) -> Option<u64> {
        if let Some(user) = user
            && let Some(state) = self.states.find(channel.app())
        {
            state.users.transfer(user, from, to);
        }
        channel.transfer(from, to, &self.outputs)
    }

    /// The connection of a sign-in goes on in another worker. Returns what it waits for.
    pub fn transfer_sign_in(
        &self,
        signed_in: &SignedIn,
        from: ConnectionRef,
        to: ConnectionRef,
    ) -> PendingSignIn {
        let users = &signed_in.state.users;
        users.transfer_sign_in(signed_in, from, to)
    }

    /// Marks the end of all that a connection is sent under its old reference, once everything is
    /// transferred.
    pub fn mark_departed(&self, from: ConnectionRef) {
        let message = WorkerMessage::Departed(from);
        self.outputs.send(from.worker, message);
    }
}

impl Channel {
    fn transfer(&self, from: ConnectionRef, to: ConnectionRef, outputs: &Outputs) -> Option<u64> {
        let mut state = self.state.lock();
        state.subscribers[from.worker] -= 1;
        state.subscribers[to.worker] += 1;
        let cluster = state.cluster.as_mut();
        let is_waiting = cluster.is_some_and(|cluster| cluster.sync.transfer(from, to));
        let position = (!is_waiting).then_some(state.seq);
        let mark = |seq, to| {
            WorkerMessage::Broadcast(Broadcast {
                channel: self.id(),
                seq,
                frame: message::ping(),
                to,
                since: Instant::now(),
            })
        };
        outputs.send(from.worker, mark(state.seq, Recipients::Departed(from)));
        // Until its answer has come, no message is for it.
        let after = position.unwrap_or(u64::MAX);
        outputs.send(to.worker, mark(after, Recipients::Arrived(to)));
        position
    }

    /// A user as the channel's subscribers know it.
    pub fn member(&self, user: &str) -> Option<Member> {
        let state = self.state.lock();
        let (id, present) = state.members.get_key_value(user)?;
        Some(Member {
            id: Arc::clone(id),
            id_json: present.id_json.clone(),
            info_json: present.encoded.info_json(id),
        })
    }
}

impl Users {
    fn transfer(&self, id: &str, from: ConnectionRef, to: ConnectionRef) {
        let mut known = self.known.lock();
        if let Some(entry) = known.by_id.get_mut(id)
            && let Some(held) = entry.connections.get_mut(&from.id)
        {
            held.connection = to;
        }
    }

    fn transfer_sign_in(
        &self,
        signed_in: &SignedIn,
        from: ConnectionRef,
        to: ConnectionRef,
    ) -> PendingSignIn {
        let mut pending = PendingSignIn::default();
        let user = &signed_in.user;
        let known = &mut *self.known.lock();
        for watched in &user.watchlist {
            if let Some(entry) = known.by_id.get_mut(watched)
                && let Some(watcher) = entry.watchers.get_mut(&from.id)
            {
                *watcher = to;
            }
        }
        if let Some(awaiting) = known.awaiting.get_mut(&from.id) {
            awaiting.connection = to;
            pending.awaits_watchlist = true;
        }
        let Some(entry) = known.by_id.get_mut(&user.member.id) else {
            return pending;
        };
        if let Some(held) = entry.connections.get_mut(&from.id) {
            held.connection = to;
        }
        let waiting = entry.sync.iter_mut().flat_map(|sync| &mut sync.waiting);
        for (_, waiter, success) in waiting.filter(|(_, waiter, _)| *waiter == from) {
            *waiter = to;
            pending.answer = Some(success.clone());
        }
        pending
    }
}
