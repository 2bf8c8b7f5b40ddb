//! One channel.

use std::sync::{Arc, Mutex};

use super::inbox::{Cast, Inbox};
use super::lock;
use crate::protocol::{ChannelName, Frame, SocketId};

/// A channel with at least one subscriber.
#[derive(Debug)]
pub struct Channel {
    id: u64,
    app: usize,
    name: ChannelName,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Number of the last message; the first is 1.
    seq: u64,
    /// Subscribers by worker.
    subscribers: Box<[usize]>,
}

impl Channel {
    pub(super) fn new(id: u64, app: usize, name: ChannelName, workers: usize) -> Self {
        let state = State {
            seq: 0,
            subscribers: vec![0; workers].into(),
        };
        Self {
            id,
            app,
            name,
            state: Mutex::new(state),
        }
    }

    /// Unique in this process, also over a channel's lives.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// [`crate::app::App::index`] of its application.
    pub fn app(&self) -> usize {
        self.app
    }

    /// Counts a subscriber and gives back the number of the last message.
    pub(super) fn join(&self, worker: usize) -> u64 {
        let mut state = lock(&self.state);
        state.subscribers[worker] += 1;
        state.seq
    }

    /// Takes a subscriber away and gives back how many are left.
    pub(super) fn leave(&self, worker: usize) -> usize {
        let mut state = lock(&self.state);
        state.subscribers[worker] -= 1;
        state.subscribers.iter().sum()
    }

    /// Numbers a frame and puts it into the inbox of each worker that has a
    /// subscriber. Gives back the number of subscribers.
    pub(super) fn cast(
        &self,
        frame: &Frame,
        except: Option<SocketId>,
        inboxes: &[Arc<Inbox>],
    ) -> usize {
        let mut state = lock(&self.state);
        state.seq += 1;
        for (inbox, _) in inboxes
            .iter()
            .zip(&state.subscribers)
            .filter(|(_, count)| **count > 0)
        {
            inbox.push(Cast {
                channel: self.id,
                seq: state.seq,
                frame: frame.clone(),
                except,
            });
        }
        state.subscribers.iter().sum()
    }
}
