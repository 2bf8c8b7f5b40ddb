//! What has to be so when all is quiet.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{CHANNELS, Fault, NODES, World};
use crate::people::users_of;
use crate::support::http::parsed;
use crate::wait::{LONG, eventually, eventually_is, soon};

impl World {
    /// Waits until all is quiet, and compares everything with the model.
    pub(super) fn settle(&mut self) {
        for peer in &mut self.peers {
            eventually(&format!("client {} is answered", peer.name), || {
                peer.look();
                peer.all_answered()
            });
        }
        for node in 0..NODES {
            let expected = self.expected_answers();
            eventually_is(&format!("the answers of node {node}"), &expected, || {
                self.answers(node)
            });
        }
        for at in 0..self.peers.len() {
            let expected = self.expected_view(at);
            let peer = &mut self.peers[at];
            let what = format!("whom client {} sees", peer.name);
            eventually_is(&what, &expected, || {
                peer.look();
                peer.here.clone()
            });
        }
        self.fence();
        self.compare_received();
        self.sent.clear();
        self.cut_off.clear();
        self.dead.clear();
        self.fault = None;
    }

    /// The members of a presence channel.
    fn members(&self, channel: &str) -> BTreeSet<String> {
        let subscriptions = self
            .peers
            .iter()
            .filter_map(|peer| peer.subscriptions.get(channel));
        subscriptions
            .filter_map(|subscription| Some(subscription.user?.to_owned()))
            .collect()
    }

    /// Channels with their counts, users of the presence channels, connections.
    fn expected_answers(&self) -> Value {
        let mut channels = json!({});
        let mut users = json!({});
        for channel in CHANNELS {
            let subscribers = self
                .peers
                .iter()
                .filter(|peer| peer.subscriptions.contains_key(channel));
            let (count, members) = (subscribers.count(), self.members(channel));
            if channel.starts_with("presence-") {
                users[channel] = json!(members);
            }
            if count > 0 {
                channels[channel] = if members.is_empty() {
                    json!({ "subscription_count": count })
                } else {
                    json!({ "user_count": members.len() })
                };
            }
        }
        json!([channels, users, self.peers.len(), "whole"])
    }

    fn answers(&self, node: usize) -> Value {
        let node = &self.cluster[node];
        let listed = node.get("channels", &[("info", "user_count,subscription_count")]);
        let connections = node.get("connections", &[]);
        let mut users = json!({});
        for channel in CHANNELS
            .iter()
            .filter(|channel| channel.starts_with("presence-"))
        {
            users[channel] = json!(users_of(node, channel));
        }
        let partial = [&listed, &connections].map(|answer| answer.header("x-resound-partial"));
        json!([
            parsed(&listed)["channels"],
            users,
            parsed(&connections)["connections"],
            partial.into_iter().flatten().next().unwrap_or("whole"),
        ])
    }

    fn expected_view(&self, at: usize) -> BTreeMap<String, BTreeSet<String>> {
        let channels = self.peers[at].subscriptions.keys();
        let of_presence = channels.filter(|channel| channel.starts_with("presence-"));
        of_presence
            .map(|channel| ((*channel).to_owned(), self.members(channel)))
            .collect()
    }

    /// Publishes by every node to every channel until all subscribers have received it:
    /// whatever was sent before has arrived by then, or never will.
    fn fence(&mut self) {
        for node in 0..NODES {
            let mut tries = Vec::new();
            for channel in CHANNELS {
                let mut received = false;
                while !received {
                    let text = format!("fence {}", self.number());
                    tries.push(text.clone());
                    assert!(tries.len() < 20, "node {node} is not received in {channel}");
                    self.cluster[node].publish(channel, "fence", &text);
                    let fence = ((*channel).to_owned(), text);
                    // Only after a fault another one may be needed.
                    let patience = if self.fault.is_some() {
                        LONG / 10
                    } else {
                        LONG
                    };
                    received = soon(patience, || {
                        let mut subscribers = self
                            .peers
                            .iter_mut()
                            .filter(|peer| peer.subscriptions.contains_key(channel));
                        subscribers.all(|peer| {
                            peer.fences.contains(&fence) || {
                                peer.look();
                                peer.fences.contains(&fence)
                            }
                        })
                    });
                }
            }
        }
    }

    fn compare_received(&mut self) {
        for (serial, sent) in &self.sent {
            let spoilt = self.dead.contains(&sent.node)
                || matches!(self.fault, Some(Fault::RedisSleeps | Fault::RedisRestarts));
            for peer in &self.peers {
                let Some(subscription) = peer.subscriptions.get(sent.channel) else {
                    continue;
                };
                let who = (peer.name, subscription.number);
                let should =
                    !spoilt && !self.cut_off.contains(&peer.node) && sent.should.contains(&who);
                let received = peer.received.contains(serial);
                assert!(
                    received || !should && !sent.must.contains(&who),
                    "client {} on node {} has not received {serial}",
                    peer.name,
                    peer.node
                );
                assert!(
                    !received || sent.except != Some(peer.name),
                    "client {} receives its own {serial}",
                    peer.name
                );
            }
        }
        for peer in &mut self.peers {
            for serial in std::mem::take(&mut peer.received) {
                let name = peer.name;
                assert!(
                    self.sent.contains_key(&serial),
                    "client {name} receives {serial} long after it was sent"
                );
            }
        }
    }
}
