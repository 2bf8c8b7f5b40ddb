//! What is said of connections that end before a request is understood.

use std::io;
use std::net::SocketAddr;

use rustls::InvalidMessage;
use tracing::field::display;

use crate::apps::RequestRefusal;
use crate::proxies::Client;
use crate::proxies::header::{Beginning, HeaderError};
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
pub(super) fn tls_failed(error: &io::Error, client: Client) {
    if has_gone(error) {
        tracing::debug!(peer = %client, %error, "the client went during the TLS handshake");
        return;
    }
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    let (text, help) = match inner {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => (
            "connection refused: no TLS on a TLS port",
            "the port speaks TLS, as --tls-cert says: the client needs https or wss (REVERB_SCHEME=https)",
        ),
        Some(rustls::Error::NoCertificatesPresented) => (
            "TLS handshake failed: no certificate of the client",
            "clients have to show one of RESOUND_TLS_CLIENT_CA",
        ),
        Some(rustls::Error::InvalidCertificate(_)) => (
            "TLS handshake failed: the client's certificate is not accepted",
            "it has to be valid now, for clients, and of an authority in RESOUND_TLS_CLIENT_CA",
        ),
        Some(rustls::Error::PeerIncompatible(_)) => (
            "TLS handshake failed",
            "client and server have nothing in common; RESOUND_TLS_MIN_VERSION says the oldest version",
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
    let proxy = client.proxy.map(display);
    limited!(info, text, None, { peer = %client, proxy, %error, help, }, text);
}

/// A connection that has to begin with a PROXY header, or does, and cannot be read.
pub(super) fn proxy_header_refused(error: HeaderError, peer: SocketAddr, is_trusted: bool) {
    if is_trusted {
        let text = "closed a proxy's connection that does not begin with a valid PROXY header";
        let help = "has the proxy to send one, as RESOUND_PROXY_PROTOCOL says (nginx: proxy_protocol on; \
                    HAProxy: send-proxy)";
        limited!(warn, text, None, { %peer, %error, help, }, text);
    } else {
        let text = "connection refused: an invalid PROXY header";
        limited!(info, text, None, { %peer, %error, }, text);
    }
}

/// It may be a proxy that was forgotten, or somebody who would be another.
pub(super) fn proxy_header_ignored(peer: SocketAddr) {
    let text = "ignored a PROXY header of an address that is no trusted proxy";
    let help = "if it is a proxy of yours, add it to RESOUND_TRUSTED_PROXIES";
    limited!(warn, text, None, { %peer, help, }, text);
}

/// As when a connection is accepted; whose it is was told later.
pub(super) fn far_too_many(client: Client) {
    let text = "closed a connection whose address has all that it may have \
                (RESOUND_MAX_CONNECTIONS_PER_ADDRESS)";
    let proxy = client.proxy.map(display);
    limited!(warn, text, None, { peer = %client, proxy, }, text);
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
pub(super) fn http_ended(error: &hyper::Error, unread: &[u8], client: Client) {
    if !error.is_parse() {
        tracing::debug!(peer = %client, %error, "HTTP connection ended");
        return;
    }
    let (text, help) = if unread.starts_with(TLS_HELLO) {
        (
            "connection refused: TLS on a plain port (400)",
            "the port speaks plain HTTP: the client needs http or ws (REVERB_SCHEME=http), or the server --tls-cert and --tls-key",
        )
    } else if Beginning::of(unread) == Beginning::Header {
        (
            "connection refused: a PROXY header that is not expected (400)",
            "if it is a proxy of yours, set RESOUND_PROXY_PROTOCOL=on, and RESOUND_TRUSTED_PROXIES to its address",
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
        peer = %client,
        proxy = client.proxy.map(display),
        %error,
        help = Some(help).filter(|help| !help.is_empty()),
    }, text);
}
