//! The calls that close connections, or take them out of a channel.

use super::auth::Authorized;
use super::reply::{ApiError, Reply, json};
use super::{Api, Whom};
use crate::broker::Unsubscribed;
use crate::protocol::publish::PublishError;
use crate::protocol::{ChannelName, SocketId};
use crate::telemetry::limit::limited;

impl Api {
    /// `POST /users/{id}/terminate_connections?reconnect=…`: closes the connections of a user; with
    /// `true` clients come back and are authorised again, with `false` they do not, and without it
    /// the application's settings decide.
    pub(super) fn terminate(
        &self,
        request: &Authorized<'_>,
        user: &str,
    ) -> Result<Reply, ApiError> {
        let reconnect = match request.parameter("reconnect") {
            None => None,
            Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(_) => return Err(invalid("reconnect", "The reconnect must be true or false.")),
        };
        let connections = self.broker.terminate(request.app(), user, reconnect);
        let text = "terminated a user's connections";
        limited!(info, text, Some(request.app().id()), { user, connections, }, text);
        Ok(json("{}"))
    }

    /// `POST /channels/{name}/users/{id}/unsubscribe`, and `…/sockets/{socket_id}/unsubscribe`: ends
    /// subscriptions. The client is told so; to join again it needs another signature, which is the
    /// application's to give or refuse.
    pub(super) fn unsubscribe(
        &self,
        request: &Authorized<'_>,
        channel: &str,
        whom: Whom,
    ) -> Result<Reply, ApiError> {
        let name = ChannelName::parse(channel, request.settings().events.channel)
            .map_err(|error| invalid("channel", &error.to_string()))?;
        let (user, socket, who) = match whom {
            Whom::User(id) => (Some(id.clone()), None, Unsubscribed::User(id)),
            Whom::Socket(id) => {
                let socket = SocketId::parse(&id).ok_or_else(|| {
                    invalid("socket_id", "The socket id is none: expected 123.456.")
                })?;
                (None, Some(id), Unsubscribed::Socket(socket))
            }
        };
        self.broker.unsubscribe(request.app(), &name, &who);
        let text = "unsubscribed by the application";
        limited!(info, text, Some(request.app().id()), { channel, user, socket_id = socket, }, text);
        Ok(json("{}"))
    }
}

fn invalid(field: &str, text: &str) -> ApiError {
    PublishError::of_field(field, text).into()
}
