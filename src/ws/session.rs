//! An open connection: one parsed client frame, one `match`.

use std::borrow::Cow;
use std::sync::Arc;

use crate::app::{App, ClientEvents};
use crate::broker::{Broker, ClientEvent};
use crate::protocol::signature::split_auth;
use crate::protocol::{ChannelName, ClientFrame, CloseReason, ErrorCode, InvalidFrame, message};
use crate::worker::Connection;

const UNAUTHORIZED: &str = "Connection is unauthorized";

/// Why a client event is refused: the code and the text of its `pusher:error`.
type Refusal = (ErrorCode, Cow<'static, str>);

/// Serves a connection until it ends.
pub async fn run(connection: Connection, app: Arc<App>, broker: Broker) {
    connection.send(&message::connection_established(
        connection.id(),
        app.activity_timeout,
    ));
    connection.receive_leftover(|connection, text| answer(connection, &app, &broker, text));
    let reason = loop {
        let received = connection
            .receive(|connection, text| answer(connection, &app, &broker, text))
            .await;
        if let Err(reason) = received {
            break reason;
        }
    };
    tracing::debug!(app = app.id, socket_id = %connection.id(), ?reason, "disconnected");
}

/// Tells a connection why it is not let in.
pub async fn refuse(connection: Connection, reason: CloseReason) {
    connection.close(reason);
    while connection.receive(|_, _| ()).await.is_ok() {}
    tracing::debug!(?reason, "refused");
}

fn answer(connection: &Connection, app: &App, broker: &Broker, text: &str) {
    match ClientFrame::parse(text) {
        Ok(ClientFrame::Subscribe {
            channel,
            auth,
            channel_data,
        }) => {
            subscribe(
                connection,
                app,
                &channel,
                auth.as_deref(),
                channel_data.as_deref(),
            );
        }
        Ok(ClientFrame::Unsubscribe { channel }) => {
            connection.unsubscribe(app, &channel);
        }
        Ok(ClientFrame::Ping) => connection.send(&message::pong()),
        Ok(ClientFrame::ClientEvent {
            event,
            channel,
            data,
        }) => {
            if let Err((code, text)) =
                client_event(connection, app, broker, (&event, &channel, data))
            {
                connection.send(&message::error(code, &text));
            }
        }
        Ok(ClientFrame::Pong | ClientFrame::Ignored) => {}
        Err(InvalidFrame) => {
            connection.send(&message::error(
                ErrorCode::InvalidMessage,
                &InvalidFrame.to_string(),
            ));
        }
    }
}

fn subscribe(
    connection: &Connection,
    app: &App,
    channel: &str,
    auth: Option<&str>,
    channel_data: Option<&str>,
) {
    match may_subscribe(connection, app, channel, auth, channel_data) {
        Ok(name) => {
            // A second subscription is answered again and counts once.
            connection.subscribe(app, &name);
            connection.send(&message::subscription_succeeded(&name));
            tracing::debug!(app = app.id, socket_id = %connection.id(), channel, "subscribed");
        }
        Err((code, text)) => {
            tracing::debug!(app = app.id, socket_id = %connection.id(), channel, %text, "subscription refused");
            connection.send(&message::subscription_error(channel, &text));
            let first = if code == ErrorCode::Unauthorized {
                UNAUTHORIZED
            } else {
                &text
            };
            connection.send(&message::error(code, first));
        }
    }
}

fn may_subscribe(
    connection: &Connection,
    app: &App,
    channel: &str,
    auth: Option<&str>,
    channel_data: Option<&str>,
) -> Result<ChannelName, Refusal> {
    let refused = |text: &'static str| (ErrorCode::Unauthorized, Cow::Borrowed(text));
    let name = ChannelName::parse(channel)
        .map_err(|error| (ErrorCode::InvalidMessage, Cow::Owned(error.to_string())))?;
    let kind = name.kind();
    if name.is_reserved() {
        return Err(refused("Channels that begin with # belong to the server"));
    }
    if kind.is_presence() || kind.is_cache() {
        return Err(refused(
            "Presence and cache channels are not in this version of Resound",
        ));
    }
    if !kind.needs_signature() {
        return Ok(name);
    }
    let auth = auth.ok_or(refused("The subscription carries no auth"))?;
    let (key, signature) =
        split_auth(auth).ok_or(refused("auth is not of the form key:signature"))?;
    if key != app.key {
        return Err(refused("auth was made with the key of another application"));
    }
    let socket_id = connection.id().to_string();
    if app
        .secret
        .verifies_subscription(signature, &socket_id, channel, channel_data)
    {
        Ok(name)
    } else {
        Err(refused(
            "The signature in auth is not valid for this socket, channel and secret",
        ))
    }
}

fn client_event(
    connection: &Connection,
    app: &App,
    broker: &Broker,
    (event, channel, data): (&str, &str, Option<&str>),
) -> Result<(), Refusal> {
    let refused = |code, text: &'static str| (code, Cow::Borrowed(text));
    let name = ChannelName::parse(channel)
        .map_err(|error| (ErrorCode::InvalidMessage, Cow::Owned(error.to_string())))?;
    let is_member = || connection.is_subscribed(app, channel);
    match app.client_events {
        ClientEvents::None => {
            let text = "The app does not have client messaging enabled.";
            return Err(refused(ErrorCode::ClientEventRejected, text));
        }
        ClientEvents::Private if !name.kind().needs_signature() => {
            let text = "Client events are only allowed on private and presence channels.";
            return Err(refused(ErrorCode::ClientEventRejected, text));
        }
        ClientEvents::Private | ClientEvents::Members if !is_member() => {
            let text = "The client is not a member of the specified channel.";
            return Err(refused(ErrorCode::Unauthorized, text));
        }
        ClientEvents::Private | ClientEvents::Members | ClientEvents::All => {}
    }
    if !broker.has_room() {
        return Err(refused(
            ErrorCode::OverCapacity,
            "The server is over capacity; the event was not sent",
        ));
    }
    broker.client_event(
        app,
        &ClientEvent {
            name: event,
            channel: &name,
            data,
            from: connection.id(),
        },
    );
    Ok(())
}
