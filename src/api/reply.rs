//! Answers and errors of the HTTP API.

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::auth::AuthError;
use crate::apps::RequestRefusal;
use crate::broker::Partial;
use crate::protocol::publish::PublishError;

/// Says that an answer does not cover all nodes, and why.
pub(super) const PARTIAL: header::HeaderName = header::HeaderName::from_static("x-resound-partial");

/// An answer whose body is complete.
pub type Reply = Response<Full<Bytes>>;

/// Why a request is refused. The texts are bodies of answers; the first sentence
/// is Reverb's wherever Reverb has one, because users know and match it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No such route.
    #[error("Not found.")]
    NotFound,
    /// The route exists, for this other method.
    #[error("Method not allowed. This address takes {0}.")]
    Method(&'static str),
    /// The path names no application of this server.
    #[error("No matching application for ID [{0}].")]
    UnknownApp(String),
    /// One check of the signature failed.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// What the body says cannot be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The body is over `max_request_size`.
    #[error(
        "Payload too large. The request body has {size} bytes, {limit} are allowed \
         (max_request_size, REVERB_MAX_REQUEST_SIZE)."
    )]
    TooLarge {
        /// Its bytes, or how many were read before giving up.
        size: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// The body did not arrive in time.
    #[error(
        "Request timeout. The request body did not arrive in time (request_timeout, RESOUND_REQUEST_TIMEOUT)."
    )]
    Timeout,
    /// The body broke off or its encoding is wrong.
    #[error("Bad request. The request body cannot be read: {0}.")]
    Broken(String),
    /// The same request, by its key or its signature, is being carried out.
    #[error("Conflict. The same request is being carried out; try again.")]
    InProgress,
    /// The workers are too far behind.
    #[error(
        "Over capacity. Of this request {published} events were published; try again with the rest."
    )]
    OverCapacity {
        /// Events of a batch that were published.
        published: usize,
    },
}

impl ApiError {
    pub(super) fn from_body(error: hyper::Error) -> Self {
        Self::Broken(error.to_string())
    }

    /// Its name in metrics.
    pub(super) fn label(&self) -> RequestRefusal {
        match self {
            Self::NotFound => RequestRefusal::NotFound,
            Self::Method(_) => RequestRefusal::Method,
            Self::UnknownApp(_) => RequestRefusal::UnknownApp,
            Self::Auth(AuthError::Missing(_)) => RequestRefusal::AuthMissing,
            Self::Auth(AuthError::Key { .. }) => RequestRefusal::AuthKey,
            Self::Auth(AuthError::Version(_)) => RequestRefusal::AuthVersion,
            Self::Auth(AuthError::Timestamp(_)) => RequestRefusal::AuthTimestamp,
            Self::Auth(AuthError::Clock { .. }) => RequestRefusal::AuthClock,
            Self::Auth(AuthError::Digest) => RequestRefusal::AuthDigest,
            Self::Auth(AuthError::Signature { .. }) => RequestRefusal::AuthSignature,
            Self::Publish(PublishError::Json(_)) => RequestRefusal::InvalidJson,
            Self::Publish(PublishError::Fields(_)) => RequestRefusal::InvalidFields,
            Self::Publish(PublishError::TooLarge { .. }) => RequestRefusal::EventTooLarge,
            Self::TooLarge { .. } => RequestRefusal::BodyTooLarge,
            Self::Timeout => RequestRefusal::BodyTimeout,
            Self::Broken(_) => RequestRefusal::BodyBroken,
            Self::InProgress => RequestRefusal::InProgress,
            Self::OverCapacity { .. } => RequestRefusal::OverCapacity,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::UnknownApp(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Auth(_) => StatusCode::UNAUTHORIZED,
            Self::Publish(PublishError::Json(_)) | Self::Broken(_) => StatusCode::BAD_REQUEST,
            Self::Publish(PublishError::Fields(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Publish(PublishError::TooLarge { .. }) | Self::TooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::InProgress => StatusCode::CONFLICT,
            Self::OverCapacity { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer. Invalid fields are JSON, as Laravel's validator has them;
    /// everything else is plain text.
    pub fn into_reply(self) -> Reply {
        let status = self.status();
        let mut reply = match &self {
            Self::Publish(PublishError::Fields(fields)) => {
                json(serde_json::to_string(fields).expect("texts by field are plain data"))
            }
            error => text(status, error.to_string()),
        };
        *reply.status_mut() = status;
        if let Self::Method(allowed) = self {
            reply
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        reply
    }
}

/// 200 with a JSON body.
pub fn json(body: impl Into<Bytes>) -> Reply {
    json_with(StatusCode::OK, body)
}

/// JSON with another status.
pub fn json_with(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "application/json", body.into())
}

/// Plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", body.into())
}

/// The body of an answer, which is shared and not copied.
pub(super) fn body(reply: &Reply) -> Bytes {
    // A whole body is its first and only frame.
    let frame = reply.body().clone().frame().now_or_never();
    let data = frame
        .flatten()
        .and_then(|frame| frame.ok()?.into_data().ok());
    data.unwrap_or_default()
}

/// Marks an answer that does not cover all nodes.
pub(super) fn partly(mut reply: Reply, partial: Option<Partial>) -> Reply {
    if let Some(partial) = partial {
        let text = HeaderValue::from_str(&partial.to_string());
        let text = text.expect("the texts are ASCII");
        reply.headers_mut().insert(PARTIAL, text);
    }
    reply
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
