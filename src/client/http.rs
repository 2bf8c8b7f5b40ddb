//! Requests to the HTTP API, signed as Pusher's libraries sign them.

use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, USER_AGENT};
use hyper_util::rt::TokioIo;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::timeout;

use super::{ClientError, Credentials, Endpoint, Stream, connect};

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 20;

/// Characters of an answer that are shown.
const MAX_SHOWN: usize = 500;

/// What is escaped in a query's values: all but RFC 3986's unreserved characters and commas,
/// which need not be and are in lists.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b',');

/// What is escaped in a segment of a path: of the characters of channels, ids and keys only
/// those that have to be, since not every server undoes it for each of them.
const IN_PATH: &AsciiSet = &IN_QUERY
    .remove(b'@')
    .remove(b'=')
    .remove(b';')
    .remove(b':')
    .remove(b'+');

/// What bodies of the API are.
pub const JSON: &str = "application/json";

/// What the client calls itself.
pub const AGENT: &str = concat!("resound/", env!("CARGO_PKG_VERSION"));

/// A request to the API of one application.
#[derive(Debug)]
pub struct Call<'a> {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// What comes behind `/apps/ID`, escaped.
    pub path: &'a str,
    /// Parameters, their values not escaped.
    pub query: &'a [(&'a str, &'a str)],
    /// The JSON that is sent; empty for none.
    pub body: &'a str,
}

/// A request of any kind.
#[derive(Debug, Default)]
pub struct Plain<'a> {
    /// `GET`, `POST` or another one.
    pub method: &'static str,
    /// Path and query, escaped, with the server's prefix.
    pub target: &'a str,
    /// Headers beside `Host`, `User-Agent` and those of the body.
    pub headers: &'a [(&'a str, &'a str)],
    /// Its kind and what it is; empty for none.
    pub body: (&'a str, &'a str),
}

/// An answer of any kind.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
}

impl Reply {
    /// A header's value, if it is a text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Asks, and takes only 200 and what is JSON for an answer.
///
/// # Errors
/// If there is no answer within `limit`, or another one.
pub async fn call(
    endpoint: &Endpoint,
    app: &Credentials,
    call: &Call<'_>,
    limit: Duration,
) -> Result<serde_json::Value, ClientError> {
    let path = format!("/apps/{}{}", escape(&app.id), call.path);
    let plain = Plain {
        method: call.method,
        target: &signed(endpoint, app, call),
        body: (JSON, call.body),
        ..Plain::default()
    };
    let reply = request(endpoint, &plain, limit).await?;
    let request = || format!("{} {path}", call.method);
    if reply.status != 200 {
        return Err(ClientError::Refused {
            endpoint: endpoint.to_string(),
            request: request(),
            status: reply.status,
            body: cut(&reply.body),
        });
    }
    serde_json::from_str(&reply.body).map_err(|_| ClientError::Foreign {
        endpoint: endpoint.to_string(),
        what: format!(
            "the answer to {} is not JSON: {}",
            request(),
            cut(&reply.body)
        ),
    })
}

/// What a request to the API of an application asks for: path and query, signed now.
pub fn signed(endpoint: &Endpoint, app: &Credentials, call: &Call<'_>) -> String {
    let path = format!("/apps/{}{}", escape(&app.id), call.path);
    let query = signed_query(app, &path, call, now());
    format!("{}{path}?{query}", endpoint.prefix)
}

/// Asks anything, on a connection of its own.
///
/// # Errors
/// If there is no answer within `limit`.
pub async fn request(
    endpoint: &Endpoint,
    plain: &Plain<'_>,
    limit: Duration,
) -> Result<Reply, ClientError> {
    let sent = timeout(limit, send(endpoint, plain)).await;
    sent.unwrap_or_else(|_| {
        Err(ClientError::TimedOut {
            endpoint: endpoint.to_string(),
            limit,
        })
    })
}

async fn send(endpoint: &Endpoint, plain: &Plain<'_>) -> Result<Reply, ClientError> {
    let lost = |error: &dyn std::fmt::Display| ClientError::Lost {
        endpoint: endpoint.to_string(),
        error: error.to_string(),
    };
    let mut request = Request::builder()
        .method(plain.method)
        .uri(plain.target)
        .header(HOST, endpoint.authority())
        .header(USER_AGENT, AGENT);
    for (name, value) in plain.headers {
        request = request.header(*name, *value);
    }
    let (kind, body) = plain.body;
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, kind);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned())));
    let request = request.map_err(|error| ClientError::Foreign {
        endpoint: endpoint.to_string(),
        what: error.to_string(),
    })?;
    let stream = connect(endpoint).await?;
    let shaken = handshake(stream, false).await;
    let (mut sender, connection) = shaken.map_err(|error| lost(&error))?;
    let answer = async {
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(|error| lost(&error))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| lost(&error))?.to_bytes();
        Ok(Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    };
    let connection = async {
        // What ends it, the answer tells.
        connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = connection => never,
    }
}

