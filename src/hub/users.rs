//! Users of an application: where they are connected, who is online, who watches whom.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::lock::{Lock, Rank};
use super::outputs::{ConnectionRef, Outputs, WorkerMessage};
use super::topic::{Fact, LocalState, NodeId, Topic};
use crate::apps::AppHandle;
use crate::protocol::{CloseReason, Frame, SocketId, message};

/// All users that have a connection, or that somebody watches.
pub(super) struct Users {
    app: AppHandle,
    outputs: Arc<Outputs>,
    pub(super) known: Lock<Known>,
}

#[derive(Default)]
pub(super) struct Known {
    pub(super) by_id: HashMap<Arc<str>, Entry>,
    /// Those of them that concern other nodes.
    wanted: usize,
    /// Watchers that are not sent anything until it is known of all whom they watch.
    pub(super) awaiting: HashMap<SocketId, Awaiting>,
}

#[derive(Default)]
pub(super) struct Entry {
    pub(super) connections: HashMap<SocketId, Held>,
    /// Connections among them that signed in.
    signed_in: usize,
    pub(super) watchers: HashMap<SocketId, ConnectionRef>,
    /// Other nodes where it is signed in.
    nodes: HashSet<NodeId>,
    /// How far other nodes know of it, while it concerns them: they are sent who signed
    /// in, and asked about whom somebody watches.
    pub(super) sync: Option<UserSync>,
}

/// How far other nodes know of a user, as [`super::sync`] has it of channels.
pub(super) struct UserSync {
    generation: u64,
    version: u64,
    confirmed: u64,
    /// The version in which it signed in.
    signed_in: u64,
    /// The version in which it signed out, until others know, and this node knows whether
    /// it has gone to one of them.
    leaving: Option<u64>,
    /// Who gets the answer to its sign-in once a version is confirmed.
    pub(super) waiting: Vec<(u64, ConnectionRef, Frame)>,
}

/// Why a connection counts as this user's.
pub(super) struct Held {
    pub(super) connection: ConnectionRef,
    signed_in: bool,
    /// Presence channels that it joined as this user.
    memberships: usize,
}

pub(super) struct Awaiting {
    pub(super) connection: ConnectionRef,
    watchlist: Vec<Arc<str>>,
    /// What has to be confirmed before: users of it, and its own sign-in.
    unknown: usize,
}

impl Entry {
    fn is_online(&self) -> bool {
        let is_leaving = |sync: &UserSync| sync.leaving.is_some();
        self.signed_in > 0 || !self.nodes.is_empty() || self.sync.as_ref().is_some_and(is_leaving)
    }

    /// Whether it is known how it is on other nodes.
    fn is_known(&self) -> bool {
        self.sync.as_ref().is_none_or(|sync| sync.confirmed > 0)
    }
}

impl Users {
    pub(super) fn new(app: AppHandle, outputs: Arc<Outputs>) -> Self {
        Self {
            app,
            outputs,
            known: Lock::new(Rank::Users, Known::default()),
        }
    }

    /// A connection joined a presence channel as this user.
    pub(super) fn join(&self, id: &Arc<str>, connection: ConnectionRef) {
        let mut known = self.known.lock();
        held(known.by_id.entry(Arc::clone(id)).or_default(), connection).memberships += 1;
    }

    /// A connection left a presence channel.
    pub(super) fn leave(&self, id: &str, socket: SocketId) {
        let mut known = self.known.lock();
        let Some(entry) = known.by_id.get_mut(id) else {
            return;
        };
        if let Some(held) = entry.connections.get_mut(&socket) {
            held.memberships -= 1;
            if held.memberships == 0 && !held.signed_in {
                entry.connections.remove(&socket);
            }
        }
        forget_if_unused(&mut known, id);
    }

