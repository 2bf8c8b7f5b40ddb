//! One client: what the model knows of it, and what it has been sent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::frames::{arrived, data_of};
use crate::nodes::Cluster;
use crate::people::listed;
use crate::support::Client;

/// A subscription of the model.
pub(super) struct Subscription {
    /// Who it is in a presence channel.
    pub(super) user: Option<&'static str>,
    /// Another one for each subscription there ever was.
    pub(super) number: usize,
    /// Whether the client has been sent that it succeeded.
    pub(super) answered: bool,
}

pub(super) struct Peer {
    pub(super) name: usize,
    pub(super) node: usize,
    pub(super) client: Client,
    pub(super) subscriptions: BTreeMap<&'static str, Subscription>,
    /// Who it believes to be in each presence channel it is in.
    pub(super) here: BTreeMap<String, BTreeSet<String>>,
    /// Serial numbers of the events it has been sent.
    pub(super) received: BTreeSet<usize>,
    /// Fences it has been sent: channel and text.
    pub(super) fences: BTreeSet<(String, String)>,
}

impl Peer {
    pub(super) fn new(name: usize, node: usize, cluster: &Cluster) -> Self {
        Self {
            name,
            node,
            client: Client::connect(&cluster[node]),
            subscriptions: BTreeMap::new(),
            here: BTreeMap::new(),
            received: BTreeSet::new(),
            fences: BTreeSet::new(),
        }
    }

    pub(super) fn all_answered(&self) -> bool {
        self.subscriptions.values().all(|each| each.answered)
    }

    /// Channels of which it has been sent that it is in them.
    pub(super) fn answered(&self) -> Vec<&'static str> {
        let answered = self.subscriptions.iter().filter(|(_, each)| each.answered);
        answered.map(|(channel, _)| *channel).collect()
    }

    /// Takes in what has come.
    pub(super) fn look(&mut self) {
        for frame in arrived(&mut self.client) {
            self.take(&frame);
        }
    }

    fn take(&mut self, frame: &Value) {
        let name = self.name;
        let channel = frame["channel"].as_str().unwrap().to_owned();
        let subscription = self
            .subscriptions
            .get_mut(&*channel)
            .unwrap_or_else(|| panic!("client {name} is not in this channel: {frame}"));
        let event = frame["event"].as_str().unwrap();
        if event == "pusher_internal:subscription_succeeded" {
            assert!(!subscription.answered, "client {name}: again {frame}");
            subscription.answered = true;
            if subscription.user.is_some() {
                self.here.insert(channel, listed(frame));
            }
            return;
        }
        assert!(
            subscription.answered,
            "client {name}: before the answer, {frame}"
        );
        match event {
            "pusher_internal:member_added" | "pusher_internal:member_removed" => {
                let user = data_of(frame)["user_id"].as_str().unwrap().to_owned();
                let here = self.here.get_mut(&channel).unwrap();
                let news = if event.ends_with("added") {
                    here.insert(user)
                } else {
                    here.remove(&user)
                };
                assert!(news, "client {name} knows that already: {frame}");
            }
            "fence" => {
                let text = frame["data"].as_str().unwrap().to_owned();
                let news = self.fences.insert((channel, text));
                assert!(news, "client {name} receives it twice: {frame}");
            }
            _ => {
                let serial = frame["data"].as_str().unwrap().parse().unwrap();
                let news = self.received.insert(serial);
                assert!(news, "client {name} receives it twice: {frame}");
                let user = subscription.user.filter(|_| event.starts_with("client-"));
                // Who whispers in a presence channel is said.
                assert_eq!(frame["user_id"].is_string(), user.is_some(), "{frame}");
            }
        }
    }
}
