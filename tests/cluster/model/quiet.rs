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
        for seat in &mut self.seats {
            eventually(&format!("client {} is answered", seat.name), || {
                seat.look();
                seat.all_answered()
            });
        }
        for node in 0..NODES {
            let expected = self.expected_answers();
            eventually_is(&format!("the answers of node {node}"), &expected, || {
                self.answers(node)
            });
        }
        for at in 0..self.seats.len() {
            let expected = self.expected_view(at);
            let seat = &mut self.seats[at];
            let what = format!("whom client {} sees", seat.name);
            eventually_is(&what, &expected, || {
                seat.look();
                seat.here.clone()
            });
        }
        self.fence();
        self.compare_heard();
        self.sent.clear();
        self.deaf.clear();
        self.dead.clear();
        self.fault = None;
    }

    /// The members of a presence channel.
    fn members(&self, channel: &str) -> BTreeSet<String> {
        let subscriptions = self
            .seats
            .iter()
            .filter_map(|seat| seat.subscriptions.get(channel));
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
                .seats
                .iter()
                .filter(|seat| seat.subscriptions.contains_key(channel));
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
        json!([channels, users, self.seats.len(), "whole"])
    }

    fn answers(&self, node: usize) -> Value {
        let node = &self.cluster[node];
        let told = node.get("channels", &[("info", "user_count,subscription_count")]);
        let connections = node.get("connections", &[]);
        let mut users = json!({});
        for channel in CHANNELS
            .iter()
            .filter(|channel| channel.starts_with("presence-"))
        {
            users[channel] = json!(users_of(node, channel));
        }
        let partial = [&told, &connections].map(|answer| answer.header("x-resound-partial"));
        json!([
            parsed(&told)["channels"],
            users,
            parsed(&connections)["connections"],
            partial.into_iter().flatten().next().unwrap_or("whole"),
        ])
    }

    fn expected_view(&self, at: usize) -> BTreeMap<String, BTreeSet<String>> {
        let channels = self.seats[at].subscriptions.keys();
        let of_presence = channels.filter(|channel| channel.starts_with("presence-"));
        of_presence
            .map(|channel| ((*channel).to_owned(), self.members(channel)))
            .collect()
    }

    /// Publishes by every node to every channel until all subscribers have heard it:
    /// whatever was sent before has arrived by then, or never will.
    fn fence(&mut self) {
        for node in 0..NODES {
            let mut tries = Vec::new();
            for channel in CHANNELS {
                let mut heard = false;
                while !heard {
                    let text = format!("fence {}", self.number());
                    tries.push(text.clone());
                    assert!(tries.len() < 20, "node {node} is not heard in {channel}");
                    self.cluster[node].publish(channel, "fence", &text);
                    let fence = ((*channel).to_owned(), text);
                    // Only after a fault another one may be needed.
                    let patience = if self.fault.is_some() {
                        LONG / 10
                    } else {
                        LONG
                    };
                    heard = soon(patience, || {
                        let mut subscribers = self
                            .seats
                            .iter_mut()
                            .filter(|seat| seat.subscriptions.contains_key(channel));
                        subscribers.all(|seat| {
                            seat.fences.contains(&fence) || {
                                seat.look();
                                seat.fences.contains(&fence)
                            }
                        })
                    });
                }
            }
        }
    }

    fn compare_heard(&mut self) {
        for (serial, sent) in &self.sent {
            let spoilt = self.dead.contains(&sent.node)
                || matches!(self.fault, Some(Fault::RedisSleeps | Fault::RedisRestarts));
            for seat in &self.seats {
                let Some(subscription) = seat.subscriptions.get(sent.channel) else {
                    continue;
                };
                let who = (seat.name, subscription.number);
                let should =
                    !spoilt && !self.deaf.contains(&seat.node) && sent.should.contains(&who);
                let heard = seat.heard.contains(serial);
                assert!(
                    heard || !should && !sent.must.contains(&who),
                    "client {} on node {} has not heard {serial}",
                    seat.name,
                    seat.node
                );
                assert!(
                    !heard || sent.except != Some(seat.name),
                    "client {} hears its own {serial}",
                    seat.name
                );
            }
        }
        for seat in &mut self.seats {
            for serial in std::mem::take(&mut seat.heard) {
                let name = seat.name;
                assert!(
                    self.sent.contains_key(&serial),
                    "client {name} hears {serial} long after it was sent"
                );
            }
        }
    }
}