    /// A connection signed in as this user: its watchers are notified that it is online, if it
    /// was not, and the connection is sent who of its watchlist is. Returns `success` if
    /// it is to be sent now; otherwise it is sent once other nodes know of the user, who
    /// may leave one of them next and is not to be taken for gone.
    pub(super) fn sign_in(
        &self,
        id: &Arc<str>,
        connection: ConnectionRef,
        watchlist: &[Arc<str>],
        success: Frame,
    ) -> Option<Frame> {
        let known = &mut *self.known.lock();
        let entry = self.entry_for_others(known, id);
        held(entry, connection).signed_in = true;
        let was_online = entry.is_online();
        entry.signed_in += 1;
        let is_first = entry.signed_in == 1;
        let mut now = Some(success);
        if let Some(sync) = &mut entry.sync {
            if is_first {
                sync.version += 1;
                (sync.signed_in, sync.leaving) = (sync.version, None);
                self.outputs.mark(|| self.topic(id));
            }
            if self.outputs.is_linked() && sync.signed_in > sync.confirmed {
                let waiting = now
                    .take()
                    .map(|success| (sync.signed_in, connection, success));
                sync.waiting.extend(waiting);
            }
        }
        if !was_online {
            self.notify_watchers(known, id, true);
        }
        for watched in watchlist {
            let entry = self.entry_for_others(known, watched);
            entry.watchers.insert(connection.id, connection);
        }
        if watchlist.is_empty() {
            return now;
        }
        let is_unknown = |id: &&Arc<str>| known.by_id.get(*id).is_some_and(|e| !e.is_known());
        let unknown: HashSet<&Arc<str>> = watchlist.iter().filter(is_unknown).collect();
        let unknown = if self.outputs.is_linked() {
            unknown.len() + usize::from(now.is_none())
        } else {
            0
        };
        let awaiting = Awaiting {
            connection,
            watchlist: watchlist.to_vec(),
            unknown,
        };
        if unknown == 0 {
            self.send_watchlist(known, &awaiting);
        } else {
            known.awaiting.insert(connection.id, awaiting);
        }
        now
    }

