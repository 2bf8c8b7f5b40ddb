//! Users of an application: where they are connected, who is online, who watches whom.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::cluster_queue::{ClusterUpdate, Fact, NodeId, Topic};
use super::lock;
use super::outputs::{ConnectionRef, Outputs, WorkerMessage};
use crate::protocol::{CloseReason, Frame, SocketId, message};

/// All users that have a connection, or that somebody watches.
pub(super) struct Users {
    app: usize,
    outputs: Arc<Outputs>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<Arc<str>, Entry>,
    /// Those of them that matter elsewhere.
    wanted: usize,
    /// Watchers that are not told anything until it is known of all whom they watch.
    awaiting: HashMap<SocketId, Awaiting>,
}

#[derive(Default)]
struct Entry {
    connections: HashMap<SocketId, Held>,
    /// Connections among them that signed in.
    signed_in: usize,
    watchers: HashMap<SocketId, ConnectionRef>,
    /// Other nodes where it is signed in.
    nodes: HashSet<NodeId>,
    /// Whether other nodes were asked and have not answered.
    is_asked: bool,
    /// Times that it signed out here and others may not know of it yet, nor this node
    /// of one that it has gone to.
    leaving: usize,
    /// Who gets the answer to its sign-in once other nodes can know of it.
    unconfirmed: Option<Vec<(ConnectionRef, Frame)>>,
}

/// Why a connection counts as this user's.
struct Held {
    address: ConnectionRef,
    signed_in: bool,
    /// Presence channels that it joined as this user.
    memberships: usize,
}

struct Awaiting {
    address: ConnectionRef,
    watchlist: Vec<Arc<str>>,
    /// Users of it that others were asked about.
    unknown: usize,
}

impl Entry {
    fn is_online(&self) -> bool {
        self.signed_in > 0 || !self.nodes.is_empty() || self.leaving > 0
    }

    /// Whether other nodes matter: they are told of who signed in, and asked about
    /// whom somebody watches.
    fn concerns_remote(&self) -> bool {
        self.signed_in > 0 || !self.watchers.is_empty()
    }
}

impl Users {
    pub(super) fn new(app: usize, outputs: Arc<Outputs>) -> Self {
        Self {
            app,
            outputs,
            known: Mutex::default(),
        }
    }

    /// A connection joined a presence channel as this user.
    pub(super) fn join(&self, id: &Arc<str>, address: ConnectionRef) {
        let mut known = lock(&self.known);
        held(known.by_id.entry(Arc::clone(id)).or_default(), address).memberships += 1;
    }

