//! Publishes that arrive twice and are carried out once.
//!
//! A request is known by its `Idempotency-Key`, or, where an application wants that
//! (`duplicate_window`), by its signature: the same second, path, query and body. The first of
//! its kind is carried out; if that is a success, whoever comes with the same again within the
//! time gets the same answer. What is being carried out is waited for. What was refused, or
//! broke off, is free again; of a batch that broke off, the next one publishes only the rest.
//!
//! Each node knows its own requests (`store`). With other nodes a request is claimed in Redis,
//! too, before it is carried out; while Redis is away each node goes by what it knows itself.
//!
//! It is not kept what an answer's headers were, and nothing outlives the process that Redis
//! does not have.

mod everywhere;
mod store;

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::auth::Authorized;
use super::reply::{self, ApiError, PARTIAL, Reply};
use super::{Api, Call, RequestLog};
use crate::apps::Counter;
use crate::protocol::publish::PublishError;
use store::{Answer, Claimed, Fingerprint, Request};

pub use store::Store;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says that an answer is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Bytes of a key.
const MAX_KEY: usize = 255;

/// How long a request waits for the same one that is being carried out.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// What requests that come again are held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long the answer to a request with a key is kept.
    pub ttl: Duration,
    /// Bytes of all that is kept.
    pub max_bytes: usize,
}

impl Api {
    /// Carries a call out: once, if it can be known again.
    pub(super) async fn run_once(
        &self,
        call: Call,
        headers: &HeaderMap,
        request: &Authorized<'_>,
        logged: &RequestLog<'_>,
    ) -> Result<Reply, ApiError> {
        let is_replayable = matches!(call, Call::Events | Call::BatchEvents);
        let once = match is_replayable {
            true => self.identify(&call, headers, request)?,
            false => None,
        };
        match once {
            None => self.run(call, request, logged, &Default::default()).await,
            // Boxed, so that nobody else's request is as big.
            Some(once) => Box::pin(self.claim_and_run(once, call, request, logged)).await,
        }
    }

    async fn claim_and_run(
        &self,
        once: Request,
        call: Call,
        request: &Authorized<'_>,
        logged: &RequestLog<'_>,
    ) -> Result<Reply, ApiError> {
        let app = request.app();
        let deadline = Instant::now() + MAX_WAIT;
        let replayed = |answer: Answer| {
            app.counters().count(Counter::PublishesReplayed);
            let mut reply = answer.into_reply();
            let yes = HeaderValue::from_static("true");
            reply.headers_mut().insert(REPLAYED, yes);
            Ok(reply)
        };
        let claim = loop {
            let max_bytes = self.idempotency.max_bytes;
            match self
                .requests
                .claim(&once, Instant::now().into_std(), max_bytes)
            {
                Claimed::New(claim) => break claim,
                Claimed::Answered(answer) => return replayed(answer),
                Claimed::Reused => return Err(reused()),
                Claimed::Pending(ended) => timeout_at(deadline, ended)
                    .await
                    .map_err(|_| ApiError::InProgress)?,
            }
        };
        let elsewhere = self.broker.claims(app, once.id);
        if let Some(elsewhere) = &elsewhere {
            match everywhere::claim(elsewhere, &claim, deadline).await? {
                everywhere::Outcome::New => {}
                everywhere::Outcome::Answered(answer) => {
                    claim.answer(answer.clone());
                    return replayed(answer);
                }
                everywhere::Outcome::Reused => return Err(reused()),
            }
        }
        // Dropped before the claim: what it says of it comes first.
        let shared = elsewhere.map(|link| everywhere::Shared::new(link, &claim));
        let reply = self.run(call, request, logged, claim.published()).await?;
        let answer = Answer::of(&reply);
        if let Some(shared) = shared {
            shared.answer(&answer);
        }
        claim.answer(answer);
        Ok(reply)
    }

    /// By what a request is known again, if it is.
    fn identify(
        &self,
        call: &Call,
        headers: &HeaderMap,
        request: &Authorized<'_>,
    ) -> Result<Option<Request>, ApiError> {
        let id_of = |kind: &[u8], text: &[u8]| {
            let app = request.app().id().as_bytes();
            short_digest(&[kind, app, b"\0", text])
        };
        if let Some(key) = key_of(headers)? {
            return Ok(Some(Request {
                id: id_of(b"k", key.as_bytes()),
                fingerprint: fingerprint(call, request),
                ttl: self.idempotency.ttl,
            }));
        }
        let window = request.settings().duplicate_window;
        let signature = request.parameter("auth_signature");
        Ok(window.zip(signature).map(|(ttl, signature)| Request {
            id: id_of(b"s", signature.as_bytes()),
            fingerprint: fingerprint(call, request),
            ttl,
        }))
    }
}

impl Answer {
    fn of(reply: &Reply) -> Self {
        let partial = reply.headers().get(&PARTIAL);
        Self {
            body: reply::body(reply),
            partial: partial.and_then(|it| it.to_str().ok()).map(Box::from),
        }
    }

    fn into_reply(self) -> Reply {
        let mut reply = reply::json(self.body);
        if let Some(partial) = self.partial
            && let Ok(partial) = HeaderValue::from_str(&partial)
        {
            reply.headers_mut().insert(PARTIAL, partial);
        }
        reply
    }
}

/// The key of a request, if it has one.
fn key_of(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let is_key = |key: &&str| (1..=MAX_KEY).contains(&key.len());
    match key.to_str().ok().filter(is_key) {
        Some(key) if keys.next().is_none() => Ok(Some(key)),
        _ => Err(refused(&format!(
            "The Idempotency-Key must be one text of 1 to {MAX_KEY} printable ASCII characters."
        ))),
    }
}

fn reused() -> ApiError {
    refused("The Idempotency-Key was used for another request.")
}

fn refused(text: &str) -> ApiError {
    PublishError::of_field("Idempotency-Key", text).into()
}

/// Of what is published: the call, the body by its digest, which was checked, and what the query
/// has beside the proof of who asks.
fn fingerprint(call: &Call, request: &Authorized<'_>) -> Fingerprint {
    let mut digest = Sha256::new();
    digest.update(if matches!(call, Call::Events) {
        "e"
    } else {
        "b"
    });
    for (name, value) in request.parameters() {
        if name == "body_md5" || !name.starts_with("auth_") {
            for text in [name, value] {
                digest.update(text.len().to_le_bytes());
                digest.update(text.as_bytes());
            }
        }
    }
    shortened(digest)
}

fn short_digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    shortened(digest)
}

fn shortened(digest: Sha256) -> [u8; 16] {
    let digest = digest.finalize();
    *digest.first_chunk().expect("SHA-256 has 32 bytes")
}
