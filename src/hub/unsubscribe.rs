//! Subscriptions that the application ends.
//!
//! The worker that has a connection takes it out. The request has a number in the channel's order,
//! so that one that joins again later is not meant; but it waits for no message before it, and
//! nothing that is published after it reaches the connection, unless that moves to another worker
//! at this moment.

use super::Hub;
use super::channel::Channel;
use super::cluster_queue::{ClusterUpdate, Unsubscribed};
use super::outputs::{ConnectionRef, Outputs, Unsubscription, WorkerMessage};
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
        match who {
            Unsubscribed::Socket(socket) => channel.unsubscribe(*socket, None, &self.outputs),
            Unsubscribed::User(id) => {
                for connection in state.users.connections_of(id) {
                    channel.unsubscribe(connection.id, Some(connection), &self.outputs);
                }
            }
        }
    }
}

impl Channel {
    /// Asks the worker that has the connection, or, if that is not known, all that have subscribers.
    fn unsubscribe(&self, socket: SocketId, at: Option<ConnectionRef>, outputs: &Outputs) {
        let mut state = self.state.lock();
        state.seq += 1;
        for (worker, subscribers) in state.subscribers.iter().enumerate() {
            let is_asked = at.map_or(*subscribers > 0, |at| at.worker == worker);
            if is_asked {
                let unsubscription = Box::new(Unsubscription {
                    app: self.app().clone(),
                    name: self.name().clone(),
                    channel: self.id(),
                    socket,
                    at,
                    seq: state.seq,
                });
                outputs.send(worker, WorkerMessage::Unsubscribe(unsubscription));
            }
        }
    }
}

impl Users {
    /// The connections of a user.
    fn connections_of(&self, id: &str) -> Vec<ConnectionRef> {
        let known = self.known.lock();
        let entry = known.by_id.get(id);
        entry.map_or_else(Vec::new, |entry| {
            let held = entry.connections.values();
            held.map(|held| held.connection).collect()
        })
    }
}