    /// A user's entry, which concerns other nodes from now on: the caller has to enter why.
    fn entry_for_others<'a>(&self, known: &'a mut Known, id: &Arc<str>) -> &'a mut Entry {
        let entry = known.by_id.entry(Arc::clone(id)).or_default();
        if entry.sync.is_none() {
            known.wanted += 1;
            entry.sync = Some(UserSync {
                generation: self.outputs.next_generation(),
                version: 1,
                confirmed: 0,
                signed_in: 0,
                leaving: None,
                waiting: Vec::new(),
            });
            self.outputs.mark(|| self.topic(id));
        }
        entry
    }

    /// A signed-in connection has ended.
    pub(super) fn sign_out(&self, id: &str, socket: SocketId, watchlist: &[Arc<str>]) {
        let mut known = self.known.lock();
        known.awaiting.remove(&socket);
        for watched in watchlist {
            // It may stand there twice.
            if let Some(entry) = known.by_id.get_mut(watched)
                && entry.watchers.remove(&socket).is_some()
                && self.release_if_idle(entry, watched)
            {
                known.wanted -= 1;
            }
            forget_if_unused(&mut known, watched);
        }
        let Some(entry) = known.by_id.get_mut(id) else {
            return;
        };
        if let Some(held) = entry.connections.get_mut(&socket) {
            held.signed_in = false;
            if held.memberships == 0 {
                entry.connections.remove(&socket);
            }
        }
        entry.signed_in -= 1;
        if let Some(sync) = &mut entry.sync {
            sync.waiting.retain(|(_, waiting, _)| waiting.id != socket);
            if entry.signed_in == 0 {
                sync.version += 1;
                sync.leaving = self.outputs.is_linked().then_some(sync.version);
                self.outputs.mark(|| self.topic(id));
            }
        }
        if entry.signed_in == 0 {
            let is_online = entry.is_online();
            let is_idle = self.release_if_idle(entry, id);
            known.wanted -= usize::from(is_idle);
            if !is_online {
                self.notify_watchers(&known, id, false);
            }
        }
        forget_if_unused(&mut known, id);
    }

    /// True if the user concerned other nodes until now and does not any more.
    fn release_if_idle(&self, entry: &mut Entry, id: &str) -> bool {
        let is_idle = entry.signed_in == 0 && entry.watchers.is_empty();
        if is_idle {
            entry.nodes.clear();
            entry.sync = None;
            self.outputs.mark(|| self.topic(id));
        }
        is_idle
    }

    /// Closes all connections of a user, signed in or present.
    pub(super) fn terminate(&self, id: &str, reason: CloseReason) -> usize {
        let known = self.known.lock();
        let Some(entry) = known.by_id.get(id) else {
            return 0;
        };
        for held in entry.connections.values() {
            let close = WorkerMessage::Close(held.connection, reason);
            self.send(held.connection, close);
        }
        entry.connections.len()
    }

    /// Users that are known of.
    pub(super) fn len(&self) -> usize {
        self.known.lock().by_id.len()
    }

    /// How many users concern other nodes.
    pub(super) fn wanted(&self) -> usize {
        self.known.lock().wanted
    }

    /// Those users.
    pub(super) fn topics(&self) -> Vec<Topic> {
        let known = self.known.lock();
        let wanted = known.by_id.iter().filter(|(_, entry)| entry.sync.is_some());
        wanted.map(|(id, _)| self.topic(id)).collect()
    }

    /// How a user is on this node; `None` if it does not concern other nodes.
    pub(super) fn local_state(&self, id: &str, known: Option<u64>) -> Option<LocalState> {
        let users = self.known.lock();
        let entry = users.by_id.get(id)?;
        let sync = entry.sync.as_ref()?;
        let is_complete = known != Some(sync.generation);
        let facts = match (entry.signed_in > 0, is_complete) {
            (true, _) => vec![Fact::Online],
            (false, true) => Vec::new(),
            (false, false) => vec![Fact::Offline],
        };
        Some(LocalState {
            generation: sync.generation,
            version: sync.version,
            is_complete,
            facts,
        })
    }

    /// This is where else a user is signed in.
    pub(super) fn replace(&self, id: &str, nodes: &[NodeId], unverified: &HashSet<NodeId>) {
        self.change(id, |known| {
            known.retain(|node| unverified.contains(node));
            known.extend(nodes);
        });
    }

    /// A user has signed in or out on another node.
    pub(super) fn apply(&self, id: &str, node: NodeId, online: bool) {
        self.change(id, |known| {
            if online {
                known.insert(node);
            } else {
                known.remove(&node);
            }
        });
    }

    /// Changes the other nodes where a user is signed in, and notifies its watchers.
    fn change(&self, id: &str, change: impl FnOnce(&mut HashSet<NodeId>)) {
        let mut known = self.known.lock();
        let Some(entry) = known.by_id.get_mut(id) else {
            return;
        };
        let was_online = entry.is_online();
        change(&mut entry.nodes);
        let is_online = entry.is_online();
        if was_online != is_online {
            self.notify_watchers(&known, id, is_online);
        }
    }

    /// Other nodes know everything of a user up to a version, and it is known how it is
    /// there: answers who has waited for that.
    pub(super) fn confirm(&self, id: &str, generation: u64, version: u64) {
        let mut known = self.known.lock();
        let Some(entry) = known.by_id.get_mut(id) else {
            return;
        };
        let (was_online, was_known) = (entry.is_online(), entry.is_known());
        let Some(sync) = &mut entry.sync else { return };
        if sync.generation != generation {
            return;
        }
        sync.confirmed = version.max(sync.confirmed);
        let confirmed = sync.confirmed;
        sync.leaving = sync.leaving.filter(|version| *version > confirmed);
        let is_due = |(version, ..): &mut (u64, ConnectionRef, Frame)| *version <= confirmed;
        let due: Vec<_> = sync.waiting.extract_if(.., is_due).collect();
        let watchers: Vec<SocketId> = match was_known {
            true => Vec::new(),
            false => entry.watchers.keys().copied().collect(),
        };
        let is_online = entry.is_online();
        if was_online && !is_online {
            self.notify_watchers(&known, id, false);
        }
        for (_, connection, success) in due {
            self.send(connection, WorkerMessage::Direct(connection, success));
            self.release_watcher(&mut known, connection.id);
        }
        for watcher in watchers {
            self.release_watcher(&mut known, watcher);
        }
    }

    /// A node is gone. Returns the users that were signed in there.
    pub(super) fn remove_node(&self, node: NodeId) -> Vec<Arc<str>> {
        let mut known = self.known.lock();
        let mut were_there = Vec::new();
        for (id, entry) in &mut known.by_id {
            if entry.nodes.remove(&node) {
                were_there.push(Arc::clone(id));
            }
        }
        for id in &were_there {
            if known.by_id.get(id).is_some_and(|entry| !entry.is_online()) {
                self.notify_watchers(&known, id, false);
            }
        }
        were_there
    }

    /// Nobody will confirm anything: everybody is sent what is known.
    pub(super) fn release_all(&self) {
        let mut known = self.known.lock();
        let mut left = Vec::new();
        for (id, entry) in &mut known.by_id {
            let Some(sync) = &mut entry.sync else {
                continue;
            };
            let was_leaving = sync.leaving.take().is_some();
            for (_, connection, success) in sync.waiting.drain(..) {
                self.send(connection, WorkerMessage::Direct(connection, success));
            }
            if was_leaving && !entry.is_online() {
                left.push(Arc::clone(id));
            }
        }
        for id in left {
            self.notify_watchers(&known, &id, false);
        }
        for (_, awaiting) in std::mem::take(&mut known.awaiting) {
            self.send_watchlist(&known, &awaiting);
        }
    }

    /// A connection that awaits its watchlist awaits one thing less.
    fn release_watcher(&self, known: &mut Known, watcher: SocketId) {
        let Some(awaiting) = known.awaiting.get_mut(&watcher) else {
            return;
        };
        awaiting.unknown = awaiting.unknown.saturating_sub(1);
        if awaiting.unknown == 0
            && let Some(awaiting) = known.awaiting.remove(&watcher)
        {
            self.send_watchlist(known, &awaiting);
        }
    }

    fn send_watchlist(&self, known: &Known, watcher: &Awaiting) {
        let is_online = |id: &&str| known.by_id.get(*id).is_some_and(Entry::is_online);
        let (online, offline): (Vec<&str>, Vec<&str>) = watcher
            .watchlist
            .iter()
            .map(|id| &**id)
            .partition(is_online);
        let frame = message::watchlist_events(&online, &offline);
        let connection = watcher.connection;
        self.send(connection, WorkerMessage::Direct(connection, frame));
    }

    fn notify_watchers(&self, known: &Known, id: &str, is_online: bool) {
        let Some(entry) = known.by_id.get(id) else {
            return;
        };
        if entry.watchers.is_empty() {
            return;
        }
        let frame = if is_online {
            message::watchlist_events(&[id], &[])
        } else {
            message::watchlist_events(&[], &[id])
        };
        for (socket, watcher) in &entry.watchers {
            // It will be sent all at once.
            if !known.awaiting.contains_key(socket) {
                self.send(*watcher, WorkerMessage::Direct(*watcher, frame.clone()));
            }
        }
    }

    fn topic(&self, id: &str) -> Topic {
        Topic::User(self.app.clone(), id.into())
    }

    fn send(&self, connection: ConnectionRef, message: WorkerMessage) {
        self.outputs.send(connection.worker, message);
    }
}

