//! A connection to a server: over TCP, TLS or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{ClientError, Endpoint, Via};

/// Anything that bytes go over.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A connection to a server.
pub type Stream = Pin<Box<dyn Duplex>>;

/// How long an address has to itself before the next one of the name is tried as well (RFC 8305, 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects, and shakes hands if the server speaks TLS. All addresses of its name are tried; one
/// that does not answer holds up the others for a quarter of a second only.
///
/// # Errors
/// If that fails at any step; how long it may take is for the caller to say.
pub async fn connect(endpoint: &Endpoint) -> Result<Stream, ClientError> {
    Ok(connect_and_identify(endpoint).await?.0)
}

/// Connects as [`connect`] does, and returns the server's own certificate, too, if it speaks TLS.
///
/// # Errors
/// As [`connect`].
pub async fn connect_and_identify(
    endpoint: &Endpoint,
) -> Result<(Stream, Option<CertificateDer<'static>>), ClientError> {
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
        return Ok((stream, None));
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
    let chain = stream.get_ref().1.peer_certificates();
    let own = chain.and_then(|chain| chain.first().cloned());
    let own = own.map(CertificateDer::into_owned);
    Ok((Box::pin(stream), own))
}

async fn dial((host, port): (&str, u16)) -> Result<TcpStream, ClientError> {
    let no_name = |error| ClientError::Name {
        host: host.to_owned(),
        error,
    };
    let addresses = lookup_host((host, port)).await.map_err(no_name)?;
    let connected = first_of(addresses).await;
    let (address, result) = connected.ok_or_else(|| no_name(io::ErrorKind::NotFound.into()))?;
    let stream = result.map_err(|error| ClientError::Connect {
        address: address.to_string(),
        error,
    })?;
    // Best effort: a request is written at once.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// The first connection, or the last failure; nothing if there is no address.
pub async fn first_of(
    mut addresses: impl Iterator<Item = SocketAddr>,
) -> Option<(SocketAddr, io::Result<TcpStream>)> {
    let mut attempts = JoinSet::new();
    let mut last = None;
    loop {
        let next = addresses.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            attempts.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        let ended = if is_last {
            attempts.join_next().await
        } else {
            match timeout(HEAD_START, attempts.join_next()).await {
                Ok(ended) => ended,
                // The next one is tried beside it.
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok((address, Ok(stream)))) => return Some((address, Ok(stream))),
            Some(Ok(failed)) => last = Some(failed),
            // Nobody ends an attempt, so that it has panicked.
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None if is_last => return last,
            None => {}
        }
    }
}

/// Trusts what the system does; `SSL_CERT_FILE` and `SSL_CERT_DIR` say otherwise.
///
/// # Errors
/// If the system trusts nobody.
pub fn client_config() -> Result<ClientConfig, ClientError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An address that does not answer: its queue is full, so that the kernel drops what comes.
    fn silent() -> (socket2::Socket, Vec<std::net::TcpStream>, SocketAddr) {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let wait = Duration::from_millis(200);
        let connect = || std::net::TcpStream::connect_timeout(&address, wait).ok();
        (socket, std::iter::from_fn(connect).collect(), address)
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_up_no_other() {
        let (_socket, _waiting, silent) = silent();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let first = timeout(
            Duration::from_secs(20),
            first_of([silent, good].into_iter()),
        );
        let (address, stream) = first.await.unwrap().unwrap();
        assert_eq!(address, good);
        assert_eq!(stream.unwrap().peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn one_that_refuses_is_passed_over() {
        let [refusing, good] = [
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let addresses = [&refusing, &good].map(|it| it.local_addr().unwrap());
        drop(refusing);
        let (address, _) = first_of(addresses.into_iter()).await.unwrap();
        assert_eq!(address, addresses[1]);
        assert!(first_of([].into_iter()).await.is_none());
    }

    #[tokio::test]
    async fn without_a_listener_the_address_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = dial(("127.0.0.1", port)).await.unwrap_err();
        let ClientError::Connect { address, error } = error else {
            panic!("{error}");
        };
        assert_eq!(address, format!("127.0.0.1:{port}"));
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