    /// A connection left a presence channel.
    pub(super) fn leave(&self, id: &str, socket: SocketId) {
        let mut known = lock(&self.known);
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

    /// A connection signed in as this user: its watchers hear that it is online,
    /// if it was not, and the connection hears who of its watchlist is. Gives
    /// `success` back if it is to be sent now; otherwise it is sent once other nodes can
    /// know of the user, who may leave one of them next and is not to be taken for gone.
    pub(super) fn sign_in(
        &self,
        id: &Arc<str>,
        address: ConnectionRef,
        watchlist: &[Arc<str>],
        success: Frame,
    ) -> Option<Frame> {
        let mut known = lock(&self.known);
        let entry = self.entry_for_others(&mut known, id);
        held(entry, address).signed_in = true;
        let was_online = entry.is_online();
        entry.signed_in += 1;
        if entry.signed_in == 1 {
            if self.outputs.is_linked() {
                entry.unconfirmed = Some(Vec::new());
            }
            self.outputs
                .tell(|| ClusterUpdate::Change(self.topic(id), Fact::Online));
        }
        let is_unconfirmed = entry.unconfirmed.is_some();
        let now = match &mut entry.unconfirmed {
            Some(unconfirmed) => {
                unconfirmed.push((address, success));
                None
            }
            None => Some(success),
        };
        if !was_online {
            self.tell_watchers(&known, id, true);
        }
        for watched in watchlist {
            let entry = self.entry_for_others(&mut known, watched);
            entry.watchers.insert(address.id, address);
        }
        if watchlist.is_empty() {
            return now;
        }
        let is_unknown = |id: &&Arc<str>| known.by_id.get(*id).is_some_and(|entry| entry.is_asked);
        let unknown = watchlist.iter().filter(is_unknown).count() + usize::from(is_unconfirmed);
        let awaiting = Awaiting {
            address,
            watchlist: watchlist.to_vec(),
            unknown,
        };
        if unknown == 0 {
            self.tell_watchlist(&known, &awaiting);
        } else {
            known.awaiting.insert(address.id, awaiting);
        }
        now
    }

    /// Other nodes can know now that a user is signed in here.
    pub(super) fn confirm(&self, id: &str) {
        let mut known = lock(&self.known);
        let unconfirmed = known.by_id.get_mut(id).and_then(|e| e.unconfirmed.take());
        for (address, success) in unconfirmed.into_iter().flatten() {
            self.send(address, WorkerMessage::Direct(address, success));
            self.release_watcher(&mut known, address.id);
        }
    }

    /// Others know that a user has signed out here.
    pub(super) fn confirm_leave(&self, id: &str) {
        let mut known = lock(&self.known);
        let Some(entry) = known.by_id.get_mut(id) else {
            return;
        };
        let was_online = entry.is_online();
        entry.leaving = entry.leaving.saturating_sub(1);
        if was_online && !entry.is_online() {
            self.tell_watchers(&known, id, false);
        }
    }

    /// A user's entry, about which other nodes are told and asked from now on: the caller
    /// has to enter why.
    fn entry_for_others<'a>(&self, known: &'a mut Known, id: &Arc<str>) -> &'a mut Entry {
        let entry = known.by_id.entry(Arc::clone(id)).or_default();
        if entry.concerns_remote() {
            return entry;
        }
        known.wanted += 1;
        if self.outputs.is_linked() {
            entry.is_asked = true;
            self.outputs.tell(|| ClusterUpdate::Listen {
                topic: self.topic(id),
                generation: 0,
                facts: Vec::new(),
            });
        }
        entry
    }

    /// A signed-in connection has ended.
    pub(super) fn sign_out(&self, id: &str, socket: SocketId, watchlist: &[Arc<str>]) {
        let mut known = lock(&self.known);
        known.awaiting.remove(&socket);
        for watched in watchlist {
            // It may stand there twice.
            if let Some(entry) = known.by_id.get_mut(watched)
                && entry.watchers.remove(&socket).is_some()
                && self.unlisten_if_idle(entry, watched)
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
        if let Some(unconfirmed) = &mut entry.unconfirmed {
            unconfirmed.retain(|(address, _)| address.id != socket);
        }
        if entry.signed_in == 0 {
            entry.unconfirmed = None;
            entry.leaving += usize::from(self.outputs.is_linked());
            self.outputs
                .tell(|| ClusterUpdate::Change(self.topic(id), Fact::Offline));
            let is_online = entry.is_online();
            let is_idle = self.unlisten_if_idle(entry, id);
            known.wanted -= usize::from(is_idle);
            if !is_online {
                self.tell_watchers(&known, id, false);
            }
        }
        forget_if_unused(&mut known, id);
    }

    /// True if the user mattered elsewhere until now and does not any more.
    fn unlisten_if_idle(&self, entry: &mut Entry, id: &str) -> bool {
        let is_idle = !entry.concerns_remote();
        if is_idle {
            entry.nodes.clear();
            entry.leaving = 0;
            entry.is_asked = false;
            self.outputs
                .tell(|| ClusterUpdate::Unlisten(self.topic(id)));
        }
        is_idle
    }

    /// Closes all connections of a user, signed in or present.
    pub(super) fn terminate(&self, id: &str) -> usize {
        let known = lock(&self.known);
        let Some(entry) = known.by_id.get(id) else {
            return 0;
        };
        for held in entry.connections.values() {
            self.send(
                held.address,
                WorkerMessage::Close(held.address, CloseReason::Terminated),
            );
        }
        entry.connections.len()
    }

    /// Users that are known of.
    pub(super) fn len(&self) -> usize {
        lock(&self.known).by_id.len()
    }

    /// Users that other nodes are told or asked about.
    pub(super) fn wanted(&self) -> usize {
        lock(&self.known).wanted
    }

    /// Tells other nodes all that they have to know, and asks again.
    pub(super) fn tell_all(&self) {
        let known = lock(&self.known);
        for (id, entry) in &known.by_id {
            self.tell_of(id, entry);
        }
    }

    /// Tells and asks again about one.
    pub(super) fn tell_again(&self, id: &str) {
        let known = lock(&self.known);
        if let Some(entry) = known.by_id.get(id) {
            self.tell_of(id, entry);
        }
    }

    fn tell_of(&self, id: &str, entry: &Entry) {
        if entry.concerns_remote() {
            let online = (entry.signed_in > 0).then_some(Fact::Online);
            self.outputs.tell(|| ClusterUpdate::Listen {
                topic: self.topic(id),
                generation: 0,
                facts: online.into_iter().collect(),
            });
        }
    }

    /// It is known where else a user is signed in.
    pub(super) fn replace(&self, id: &str, nodes: &[NodeId], spared: &HashSet<NodeId>) {
        let mut known = lock(&self.known);
        let Some(entry) = known.by_id.get_mut(id) else {
            return;
        };
        let was_online = entry.is_online();
        entry.nodes.retain(|node| spared.contains(node));
        entry.nodes.extend(nodes);
        let is_online = entry.is_online();
        if was_online != is_online {
            self.tell_watchers(&known, id, is_online);
        }
        self.confirm_state(&mut known, id);
    }

    /// A user has signed in or out on another node.
    pub(super) fn apply(&self, id: &str, node: NodeId, online: bool) {
        let mut known = lock(&self.known);
        let Some(entry) = known.by_id.get_mut(id) else {
            return;
        };
        let was_online = entry.is_online();
        if online {
            entry.nodes.insert(node);
        } else {
            entry.nodes.remove(&node);
        }
        let is_online = entry.is_online();
        if was_online != is_online {
            self.tell_watchers(&known, id, is_online);
        }
    }

    /// A node is gone. Returns the users that were signed in there.
    pub(super) fn forget(&self, node: NodeId) -> Vec<Arc<str>> {
        let mut known = lock(&self.known);
        let mut were_there = Vec::new();
        for (id, entry) in &mut known.by_id {
            if entry.nodes.remove(&node) {
                were_there.push(Arc::clone(id));
            }
        }
        for id in &were_there {
            if known.by_id.get(id).is_some_and(|entry| !entry.is_online()) {
                self.tell_watchers(&known, id, false);
            }
        }
        were_there
    }

    /// Nobody will answer: everybody is told what is known.
    pub(super) fn go_alone(&self) {
        let mut known = lock(&self.known);
        let mut left = Vec::new();
        for (id, entry) in &mut known.by_id {
            entry.is_asked = false;
            if std::mem::take(&mut entry.leaving) > 0 && !entry.is_online() {
                left.push(Arc::clone(id));
            }
            for (address, success) in entry.unconfirmed.take().into_iter().flatten() {
                self.send(address, WorkerMessage::Direct(address, success));
            }
        }
        for id in left {
            self.tell_watchers(&known, &id, false);
        }
        for (_, awaiting) in std::mem::take(&mut known.awaiting) {
            self.tell_watchlist(&known, &awaiting);
        }
    }

    fn confirm_state(&self, known: &mut Known, id: &str) {
        let Some(entry) = known.by_id.get_mut(id) else {
            return;
        };
        if !std::mem::take(&mut entry.is_asked) {
            return;
        }
        let watchers: Vec<SocketId> = entry.watchers.keys().copied().collect();
        for watcher in watchers {
            self.release_watcher(known, watcher);
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
            self.tell_watchlist(known, &awaiting);
        }
    }

    fn tell_watchlist(&self, known: &Known, watcher: &Awaiting) {
        let is_online = |id: &&str| known.by_id.get(*id).is_some_and(Entry::is_online);
        let (online, offline): (Vec<&str>, Vec<&str>) = watcher
            .watchlist
            .iter()
            .map(|id| &**id)
            .partition(is_online);
        let frame = message::watchlist_events(&online, &offline);
        self.send(
            watcher.address,
            WorkerMessage::Direct(watcher.address, frame),
        );
    }

    fn tell_watchers(&self, known: &Known, id: &str, is_online: bool) {
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
            // It will be told of all at once.
            if !known.awaiting.contains_key(socket) {
                self.send(*watcher, WorkerMessage::Direct(*watcher, frame.clone()));
            }
        }
    }

    fn topic(&self, id: &str) -> Topic {
        Topic::User(self.app, id.into())
    }

    fn send(&self, address: ConnectionRef, message: WorkerMessage) {
        self.outputs.send(address.worker, message);
    }
}

