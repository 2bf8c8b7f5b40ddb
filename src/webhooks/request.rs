//! A request to a receiver: over HTTP/1.1, with TLS or without, on connections that are kept.
//!
//! Nothing is followed, no proxy is asked, and of the answer only its status counts.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use rustls::pki_types::ServerName;
use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Position};

use crate::apps::{App, Webhook, WebhookOutcome, is_local};
use crate::client::{self, Stream};

const KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");
const ID: HeaderName = HeaderName::from_static("x-resound-webhook-id");

/// Bytes of an answer that are read so that its connection can be kept.
const MAX_ANSWER: usize = 64 * 1024;

/// How long that may take: what the answer is, is known then.
const MAX_READ: Duration = Duration::from_secs(1);

/// How long a connection is used: then its host is resolved anew.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Connections that are kept for one receiver.
const MAX_KEPT: usize = 16;

/// What is sent.
pub(super) struct Message<'a> {
    pub(super) id: &'a str,
    pub(super) body: Bytes,
}

/// Why it was not taken.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) outcome: WebhookOutcome,
    /// For a person.
    pub(super) text: String,
}

/// The connections to one receiver.
#[derive(Default)]
pub(super) struct Connections {
    kept: Mutex<Vec<Connection>>,
    tls: Mutex<Option<TlsConnector>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
    /// Whether it is one that has to be allowed.
    is_local: bool,
}

impl Connections {
    /// Sends a message and waits for the answer.
    pub(super) async fn post(
        &self,
        (webhook, app): (&Webhook, &App),
        message: &Message<'_>,
        (limit, allow_local): (Duration, bool),
    ) -> Result<(), Failure> {
        let sent = timeout(limit, self.send((webhook, app), message, allow_local));
        let (outcome, text) = match sent.await {
            Ok(Ok((connection, answer))) => {
                let status = answer.status();
                self.finish(connection, answer).await;
                if status.is_success() {
                    return Ok(());
                }
                (WebhookOutcome::Refused, format!("it answered {status}"))
            }
            Ok(Err(text)) => (WebhookOutcome::Failed, text),
            Err(_) => {
                let text = format!("it did not answer within {limit:?}");
                (WebhookOutcome::TimedOut, text)
            }
        };
        Err(Failure { outcome, text })
    }

    async fn send(
        &self,
        (webhook, app): (&Webhook, &App),
        message: &Message<'_>,
        allow_local: bool,
    ) -> Result<(Connection, Response<Incoming>), String> {
        let request = request(webhook, app, message)?;
        if let Some(mut kept) = self.take(allow_local) {
            // It may have been closed just now: then nothing is lost by another one.
            if let Ok(answer) = kept.sender.send_request(request.clone()).await {
                return Ok((kept, answer));
            }
        }
        let stream = self.connect(webhook, allow_local).await?;
        // PHP's SDK looks for names as Pusher writes them.
        let (sender, connection) = client::http::handshake(stream, true)
            .await
            .map_err(|error| error.to_string())?;
        // It ends with its sender; what ends it before, the sender is told.
        tokio::spawn(connection);
        let mut connection = Connection {
            sender,
            since: Instant::now(),
            is_local: allow_local,
        };
        let answer = connection.sender.send_request(request).await;
        Ok((connection, answer.map_err(|error| explain(&error))?))
    }

    /// Reads an answer to its end, if that is near, and keeps the connection.
    async fn finish(&self, connection: Connection, answer: Response<Incoming>) {
        let read = Limited::new(answer.into_body(), MAX_ANSWER).collect();
        let is_read = timeout(MAX_READ, read).await;
        if matches!(is_read, Ok(Ok(_))) {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < MAX_KEPT {
                kept.push(connection);
            }
        }
    }

    fn take(&self, allow_local: bool) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_usable = |it: &Connection| {
            it.since.elapsed() < MAX_AGE && !it.sender.is_closed() && (allow_local || !it.is_local)
        };
        kept.retain(is_usable);
        let at = kept.iter().rposition(|it| it.sender.is_ready())?;
        Some(kept.swap_remove(at))
    }

    async fn connect(&self, webhook: &Webhook, allow_local: bool) -> Result<Stream, String> {
        let url = &webhook.url;
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err("its URL has no host".to_owned()),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        let found = lookup_host((&*host, port)).await;
        let found = found.map_err(|error| format!("{host} has no address ({error})"))?;
        let usable = usable(found, allow_local)?;
        let connected = client::first_of(usable.into_iter()).await;
        let (address, stream) = connected.ok_or_else(|| format!("{host} has no address"))?;
        let stream = stream.map_err(|error| format!("no connection to {address} ({error})"))?;
        // Best effort: a request is written at once.
        let _ = stream.set_nodelay(true);
        // The kind of stream that the client has, so that TLS is there once.
        let stream: Stream = Box::pin(stream);
        if url.scheme() != "https" {
            return Ok(stream);
        }
        let fail = |error: &dyn std::fmt::Display| format!("no TLS with {host} ({error})");
        let name = ServerName::try_from(host.clone()).map_err(|error| fail(&error))?;
        let stream = self.tls()?.connect(name, stream).await;
        Ok(Box::pin(stream.map_err(|error: io::Error| fail(&error))?))
    }

    fn tls(&self) -> Result<TlsConnector, String> {
        let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = &*tls {
            return Ok(tls.clone());
        }
        let config = client::client_config().map_err(|error| error.to_string())?;
        Ok(tls.insert(TlsConnector::from(Arc::new(config))).clone())
    }
}

/// Those of a host's addresses that may be told.
fn usable(
    found: impl Iterator<Item = SocketAddr>,
    allow_local: bool,
) -> Result<Vec<SocketAddr>, String> {
    let (local, usable): (Vec<_>, Vec<_>) =
        found.partition(|address| !allow_local && is_local(address.ip()));
    match local.first() {
        Some(address) if usable.is_empty() => Err(format!(
            "{} is this machine's own (RESOUND_WEBHOOK_ALLOW_LOCAL allows that)",
            address.ip()
        )),
        _ => Ok(usable),
    }
}

fn request(
    webhook: &Webhook,
    app: &App,
    message: &Message<'_>,
) -> Result<Request<Full<Bytes>>, String> {
    let url = &webhook.url;
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let mut request = Request::post(target)
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(USER_AGENT, client::http::AGENT)
        .header(CONTENT_TYPE, HeaderValue::from_static(client::http::JSON))
        .header(KEY, &app.key)
        .header(SIGNATURE, app.secret.sign(&[&message.body]))
        .header(ID, message.id);
    for (name, value) in &webhook.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(message.body.clone()));
    request.map_err(|error| error.to_string())
}

/// hyper's texts are for programmers.
fn explain(error: &hyper::Error) -> String {
    if error.is_parse() {
        "it does not answer in HTTP".to_owned()
    } else if error.is_incomplete_message() {
        "it closed the connection without an answer".to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_host_only_addresses_elsewhere_are_used_unless_local_ones_may_be() {
        let all = [
            "127.0.0.1:80",
            "169.254.169.254:80",
            "192.0.2.1:80",
            "[::1]:80",
        ];
        let all = all.map(|address| address.parse::<SocketAddr>().unwrap());
        assert_eq!(usable(all.into_iter(), false).unwrap(), [all[2]]);
        assert_eq!(usable(all.into_iter(), true).unwrap(), all);
        let error = usable([all[0]].into_iter(), false).unwrap_err();
        assert!(error.contains("RESOUND_WEBHOOK_ALLOW_LOCAL"), "{error}");
        assert_eq!(usable([].into_iter(), false).unwrap(), []);
    }
}
