//! What is said of requests that are refused: which check failed, who sent it, and
//! what to do. Never what a body says, nor a signature.

use std::borrow::Cow;

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;

use super::ApiError;
use super::auth::AuthError;
use super::request_id::RequestIds;
use crate::apps::AppHandle;
use crate::protocol::publish::PublishError;
use crate::protocol::signature::Secret;
use crate::proxies::Client;
use crate::telemetry::limit::limited;

/// Why, in words of ours; and what to do about it.
fn cause_and_help(error: &ApiError) -> (&'static str, &'static str) {
    match error {
        ApiError::NotFound => ("request refused: no such address (404)", ""),
        ApiError::Method(_) => ("request refused: wrong method (405)", ""),
        ApiError::UnknownApp(_) => (
            "request refused: unknown application id (404)",
            "REVERB_APP_ID differs between this server and whoever sent it",
        ),
        ApiError::Auth(error) => of_signature(error),
        ApiError::Publish(PublishError::Json(_)) => (
            "request refused: its body is no JSON object (400)",
            "the answer says where",
        ),
        ApiError::Publish(PublishError::Fields(_)) => (
            "request refused: invalid fields (422)",
            "the answer says what is expected",
        ),
        ApiError::Publish(PublishError::TooLarge { .. }) => (
            "request refused: event too large (413)",
            "raise RESOUND_MAX_EVENT_SIZE, or send less",
        ),
        ApiError::TooLarge { .. } => (
            "request refused: body too large (413)",
            "raise REVERB_MAX_REQUEST_SIZE, or send less",
        ),
        ApiError::Timeout => (
            "request refused: its body did not arrive in time (408)",
            "RESOUND_REQUEST_TIMEOUT",
        ),
        ApiError::Broken(_) => ("request refused: its body cannot be read (400)", ""),
        ApiError::InProgress => (
            "request refused: the same one is being carried out (409)",
            "its sender has to try again later",
        ),
        ApiError::OverCapacity { .. } => (
            "request refused: over capacity (503)",
            "the workers are behind: more of them, or fewer messages",
        ),
    }
}

fn of_signature(error: &AuthError) -> (&'static str, &'static str) {
    match error {
        AuthError::Missing(_) => (
            "request refused: an authentication parameter is missing (401)",
            "a proxy in front has to pass on the query",
        ),
        AuthError::Key { .. } => (
            "request refused: the key is not the application's (401)",
            "REVERB_APP_KEY differs between this server and whoever sent it",
        ),
        AuthError::Version(_) => ("request refused: unknown auth_version (401)", ""),
        AuthError::Timestamp(_) => ("request refused: bad auth_timestamp (401)", ""),
        AuthError::Clock { .. } => (
            "request refused: clocks differ (401)",
            "set the clock of one of the two, or RESOUND_TIMESTAMP_TOLERANCE",
        ),
        AuthError::Digest => (
            "request refused: body_md5 is not that of the body (401)",
            "something has changed the body on its way",
        ),
        AuthError::Signature { .. } => (
            "request refused: bad signature (401)",
            "REVERB_APP_SECRET differs, or a proxy changed the path or the query",
        ),
    }
}

/// Logs a refusal once; what the client has said is logged once, too.
pub(super) fn refused(
    error: &ApiError,
    app: Option<&AppHandle>,
    (head, ids): (&Parts, &RequestIds<'_>),
    client: Client,
) {
    let (cause, help) = cause_and_help(error);
    let key = match error {
        // Somebody has exchanged the two.
        ApiError::Auth(AuthError::Key { key, .. })
            if app.is_some_and(|app| app.settings().secret == Secret::new(key)) =>
        {
            Some("(the secret)")
        }
        ApiError::Auth(AuthError::Key { key, .. }) => Some(key.as_str()),
        _ => None,
    };
    let fields = match error {
        ApiError::Publish(PublishError::Fields(fields)) => Some(
            fields
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(","),
        ),
        _ => None,
    };
    let reason = match error {
        ApiError::Auth(
            AuthError::Missing(_)
            | AuthError::Version(_)
            | AuthError::Timestamp(_)
            | AuthError::Clock { .. },
        )
        | ApiError::Publish(PublishError::TooLarge { .. })
        | ApiError::TooLarge { .. }
        | ApiError::Broken(_)
        | ApiError::OverCapacity { .. } => Some(error),
        _ => None,
    };
    let headers = &head.headers;
    // Somebody's whose word is not taken.
    let forwarded_for = headers.get("x-forwarded-for");
    let forwarded_for = forwarded_for.filter(|_| !client.is_forwarded).map(text_of);
    let length = headers.get(header::CONTENT_LENGTH).map(text_of);
    limited!(info, cause, app.map(AppHandle::id), {
        method = %head.method,
        path = head.uri.path(),
        key,
        error = reason.map(display),
        fields,
        content_length = length.and_then(|text| text.parse::<u64>().ok()),
        peer = %client,
        proxy = client.proxy.map(display),
        forwarded_for = forwarded_for.as_deref(),
        request_id = ids.id(),
        trace_id = ids.trace_id(),
        span_id = ids.span_id(),
        help = Some(help).filter(|help| !help.is_empty()),
    }, cause);
}

fn text_of(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}
