//! The WebSocket handshake (RFC 6455 section 4.2) and who is let in.

use data_encoding::{BASE64, DecodeKind};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::apps::{AppHandle, HandshakeRefusal};
use crate::hub::{Hub, Slot};
use crate::protocol::CloseReason;

/// A handshake that is answered with 101.
pub struct Handshake {
    /// `Sec-WebSocket-Accept`.
    pub accept: String,
    /// The page that it comes from: its `Origin`.
    pub origin: Option<String>,
    /// The application and the connection's permit in it, or why it is refused.
    /// The refused are let in and sent the reason: a browser shows its page neither the
    /// status nor the body of a failed handshake.
    pub outcome: Result<(AppHandle, Slot), CloseReason>,
}

/// A request that is no WebSocket handshake. The texts are answers' bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not `GET`.
    #[error("Method not allowed. A WebSocket is opened with GET.")]
    Method,
    /// HTTP/1.0.
    #[error(
        "Bad request. A WebSocket needs HTTP/1.1; a proxy in front has to speak it (nginx: proxy_http_version 1.1)."
    )]
    Version,
    /// Without the headers `Upgrade: websocket` and `Connection: Upgrade`.
    #[error(
        "Upgrade required. This is the address of a WebSocket, and the request did not ask for one; \
         a proxy in front has to pass on the headers Upgrade and Connection."
    )]
    NotUpgrade,
    /// Not `Sec-WebSocket-Version: 13`.
    #[error("Upgrade required. Sec-WebSocket-Version has to be 13.")]
    WebSocketVersion,
    /// No `Sec-WebSocket-Key`, more than one, or not 16 bytes in base64.
    #[error("Bad request. Sec-WebSocket-Key is missing, or is not once 16 bytes in base64.")]
    Key,
}

impl HandshakeError {
    /// Its name in metrics.
    pub fn label(self) -> HandshakeRefusal {
        match self {
            Self::Method => HandshakeRefusal::Method,
            Self::Version => HandshakeRefusal::HttpVersion,
            Self::NotUpgrade => HandshakeRefusal::NotUpgrade,
            Self::WebSocketVersion => HandshakeRefusal::WebSocketVersion,
            Self::Key => HandshakeRefusal::Key,
        }
    }

    /// The status to answer with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Version | Self::Key => StatusCode::BAD_REQUEST,
            Self::NotUpgrade | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
        }
    }

    /// The header that goes with the status.
    pub fn header(self) -> Option<(header::HeaderName, HeaderValue)> {
        match self {
            Self::Method => Some((header::ALLOW, HeaderValue::from_static("GET"))),
            Self::NotUpgrade => Some((header::UPGRADE, HeaderValue::from_static("websocket"))),
            Self::WebSocketVersion => Some((
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static("13"),
            )),
            Self::Version | Self::Key => None,
        }
    }
}

/// Checks a request for `/app/{key}`, where `app` is the application with this key.
pub fn check(
    request: &Parts,
    app: Option<&AppHandle>,
    hub: &Hub,
) -> Result<Handshake, HandshakeError> {
    let headers = &request.headers;
    if request.method != Method::GET {
        return Err(HandshakeError::Method);
    }
    if !has_token(headers, &header::UPGRADE, "websocket")
        || !has_token(headers, &header::CONNECTION, "upgrade")
    {
        return Err(HandshakeError::NotUpgrade);
    }
    if request.version != Version::HTTP_11 {
        return Err(HandshakeError::Version);
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(HandshakeError::WebSocketVersion);
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let nonce = match (keys.next(), keys.next()) {
        (Some(nonce), None) if is_nonce(nonce.as_bytes()) => nonce,
        _ => return Err(HandshakeError::Key),
    };
    Ok(Handshake {
        accept: derive_accept_key(nonce.as_bytes()),
        origin: headers
            .get(header::ORIGIN)
            .map(|origin| String::from_utf8_lossy(origin.as_bytes()).into_owned()),
        outcome: admit(headers, app, hub),
    })
}

fn admit(
    headers: &HeaderMap,
    app: Option<&AppHandle>,
    hub: &Hub,
) -> Result<(AppHandle, Slot), CloseReason> {
    let app = app.ok_or(CloseReason::ApplicationDoesNotExist)?;
    let origins = headers.get_all(header::ORIGIN).iter();
    if !app
        .settings()
        .origins
        .allow(origins.map(HeaderValue::as_bytes))
    {
        return Err(CloseReason::OriginNotAllowed);
    }
    let slot = hub.admit(app)?;
    Ok((app.clone(), slot))
}

/// Whether a text is 16 bytes in base64. The four bits that its last character has
/// too many may be set: some clients make up the text and not the bytes, and Reverb
/// takes them.
fn is_nonce(text: &[u8]) -> bool {
    let mut bytes = [0; 18];
    text.len() == 24
        && text.ends_with(b"==")
        && match BASE64.decode_mut(text, &mut bytes) {
            Ok(length) => length == 16,
            Err(broken) => broken.error.kind == DecodeKind::Trailing && broken.written == 15,
        }
}

/// Whether a comma list has a token, in either case.
fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_16_bytes_in_base64() {
        for (text, expected) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", true),
            ("AAAAAAAAAAAAAAAAAAAAAA==", true),
            ("AAAAAAAAAAAAAAAAAAAAAB==", true),
            ("!!!!!!!!!!!!!!!!!!!!!!==", false),
            ("dGhlIHNhbXBsZSBub25jZQ-_", false),
            ("dGhlIHNhbXBsZSBub25-ZQ==", false),
            ("dGhlIHNhbXBsZSBub25jZQ=", false),
            ("AAAAAAAAAAAAAAAAAAAAAAA=", false),
            ("AB==!!!!!!!!!!!!!!!!!!==", false),
            ("AB==AAAAAAAAAAAAAAAAAA==", false),
            ("AA==AAAAAAAAAAAAAAAAAA==", false),
            (" dGhlIHNhbXBsZSBub25jZQ=", false),
            ("", false),
        ] {
            assert_eq!(is_nonce(text.as_bytes()), expected, "{text}");
        }
    }
}
