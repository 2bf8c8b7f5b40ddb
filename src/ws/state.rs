//! A session as plain data, and how it goes on in another worker.
//!
//! What is not data goes along: the sign-in, which ends when it is dropped.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::session::{MAX_NEW_TOPICS, Session, serve};
use super::traffic::Opened;
use crate::apps::{AppHandle, Rate};
use crate::broker::Broker;
use crate::hub::{Hub, PendingSignIn, SignedIn};
use crate::protocol::CloseReason;
use crate::worker::Connection;
use crate::worker::state::{SessionState, UserState};

/// What a session has beside its state.
struct Shared {
    app: AppHandle,
    hub: Arc<Hub>,
    broker: Broker,
    user: Option<SignedIn>,
}

impl Session {
    /// Goes on in another worker, which was asked for. Returns itself if it cannot.
    pub(super) async fn change_worker(mut self) -> Option<Box<Self>> {
        let departure = self.connection.depart(self.user.get()).await;
        let Some(departure) = departure else {
            return Some(Box::new(self));
        };
        let state = self.freeze(departure.pending_sign_in());
        let frozen = match self.connection.freeze(state) {
            Ok(frozen) => frozen,
            Err(error) => {
                departure.fail(error);
                return Some(Box::new(self));
            }
        };
        tracing::debug!(app = self.app.id(), socket_id = %self.connection.id(), "moved");
        let shared = Shared {
            app: self.app,
            hub: self.hub,
            broker: self.broker,
            user: self.user.into_inner(),
        };
        departure.arrive(frozen, |connection, state| {
            let session = Self::thaw(connection, shared, &state);
            tokio::task::spawn_local(serve(session));
        });
        None
    }

    fn freeze(&self, pending: &PendingSignIn) -> SessionState {
        let now = Instant::now();
        let time_left = |bucket: &RefCell<Bucket>| bucket.borrow().time_left(now);
        let user = self.user.get().map(|signed_in| UserState {
            waiting_answer: pending.answer.as_ref().map(|frame| frame.as_bytes().into()),
            awaits_watchlist: pending.awaits_watchlist,
            ..UserState::from(signed_in.user())
        });
        SessionState {
            app: self.app.id().to_owned(),
            peer: self.peer,
            user,
            full_message_rate_in: self.messages.as_ref().map(time_left),
            full_client_event_rate_in: self.client_events.as_ref().map(time_left),
            full_new_topic_rate_in: self.new_topics.get().map(|bucket| time_left(bucket)),
            has_waited: self.has_waited.get(),
            age: self.opened.elapsed(),
            received: self.received.get(),
            received_bytes: self.received_bytes.get(),
        }
    }

    fn thaw(connection: Connection, shared: Shared, state: &SessionState) -> Self {
        let now = Instant::now();
        let bucket = |rate: Option<Rate>, time: Option<Duration>| {
            let of = |rate| Bucket::full_in(rate, time.unwrap_or_default(), now);
            rate.map(|rate| RefCell::new(of(rate)))
        };
        let Shared {
            app,
            hub,
            broker,
            user,
        } = shared;
        let new_topics = bucket(
            state.full_new_topic_rate_in.map(|_| MAX_NEW_TOPICS),
            state.full_new_topic_rate_in,
        );
        // It may have been between two workers when all others were closed.
        if app.is_removed() {
            connection.close(CloseReason::ApplicationDoesNotExist);
        }
        let settings = app.snapshot();
        Self {
            connection,
            peer: state.peer,
            user: user.map_or_else(OnceCell::new, OnceCell::from),
            messages: bucket(settings.message_rate, state.full_message_rate_in),
            client_events: bucket(settings.client_event_rate, state.full_client_event_rate_in),
            new_topics: new_topics.map_or_else(OnceCell::new, |bucket| Box::new(bucket).into()),
            has_waited: Cell::new(state.has_waited),
            opened: Opened::ago(state.age),
            received: Cell::new(state.received),
            received_bytes: Cell::new(state.received_bytes),
            app,
            hub,
            broker,
        }
    }
}
