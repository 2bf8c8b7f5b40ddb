//! Who may join a channel, and as whom.

use std::borrow::Cow;

use super::session::{Refusal, Session, UNAUTHORIZED, refusal};
use crate::apps::{App, SubscriptionRefusal};
use crate::protocol::signature::{self, split_auth};
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
        Ok(Err(full)) => {
            let kind = match full {
                SubscribeError::TooMany(_) => SubscriptionRefusal::TooMany,
                SubscribeError::Full(_) | SubscribeError::Removed(_) => SubscriptionRefusal::Full,
            };
            let why = refusal(ErrorCode::OverCapacity, full.to_string());
            Err(Refused { kind, why })
        }
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
        Err(Refused { kind, why }) => {
            session.log_refusal("subscription refused", Some(channel), &why);
            let (code, text) = why;
            session.emit_refused_subscription(channel, (kind, &text));
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

/// Why a subscription is refused.
struct Refused {
    kind: SubscriptionRefusal,
    why: Refusal,
}

fn invalid(kind: SubscriptionRefusal, error: &dyn std::fmt::Display) -> Refused {
    let why = refusal(ErrorCode::InvalidMessage, error.to_string());
    Refused { kind, why }
}

fn unauthorized(kind: SubscriptionRefusal, text: &'static str) -> Refused {
    let why = (ErrorCode::Unauthorized, Cow::Borrowed(text));
    Refused { kind, why }
}

/// The name, and who it is in a presence channel.
fn may_join(
    session: &Session,
    settings: &App,
    channel: &str,
    (auth, channel_data): (Option<&str>, Option<&str>),
) -> Result<(ChannelName, Option<Member>), Refused> {
    let name = ChannelName::parse(channel, settings.events.channel)
        .map_err(|error| invalid(SubscriptionRefusal::Channel, &error))?;
    let user = session.user.get().map(|signed_in| signed_in.user());
    if name.is_reserved() {
        let own = name
            .user()
            .is_some_and(|owner| user.is_some_and(|user| &*user.member.id == owner));
        return if own {
            Ok((name, None))
        } else {
            let text = "The channel belongs to another user";
            Err(unauthorized(SubscriptionRefusal::OtherUser, text))
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
            .map_err(|error| invalid(SubscriptionRefusal::Member, &error))?,
        (None, Some(user)) => user.member.clone(),
        (None, None) => {
            let text = "A presence channel needs channel_data or a signed-in user";
            return Err(unauthorized(SubscriptionRefusal::NoMember, text));
        }
    };
    Ok((name, Some(member)))
}

fn verify(
    session: &Session,
    settings: &App,
    channel: &str,
    (auth, channel_data): (Option<&str>, Option<&str>),
) -> Result<(), Refused> {
    let refused = unauthorized;
    let auth = auth.ok_or_else(|| {
        refused(
            SubscriptionRefusal::NoAuth,
            "The subscription carries no auth",
        )
    })?;
    let (key, signature) = split_auth(auth).ok_or_else(|| {
        refused(
            SubscriptionRefusal::AuthForm,
            "auth is not of the form key:signature",
        )
    })?;
    let Some(key) = settings.find_key(key) else {
        let text = "auth was made with the key of another application";
        return Err(refused(SubscriptionRefusal::Key, text));
    };
    let socket_id = session.connection.id().to_string();
    let signed = signature::of_subscription(&socket_id, channel, channel_data);
    let secret = settings.verify(&signed, signature).ok_or_else(|| {
        refused(
            SubscriptionRefusal::Signature,
            "The signature in auth is not valid for this socket, channel and secret",
        )
    })?;
    session.app.count_credentials(key, secret);
    Ok(())
}
