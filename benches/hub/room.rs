//! A hub with one channel, and workers who do nothing but empty their inboxes.

use std::sync::Arc;

use resound::apps::AppHandle;
use resound::hub::{Capacity, ConnectionRef, Hub, Joined};
use resound::protocol::{ChannelName, Member, SocketId};

use crate::support;

/// A hub and a channel in it.
pub(crate) struct Room {
    pub(crate) hub: Arc<Hub>,
    app: AppHandle,
    pub(crate) channel: ChannelName,
    workers: usize,
}

impl Room {
    /// With so many subscribers, the workers in turn.
    pub(crate) fn of(channel: &str, subscribers: usize, workers: usize) -> Self {
        let capacity = Capacity {
            inbox_bytes: 64 << 20,
            sockets: 1 << 20,
        };
        let app = support::apps().by_id("1");
        let room = Self {
            hub: Arc::new(Hub::new(workers, capacity)),
            app: app.expect("it is the one that there is"),
            channel: ChannelName::parse(channel, 164).expect("the names here are valid"),
            workers,
        };
        for key in 1..=subscribers {
            room.join(key, room.member(key).as_ref());
        }
        room.drain();
        room
    }

    /// Whose channel it is.
    pub(crate) fn app(&self) -> &AppHandle {
        &self.app
    }

    /// Where a subscriber lives.
    pub(crate) fn connection_ref(&self, key: usize) -> ConnectionRef {
        ConnectionRef {
            worker: key % self.workers,
            key,
            id: SocketId::from_random(key as u64),
        }
    }

    /// Who a subscriber is, if the channel wants to know.
    pub(crate) fn member(&self, key: usize) -> Option<Member> {
        let data = format!(
            r#"{{"user_id":"{key}","user_info":{{"name":"Ana","avatar":"/a/{key}.png"}}}}"#
        );
        let member = Member::parse(&data, 1000).expect("the member is valid");
        self.channel.kind().is_presence().then_some(member)
    }

    /// Subscribes one more.
    pub(crate) fn join(&self, key: usize, member: Option<&Member>) -> Joined {
        self.hub
            .subscribe(self.app(), &self.channel, self.connection_ref(key), member)
            .expect("nothing limits the members")
    }

    /// Takes what the workers were sent, and says so.
    pub(crate) fn drain(&self) {
        for worker in 0..self.workers {
            let inbox = self.hub.inbox(worker);
            for message in inbox.take() {
                inbox.release(message.cost());
            }
        }
    }
}
