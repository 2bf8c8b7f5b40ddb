//! A Redis and several nodes, each behind a proxy of its own.

use std::ops::{Index, IndexMut};

use crate::node::Node;
use crate::proxy::{Proxy, Weather};
use crate::redis::{Options, Redis};
use crate::settings::Settings;
use crate::wait::{LONG, soon};

/// For tests in which a silent node's members have to go soon.
pub(crate) const HASTY: (&str, &str) = ("RESOUND_NODE_TIMEOUT", "3");

pub(crate) struct Cluster {
    // They end in this order.
    nodes: Vec<Node>,
    proxies: Vec<Proxy>,
    pub(crate) redis: Redis,
    settings: Settings,
}

impl Cluster {
    /// With settings, named as in the environment; every node sees all others.
    pub(crate) fn start(count: usize, settings: &[(&str, &str)]) -> Self {
        Self::on(Redis::single(Options::default()), count, settings)
    }

    pub(crate) fn on(redis: Redis, count: usize, settings: &[(&str, &str)]) -> Self {
        let settings = Settings::of(settings);
        let proxies: Vec<Proxy> = (0..count).map(|_| Proxy::to(redis.port)).collect();
        let nodes = proxies
            .iter()
            .map(|proxy| Node::start(&redis.settings_by(proxy.port).and(&settings)))
            .collect();
        let cluster = Self {
            nodes,
            proxies,
            redis,
            settings,
        };
        cluster.await_whole();
        cluster
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Waits until every node sees all others.
    pub(crate) fn await_whole(&self) {
        await_nodes(&self.nodes.iter().collect::<Vec<_>>(), self.nodes.len());
    }

    /// The network between a node and Redis.
    pub(crate) fn set_network(&self, node: usize, weather: Weather) {
        self.proxies[node].set(weather);
    }

    pub(crate) fn heal_network(&self, node: usize) {
        self.proxies[node].heal();
    }

    /// Starts another node in the place of one that was killed.
    pub(crate) fn replace(&mut self, node: usize) {
        self.nodes[node].kill();
        let way = self.redis.settings_by(self.proxies[node].port);
        self.nodes[node] = Node::start(&way.and(&self.settings));
    }

    /// Waits until a node says that it is connected to Redis, or that it is not.
    pub(crate) fn await_connected(&self, node: usize, connected: bool) {
        crate::wait::eventually_is("redis of a node", &connected, || {
            self.nodes[node].is_connected()
        });
    }

    /// Waits until all nodes are connected to Redis, or none is.
    pub(crate) fn await_all_connected(&self, connected: bool) {
        (0..self.nodes.len()).for_each(|node| self.await_connected(node, connected));
    }
}

/// Waits until each of these nodes is connected and counts so many live ones.
pub(crate) fn await_nodes(nodes: &[&Node], count: usize) {
    let mut answers = Vec::new();
    let whole = soon(LONG, || {
        answers = nodes.iter().map(|node| node.ready()).collect::<Vec<_>>();
        answers
            .iter()
            .all(|ready| ready["nodes"] == count && ready["redis"] == "connected")
    });
    assert!(
        whole,
        "expected {count} nodes everywhere, answers: {answers:#?}"
    );
}

impl Index<usize> for Cluster {
    type Output = Node;

    fn index(&self, node: usize) -> &Node {
        &self.nodes[node]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, node: usize) -> &mut Node {
        &mut self.nodes[node]
    }
}
