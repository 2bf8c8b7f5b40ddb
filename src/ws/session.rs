//! An open connection: one parsed client frame, one `match`.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::subscription;
use crate::apps::{App, AppHandle, ClientEvents, Rate};
use crate::broker::{Broker, ClientEvent};
use crate::hub::{Hub, SignedIn};
use crate::protocol::complexity::check_complexity;
use crate::protocol::member::{MAX_WATCHLIST, with_text_id};
use crate::protocol::signature::split_auth;
use crate::protocol::{
    ChannelName, ClientFrame, CloseReason, ErrorCode, InvalidFrame, User, message,
};
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

/// Why something is refused: the code and the text of its `pusher:error`.
pub(super) type Refusal = (ErrorCode, Cow<'static, str>);

pub(super) fn refusal(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Refusal {
    (code, text.into())
}

/// A connection and what the server knows of it beside its socket.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) app: AppHandle,
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

/// Tells a connection why it is not let in.
pub async fn refuse(connection: Connection, peer: SocketAddr, reason: CloseReason) {
    connection.close(reason);
    let worker = Rc::clone(connection.worker());
    // It holds a place for nothing, which others may need.
    let waiter = worker.idle().enter();
    tokio::select! {
        () = waiter.evicted() => {}
        () = receive_all(&connection) => {}
    }
    worker.idle().leave(&waiter);
    connection.worker().hub().closes().count(reason);
    tracing::debug!(socket_id = %connection.id(), %peer, ?reason, "refused");
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
        tracing::debug!(app = app.id(), socket_id = %connection.id(), peer = %self.peer, "connected");
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
    fn has_room(&self) -> bool {
        let topics = self.new_topics.get();
        topics.is_none_or(|topics| topics.borrow_mut().has_one(Instant::now()))
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

    fn answer(&self, text: &str) -> Handled {
        let frame = ClientFrame::parse(text);
        // What others have to be told of waits until they can be.
        let has_waited = self.has_waited.take();
        if frame.as_ref().is_ok_and(ClientFrame::concerns_others) && !has_waited && !self.has_room()
        {
            return Handled::NoRoom;
        }
        tracing::debug!(
            app = self.app.id(),
            socket_id = %self.connection.id(),
            kind = frame.as_ref().map_or("invalid", ClientFrame::kind),
            "message"
        );
        if !matches!(frame, Ok(ClientFrame::Ping | ClientFrame::Pong)) && !self.is_within_rate() {
            return Handled::Done;
        }
        let answered = match frame {
            Ok(ClientFrame::Subscribe {
                channel,
                auth,
                channel_data,
            }) => {
                subscription::subscribe(self, &channel, auth.as_deref(), channel_data.as_deref());
                Ok(())
            }
            Ok(ClientFrame::Unsubscribe { channel }) => {
                let had_joined = self.connection.unsubscribe(&self.app, &channel);
                tracing::debug!(
                    app = self.app.id(),
                    socket_id = %self.connection.id(),
                    channel = &*channel,
                    had_joined,
                    "unsubscribed"
                );
                Ok(())
            }
            Ok(ClientFrame::Signin { auth, user_data }) => self
                .sign_in(&auth, &user_data)
                .map_err(|why| ("sign-in refused", None, why)),
            Ok(ClientFrame::ClientEvent {
                event,
                channel,
                data,
            }) => self
                .client_event(&event, &channel, data)
                .map_err(|why| ("client event refused", Some(channel), why)),
            Ok(ClientFrame::Ping) => {
                self.connection.send(&message::pong());
                Ok(())
            }
            Ok(ClientFrame::Pong | ClientFrame::Ignored) => Ok(()),
            Err(InvalidFrame) => {
                let why = refusal(ErrorCode::InvalidMessage, InvalidFrame.to_string());
                Err(("message refused", None, why))
            }
        };
        if let Err((what, channel, why)) = answered {
            self.log_refusal(what, channel.as_deref(), &why);
            self.send_error(why.0, &why.1);
        }
        Handled::Done
    }

    /// A subscription was refused, for whoever counts that.
    pub(super) fn refused_subscription(&self, channel: &str, reason: &str) {
        let socket = self.connection.id();
        self.hub
            .subscription_refused(&self.app, socket, channel, reason);
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

    fn is_within_rate(&self) -> bool {
        let Some(bucket) = &self.messages else {
            return true;
        };
        if bucket.borrow_mut().take(Instant::now()) {
            return true;
        }
        if self.app.settings().terminate_on_limit {
            self.connection.close(CloseReason::RateLimited);
        } else {
            let why = refusal(ErrorCode::ClientEventRejected, "Rate limit exceeded");
            self.log_refusal("message refused", None, &why);
            self.send_error(why.0, &why.1);
        }
        false
    }

    fn sign_in(&self, auth: &str, user_data: &str) -> Result<(), Refusal> {
        let refused = |text: &'static str| refusal(ErrorCode::Unauthorized, text);
        let (key, signature) =
            split_auth(auth).ok_or(refused("auth is not of the form key:signature"))?;
        let settings = self.app.settings();
        if key != settings.key {
            return Err(refused("auth was made with the key of another application"));
        }
        let socket_id = self.connection.id().to_string();
        let signed = [socket_id.as_bytes(), b"::user::", user_data.as_bytes()];
        if !settings.secret.verify(&signed, signature) {
            return Err(refused(
                "The signature in auth is not valid for this socket, user data and secret",
            ));
        }
        let user = User::parse(user_data, settings.presence.max_member_size)
            .map_err(|error| refusal(ErrorCode::InvalidMessage, error.to_string()))?;
        let success = message::signin_success(&with_text_id(user_data));
        if let Some(before) = self.user.get() {
            return if before.user().member.id == user.member.id {
                self.connection.send(&success);
                Ok(())
            } else {
                Err(refused("The connection is signed in as another user"))
            };
        }
        self.connection.lift_authorization_deadline();
        tracing::debug!(app = self.app.id(), %socket_id, user = &*user.member.id, "signed in");
        let cut = user.watchlist_cut;
        let address = self.connection.address();
        let signed_in = self.hub.sign_in(&self.app, address, user, success);
        let Ok((signed_in, success)) = signed_in else {
            // Its other connections are being closed, too.
            self.connection.close(CloseReason::ApplicationDoesNotExist);
            return Ok(());
        };
        self.user.get_or_init(|| signed_in);
        // Of its watchlist it hears by a letter, which comes after this.
        if let Some(success) = success {
            self.connection.send(&success);
        }
        if cut {
            let text = format!(
                "The watchlist has more than {MAX_WATCHLIST} users; the first {MAX_WATCHLIST} are kept"
            );
            self.send_error(ErrorCode::WatchlistLimit, &text);
        }
        Ok(())
    }

    fn client_event(&self, event: &str, channel: &str, data: Option<&str>) -> Result<(), Refusal> {
        let settings = self.app.settings();
        let name = ChannelName::parse(channel, settings.events.channel)
            .map_err(|error| refusal(ErrorCode::InvalidMessage, error.to_string()))?;
        let membership = self.connection.membership(&self.app, channel);
        match settings.client_events {
            ClientEvents::None => {
                let text = "The app does not have client messaging enabled.";
                return Err(refusal(ErrorCode::ClientEventRejected, text));
            }
            ClientEvents::Private if !name.kind().needs_signature() => {
                let text = "Client events are only allowed on private and presence channels.";
                return Err(refusal(ErrorCode::ClientEventRejected, text));
            }
            ClientEvents::Private | ClientEvents::Members if membership.is_none() => {
                let text = "The client is not a member of the specified channel.";
                return Err(refusal(ErrorCode::Unauthorized, text));
            }
            ClientEvents::Private | ClientEvents::Members | ClientEvents::All => {}
        }
        // With `all`, too, a user's own channel is the application's to send to.
        if name.is_reserved() {
            return Err(refusal(
                ErrorCode::Unauthorized,
                "Channels that begin with # belong to the server",
            ));
        }
        within_limits(&settings, event, data)
            .map_err(|text| refusal(ErrorCode::ClientEventRejected, text))?;
        if self
            .client_events
            .as_ref()
            .is_some_and(|bucket| !bucket.borrow_mut().take(Instant::now()))
        {
            return Err(refusal(
                ErrorCode::ClientEventRejected,
                "Rate limit exceeded",
            ));
        }
        if !self.broker.has_room() {
            let text = "The server is over capacity; the event was not sent";
            return Err(refusal(ErrorCode::OverCapacity, text));
        }
        let user = membership.flatten();
        let user_id = user.as_ref().map(|user| &*user.json);
        let event = ClientEvent {
            name: event,
            channel: &name,
            data,
            user_id,
            from: self.connection.id(),
        };
        self.broker.client_event(&self.app, &event);
        Ok(())
    }
}

/// What is wrong with the size or the data of a client event.
fn within_limits(settings: &App, event: &str, data: Option<&str>) -> Result<(), String> {
    let data = data.unwrap_or_default();
    let (size, max_size) = (data.len(), settings.max_client_event_size);
    if size > max_size {
        return Err(format!(
            "The data of the client event has {size} bytes, {max_size} are allowed \
             (client_events.max_size, RESOUND_CLIENT_EVENT_MAX_SIZE)"
        ));
    }
    let (length, max_length) = (event.len(), settings.events.name);
    if length > max_length {
        return Err(format!(
            "The event name has {length} bytes, {max_length} are allowed \
             (max_event_name_length, RESOUND_MAX_EVENT_NAME_LENGTH)"
        ));
    }
    check_complexity(data).map_err(|error| format!("The data of the client event {error}"))
}
