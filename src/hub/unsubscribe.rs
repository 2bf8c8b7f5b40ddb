//! Subscriptions that the application ends.
//!
//! The worker that has a connection finds it by its id. The request has a number in the channel's
//! order, so that one that joins again later is not meant; but it waits for no message before it,
//! and nothing that is published after it reaches the connection.

use super::Hub;
use super::channel::Channel;
use super::cluster_queue::{ClusterUpdate, Unsubscribed};
use super::outputs::{Outputs, Unsubscription, WorkerMessage};
use super::users::Users;
use crate::apps::AppHandle;
use crate::protocol::{ChannelName, SocketId};

impl Hub {
    /// Ends subscriptions to a channel on all nodes.
    pub fn unsubscribe(&self, app: &AppHandle, channel: &ChannelName, who: &Unsubscribed) {
        self.outputs.update(|| ClusterUpdate::Unsubscribe {
            app: app.clone(),
            channel: channel.clone(),
            who: who.clone(),
        });
        self.unsubscribe_here(app, channel.as_str(), who);
    }

    /// Ends this node's.
    pub fn unsubscribe_here(&self, app: &AppHandle, channel: &str, who: &Unsubscribed) {
        let (Some(state), Some(channel)) = (self.states.find(app), self.find(app, channel)) else {
            return;
        };
        let sockets = match who {
            Unsubscribed::User(id) => state.users.sockets_of(id),
            Unsubscribed::Socket(socket) => vec![*socket],
        };
        for socket in sockets {
            channel.unsubscribe(socket, &self.outputs);
        }
    }
}

impl Channel {
    fn unsubscribe(&self, socket: SocketId, outputs: &Outputs) {
        let mut state = self.state.lock();
        state.seq += 1;
        for (worker, subscribers) in state.subscribers.iter().enumerate() {
            if *subscribers > 0 {
                let unsubscription = Box::new(Unsubscription {
                    app: self.app().clone(),
                    name: self.name().clone(),
                    channel: self.id(),
                    socket,
                    seq: state.seq,
                });
                outputs.send(worker, WorkerMessage::Unsubscribe(unsubscription));
            }
        }
    }
}

impl Users {
    /// The connections of a user.
    fn sockets_of(&self, id: &str) -> Vec<SocketId> {
        let known = self.known.lock();
        let entry = known.by_id.get(id);
        entry.map_or_else(Vec::new, |entry| {
            entry.connections.keys().copied().collect()
        })
    }
}
