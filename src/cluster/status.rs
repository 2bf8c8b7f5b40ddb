//! How the link to other nodes stands, in numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::hub::{ClusterQueue, NodeId};

/// Counters since the start. Only one thread writes them.
#[derive(Debug)]
pub struct Status {
    pub(super) node: NodeId,
    pub(super) queue: Arc<ClusterQueue>,
    pub(super) is_up: AtomicBool,
    /// Nodes that are alive, this one included.
    pub(super) nodes: AtomicUsize,
    /// Other nodes that are about to stop.
    pub(super) draining: AtomicUsize,
    /// Topics that this node's sockets need.
    pub(super) wanted: AtomicUsize,
    /// Topics whose Redis channels are listened to.
    pub(super) listening: AtomicUsize,
    /// Whether the two have differed for too long.
    pub(super) is_incomplete: AtomicBool,
    /// How other nodes differ from this one, each in a sentence.
    differences: Mutex<Vec<String>>,
    /// Topics one of whose keys in Redis is of another type.
    pub(super) degraded: AtomicUsize,
    /// Events sent to other nodes.
    pub(super) published: AtomicU64,
    /// Messages that came.
    pub(super) received: AtomicU64,
    /// Events of other nodes that were handed to the workers.
    pub(super) delivered: AtomicU64,
    /// Messages that cannot be read, or are of no concern.
    pub(super) ignored: AtomicU64,
    /// Events of other nodes that did not come.
    pub(super) missed: AtomicU64,
    /// Events of other nodes that were given up because the workers were far behind.
    pub(super) given_up: AtomicU64,
    /// Times that a link came up.
    pub(super) links: AtomicU64,
}

impl Status {
    pub(super) fn new(node: NodeId, queue: Arc<ClusterQueue>) -> Self {
        Self {
            node,
            queue,
            is_up: AtomicBool::new(false),
            nodes: AtomicUsize::new(1),
            draining: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            listening: AtomicUsize::new(0),
            is_incomplete: AtomicBool::new(false),
            differences: Mutex::default(),
            degraded: AtomicUsize::new(0),
            published: AtomicU64::new(0),
            received: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            links: AtomicU64::new(0),
        }
    }

    /// Whether there is a link to other nodes.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Whether there is one, and this node listens to all that its sockets need.
    pub fn is_ready(&self) -> bool {
        self.is_up() && !self.is_incomplete.load(Ordering::Relaxed)
    }

    /// How other nodes differ; logged if it was not known.
    pub(super) fn set_differences(&self, differences: Vec<String>) {
        let mut known = self
            .differences
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for difference in differences.iter().filter(|it| !known.contains(it)) {
            tracing::warn!(node = %self.node, "{difference}");
        }
        *known = differences;
    }

    /// All of it, for whoever looks after the server.
    pub fn to_json(&self) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "redis": if self.is_up() { "connected" } else { "disconnected" },
            "node": self.node.to_string(),
            "nodes": self.nodes.load(Ordering::Relaxed),
            "nodes_draining": self.draining.load(Ordering::Relaxed),
            "wanted": self.wanted.load(Ordering::Relaxed),
            "listening": self.listening.load(Ordering::Relaxed),
            "differences": *self.differences.lock().unwrap_or_else(PoisonError::into_inner),
            "degraded": self.degraded.load(Ordering::Relaxed),
            "published": count(&self.published),
            "received": count(&self.received),
            "delivered": count(&self.delivered),
            "ignored": count(&self.ignored),
            "missed": count(&self.missed),
            "given_up": count(&self.given_up),
            "dropped": self.queue.dropped(),
            "queued": self.queue.bytes(),
            "links": count(&self.links),
        })
    }
}

pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
