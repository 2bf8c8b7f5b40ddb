//! What is known of a channel on other nodes. Pure: it says which users came to be on more
//! or fewer nodes, and the channel sends its subscribers what that means for them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::topic::{Fact, NodeFacts, NodeId, RemoteState};
use crate::protocol::Member;

/// A channel on other nodes.
#[derive(Debug, Default)]
pub(super) struct Remote {
    nodes: HashMap<NodeId, RemoteNode>,
    /// Whether an event came before the state was known: the last one is known here.
    pub(super) has_last_event: bool,
    /// Whether the state of other nodes was read since there is a link.
    pub(super) is_known: bool,
}

/// A channel on one other node.
#[derive(Debug, Default)]
struct RemoteNode {
    users: HashSet<Arc<str>>,
    subscribers: usize,
}

/// What has changed, users that appeared first: one that went from one node to another
/// was always there.
#[derive(Debug, Default)]
pub(super) struct RemoteChange {
    /// Users that are on one node more.
    pub(super) appeared: Vec<Member>,
    /// Users that are on one node less.
    pub(super) vanished: Vec<Arc<str>>,
    /// Whether the number of subscribers may be another one.
    pub(super) is_count_changed: bool,
}

impl RemoteNode {
    fn is_used(&self) -> bool {
        self.subscribers > 0 || !self.users.is_empty()
    }
}

impl Remote {
    /// Subscribers on all other nodes.
    pub(super) fn subscribers(&self) -> usize {
        let counts = self.nodes.values().map(|node| node.subscribers);
        counts.fold(0, usize::saturating_add)
    }

    /// One thing has changed on another node.
    pub(super) fn apply(&mut self, node: NodeId, fact: &Fact) -> RemoteChange {
        let mut change = RemoteChange::default();
        match fact {
            Fact::Member(member) => self.add(node, member, &mut change),
            Fact::Left(user) => {
                if let Some(remote) = self.nodes.get_mut(&node)
                    && remote.users.remove(user)
                {
                    change.vanished.push(Arc::clone(user));
                }
            }
            Fact::Subscribers(count) => {
                self.nodes.entry(node).or_default().subscribers = *count;
                change.is_count_changed = true;
            }
            Fact::Online | Fact::Offline => {}
        }
        change
    }

    /// This is how it is on all other nodes.
    pub(super) fn replace(&mut self, state: &RemoteState) -> RemoteChange {
        let mut change = RemoteChange {
            is_count_changed: true,
            ..RemoteChange::default()
        };
        for facts in &state.nodes {
            self.replace_node(facts, &mut change);
        }
        let is_named = |node: &NodeId| state.nodes.iter().any(|facts| facts.node == *node);
        self.nodes.retain(|node, remote| {
            if !is_named(node) && !state.unverified.contains(node) {
                change.vanished.extend(remote.users.drain());
                remote.subscribers = 0;
            }
            remote.is_used()
        });
        change
    }

    fn replace_node(&mut self, facts: &NodeFacts, change: &mut RemoteChange) {
        let node = facts.node;
        let mut users: HashSet<&str> = HashSet::new();
        let mut count = None;
        for fact in &facts.facts {
            match fact {
                Fact::Member(member) => {
                    users.insert(&member.id);
                    self.add(node, member, change);
                }
                Fact::Subscribers(subscribers) => count = Some(*subscribers),
                Fact::Left(_) | Fact::Online | Fact::Offline => {}
            }
        }
        let remote = self.nodes.entry(node).or_default();
        if facts.are_all {
            let gone = remote.users.extract_if(|user| !users.contains(&**user));
            change.vanished.extend(gone);
        }
        if facts.are_all || count.is_some() {
            remote.subscribers = count.unwrap_or(0);
        }
    }

    /// A node is gone. `None` if nothing was known of it.
    pub(super) fn remove(&mut self, node: NodeId) -> Option<RemoteChange> {
        let removed = self.nodes.remove(&node)?;
        Some(RemoteChange {
            appeared: Vec::new(),
            is_count_changed: removed.subscribers > 0,
            vanished: removed.users.into_iter().collect(),
        })
    }

    fn add(&mut self, node: NodeId, member: &Member, change: &mut RemoteChange) {
        let users = &mut self.nodes.entry(node).or_default().users;
        if users.insert(Arc::clone(&member.id)) {
            change.appeared.push(member.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn member(id: &str) -> Fact {
        let json = format!(r#"{{"user_id":"{id}","user_info":{{}}}}"#);
        Fact::Member(Member::parse(&json, 100).unwrap())
    }

    fn ids(change: &RemoteChange) -> (Vec<&str>, Vec<&str>) {
        let mut vanished: Vec<&str> = change.vanished.iter().map(|id| &**id).collect();
        vanished.sort_unstable();
        let appeared = change.appeared.iter().map(|member| &*member.id);
        (appeared.collect(), vanished)
    }

    fn state(nodes: &[(NodeId, &[Fact])], unverified: &[NodeId]) -> RemoteState {
        let facts = |(node, facts): &(NodeId, &[Fact])| NodeFacts {
            node: *node,
            are_all: true,
            facts: facts.to_vec(),
        };
        RemoteState {
            nodes: nodes.iter().map(facts).collect(),
            unverified: unverified.iter().copied().collect(),
        }
    }

    #[test]
    fn what_differs_from_what_was_known_has_changed() {
        let mut remote = Remote::default();
        let change = remote.apply(A, &member("u"));
        assert_eq!(ids(&change), (vec!["u"], vec![]));
        let nothing = (vec![], vec![]);
        assert_eq!(ids(&remote.apply(A, &member("u"))), nothing);
        let there = [(A, &[member("v")][..]), (B, &[member("u")])];
        let change = remote.replace(&state(&there, &[]));
        assert_eq!(ids(&change), (vec!["v", "u"], vec!["u"]));
        assert_eq!(ids(&remote.apply(A, &Fact::Left("x".into()))), nothing);
        let change = remote.replace(&state(&[], &[B]));
        assert_eq!(ids(&change), (vec![], vec!["v"]), "B may still have it");
        assert_eq!(ids(&remote.remove(B).unwrap()), (vec![], vec!["u"]));
        assert!(remote.remove(B).is_none() && remote.remove(A).is_none());
    }

    #[test]
    fn counts_of_all_nodes_are_added_and_do_not_overflow() {
        let mut remote = Remote::default();
        remote.apply(A, &Fact::Subscribers(2));
        assert!(remote.apply(B, &Fact::Subscribers(3)).is_count_changed);
        assert_eq!(remote.subscribers(), 5);
        remote.apply(A, &Fact::Subscribers(usize::MAX));
        assert_eq!(remote.subscribers(), usize::MAX);
        remote.replace(&state(&[(B, &[Fact::Subscribers(1)])], &[]));
        assert_eq!(remote.subscribers(), 1);
    }

    #[test]
    fn a_node_that_has_not_entered_all_may_have_more() {
        let mut remote = Remote::default();
        remote.apply(A, &member("u"));
        let facts = NodeFacts {
            node: A,
            are_all: false,
            facts: vec![member("v")],
        };
        let change = remote.replace(&RemoteState {
            nodes: vec![facts],
            unverified: HashSet::new(),
        });
        assert_eq!(ids(&change), (vec!["v"], vec![]));
    }
}
