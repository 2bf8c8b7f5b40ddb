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

use std::cell::Cell;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::auth::Authorized;
use super::reply::{self, ApiError, PARTIAL, Reply};
use super::{Api, Call, RequestLog};
use crate::apps::{AppHandle, Counter};
use crate::protocol::publish::PublishError;
use crate::protocol::signature::decode_hex;
use store::{Answer, By, Claim, Claimed, Fingerprint, Request};

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

/// By what a request is known again.
struct Name<'a> {
    by: By,
    text: &'a str,
    ttl: Duration,
}

/// What comes of waiting.
enum Outcome {
    New(Claim),
    Answered(Answer),
}

impl Name<'_> {
    /// The same on all nodes.
    fn id_everywhere(&self, app: &AppHandle) -> [u8; 16] {
        let by = match self.by {
            By::Key => b"k",
            By::Signature => b"s",
        };
        short_digest(&[by, app.id().as_bytes(), b"\0", self.text.as_bytes()])
    }
}

impl Api {
    /// Carries a call out: once, if it can be known again.
    pub(super) async fn run_once(
        &self,
        call: Call,
        (headers, began): (&HeaderMap, std::time::Instant),
        request: &Authorized<'_>,
        logged: &RequestLog<'_>,
    ) -> Result<Reply, ApiError> {
        let is_replayable = matches!(call, Call::Events | Call::BatchEvents);
        let name = match is_replayable {
            true => self.name(headers, request)?,
            false => None,
        };
        // Boxed is what is seldom needed, so that nobody else's request is as big; and the call
        // is there once.
        let claim = match &name {
            None => None,
            Some(name) => {
                let once = self.identify(&call, name, request);
                let max_bytes = self.idempotency.max_bytes;
                match self.requests.claim(&once, began, max_bytes) {
                    Claimed::New(claim) => Some(claim),
                    claimed => match Box::pin(self.wait(&once, claimed)).await? {
                        Outcome::New(claim) => Some(claim),
                        Outcome::Answered(answer) => return Ok(replayed(request, answer)),
                    },
                }
            }
        };
        let (app, unknown) = (request.app(), Cell::new(0));
        let mut shared = None;
        if let Some((claim, name)) = claim.as_ref().zip(name.as_ref())
            && let Some(claims) = self.broker.claims(app, || name.id_everywhere(app))
        {
            let on_all_nodes = shared.insert(everywhere::Shared::new(claims, claim));
            let deadline = Instant::now() + MAX_WAIT;
            match Box::pin(on_all_nodes.claim(deadline)).await? {
                everywhere::Outcome::New => {}
                everywhere::Outcome::Answered(answer) => {
                    claim.answer(answer.clone());
                    return Ok(replayed(request, answer));
                }
                everywhere::Outcome::Reused => return Err(reused()),
            }
        }
        let published = claim.as_ref().map_or(&unknown, Claim::published);
        let reply = self.run(call, request, logged, published).await?;
        if let Some(claim) = &claim {
            let answer = Answer::of_reply(&reply);
            if let Some(shared) = &shared {
                shared.answer(&answer);
            }
            claim.answer(answer);
        }
        Ok(reply)
    }

    fn identify(&self, call: &Call, name: &Name<'_>, request: &Authorized<'_>) -> Request {
        let app = request.app().number();
        Request {
            id: self.requests.id(app, name.by, name.text.as_bytes()),
            fingerprint: match name.by {
                By::Key => fingerprint(call, request),
                // What was signed is the same then.
                By::Signature => Fingerprint::default(),
            },
            by: name.by,
            ttl: name.ttl,
        }
    }

    /// By what a request is known again, if it is.
    fn name<'r>(
        &self,
        headers: &'r HeaderMap,
        request: &'r Authorized<'_>,
    ) -> Result<Option<Name<'r>>, ApiError> {
        if let Some(text) = key_of(headers)? {
            let ttl = self.idempotency.ttl;
            return Ok(Some(Name {
                by: By::Key,
                text,
                ttl,
            }));
        }
        let Some(ttl) = request.settings().duplicate_window else {
            return Ok(None);
        };
        let signature = request.parameter("auth_signature");
        Ok(signature.map(|text| Name {
            by: By::Signature,
            text,
            ttl,
        }))
    }

    /// Waits until the same request that is being carried out has ended.
    async fn wait(&self, once: &Request, mut claimed: Claimed) -> Result<Outcome, ApiError> {
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            match claimed {
                Claimed::New(claim) => return Ok(Outcome::New(claim)),
                Claimed::Answered(answer) => return Ok(Outcome::Answered(answer)),
                Claimed::Reused => return Err(reused()),
                Claimed::Pending(ended) => timeout_at(deadline, ended)
                    .await
                    .map_err(|_| ApiError::InProgress)?,
            }
            let (now, max_bytes) = (Instant::now().into_std(), self.idempotency.max_bytes);
            claimed = self.requests.claim(once, now, max_bytes);
        }
    }
}

impl Answer {
    fn of_reply(reply: &Reply) -> Self {
        let partial = reply.headers().get(&PARTIAL);
        // No other answer of JSON is as short.
        if partial.is_none() && Self::is_empty(reply.body().size_hint().exact()) {
            return Self::empty();
        }
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

/// The answer of an earlier request, marked as such.
fn replayed(request: &Authorized<'_>, answer: Answer) -> Reply {
    let counters = request.app().counters();
    counters.count(Counter::PublishesReplayed);
    let mut reply = answer.into_reply();
    let yes = HeaderValue::from_static("true");
    reply.headers_mut().insert(REPLAYED, yes);
    reply
}

/// Of what is published: the call, the body by its digest, which was checked, and what the query
/// has beside the proof of who asks, which is nothing as a rule.
fn fingerprint(call: &Call, request: &Authorized<'_>) -> Fingerprint {
    let is_proof = |name: &str| name == "body_md5" || name.starts_with("auth_");
    let body = request.parameter("body_md5").and_then(decode_hex::<16>);
    let kind = u8::from(matches!(call, Call::Events));
    let others = || {
        request
            .parameters()
            .iter()
            .filter(|(name, _)| !is_proof(name))
    };
    if let Some(mut digest) = body
        && others().next().is_none()
    {
        digest[0] ^= kind;
        return digest;
    }
    let mut digest = Sha256::new();
    digest.update([kind]);
    digest.update(body.unwrap_or_default());
    for (name, value) in others() {
        for text in [name, value] {
            digest.update(text.len().to_le_bytes());
            digest.update(text.as_bytes());
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
