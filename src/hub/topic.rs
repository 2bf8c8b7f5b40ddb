//! What nodes know of each other: topics, and the facts of them that are so on a node.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::apps::AppHandle;
use crate::protocol::{ChannelName, Frame, Member, SocketId};

/// A node, by the random number that it was given when it started.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What nodes know of each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A channel of an application.
    Channel(AppHandle, ChannelName),
    /// A user of it, for those who watch.
    User(AppHandle, Arc<str>),
}

impl Topic {
    /// Of which application.
    pub fn app(&self) -> &AppHandle {
        let (Self::Channel(app, _) | Self::User(app, _)) = self;
        app
    }
}

/// Something that is so on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A user is in the presence channel.
    Member(Member),
    /// A member has left: the user with this id is not in it any more.
    Left(Arc<str>),
    /// So many connections have subscribed.
    Subscribers(usize),
    /// The user is signed in.
    Online,
    /// The user has signed out.
    Offline,
}

/// A published event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Of which application.
    pub app: AppHandle,
    /// Where it goes.
    pub channel: ChannelName,
    /// The one connection that does not get it.
    pub except: Option<SocketId>,
    /// What subscribers are sent.
    pub frame: Frame,
    /// Whether it is a cache channel's last event, kept for later subscribers.
    pub is_kept: bool,
}

/// How a topic is on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalState {
    /// Which generation of the topic: a channel or a user that is forgotten and comes again has
    /// another one.
    pub generation: u64,
    /// The number of the last change in it that other nodes have to know.
    pub version: u64,
    /// Whether `facts` are all that is so; otherwise they are those that may have changed
    /// since they were taken last.
    pub is_complete: bool,
    /// What is so, or, of what has ended, that it is not.
    pub facts: Vec<Fact>,
}

/// A node's facts of one topic, as Redis has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Whose.
    pub node: NodeId,
    /// Whether these are all that it has; otherwise there may be more.
    pub are_all: bool,
    /// What.
    pub facts: Vec<Fact>,
}

/// How a topic is on other nodes.
#[derive(Clone, Debug, Default)]
pub struct RemoteState {
    /// Every node that is alive and has facts.
    pub nodes: Vec<NodeFacts>,
    /// Nodes that may have more than that, because Redis has lost it.
    pub unverified: HashSet<NodeId>,
}
