//! Who signed a request: all of Pusher's checks, each with its own answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header;
use hyper::http::request::Parts;
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;

use crate::apps::{App, AppHandle, Credential};
use crate::protocol::signature::{
    Pair, canonical_query, canonical_query_as_sent, decode_hex, joined_lists,
};
use crate::telemetry::FRAMES;

/// A request whose signature was checked. There is no other way to get one.
#[derive(Debug)]
pub struct Authorized<'q> {
    app: AppHandle,
    settings: Arc<App>,
    body: Bytes,
    parameters: Vec<Pair<'q>>,
}

/// A request whose signature was checked before its body was read: nobody gets
/// megabytes of memory for a body that nobody signed.
#[derive(Debug)]
pub struct Signed<'q> {
    app: AppHandle,
    settings: Arc<App>,
    parameters: Vec<Pair<'q>>,
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

impl<'q> Signed<'q> {
    /// Checks key, version, clock and signature, in this order.
    pub fn verify(head: &'q Parts, app: AppHandle, rules: &Rules<'_>) -> Result<Self, AuthError> {
        let settings = app.snapshot();
        let pairs = query_pairs(head.uri.query().unwrap_or_default());
        let find = |name: &'static str| find(&pairs, name);
        let need = |name: &'static str| {
            find(name)
                .filter(|value| !value.is_empty())
                .ok_or(AuthError::Missing(name))
        };
        let key = need("auth_key")?;
        let known = settings.find_key(key).ok_or_else(|| AuthError::Key {
            key: key.to_owned(),
            app: settings.id.clone(),
        })?;
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
        let matches = |query: &str| signed_by(head, query, signature, &settings, rules.prefix);
        let mut joined = None;
        let mut secret = matches(&query).or_else(|| matches(&canonical_query_as_sent(&pairs)));
        if secret.is_none() {
            joined = joined_lists(&pairs);
            secret = joined
                .as_deref()
                .and_then(|pairs| matches(&canonical_query_as_sent(pairs)));
            if secret.is_none() {
                let path = head.uri.path();
                // An event may be in the query.
                tracing::debug!(
                    target: FRAMES,
                    app = app.id(),
                    method = %head.method,
                    path,
                    query,
                    "signature does not match"
                );
                return Err(AuthError::Signature {
                    method: head.method.to_string(),
                    path: path.to_owned(),
                });
            }
        }
        if let Some(secret) = secret {
            app.count_credentials(known, secret);
        }
        Ok(Self {
            app,
            settings,
            parameters: joined.unwrap_or(pairs),
        })
    }

    /// Checks the body against its digest.
    pub fn with_body(self, body: Bytes) -> Result<Authorized<'q>, AuthError> {
        match find(&self.parameters, "body_md5") {
            Some(digest) => check_digest(digest, &body)?,
            None if body.is_empty() => {}
            None => return Err(AuthError::Missing("body_md5")),
        }
        Ok(Authorized {
            app: self.app,
            settings: self.settings,
            body,
            parameters: self.parameters,
        })
    }
}

impl Authorized<'_> {
    /// The application that signed it.
    pub fn app(&self) -> &AppHandle {
        &self.app
    }

    /// The application's settings as they were when it was verified.
    pub fn settings(&self) -> &App {
        &self.settings
    }

    /// Its body, the bytes that were signed.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The pairs of its query, decoded, in the order they came; a list is one pair if
    /// it was signed as one.
    pub fn parameters(&self) -> &[Pair<'_>] {
        &self.parameters
    }

    /// The value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| &**value)
    }

    /// The values of a query parameter that may be a list, with commas between them.
    pub fn list(&self, name: &str) -> Option<String> {
        let is_item = |key: &str| {
            let index = key.strip_prefix(name);
            index.is_some_and(|index| index.is_empty() || index.starts_with('['))
        };
        let pairs = self.parameters.iter().filter(|(key, _)| is_item(key));
        let values: Vec<&str> = pairs.map(|(_, value)| &**value).collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

/// The value of a parameter whose name is of this server and not of the application, so
/// that its case does not matter.
fn find<'a>(pairs: &'a [Pair<'_>], name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| &**value)
}

/// By which secret the path was signed, in one of its forms: pusher-http-php signs without
/// the prefix, other libraries with it; and a proxy may have taken it off, or put
/// it on.
fn signed_by(
    head: &Parts,
    query: &str,
    signature: &str,
    settings: &App,
    prefix: &str,
) -> Option<Credential> {
    let signed = |path: &str| {
        let parts = [head.method.as_str(), "\n", path, "\n", query];
        settings.verify(&parts.map(str::as_bytes), signature)
    };
    let path = head.uri.path();
    signed(path).or_else(|| match path.strip_prefix(prefix) {
        _ if prefix.is_empty() => None,
        Some(bare) => signed(bare),
        None => signed(&format!("{prefix}{path}")),
    })
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
    match decode_hex::<16>(digest) {
        Some(claimed) if Md5::digest(body).as_slice() == claimed => Ok(()),
        _ => Err(AuthError::Digest),
    }
}

/// The query's pairs in the order they came, decoded.
fn query_pairs(query: &str) -> Vec<Pair<'_>> {
    // Without a way out, so that several bytes are looked at at once.
    let is_escaped = query
        .bytes()
        .fold(false, |found, byte| found | (byte == b'%') | (byte == b'+'));
    let decode = |text| {
        if is_escaped {
            decoded(text)
        } else {
            Cow::Borrowed(text)
        }
    };
    // As many as a publish has.
    let mut pairs = Vec::with_capacity(5);
    for_each_pair(query, |key, value| pairs.push((decode(key), decode(value))));
    pairs
}

/// Finds names and values in one pass, since queries are short and their parts shorter.
fn for_each_pair<'q>(query: &'q str, mut each: impl FnMut(&'q str, &'q str)) {
    let (mut start, mut equals) = (0, None);
    let mut end_at = |end: usize, equals: Option<usize>| {
        match equals {
            Some(equals) => each(&query[start..equals], &query[equals + 1..end]),
            None if start < end => each(&query[start..end], ""),
            None => {}
        }
        start = end + 1;
    };
    for (at, byte) in query.bytes().enumerate() {
        if byte == b'&' {
            end_at(at, equals.take());
        } else if byte == b'=' && equals.is_none() {
            equals = Some(at);
        }
    }
    end_at(query.len(), equals);
}

fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
    } else {
        percent_decode_str(text).decode_utf8_lossy()
    }
}

#[cfg(test)]
mod tests {
    use super::query_pairs;

    #[test]
    fn a_query_is_split_at_its_first_equals_signs_and_decoded() {
        for (query, expected) in [
            ("", &[][..]),
            ("&&", &[]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("=", &[("", "")]),
            ("=b", &[("", "b")]),
            ("a=b=c", &[("a", "b=c")]),
            ("a=b&&c=d&", &[("a", "b"), ("c", "d")]),
            ("a+b=c%2Bd", &[("a b", "c+d")]),
            ("%C3%A9=ü", &[("é", "ü")]),
            ("a=%ff%", &[("a", "\u{fffd}%")]),
            ("a%3Db=%26", &[("a=b", "&")]),
        ] {
            let pairs = query_pairs(query);
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (&**k, &**v)).collect();
            assert_eq!(pairs, expected, "{query}");
        }
    }
}
