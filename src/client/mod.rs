//! A client of a server that speaks Pusher's protocol: Resound, Reverb, soketi, Pusher itself.
//!
//! What the commands are made of that ask such a server ([`crate::tools`]): where it is
//! ([`Endpoint`]), signed requests ([`http`]), and a socket that is subscribed to channels
//! ([`socket`]). Of the server only its webhooks use it, to connect.

mod connect;
mod endpoint;
pub mod http;
pub mod socket;

use std::fmt;
use std::io;
use std::time::Duration;

pub use connect::{Stream, client_config, connect, connect_and_identify, first_of};
pub use endpoint::{Endpoint, EndpointError, Via};

use crate::protocol::signature::{Secret, of_subscription};

/// The application that is meant, and what signs for it.
#[derive(Clone)]
pub struct Credentials {
    /// Its id, in the path of the HTTP API.
    pub id: String,
    /// Its key, in the path of the WebSocket.
    pub key: String,
    /// Its secret.
    pub secret: Secret,
}

impl Credentials {
    /// What lets a socket join a private or presence channel: `KEY:SIGNATURE`.
    pub fn sign_subscription(
        &self,
        socket_id: &str,
        channel: &str,
        channel_data: Option<&str>,
    ) -> String {
        let signed = of_subscription(socket_id, channel, channel_data);
        format!("{}:{}", self.key, self.secret.sign(&signed))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.id)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Its name has no address.
    #[error("{host}: there is no address of that name ({error})")]
    Name {
        /// The name.
        host: String,
        /// What the system said.
        error: io::Error,
    },
    /// Nobody takes connections there.
    #[error("{address}: {}", text_of(error))]
    Connect {
        /// Where.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The certificates of the system, which others are judged by, cannot be read.
    #[error("cannot read the system's certificates: {0}")]
    Roots(String),
    /// The handshake of TLS has failed.
    #[error("{host}: {error}{}", hint_of_tls(error))]
    Tls {
        /// Whose certificate was expected.
        host: String,
        /// What is wrong.
        error: io::Error,
    },
    /// There was no answer in time.
    #[error("{endpoint}: no answer in {} s", limit.as_secs_f32())]
    TimedOut {
        /// Who was asked.
        endpoint: String,
        /// For how long it was waited.
        limit: Duration,
    },
    /// The connection has ended in the middle of a request.
    #[error("{endpoint}: the connection has ended without an answer ({error})")]
    Lost {
        /// Who was asked.
        endpoint: String,
        /// How it ended.
        error: String,
    },
    /// It answers, but not with what was asked for.
    #[error("{endpoint} answers {status} to {request}{}", after_colon(body))]
    Refused {
        /// Who was asked.
        endpoint: String,
        /// For what.
        request: String,
        /// The number of its answer.
        status: u16,
        /// What it said, cut.
        body: String,
    },
    /// It answers what a server of this protocol does not.
    #[error("{endpoint}: {what}")]
    Foreign {
        /// Who was asked.
        endpoint: String,
        /// What it said.
        what: String,
    },
}

fn text_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        _ => error.to_string(),
    }
}

/// What a person can do about it.
fn hint_of_tls(error: &io::Error) -> &'static str {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        // One of the same name as a trusted one has the signature of another.
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
        )) => "; a certificate of your own, or its authority's, is trusted with SSL_CERT_FILE=FILE",
        Some(rustls::Error::InvalidMessage(_)) => "; does that port speak TLS? If not, use http://",
        _ => "",
    }
}

fn after_colon(body: &str) -> String {
    if body.is_empty() {
        String::new()
    } else {
        format!(": {body}")
    }
}
