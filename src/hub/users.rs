//! Users of an application: where they are connected, who is online, who watches whom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::inbox::{Address, Inbox, Letter};
use super::lock;
use crate::protocol::{CloseReason, SocketId, message};

/// All users that have a connection, or that somebody watches.
pub(super) struct Users {
    inboxes: Vec<Arc<Inbox>>,
    by_id: Mutex<HashMap<Arc<str>, Entry>>,
}

#[derive(Default)]
struct Entry {
    connections: HashMap<SocketId, Held>,
    /// Connections among them that signed in.
    signed_in: usize,
    watchers: HashMap<SocketId, Address>,
}

/// Why a connection counts as this user's.
struct Held {
    address: Address,
    signed_in: bool,
    /// Presence channels that it joined as this user.
    memberships: usize,
}

impl Users {
    pub(super) fn new(inboxes: Vec<Arc<Inbox>>) -> Self {
        Self {
            inboxes,
            by_id: Mutex::default(),
        }
    }

    /// A connection joined a presence channel as this user.
    pub(super) fn join(&self, id: &Arc<str>, address: Address) {
        let mut users = lock(&self.by_id);
        held(users.entry(Arc::clone(id)).or_default(), address).memberships += 1;
    }

    /// A connection left a presence channel.
    pub(super) fn leave(&self, id: &str, socket: SocketId) {
        let mut users = lock(&self.by_id);
        let Some(entry) = users.get_mut(id) else {
            return;
        };
        if let Some(held) = entry.connections.get_mut(&socket) {
            held.memberships -= 1;
            if held.memberships == 0 && !held.signed_in {
                entry.connections.remove(&socket);
            }
        }
        forget_if_unused(&mut users, id);
    }

    /// A connection signed in as this user: its watchers hear that it is online,
    /// if it was not, and the connection hears who of its watchlist is.
    pub(super) fn sign_in(&self, id: &Arc<str>, address: Address, watchlist: &[Arc<str>]) {
        let mut users = lock(&self.by_id);
        let entry = users.entry(Arc::clone(id)).or_default();
        held(entry, address).signed_in = true;
        entry.signed_in += 1;
        if entry.signed_in == 1 {
            self.tell_watchers(entry, &[id], &[]);
        }
        for watched in watchlist {
            users
                .entry(Arc::clone(watched))
                .or_default()
                .watchers
                .insert(address.id, address);
        }
        if watchlist.is_empty() {
            return;
        }
        let is_online = |id: &&str| users.get(*id).is_some_and(|entry| entry.signed_in > 0);
        let (online, offline): (Vec<&str>, Vec<&str>) =
            watchlist.iter().map(|id| &**id).partition(is_online);
        self.send(
            address,
            Letter::Direct(address, message::watchlist_events(&online, &offline)),
        );
    }

    /// A signed-in connection has ended.
    pub(super) fn sign_out(&self, id: &str, socket: SocketId, watchlist: &[Arc<str>]) {
        let mut users = lock(&self.by_id);
        for watched in watchlist {
            if let Some(entry) = users.get_mut(watched) {
                entry.watchers.remove(&socket);
            }
            forget_if_unused(&mut users, watched);
        }
        let Some(entry) = users.get_mut(id) else {
            return;
        };
        if let Some(held) = entry.connections.get_mut(&socket) {
            held.signed_in = false;
            if held.memberships == 0 {
                entry.connections.remove(&socket);
            }
        }
        entry.signed_in -= 1;
        if entry.signed_in == 0 {
            self.tell_watchers(entry, &[], &[id]);
        }
        forget_if_unused(&mut users, id);
    }

    /// Closes all connections of a user, signed in or present.
    pub(super) fn terminate(&self, id: &str) -> usize {
        let users = lock(&self.by_id);
        let Some(entry) = users.get(id) else { return 0 };
        for held in entry.connections.values() {
            self.send(
                held.address,
                Letter::Close(held.address, CloseReason::Terminated),
            );
        }
        entry.connections.len()
    }

    /// Users that are known of.
    pub(super) fn len(&self) -> usize {
        lock(&self.by_id).len()
    }

    fn tell_watchers(&self, entry: &Entry, online: &[&str], offline: &[&str]) {
        if entry.watchers.is_empty() {
            return;
        }
        let frame = message::watchlist_events(online, offline);
        for watcher in entry.watchers.values() {
            self.send(*watcher, Letter::Direct(*watcher, frame.clone()));
        }
    }

    fn send(&self, address: Address, letter: Letter) {
        self.inboxes[address.worker].push(letter);
    }
}

fn held(entry: &mut Entry, address: Address) -> &mut Held {
    entry.connections.entry(address.id).or_insert(Held {
        address,
        signed_in: false,
        memberships: 0,
    })
}

fn forget_if_unused(users: &mut HashMap<Arc<str>, Entry>, id: &str) {
    if users
        .get(id)
        .is_some_and(|entry| entry.connections.is_empty() && entry.watchers.is_empty())
    {
        users.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(key: usize) -> Address {
        Address {
            worker: 0,
            key,
            id: SocketId::from_random(key as u64),
        }
    }

    fn frames(inbox: &Inbox) -> Vec<(usize, String)> {
        let text = |letter: Letter| match letter {
            Letter::Direct(to, frame) => (
                to.key,
                String::from_utf8_lossy(&frame.as_bytes()[2..]).into_owned(),
            ),
            Letter::Close(to, reason) => (to.key, format!("{reason:?}")),
            Letter::Cast(_) => unreachable!("users send no casts"),
        };
        inbox.take().into_iter().map(text).collect()
    }

    #[test]
    fn watchers_hear_of_the_first_sign_in_and_the_last_sign_out() {
        let inbox = Arc::new(Inbox::new(1 << 20));
        let users = Users::new(vec![Arc::clone(&inbox)]);
        let ids: Vec<Arc<str>> = ["1", "2", "3"].map(Arc::from).into();
        users.sign_in(&ids[0], address(1), &ids[1..]);
        let told = frames(&inbox);
        assert_eq!(told.len(), 1);
        assert!(
            told[0]
                .1
                .contains(r#"\"offline\",\"user_ids\":[\"2\",\"3\"]"#),
            "{told:?}"
        );
        users.sign_in(&ids[1], address(2), &[]);
        users.sign_in(&ids[1], address(3), &[]);
        let told = frames(&inbox);
        assert_eq!(
            told.len(),
            1,
            "the second connection of a user changes nothing"
        );
        assert!(told[0].0 == 1 && told[0].1.contains("online"), "{told:?}");
        users.sign_out("2", address(2).id, &[]);
        assert_eq!(frames(&inbox), []);
        users.sign_out("2", address(3).id, &[]);
        assert!(frames(&inbox)[0].1.contains("offline"));
        users.sign_out("1", address(1).id, &ids[1..]);
        assert_eq!(users.len(), 0, "nothing is left");
    }

    #[test]
    fn signed_in_and_present_connections_are_terminated() {
        let inbox = Arc::new(Inbox::new(1 << 20));
        let users = Users::new(vec![Arc::clone(&inbox)]);
        let id: Arc<str> = "1".into();
        users.join(&id, address(1));
        users.join(&id, address(1));
        users.sign_in(&id, address(2), &[]);
        assert_eq!(users.terminate("1"), 2);
        assert_eq!(users.terminate("2"), 0);
        users.leave("1", address(1).id);
        users.sign_out("1", address(2).id, &[]);
        assert_eq!(users.terminate("1"), 1, "it is still in another channel");
        users.leave("1", address(1).id);
        assert_eq!(users.len(), 0);
    }
}