fn held(entry: &mut Entry, connection: ConnectionRef) -> &mut Held {
    entry.connections.entry(connection.id).or_insert(Held {
        connection,
        signed_in: false,
        memberships: 0,
    })
}

fn forget_if_unused(known: &mut Known, id: &str) {
    let is_unused = |entry: &Entry| entry.connections.is_empty() && entry.watchers.is_empty();
    if known.by_id.get(id).is_some_and(is_unused) {
        known.by_id.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Sinks;
    use super::super::outputs::Inbox;
    use super::*;
    use crate::apps::tests::handle;

    fn users_of(inbox: &Arc<Inbox>) -> Users {
        let outputs = Outputs::new(vec![Arc::clone(inbox)], None, Sinks::default());
        Users::new(handle("a"), Arc::new(outputs))
    }

    fn connection_ref(key: usize) -> ConnectionRef {
        ConnectionRef {
            worker: 0,
            key,
            id: SocketId::from_random(key as u64),
        }
    }

    fn frames(inbox: &Inbox) -> Vec<(usize, String)> {
        let text = |message: WorkerMessage| match message {
            WorkerMessage::Direct(to, frame) => (
                to.key,
                String::from_utf8_lossy(&frame.as_bytes()[2..]).into_owned(),
            ),
            WorkerMessage::Close(to, reason) => (to.key, format!("{reason:?}")),
            other => unreachable!("users are announced one by one: {other:?}"),
        };
        inbox.take().into_iter().map(text).collect()
    }

    #[test]
    fn watchers_are_sent_the_first_sign_in_and_the_last_sign_out() {
        let inbox = Arc::new(Inbox::new(1 << 20, Arc::default()));
        let users = users_of(&inbox);
        let ids: Vec<Arc<str>> = ["1", "2", "3"].map(Arc::from).into();
        users.sign_in(&ids[0], connection_ref(1), &ids[1..], message::pong());
        assert_eq!(users.wanted(), 3);
        let sent = frames(&inbox);
        assert_eq!(sent.len(), 1);
        assert!(
            sent[0]
                .1
                .contains(r#"\"offline\",\"user_ids\":[\"2\",\"3\"]"#),
            "{sent:?}"
        );
        users.sign_in(&ids[1], connection_ref(2), &[], message::pong());
        users.sign_in(&ids[1], connection_ref(3), &[], message::pong());
        let sent = frames(&inbox);
        assert_eq!(
            sent.len(),
            1,
            "the second connection of a user changes nothing"
        );
        assert!(sent[0].0 == 1 && sent[0].1.contains("online"), "{sent:?}");
        users.sign_out("2", connection_ref(2).id, &[]);
        assert_eq!(frames(&inbox), []);
        users.sign_out("2", connection_ref(3).id, &[]);
        assert!(frames(&inbox)[0].1.contains("offline"));
        users.sign_out("1", connection_ref(1).id, &ids[1..]);
        assert_eq!((users.len(), users.wanted()), (0, 0), "nothing is left");
    }

    #[test]
    fn users_are_wanted_from_the_first_who_needs_them_to_the_last() {
        let inbox = Arc::new(Inbox::new(1 << 20, Arc::default()));
        let users = users_of(&inbox);
        let ids: Vec<Arc<str>> = ["1", "2", "2", "1"].map(Arc::from).into();
        users.join(&ids[1], connection_ref(3));
        assert_eq!(users.wanted(), 0, "a member concerns its channel");
        users.sign_in(&ids[0], connection_ref(1), &ids, message::pong());
        users.sign_in(&ids[0], connection_ref(2), &ids[..2], message::pong());
        assert_eq!(users.wanted(), 2, "one watches itself, and twice the other");
        users.sign_out("1", connection_ref(1).id, &ids);
        assert_eq!(users.wanted(), 2);
        users.sign_out("1", connection_ref(2).id, &ids[..2]);
        assert_eq!((users.len(), users.wanted()), (1, 0));
    }

    #[test]
    fn signed_in_and_present_connections_are_terminated() {
        let inbox = Arc::new(Inbox::new(1 << 20, Arc::default()));
        let users = users_of(&inbox);
        let id: Arc<str> = "1".into();
        users.join(&id, connection_ref(1));
        users.join(&id, connection_ref(1));
        users.sign_in(&id, connection_ref(2), &[], message::pong());
        assert_eq!(users.terminate("1", CloseReason::Terminated), 2);
        assert_eq!(users.terminate("2", CloseReason::Terminated), 0);
        users.leave("1", connection_ref(1).id);
        users.sign_out("1", connection_ref(2).id, &[]);
        assert_eq!(
            users.terminate("1", CloseReason::Terminated),
            1,
            "it is still in another channel"
        );
        users.leave("1", connection_ref(1).id);
        assert_eq!(users.len(), 0);
    }
}
