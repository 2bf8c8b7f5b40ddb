//! Subscriptions that the application ends.

use std::rc::Rc;

use super::Worker;
use super::moves::Arriving;
use super::socket::Socket;
use crate::hub::{Unsubscribed, Unsubscription};
use crate::protocol::message;

impl Worker {
    /// Takes a connection out of a channel and tells it so, if it is one of this worker's.
    pub(super) fn unsubscribe(self: &Rc<Self>, unsubscription: Box<Unsubscription>) {
        let Unsubscription {
            channel,
            socket,
            seq,
            ..
        } = *unsubscription;
        let Some(found) = self.fanout.find_by_id(channel, socket, seq) else {
            // It has to come before it can leave.
            return self.unsubscribe_on_arrival(*unsubscription);
        };
        let subscriptions = found.subscriptions.borrow();
        let Some(at) = subscriptions.iter().position(|own| own.id() == channel) else {
            // It counts for another worker already.
            return self.unsubscribe_elsewhere(&unsubscription);
        };
        drop(subscriptions);
        if self
            .unsubscribe_on_departure(&found, unsubscription)
            .is_none()
        {
            return;
        }
        let left = found.subscriptions.borrow_mut().swap_remove(at);
        self.leave(&left, &found);
        self.send_to(self.address_of(&found), &message::unsubscribed(left.name()));
        let (app, channel) = (left.app().id(), left.name());
        tracing::debug!(app, socket_id = %socket, %channel, "unsubscribed by the application");
    }

    /// Has the worker do it that the connection goes on in.
    pub(super) fn unsubscribe_elsewhere(&self, unsubscription: &Unsubscription) {
        let Unsubscription {
            app, name, socket, ..
        } = unsubscription;
        let who = Unsubscribed::Socket(*socket);
        self.hub.unsubscribe_here(app, name.as_str(), &who);
    }

    /// Keeps it while the connection is on its way; gives it back if it is not.
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
