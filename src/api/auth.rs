//! Who signed a request: all of Pusher's checks, each with its own answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header;
use hyper::http::request::Parts;
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;

use crate::app::App;
use crate::protocol::signature::{canonical_query, canonical_query_as_sent, joined_lists};

/// A request whose signature was checked. There is no other way to get one.
#[derive(Debug)]
pub struct Authorized {
    app: Arc<App>,
    body: Bytes,
    parameters: Vec<(String, String)>,
}

/// A request whose signature was checked before its body was read: nobody gets
/// megabytes of memory for a body that nobody signed.
#[derive(Debug)]
pub struct Signed {
    app: Arc<App>,
    digest: Option<String>,
    parameters: Vec<(String, String)>,
}

/// What a signature is checked against.
pub struct Rules<'a> {
    /// How far `auth_timestamp` may be off; `None` for any distance.
    pub tolerance: Option<Duration>,
    /// Prefix of the server's routes.
    pub prefix: &'a str,
    /// The server's clock.
    pub now: SystemTime,
}

/// The check that failed. No text has anything that the client did not send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A parameter is not in the query.
    #[error("Authentication signature invalid. The query parameter {0} is missing.")]
    Missing(&'static str),
    /// The key is not that of the application in the path.
    #[error(
        "Authentication signature invalid. The auth_key {key:?} does not belong to application {app:?}."
    )]
    Key {
        /// What was sent.
        key: String,
        /// The application's id.
        app: String,
    },
    /// Not `1.0`.
    #[error("Authentication signature invalid. The auth_version is {0:?}, expected \"1.0\".")]
    Version(String),
    /// Not a number.
    #[error(
        "Authentication signature invalid. The auth_timestamp {0:?} is not a Unix time in seconds."
    )]
    Timestamp(String),
    /// Too far from the server's clock.
    #[error(
        "Authentication signature invalid. The auth_timestamp is {off} s {direction} this server's clock, \
         {allowed} s are allowed: set the clock of one of the two."
    )]
    Clock {
        /// Seconds.
        off: u64,
        /// `behind` or `ahead of`.
        direction: &'static str,
        /// Seconds that are allowed.
        allowed: u64,
    },
    /// Not the MD5 of the body.
    #[error(
        "Authentication signature invalid. The body_md5 is not that of the body, which was changed on its way."
    )]
    Digest,
    /// Not the HMAC of the request.
    #[error(
        "Authentication signature invalid. The auth_signature does not match {method} {path} and its query: \
         the secret differs, or a proxy changed the path or the query."
    )]
    Signature {
        /// The method that arrived.
        method: String,
        /// The path that arrived.
        path: String,
    },
}

impl Signed {
    /// Checks key, version, clock and signature, in this order.
    pub fn verify(head: &Parts, app: &Arc<App>, rules: &Rules<'_>) -> Result<Self, AuthError> {
        let pairs = query_pairs(head.uri.query().unwrap_or_default());
        let find = |name: &'static str| {
            let found = pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        let need = |name: &'static str| {
            find(name)
                .filter(|value| !value.is_empty())
                .ok_or(AuthError::Missing(name))
        };
        let key = need("auth_key")?;
        if key != app.key {
            return Err(AuthError::Key {
                key: key.to_owned(),
                app: app.id.clone(),
            });
        }
        let version = need("auth_version")?;
        if version != "1.0" {
            return Err(AuthError::Version(version.to_owned()));
        }
        check_clock(need("auth_timestamp")?, rules)?;
        let digest = find("body_md5");
        if digest.is_none() && announces_body(head) {
            return Err(AuthError::Missing("body_md5"));
        }
        let signature = need("auth_signature")?;
        let query = canonical_query(&pairs);
        let matches = |query: &str| is_signed(head, query, signature, app, rules.prefix);
        let mut joined = None;
        if !matches(&query) && !matches(&canonical_query_as_sent(&pairs)) {
            joined = joined_lists(&pairs).filter(|pairs| matches(&canonical_query_as_sent(pairs)));
            if joined.is_none() {
                let path = head.uri.path();
                tracing::debug!(app = app.id, method = %head.method, path, query, "signature does not match");
                return Err(AuthError::Signature {
                    method: head.method.to_string(),
                    path: path.to_owned(),
                });
            }
        }
        let digest = digest.map(str::to_owned);
        Ok(Self {
            app: Arc::clone(app),
            digest,
            parameters: joined.unwrap_or(pairs),
        })
    }

    /// Checks the body against its digest.
    pub fn with_body(self, body: Bytes) -> Result<Authorized, AuthError> {
        match &self.digest {
            Some(digest) => check_digest(digest, &body)?,
            None if body.is_empty() => {}
            None => return Err(AuthError::Missing("body_md5")),
        }
        Ok(Authorized {
            app: self.app,
            body,
            parameters: self.parameters,
        })
    }
}

impl Authorized {
    /// The application that signed it.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Its body, the bytes that were signed.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The pairs of its query, decoded, in the order they came; a list is one pair if
    /// it was signed as one.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// The value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The values of a query parameter that may be a list, with commas between them.
    pub fn list(&self, name: &str) -> Option<String> {
        let is_item = |key: &str| {
            let index = key.strip_prefix(name);
            index.is_some_and(|index| index.is_empty() || index.starts_with('['))
        };
        let pairs = self.parameters.iter().filter(|(key, _)| is_item(key));
        let values: Vec<&str> = pairs.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

/// Whether the path was signed in one of its forms: pusher-http-php signs without
/// the prefix, other libraries with it; and a proxy may have taken it off, or put
/// it on.
fn is_signed(head: &Parts, query: &str, signature: &str, app: &App, prefix: &str) -> bool {
    let signed = |path: &str| {
        let parts = [head.method.as_str(), "\n", path, "\n", query];
        app.secret.verify(&parts.map(str::as_bytes), signature)
    };
    let path = head.uri.path();
    if signed(path) {
        return true;
    }
    match path.strip_prefix(prefix) {
        _ if prefix.is_empty() => false,
        Some(bare) => signed(bare),
        None => signed(&format!("{prefix}{path}")),
    }
}

fn announces_body(head: &Parts) -> bool {
    let length = head.headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| length != "0")
        || head.headers.contains_key(header::TRANSFER_ENCODING)
}

fn check_clock(text: &str, rules: &Rules<'_>) -> Result<(), AuthError> {
    let seconds: u64 = text
        .parse()
        .map_err(|_| AuthError::Timestamp(text.to_owned()))?;
    let Some(tolerance) = rules.tolerance else {
        return Ok(());
    };
    let now = rules
        .now
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (off, direction) = if seconds < now {
        (now - seconds, "behind")
    } else {
        (seconds - now, "ahead of")
    };
    let allowed = tolerance.as_secs();
    if off > allowed {
        Err(AuthError::Clock {
            off,
            direction,
            allowed,
        })
    } else {
        Ok(())
    }
}

fn check_digest(digest: &str, body: &[u8]) -> Result<(), AuthError> {
    let mut claimed = [0; 16];
    let known = hex::decode_to_slice(digest, &mut claimed).is_ok();
    if known && Md5::digest(body).as_slice() == claimed {
        Ok(())
    } else {
        Err(AuthError::Digest)
    }
}

/// The query's pairs in the order they came, decoded.
fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let spaced = if text.contains('+') {
            Cow::Owned(text.replace('+', " "))
        } else {
            Cow::Borrowed(text)
        };
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}
