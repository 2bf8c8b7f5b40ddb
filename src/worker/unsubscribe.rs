//! Subscriptions that the application ends.

use std::rc::Rc;

use super::Worker;
use super::moves::Arriving;
use super::socket::Socket;
use crate::hub::{ConnectionRef, Unsubscribed, Unsubscription, log_sent};
use crate::protocol::message;

impl Worker {
    /// Takes a connection out of a channel and notifies it, if it is one of this worker's. Returns
    /// how many were looked at to find it.
    pub(super) fn unsubscribe(self: &Rc<Self>, unsubscription: Box<Unsubscription>) -> usize {
        let Unsubscription { channel, at, .. } = *unsubscription;
        let (found, looked_at) = self.fanout.find_for(&unsubscription);
        let Some(found) = found else {
            if at.is_some_and(|at| !self.stays(at)) {
                // It goes on in another worker, or has ended.
                self.unsubscribe_again(&unsubscription);
            } else {
                // It has to come before it can leave.
                self.unsubscribe_on_arrival(*unsubscription);
            }
            return looked_at;
        };
        let subscriptions = found.subscriptions.borrow();
        let Some(index) = subscriptions.iter().position(|own| own.id() == channel) else {
            drop(subscriptions);
            if !self.is_asked_there(&found, &unsubscription) {
                self.unsubscribe_again(&unsubscription);
            }
            return looked_at;
        };
        drop(subscriptions);
        if let Some(unsubscription) = self.unsubscribe_on_departure(&found, unsubscription) {
            self.end_subscription(&found, index, &unsubscription);
        }
        looked_at
    }

    fn end_subscription(self: &Rc<Self>, socket: &Rc<Socket>, index: usize, what: &Unsubscription) {
        let channel = socket.subscriptions.borrow_mut().swap_remove(index);
        self.leave(&channel, socket);
        let frame = message::unsubscribed(channel.name());
        log_sent(socket.id, &frame);
        self.send_to(self.address_of(socket), &frame);
        let (app, socket_id, channel) = (what.app.id(), socket.id, &what.name);
        tracing::debug!(app, %socket_id, %channel, "unsubscribed by the application");
    }

    /// Whether a connection lives here and is not about to leave.
    fn stays(&self, at: ConnectionRef) -> bool {
        let departing = self.moves.departing.borrow();
        self.socket_at(at).is_some() && !departing.contains_key(&at.key)
    }

    /// Asks all workers, of which one has the connection or will have it.
    pub(super) fn unsubscribe_again(&self, unsubscription: &Unsubscription) {
        let Unsubscription {
            app, name, socket, ..
        } = unsubscription;
        let who = Unsubscribed::Socket(*socket);
        self.hub.unsubscribe_here(app, name.as_str(), &who);
    }

    /// Whether the worker that a connection goes on in was asked, too: if all were, once it
    /// counted for that one.
    fn is_asked_there(&self, socket: &Socket, unsubscription: &Unsubscription) -> bool {
        let departing = self.moves.departing.borrow();
        let departing = departing.get(&socket.key.get());
        let position = departing.and_then(|it| it.position(unsubscription.channel));
        unsubscription.at.is_none() && position.is_some_and(|it| unsubscription.seq > it)
    }

    /// Keeps it while the connection is on its way; returns it if it is not.
    fn unsubscribe_on_departure(
        &self,
        socket: &Socket,
        unsubscription: Box<Unsubscription>,
    ) -> Option<Box<Unsubscription>> {
        let mut departing = self.moves.departing.borrow_mut();
        match departing.get_mut(&socket.key.get()) {
            Some(departing) if departing.request.is_none() => {
                departing.unsubscriptions.push(*unsubscription);
                None
            }
            _ => Some(unsubscription),
        }
    }

    /// Keeps it for a connection whose subscription is on its way to this worker, if there is one.
    fn unsubscribe_on_arrival(&self, unsubscription: Unsubscription) {
        let Unsubscription {
            socket, channel, ..
        } = unsubscription;
        let mut placeholders = self.moves.arriving.borrow_mut();
        let mut arriving = placeholders.values_mut();
        let is_it =
            |it: &&mut Arriving| it.socket.id == socket && it.subscriptions.contains_key(&channel);
        if let Some(arriving) = arriving.find(is_it) {
            arriving.unsubscriptions.push(unsubscription);
        }
    }
}