fn held(entry: &mut Entry, address: ConnectionRef) -> &mut Held {
    entry.connections.entry(address.id).or_insert(Held {
        address,
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
    use super::super::outputs::Inbox;
    use super::*;

    fn users_of(inbox: &Arc<Inbox>) -> Users {
        let outputs = Outputs {
            inboxes: vec![Arc::clone(inbox)],
            cluster_queue: None,
        };
        Users::new(0, Arc::new(outputs))
    }

    fn address(key: usize) -> ConnectionRef {
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
            WorkerMessage::Broadcast(_) => unreachable!("users send no broadcasts"),
        };
        inbox.take().into_iter().map(text).collect()
    }

    #[test]
    fn watchers_hear_of_the_first_sign_in_and_the_last_sign_out() {
        let inbox = Arc::new(Inbox::new(1 << 20, Arc::default()));
        let users = users_of(&inbox);
        let ids: Vec<Arc<str>> = ["1", "2", "3"].map(Arc::from).into();
        users.sign_in(&ids[0], address(1), &ids[1..], message::pong());
        assert_eq!(users.wanted(), 3);
        let told = frames(&inbox);
        assert_eq!(told.len(), 1);
        assert!(
            told[0]
                .1
                .contains(r#"\"offline\",\"user_ids\":[\"2\",\"3\"]"#),
            "{told:?}"
        );
        users.sign_in(&ids[1], address(2), &[], message::pong());
        users.sign_in(&ids[1], address(3), &[], message::pong());
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
        assert_eq!((users.len(), users.wanted()), (0, 0), "nothing is left");
    }

    #[test]
    fn users_are_wanted_from_the_first_who_needs_them_to_the_last() {
        let inbox = Arc::new(Inbox::new(1 << 20, Arc::default()));
        let users = users_of(&inbox);
        let ids: Vec<Arc<str>> = ["1", "2", "2", "1"].map(Arc::from).into();
        users.join(&ids[1], address(3));
        assert_eq!(users.wanted(), 0, "a member concerns its channel");
        users.sign_in(&ids[0], address(1), &ids, message::pong());
        users.sign_in(&ids[0], address(2), &ids[..2], message::pong());
        assert_eq!(users.wanted(), 2, "one watches itself, and twice the other");
        users.sign_out("1", address(1).id, &ids);
        assert_eq!(users.wanted(), 2);
        users.sign_out("1", address(2).id, &ids[..2]);
        assert_eq!((users.len(), users.wanted()), (1, 0));
    }

    #[test]
    fn signed_in_and_present_connections_are_terminated() {
        let inbox = Arc::new(Inbox::new(1 << 20, Arc::default()));
        let users = users_of(&inbox);
        let id: Arc<str> = "1".into();
        users.join(&id, address(1));
        users.join(&id, address(1));
        users.sign_in(&id, address(2), &[], message::pong());
        assert_eq!(users.terminate("1"), 2);
        assert_eq!(users.terminate("2"), 0);
        users.leave("1", address(1).id);
        users.sign_out("1", address(2).id, &[]);
        assert_eq!(users.terminate("1"), 1, "it is still in another channel");
        users.leave("1", address(1).id);
        assert_eq!(users.len(), 0);
    }
}
