//! How far other nodes know what is so here of a channel, and who waits until they do.
//!
//! Every local change that others have to know gets the next *version*. The session with
//! Redis reads the present state with its version, sends what differs from what it sent
//! before, and confirms the version. Whoever needs a version waits until that one or a
//! later one is confirmed: a subscriber for that of its own appearance, so that its first
//! list of members is complete and nobody who gets to know it takes it for gone; a user that
//! left for that of its leaving, so that one which went to another node was always there.

use std::collections::HashSet;
use std::sync::Arc;

use super::outputs::ConnectionRef;

/// One channel's.
#[derive(Debug, Default)]
pub(super) struct Sync {
    version: u64,
    confirmed: u64,
    /// Users that came or left since the state was taken.
    changed: HashSet<Arc<str>>,
    /// Who is answered once a version is confirmed.
    waiting: Vec<(u64, ConnectionRef)>,
    /// Users that left, by the version in which they did.
    leaving: Vec<(u64, Arc<str>)>,
}

/// Who has waited for a version that is confirmed now.
#[derive(Debug, Default)]
pub(super) struct Released {
    pub(super) waiting: Vec<ConnectionRef>,
    pub(super) left: Vec<Arc<str>>,
}

impl Sync {
    /// Something has changed. Returns the version that has it.
    pub(super) fn advance(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// A user came or left. Returns the version that has it.
    pub(super) fn advance_user(&mut self, user: &Arc<str>) -> u64 {
        self.changed.insert(Arc::clone(user));
        self.advance()
    }

    /// The present version, and the users that came or left since this was asked last.
    pub(super) fn take(&mut self) -> (u64, HashSet<Arc<str>>) {
        (self.version, std::mem::take(&mut self.changed))
    }

    pub(super) fn is_confirmed(&self, version: u64) -> bool {
        version <= self.confirmed
    }

    /// Has a subscriber wait, if it has to.
    pub(super) fn wait(&mut self, version: u64, connection: ConnectionRef) -> bool {
        let must = !self.is_confirmed(version);
        if must {
            self.waiting.push((version, connection));
        }
        must
    }

    pub(super) fn stop_waiting(&mut self, connection: ConnectionRef) {
        self.waiting.retain(|(_, other)| *other != connection);
    }

    /// Has one that waits wait under another reference. Returns whether it waits.
    pub(super) fn transfer(&mut self, from: ConnectionRef, to: ConnectionRef) -> bool {
        let waiting = self.waiting.iter_mut();
        let waiting = waiting.filter(|(_, connection)| *connection == from);
        waiting.map(|(_, connection)| *connection = to).count() > 0
    }

    pub(super) fn is_waiting(&self, connection: ConnectionRef) -> bool {
        self.waiting.iter().any(|(_, other)| *other == connection)
    }

    /// Keeps a user that left until the version is confirmed.
    pub(super) fn keep_leaving(&mut self, version: u64, user: &Arc<str>) {
        self.leaving.push((version, Arc::clone(user)));
    }

    /// Other nodes know everything up to a version.
    pub(super) fn confirm(&mut self, version: u64) -> Released {
        self.confirmed = version.max(self.confirmed);
        let is_due = |due: u64| due <= self.confirmed;
        let waiting = self.waiting.extract_if(.., |(due, _)| is_due(*due));
        let left = self.leaving.extract_if(.., |(due, _)| is_due(*due));
        Released {
            waiting: waiting.map(|(_, connection)| connection).collect(),
            left: left.map(|(_, user)| user).collect(),
        }
    }

    /// Nobody will confirm anything: nobody waits any more.
    pub(super) fn release_all(&mut self) -> Released {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let left = std::mem::take(&mut self.leaving).into_iter();
        Released {
            waiting: waiting.map(|(_, connection)| connection).collect(),
            left: left.map(|(_, user)| user).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::SocketId;

    fn connection(key: usize) -> ConnectionRef {
        ConnectionRef {
            worker: 0,
            key,
            id: SocketId::from_random(key as u64),
        }
    }

    #[test]
    fn who_waits_for_a_version_is_released_by_that_one_or_a_later_one() {
        let mut sync = Sync::default();
        let user: Arc<str> = "u".into();
        let first = sync.advance();
        let second = sync.advance_user(&user);
        assert!(sync.wait(first, connection(1)) && sync.wait(second, connection(2)));
        assert!(sync.is_waiting(connection(2)) && !sync.is_waiting(connection(3)));
        assert_eq!(sync.take(), (2, HashSet::from([Arc::clone(&user)])));
        let third = sync.advance_user(&user);
        sync.keep_leaving(third, &user);
        assert!(sync.wait(third, connection(3)));
        sync.stop_waiting(connection(2));
        let released = sync.confirm(second);
        assert_eq!(released.waiting, [connection(1)]);
        assert!(released.left.is_empty());
        assert!(!sync.wait(first, connection(4)), "it is known");
        let released = sync.confirm(third);
        assert_eq!(released.waiting, [connection(3)]);
        assert_eq!(released.left, [user]);
        assert_eq!(sync.take().0, 3);
    }

    #[test]
    fn an_old_confirmation_takes_nothing_back() {
        let mut sync = Sync::default();
        sync.advance();
        sync.advance();
        sync.confirm(2);
        sync.confirm(1);
        assert!(sync.is_confirmed(2));
    }

    #[test]
    fn without_a_link_nobody_waits() {
        let mut sync = Sync::default();
        let version = sync.advance();
        sync.wait(version, connection(1));
        assert_eq!(sync.release_all().waiting, [connection(1)]);
        assert!(!sync.is_confirmed(version));
    }
}
