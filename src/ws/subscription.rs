//! Who may join a channel, and as whom.

use super::session::{Refusal, Session, UNAUTHORIZED, refusal};
use crate::apps::App;
use crate::protocol::signature::split_auth;
use crate::protocol::{ChannelName, CloseReason, ErrorCode, Member, message};
use crate::worker::{SubscribeError, Subscribed};

/// Answers `pusher:subscribe`.
pub(super) fn subscribe(
    session: &Session,
    channel: &str,
    auth: Option<&str>,
    channel_data: Option<&str>,
) {
    let (connection, app) = (&session.connection, &session.app);
    let joined = {
        // Read once: a change of them concerns the next message.
        let settings = app.settings();
        let max = settings.max_subscriptions;
        may_join(session, &settings, channel, (auth, channel_data))
            .map(|(name, member)| connection.subscribe(app, &name, member.as_ref(), max))
    };
    let joined = match joined {
        Ok(Err(SubscribeError::Removed(_))) => {
            // Its other connections are being closed, too.
            return connection.close(CloseReason::ApplicationDoesNotExist);
        }
        Ok(Err(full)) => Err(refusal(ErrorCode::OverCapacity, full.to_string())),
        Ok(Ok(answers)) => Ok(answers),
        Err(why) => Err(why),
    };
    match joined {
        Ok(Subscribed { answers, is_new }) => {
            session.count_new_topic(is_new);
            answers
                .iter()
                .flatten()
                .for_each(|frame| connection.send(frame));
            tracing::debug!(app = app.id(), socket_id = %connection.id(), channel, "subscribed");
        }
        Err(why) => {
            session.log_refusal("subscription refused", Some(channel), &why);
            let (code, text) = why;
            session.emit_refused_subscription(channel, (code, &text));
            connection.send(&message::subscription_error(channel, code, &text));
            let text = if code == ErrorCode::Unauthorized {
                UNAUTHORIZED
            } else {
                &text
            };
            session.send_error(code, text);
        }
    }
}

/// The name, and who it is in a presence channel.
fn may_join(
    session: &Session,
    settings: &App,
    channel: &str,
    (auth, channel_data): (Option<&str>, Option<&str>),
) -> Result<(ChannelName, Option<Member>), Refusal> {
    let invalid =
        |error: &dyn std::fmt::Display| refusal(ErrorCode::InvalidMessage, error.to_string());
    let refused = |text: &'static str| refusal(ErrorCode::Unauthorized, text);
    let name =
        ChannelName::parse(channel, settings.events.channel).map_err(|error| invalid(&error))?;
    let user = session.user.get().map(|signed_in| signed_in.user());
    if name.is_reserved() {
        let own = name
            .user()
            .is_some_and(|owner| user.is_some_and(|user| &*user.member.id == owner));
        return if own {
            Ok((name, None))
        } else {
            Err(refused("The channel belongs to another user"))
        };
    }
    if !name.kind().needs_signature() {
        return Ok((name, None));
    }
    verify(session, settings, channel, (auth, channel_data))?;
    session.connection.lift_authorization_deadline();
    if !name.kind().is_presence() {
        return Ok((name, None));
    }
    let member = match (channel_data, user) {
        (Some(data), _) => Member::parse(data, settings.presence.max_member_size)
            .map_err(|error| invalid(&error))?,
        (None, Some(user)) => user.member.clone(),
        (None, None) => {
            return Err(refused(
                "A presence channel needs channel_data or a signed-in user",
            ));
        }
    };
    Ok((name, Some(member)))
}

fn verify(
    session: &Session,
    settings: &App,
    channel: &str,
    (auth, channel_data): (Option<&str>, Option<&str>),
) -> Result<(), Refusal> {
    let refused = |text: &'static str| refusal(ErrorCode::Unauthorized, text);
    let auth = auth.ok_or(refused("The subscription carries no auth"))?;
    let (key, signature) =
        split_auth(auth).ok_or(refused("auth is not of the form key:signature"))?;
    if key != settings.key {
        return Err(refused("auth was made with the key of another application"));
    }
    let socket_id = session.connection.id().to_string();
    if settings
        .secret
        .verifies_subscription(signature, &socket_id, channel, channel_data)
    {
        Ok(())
    } else {
        Err(refused(
            "The signature in auth is not valid for this socket, channel and secret",
        ))
    }
}
