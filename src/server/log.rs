//! What is said of connections that end before a request is understood.

use std::io;
use std::net::SocketAddr;

use rustls::InvalidMessage;

use crate::apps::RequestRefusal;
use crate::telemetry::limit::limited;

/// First bytes of a TLS connection: a handshake record of version 3.
const TLS_HELLO: &[u8] = &[0x16, 3];

/// Whether the client has only gone, as one does that checks whether the port is open.
pub(super) fn has_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// A client that has gone is not worth a line.
pub(super) fn tls_failed(error: &io::Error, peer: SocketAddr) {
    if has_gone(error) {
        tracing::debug!(%peer, %error, "the client went during the TLS handshake");
        return;
    }
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    let (text, help) = match inner {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => (
            "connection refused: no TLS on a TLS port",
            "the port speaks TLS, as --tls-cert says: the client needs https or wss (REVERB_SCHEME=https)",
        ),
        Some(rustls::Error::AlertReceived(_)) => (
            "TLS handshake failed: the client refuses",
            "does it trust the certificate, and is it for the name that it asks for?",
        ),
        _ => (
            "TLS handshake failed",
            "the client speaks no TLS 1.2 or 1.3",
        ),
    };
    limited!(info, text, None, { %peer, %error, help, }, text);
}

/// Why a request was refused that could not be read, for metrics.
pub(super) fn refusal(error: &hyper::Error) -> Option<RequestRefusal> {
    if error.is_parse_too_large() {
        Some(RequestRefusal::HeadTooLarge)
    } else {
        error.is_parse().then_some(RequestRefusal::NotHttp)
    }
}

/// An HTTP connection has ended with an error; `unread` is what it could not read.
pub(super) fn http_ended(error: &hyper::Error, unread: &[u8], peer: SocketAddr) {
    if !error.is_parse() {
        tracing::debug!(%peer, %error, "HTTP connection ended");
        return;
    }
    let (text, help) = if unread.starts_with(TLS_HELLO) {
        (
            "connection refused: TLS on a plain port (400)",
            "the port speaks plain HTTP: the client needs http or ws (REVERB_SCHEME=http), or the server --tls-cert and --tls-key",
        )
    } else if error.is_parse_too_large() {
        (
            "request refused: its head is too large (431)",
            "address and headers may have 16 KiB; does a cookie of the page grow?",
        )
    } else if error.is_parse_version_h2() {
        (
            "request refused: HTTP/2 (400)",
            "the port speaks HTTP/1.1; a proxy in front has to, too",
        )
    } else {
        ("request refused: not HTTP (400)", "")
    };
    limited!(info, text, None, {
        %peer,
        %error,
        help = Some(help).filter(|help| !help.is_empty()),
    }, text);
}
