//! What is said of connections that are refused and of clients that do wrong: the
//! reason, who it was, and what to do.

use std::borrow::Cow;

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;

use super::handshake::HandshakeError;
use super::session::{Refusal, Session};
use crate::apps::AppHandle;
use crate::protocol::{ClientFrame, CloseReason, ErrorCode, InvalidFrame};
use crate::proxies::{Client, Shown};
use crate::telemetry::FRAMES;
use crate::telemetry::limit::limited;

/// Hex digits of a signature.
const SIGNATURE: usize = 64;

/// A request for `/app/{key}` as it is logged.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Who sent it.
    pub client: Client,
    /// The request.
    pub request: &'a Parts,
    /// The key in its path.
    pub key: &'a str,
    /// The application with this key.
    pub app: Option<&'a AppHandle>,
}

impl<'a> Caller<'a> {
    fn origin(&self) -> Option<Cow<'a, str>> {
        self.request.headers.get(header::ORIGIN).map(text_of)
    }

    /// Who it is as somebody says whose word is not taken.
    fn forwarded_for(&self) -> Option<Cow<'a, str>> {
        let said = self.request.headers.get("x-forwarded-for");
        said.filter(|_| !self.client.is_forwarded).map(text_of)
    }

    fn app_id(&self) -> Option<&'a str> {
        self.app.map(AppHandle::id)
    }

    /// With `--debug`, every one.
    pub fn log_connecting(&self) {
        tracing::debug!(
            app = self.app_id(),
            key = self.key,
            origin = self.origin().as_deref(),
            peer = %self.client,
            proxy = self.client.proxy.map(display),
            forwarded_for = self.forwarded_for().as_deref(),
            "connecting"
        );
    }

    /// Its address has more connections than it may have.
    pub fn log_over_limit(&self, help: &str) {
        let cause = "connection refused: too many connections from one address (4100)";
        limited!(info, cause, None, {
            peer = %self.client,
            proxy = self.client.proxy.map(display),
            help,
        }, cause);
    }

    /// It is no WebSocket handshake.
    pub fn log_bad_handshake(&self, error: HandshakeError) {
        let cause = match error {
            HandshakeError::Method => "WebSocket handshake refused: not a GET request",
            HandshakeError::Version => "WebSocket handshake refused: not HTTP/1.1",
            HandshakeError::NotUpgrade => "WebSocket handshake refused: no upgrade asked for",
            HandshakeError::WebSocketVersion => "WebSocket handshake refused: another version",
            HandshakeError::Key => "WebSocket handshake refused: bad Sec-WebSocket-Key",
        };
        limited!(info, cause, self.app_id(), {
            key = self.key,
            origin = self.origin().as_deref(),
            peer = %self.client,
            proxy = self.client.proxy.map(display),
            forwarded_for = self.forwarded_for().as_deref(),
            error = %error,
        }, cause);
    }

    /// It is let in only to be sent the reason why it is refused.
    pub fn log_refused(&self, reason: CloseReason) {
        let (cause, help) = match reason {
            CloseReason::ApplicationDoesNotExist => (
                "connection refused: unknown application key (4001)",
                "REVERB_APP_KEY differs between this server and what the page was built with (VITE_REVERB_APP_KEY)",
            ),
            CloseReason::OriginNotAllowed => (
                "connection refused: origin not allowed (4009)",
                "if the page is yours, add its host to REVERB_ALLOWED_ORIGINS; clients without an origin need RESOUND_ALLOW_MISSING_ORIGIN",
            ),
            CloseReason::OverConnectionQuota => (
                "connection refused: over connection quota (4004)",
                "raise REVERB_APP_MAX_CONNECTIONS",
            ),
            CloseReason::OverCapacity => (
                "connection refused: server over capacity (4100)",
                "raise the hard limit of open files (ulimit -Hn, LimitNOFILE)",
            ),
            CloseReason::TooManyConnections => (
                "connection refused: too many new connections from one address (4100)",
                "raise RESOUND_MAX_CONNECTION_RATE",
            ),
            _ => return,
        };
        limited!(info, cause, self.app_id(), {
            key = self.key,
            origin = self.origin().as_deref(),
            peer = %self.client,
            proxy = self.client.proxy.map(display),
            forwarded_for = self.forwarded_for().as_deref(),
            help,
        }, cause);
    }
}

