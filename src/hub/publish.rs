//! An event on its way from the broker to the subscribers, the other nodes and the sinks.

use std::time::Instant;

use super::Hub;
use super::cluster_queue::ClusterUpdate;
use super::event::HubEventKind;
use super::outputs::{Outputs, Recipients};
use super::topic::Event;
use crate::apps::AppHandle;
use crate::protocol::{ChannelName, Frame, SocketId};

/// Who publishes an event.
#[derive(Clone, Copy, Debug)]
pub enum Publisher<'a> {
    /// The application; one connection may be left out.
    Application {
        /// Which.
        except: Option<SocketId>,
    },
    /// A client, which does not get it back.
    Client {
        /// Its connection.
        socket: SocketId,
        /// The event's name.
        event: &'a str,
        /// Its payload as JSON.
        data: Option<&'a str>,
        /// Who it is in a presence channel, as JSON.
        user_id: Option<&'a str>,
    },
}

impl Publisher<'_> {
    fn except(&self) -> Option<SocketId> {
        match self {
            Self::Application { except } => *except,
            Self::Client { socket, .. } => Some(*socket),
        }
    }

    fn emit(
        self,
        app: &AppHandle,
        channel: &ChannelName,
        (bytes, subscribers): (usize, usize),
        outputs: &Outputs,
    ) {
        outputs.sinks.emit(app, || match self {
            Self::Application { .. } => HubEventKind::EventPublished {
                channel,
                bytes,
                subscribers,
            },
            Self::Client {
                socket,
                event,
                data,
                user_id,
            } => HubEventKind::ClientEvent {
                socket,
                channel,
                event,
                data,
                user_id,
            },
        });
    }
}

impl Hub {
    /// Sends an event to all subscribers of a channel but whoever sends it, here and on
    /// other nodes. Returns how many subscribers the channel has here. The frame is
    /// encoded only if there may be somebody to get it.
    pub fn publish(
        &self,
        app: &AppHandle,
        name: &ChannelName,
        publisher: Publisher<'_>,
        encode: impl FnOnce() -> Frame,
    ) -> usize {
        let channel = self.find(app, name.as_str());
        let outputs = &self.outputs;
        if channel.is_none() && outputs.cluster_queue.is_none() && outputs.sinks.is_empty() {
            return 0;
        }
        let (frame, except) = (encode(), publisher.except());
        // Under the channel's lock: its events are in one order on all nodes.
        let then = |subscribers| {
            publisher.emit(app, name, (frame.len(), subscribers), outputs);
            self.send_event(app, name, (except, false), &frame);
        };
        match channel {
            Some(channel) => channel.broadcast(&frame, Recipients::from(except), outputs, then),
            None => {
                then(0);
                0
            }
        }
    }

    /// Sends an event of a cache channel, and keeps it for later subscribers.
    pub fn publish_and_keep(
        &self,
        app: &AppHandle,
        name: &ChannelName,
        except: Option<SocketId>,
        frame: Frame,
    ) -> usize {
        let outputs = &self.outputs;
        let limits = app.settings().cache;
        let Ok(state) = self.states.find_or_add(app, outputs) else {
            return 0;
        };
        let shard = state.shard(name.as_str()).lock();
        let publisher = Publisher::Application { except };
        // Under the locks of the shard and the channel: its events are in one order on all
        // nodes, and all keep the same one.
        let then = |subscribers| {
            publisher.emit(app, name, (frame.len(), subscribers), outputs);
            self.send_event(app, name, (except, true), &frame);
        };
        let subscribers = match shard.get(name) {
            Some(channel) => {
                channel.mark_last_event();
                channel.broadcast(&frame, Recipients::from(except), outputs, then)
            }
            None => {
                then(0);
                0
            }
        };
        let mut cache = state.cache.lock();
        cache.put(name, frame, Instant::now(), limits);
        subscribers
    }

    fn send_event(
        &self,
        app: &AppHandle,
        name: &ChannelName,
        (except, is_kept): (Option<SocketId>, bool),
        frame: &Frame,
    ) {
        self.outputs.update(|| {
            ClusterUpdate::Event(Event {
                app: app.clone(),
                channel: name.clone(),
                except,
                frame: frame.clone(),
                is_kept,
            })
        });
    }
}
