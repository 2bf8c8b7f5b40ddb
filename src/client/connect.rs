//! A connection to a server: over TCP, TLS or a Unix socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::{ClientError, Endpoint, Via};

/// Anything that bytes go over.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A connection to a server.
pub type Stream = Pin<Box<dyn Duplex>>;

/// Connects, and shakes hands if the server speaks TLS. All addresses of its name are tried,
/// one after the other.
///
/// # Errors
/// If that fails at any step; how long it may take is for the caller to say.
pub async fn connect(endpoint: &Endpoint) -> Result<Stream, ClientError> {
    let mut stream: Stream = match &endpoint.via {
        Via::Unix(path) => {
            let connected = UnixStream::connect(path).await;
            Box::pin(connected.map_err(|error| ClientError::Connect {
                address: path.display().to_string(),
                error,
            })?)
        }
        Via::Name | Via::Host(_) => Box::pin(dial(endpoint.dialled()).await?),
    };
    if endpoint.wants_proxy_header {
        let written = stream.write_all(b"PROXY UNKNOWN\r\n").await;
        written.map_err(|error| ClientError::Lost {
            endpoint: endpoint.to_string(),
            error: error.to_string(),
        })?;
    }
    if !endpoint.is_secure {
        return Ok(stream);
    }
    let fail = |error| ClientError::Tls {
        host: endpoint.host.clone(),
        error,
    };
    let name = endpoint.host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name)
        .map_err(|error| fail(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let connector = TlsConnector::from(Arc::new(client_config()?));
    let stream = connector.connect(name, stream).await.map_err(fail)?;
    Ok(Box::pin(stream))
}

async fn dial((host, port): (&str, u16)) -> Result<TcpStream, ClientError> {
    let no_name = |error| ClientError::Name {
        host: host.to_owned(),
        error,
    };
    let addresses = lookup_host((host, port)).await.map_err(no_name)?;
    let mut last = no_name(io::ErrorKind::NotFound.into());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Best effort: a request is written at once.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => {
                last = ClientError::Connect {
                    address: address.to_string(),
                    error,
                };
            }
        }
    }
    Err(last)
}

/// Trusts what the system does; `SSL_CERT_FILE` and `SSL_CERT_DIR` say otherwise.
fn client_config() -> Result<ClientConfig, ClientError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let text = if errors.is_empty() {
            "there are none; Debian has them in the package ca-certificates".to_owned()
        } else {
            errors.join("; ")
        };
        return Err(ClientError::Roots(text));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