impl Session {
    /// Something that the client asked for is refused.
    pub(super) fn log_refusal(&self, what: &'static str, channel: Option<&str>, why: &Refusal) {
        let (code, text) = why;
        // A text of ours is a cause of its own; others have something of the client in them.
        let cause = match text {
            Cow::Borrowed(text) => text,
            Cow::Owned(_) => what,
        };
        let help = match (what, code) {
            ("subscription refused" | "sign-in refused", ErrorCode::Unauthorized) => {
                Some("whoever signs needs the REVERB_APP_KEY and REVERB_APP_SECRET of this server")
            }
            ("subscription refused", ErrorCode::OverCapacity) => {
                Some("RESOUND_MAX_SUBSCRIPTIONS, RESOUND_PRESENCE_MAX_MEMBERS")
            }
            ("client event refused", ErrorCode::ClientEventRejected) => Some(
                "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM, RESOUND_CLIENT_EVENT_MAX_SIZE, RESOUND_CLIENT_EVENT_MAX_PER_SECOND",
            ),
            ("message refused", ErrorCode::ClientEventRejected) => {
                Some("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS, REVERB_APP_RATE_LIMIT_DECAY_SECONDS")
            }
            _ => None,
        };
        limited!(info, cause, Some(self.app.id()), {
            channel,
            reason = &**text,
            code = code.number(),
            socket_id = %self.connection.id(),
            peer = %Shown(self.peer),
            help,
        }, what);
    }

    /// What a client has sent, with `--debug`: a signature in it is not shown.
    pub(super) fn log_received(&self, text: &str, frame: &Result<ClientFrame<'_>, InvalidFrame>) {
        let is_unsigned = matches!(
            frame,
            Ok(ClientFrame::ClientEvent { .. }
                | ClientFrame::Unsubscribe { .. }
                | ClientFrame::Ping
                | ClientFrame::Pong)
        );
        let shown = || {
            if is_unsigned {
                Cow::Borrowed(text)
            } else {
                without_signatures(text)
            }
        };
        tracing::debug!(
            target: FRAMES,
            app = self.app.id(),
            socket_id = %self.connection.id(),
            frame = &*shown(),
            "received"
        );
    }

    /// The connection has ended.
    pub(super) fn log_end(&self, reason: CloseReason) {
        tracing::debug!(
            app = self.app.id(),
            socket_id = %self.connection.id(),
            peer = %Shown(self.peer),
            reason = reason.label(),
            seconds = self.opened.elapsed().as_secs_f64(),
            messages = self.received.get(),
            bytes = self.received_bytes.get(),
            "disconnected"
        );
        let (cause, help) = match reason {
            CloseReason::NotAuthorized => (
                "connection closed: not authorized in time (4009)",
                "it neither signed in nor joined a private channel within RESOUND_AUTHORIZATION_TIMEOUT",
            ),
            CloseReason::RateLimited => (
                "connection closed: rate limit exceeded (4100)",
                "REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS, REVERB_APP_RATE_LIMIT_DECAY_SECONDS",
            ),
            CloseReason::MessageTooBig => (
                "connection closed: message too big (1009)",
                "raise REVERB_APP_MAX_MESSAGE_SIZE",
            ),
            CloseReason::ProtocolError => (
                "connection closed: WebSocket protocol error (1002)",
                "the client or a proxy does not keep to RFC 6455",
            ),
            CloseReason::InvalidPayload => (
                "connection closed: text that is not UTF-8 (1007)",
                "the client does not keep to RFC 6455",
            ),
            _ => return,
        };
        limited!(info, cause, Some(self.app.id()), {
            socket_id = %self.connection.id(),
            peer = %Shown(self.peer),
            help,
        }, cause);
    }
}

fn text_of(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// A text in which whatever may be a signature is left out.
fn without_signatures(text: &str) -> Cow<'_, str> {
    let (mut shown, mut copied) = (String::new(), 0);
    let mut start = 0;
    while start < text.len() {
        let digits = text.as_bytes()[start..].iter();
        let count = digits.take_while(|byte| byte.is_ascii_hexdigit()).count();
        if count >= SIGNATURE {
            shown.push_str(&text[copied..start]);
            shown.push('…');
            copied = start + count;
        }
        start += count + 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(&text[copied..]);
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_left_out_and_nothing_else() {
        let (long, short) = ("0aB9".repeat(16), "a".repeat(63));
        for (text, expected) in [
            ("", String::new()),
            ("größe", "größe".to_owned()),
            (&*short, short.clone()),
            (&*long, "…".to_owned()),
            (&*format!("k:{long}\"ü"), "k:…\"ü".to_owned()),
            (
                &*format!("{long}g{long}{long} {short}"),
                format!("…g… {short}"),
            ),
        ] {
            assert_eq!(without_signatures(text), expected);
        }
    }
}