/// What reads and writes for requests on a connection.
pub type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Begins to speak HTTP/1.1; names of headers are written as they are, or `Like-This`. The driver
/// has to be polled while there are requests.
///
/// # Errors
/// If that fails, which it does not yet.
pub async fn handshake(
    stream: Stream,
    title_case: bool,
) -> Result<(SendRequest<Full<Bytes>>, Driver), hyper::Error> {
    let mut http = http1::Builder::new();
    http.title_case_headers(title_case);
    let (sender, connection) = http.handshake(TokioIo::new(stream)).await?;
    let driver = Box::pin(async move {
        // What ends it, whoever waits for an answer is told.
        let _ = connection.await;
    });
    Ok((sender, driver))
}

/// The query with all that proves who asks (Pusher's HTTP API, "Authentication"). The path is
/// signed without a prefix, as pusher-http-php does.
fn signed_query(app: &Credentials, path: &str, call: &Call<'_>, now: u64) -> String {
    let mut pairs: Vec<(&str, String)> = vec![
        ("auth_key", app.key.clone()),
        ("auth_timestamp", now.to_string()),
        ("auth_version", "1.0".to_owned()),
    ];
    if !call.body.is_empty() {
        pairs.push(("body_md5", hex::encode(Md5::digest(call.body))));
    }
    pairs.extend(
        call.query
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    pairs.sort();
    let joined = |escaped: fn(&str) -> String| {
        let parts = pairs
            .iter()
            .map(|(name, value)| format!("{name}={}", escaped(value)));
        parts.collect::<Vec<_>>().join("&")
    };
    let signed = format!("{}\n{path}\n{}", call.method, joined(str::to_owned));
    let signature = app.secret.sign(&[signed.as_bytes()]);
    let escaped = joined(|value| utf8_percent_encode(value, IN_QUERY).to_string());
    format!("{escaped}&auth_signature={signature}")
}

/// Escapes a segment of a path.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, IN_PATH).to_string()
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The beginning of what a server has said, on one line.
pub fn cut(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut visible = line.chars().filter(|c| !c.is_control());
    let shown: String = visible.by_ref().take(MAX_SHOWN).collect();
    if visible.next().is_some() {
        shown + "…"
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::signature::Secret;

    /// The vector of Pusher's HTTP API, "Worked authentication example".
    #[test]
    fn requests_are_signed_as_pusher_signs_them() {
        let app = Credentials {
            id: "3".to_owned(),
            key: "278d425bdf160c739803".to_owned(),
            secret: Secret::new("7ad3773142a6692b25b8"),
        };
        let call = Call {
            method: "POST",
            path: "/events",
            query: &[],
            body: r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#,
        };
        let query = signed_query(&app, "/apps/3/events", &call, 1_353_088_179);
        assert!(
            query.contains("body_md5=ec365a775a4cd0599faeb73354201b6f"),
            "{query}"
        );
        let signature = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
        assert!(
            query.ends_with(&format!("&auth_signature={signature}")),
            "{query}"
        );
    }

    #[test]
    fn what_a_server_says_is_shown_short_and_on_one_line() {
        assert_eq!(cut("a\n  b\x1b[0m"), "a b[0m");
        let long = cut(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), MAX_SHOWN + 1);
    }
}
