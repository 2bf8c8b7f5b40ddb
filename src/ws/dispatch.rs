//! What a client says: one parsed frame, one `match`.

use std::time::Instant;

use super::session::{Refusal, Session, refusal};
use super::subscription;
use crate::apps::{App, ClientEvents, Counter, RateLimit};
use crate::broker::ClientEvent;
use crate::protocol::complexity::check_complexity;
use crate::protocol::member::{MAX_WATCHLIST, with_text_id};
use crate::protocol::signature::split_auth;
use crate::protocol::{
    ChannelName, ClientFrame, CloseReason, ErrorCode, InvalidFrame, User, message,
};
use crate::worker::Handled;

impl Session {
    /// Handles a message.
    pub(super) fn answer(&self, text: &str) -> Handled {
        let frame = ClientFrame::parse(text);
        // What others have to be sent waits until it can be.
        let has_waited = self.has_waited.take();
        if frame.as_ref().is_ok_and(ClientFrame::concerns_others) && !has_waited && !self.has_room()
        {
            return Handled::NoRoom;
        }
        self.count_received(text);
        self.log_received(text, &frame);
        tracing::debug!(
            app = self.app.id(),
            socket_id = %self.connection.id(),
            kind = frame.as_ref().map_or("invalid", ClientFrame::kind),
            "message"
        );
        if !matches!(frame, Ok(ClientFrame::Ping | ClientFrame::Pong)) && !self.take_from_rate() {
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

    fn count_received(&self, text: &str) {
        self.received.set(self.received.get().saturating_add(1));
        let bytes = self.received_bytes.get().saturating_add(text.len() as u64);
        self.received_bytes.set(bytes);
    }

    /// Counts a message; refuses it, or closes the connection, and returns false if there
    /// were too many.
    fn take_from_rate(&self) -> bool {
        let Some(bucket) = &self.messages else {
            return true;
        };
        let checked = Counter::RateChecked(RateLimit::Messages);
        self.app.counters().count(checked);
        if bucket.borrow_mut().take(Instant::now()) {
            return true;
        }
        let limited = Counter::RateLimited(RateLimit::Messages);
        self.app.counters().count(limited);
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
        let key = settings
            .find_key(key)
            .ok_or(refused("auth was made with the key of another application"))?;
        let socket_id = self.connection.id().to_string();
        let signed = [socket_id.as_bytes(), b"::user::", user_data.as_bytes()];
        let secret = settings.verify(&signed, signature).ok_or(refused(
            "The signature in auth is not valid for this socket, user data and secret",
        ))?;
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
        self.app.count_credentials(key, secret);
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
        // Its watchlist comes through the worker's inbox, after this.
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
        let is_allowed = self.client_events.as_ref().is_none_or(|bucket| {
            let checked = Counter::RateChecked(RateLimit::ClientEvents);
            self.app.counters().count(checked);
            bucket.borrow_mut().take(Instant::now())
        });
        if !is_allowed {
            let limited = Counter::RateLimited(RateLimit::ClientEvents);
            self.app.counters().count(limited);
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
