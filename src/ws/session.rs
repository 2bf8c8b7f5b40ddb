//! An open connection, from its first frame to its last.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::traffic::Opened;
use crate::apps::{AppHandle, Rate, SubscriptionRefusal};
use crate::broker::Broker;
use crate::hub::{Hub, SignedIn};
use crate::protocol::{CloseReason, ErrorCode, message};
use crate::proxies::Shown;
use crate::worker::{Connection, Handled, Received};

/// How long a client's message waits for the workers to catch up.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Channels that a client may be the first on this node to join, of which other nodes have
/// to know: so many at once, and on average. Faster ones are slowed down.
pub(super) const MAX_NEW_TOPICS: Rate = Rate {
    count: 4000,
    per: Duration::from_millis(2200),
};

/// As many of them have to be free before one that was slowed down goes on.
const MIN_NEW_TOPICS: u32 = 50;

pub(super) const UNAUTHORIZED: &str = "Connection is unauthorized";

/// Why something is refused: the code, and the text that says so.
pub(super) type Refusal = (ErrorCode, Cow<'static, str>);

pub(super) fn refusal(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Refusal {
    (code, text.into())
}

/// A connection and what the server knows of it beside its socket.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) app: AppHandle,
    /// The client, which a proxy may have connected for.
    pub(super) peer: SocketAddr,
    /// Who it is, once it has signed in.
    pub(super) user: OnceCell<SignedIn>,
    pub(super) hub: Arc<Hub>,
    pub(super) broker: Broker,
    pub(super) messages: Option<RefCell<Bucket>>,
    pub(super) client_events: Option<RefCell<Bucket>>,
    /// What is left of [`MAX_NEW_TOPICS`], once something is missing.
    pub(super) new_topics: OnceCell<Box<RefCell<Bucket>>>,
    /// Whether the next message has waited for room long enough.
    pub(super) has_waited: Cell<bool>,
    pub(super) opened: Opened,
    /// Messages of the client that were handled.
    pub(super) received: Cell<u32>,
    /// Bytes of them.
    pub(super) received_bytes: Cell<u64>,
}

/// Serves a connection until it ends. Not an `async fn`: one keeps its arguments beside
/// what is made of them, which every connection would pay for.
pub fn run(
    connection: Connection,
    app: AppHandle,
    peer: SocketAddr,
    hub: Arc<Hub>,
    broker: Broker,
) -> impl Future<Output = ()> {
    let now = Instant::now();
    let bucket = |rate| RefCell::new(Bucket::new(rate, now));
    let (messages, client_events) = {
        let settings = app.settings();
        (
            settings.message_rate.map(bucket),
            settings.client_event_rate.map(bucket),
        )
    };
    let session = Session {
        connection,
        app,
        peer,
        user: OnceCell::new(),
        hub,
        broker,
        messages,
        client_events,
        new_topics: OnceCell::new(),
        has_waited: Cell::new(false),
        opened: Opened::ago(Duration::ZERO),
        received: Cell::new(0),
        received_bytes: Cell::new(0),
    };
    session.begin();
    serve(session)
}

/// Serves a connection that has begun.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its argument twice, which every connection would pay for"
)]
pub(super) fn serve(mut session: Session) -> impl Future<Output = ()> {
    async move {
        let reason = loop {
            let connection = &session.connection;
            match connection.receive(|_, text| session.answer(text)).await {
                Ok(Received::All) => {}
                Ok(Received::TurnOver) => tokio::task::yield_now().await,
                // Boxed: it is seldom needed, and every byte is paid per connection.
                Ok(Received::NoRoom) => Box::pin(session.wait_for_room()).await,
                Ok(Received::Unread) => connection.write_until_read().await,
                // Boxed as well.
                Ok(Received::Departing) => match Box::pin(session.change_worker()).await {
                    Some(back) => session = *back,
                    None => return,
                },
                Err(reason) => break reason,
            }
        };
        session.log_end(reason);
        session
            .hub
            .connection_closed(&session.app, session.connection.id(), reason);
        let worker = Rc::clone(session.connection.worker());
        worker.defer_drop(session);
    }
}

/// Sends a connection the reason why it is refused.
pub async fn refuse(connection: Connection, peer: SocketAddr, reason: CloseReason) {
    connection.close(reason);
    let worker = Rc::clone(connection.worker());
    // It holds a permit for nothing, which others may need.
    let waiter = worker.idle().enter();
    tokio::select! {
        () = waiter.evicted() => {}
        () = receive_all(&connection) => {}
    }
    worker.idle().leave(&waiter);
    connection.worker().hub().closes().count(reason);
    tracing::debug!(socket_id = %connection.id(), peer = %Shown(peer), reason = reason.label(), "refused");
}

async fn receive_all(connection: &Connection) {
    while let Ok(received) = connection.receive(|_, _| Handled::Done).await {
        if received == Received::TurnOver {
            tokio::task::yield_now().await;
        }
    }
}

impl Session {
    fn begin(&self) {
        let (connection, app) = (&self.connection, &self.app);
        tracing::debug!(app = app.id(), socket_id = %connection.id(), peer = %Shown(self.peer), "connected");
        self.hub.connection_opened(app, connection.id());
        let timeout = app.settings().activity_timeout;
        connection.send(&message::connection_established(connection.id(), timeout));
        connection.receive_leftover(|_, text| self.answer(text));
    }

    /// Waits until the workers can take what a client's message causes, but not for
    /// long: then this one message is handled all the same.
    async fn wait_for_room(&self) {
        tokio::select! {
            () = self.may_change() => {}
            () = self.connection.write_only() => {}
            () = tokio::time::sleep(MAX_WAIT) => self.has_waited.set(true),
        }
    }

    async fn may_change(&self) {
        let time = match self.new_topics.get() {
            Some(topics) => topics.borrow().time_until(MIN_NEW_TOPICS, Instant::now()),
            None => Duration::ZERO,
        };
        if !time.is_zero() {
            self.connection.end_if_client_is_gone();
            tokio::time::sleep(time).await;
        }
        self.broker.wait_for_room_for_changes().await;
    }

    /// Whether what a client says, which concerns others, can be handled now.
    pub(super) fn has_room(&self) -> bool {
        let topics = self.new_topics.get();
        topics.is_none_or(|topics| topics.borrow().has_one(Instant::now()))
            && self.broker.has_room_for_changes()
    }

    /// A channel was joined of which other nodes have to know from now on.
    pub(super) fn count_new_topic(&self, is_new: bool) {
        if is_new {
            let now = Instant::now();
            let full = || Box::new(RefCell::new(Bucket::new(MAX_NEW_TOPICS, now)));
            self.new_topics.get_or_init(full).borrow_mut().take(now);
        }
    }

    /// A subscription was refused, for whoever counts that.
    pub(super) fn emit_refused_subscription(
        &self,
        channel: &str,
        why: (SubscriptionRefusal, &str),
    ) {
        let socket = self.connection.id();
        self.hub
            .emit_subscription_refused(&self.app, socket, channel, why);
    }

    pub(super) fn send_error(&self, code: ErrorCode, text: &str) {
        tracing::debug!(
            app = self.app.id(),
            socket_id = %self.connection.id(),
            code = code.number(),
            text,
            "error sent"
        );
        self.connection.send(&message::error(code, text));
    }
}
