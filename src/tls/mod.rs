//! TLS for servers, with sessions that hold next to nothing while they are idle.
//!
//! rustls does the handshake and owns the secrets. Then only the keys are kept, in a
//! [`Session`] that makes records and reads them. While nothing is said, one of rustls's
//! sessions has 7.6 KB on the heap, and an unbuffered one 3.5 KB, of which 1.3 KB are expanded
//! keys; one of these has 1 KB, and 0.6 KB more from when it has said something until it
//! rests. It does no input or output, so that whoever has the socket decides how it is read
//! and written; [`TlsStream`] is one with its socket, for HTTP.
//!
//! It loads no certificates and knows nothing of the settings.

mod cipher;
mod handshake;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub use session::Session;
pub use stream::{Parts, TlsStream};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{Error, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use handshake::Handshake;

/// Bytes of a handshake that may wait to be whole: of a client that shows no certificate, a
/// record of the greatest length; else as many as rustls lets wait.
const MAX_HANDSHAKE: usize = 18 * 1024;
const MAX_HANDSHAKE_WITH_CERTIFICATES: usize = 64 * 1024;

/// Bytes that a read of the handshake has room for.
const READ_BYTES: usize = 4096;

/// How long a client whose handshake has failed may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Secures connections.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// Bytes of a handshake that may wait to be whole.
    max_handshake: usize,
}

impl Acceptor {
    /// Secures them as the configuration says, whose verifier asks for certificates or not.
    pub fn new(mut config: ServerConfig, asks_for_certificates: bool) -> Self {
        // For the session; they stay within this module.
        config.enable_secret_extraction = true;
        Self {
            config: Arc::new(config),
            max_handshake: if asks_for_certificates {
                MAX_HANDSHAKE_WITH_CERTIFICATES
            } else {
                MAX_HANDSHAKE
            },
        }
    }

    /// Does the handshake.
    ///
    /// # Errors
    /// If the handshake fails or the socket does. The client does not know why yet.
    pub async fn accept(&self, mut tcp: TcpStream) -> Result<TlsStream, Failed> {
        let mut alert = Vec::new();
        match self.handshake(&mut tcp, &mut alert).await {
            Ok((session, early)) => Ok(TlsStream::new(tcp, session, early)),
            Err(error) => Err(Failed { error, tcp, alert }),
        }
    }

    /// The session, and what was received behind the handshake; or what tells the client
    /// that there is none.
    async fn handshake(
        &self,
        tcp: &mut TcpStream,
        alert: &mut Vec<u8>,
    ) -> io::Result<(Session, Vec<u8>)> {
        let mut handshake = Handshake::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        loop {
            match handshake.advance() {
                Ok(is_complete) => {
                    tcp.write_all(&handshake.outgoing).await?;
                    handshake.outgoing.clear();
                    if is_complete {
                        break;
                    }
                }
                Err(error) => {
                    *alert = handshake.outgoing;
                    return Err(invalid(error));
                }
            }
            if handshake.incoming.len() >= self.max_handshake {
                let error = "message buffer full";
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            handshake.incoming.reserve_exact(READ_BYTES);
            if tcp.read_buf(&mut handshake.incoming).await? == 0 {
                let error = "tls handshake eof";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
            }
        }
        handshake.finish().map_err(invalid)
    }
}

/// A handshake that has failed.
pub struct Failed {
    /// Why.
    pub error: io::Error,
    tcp: TcpStream,
    alert: Vec<u8>,
}

impl Failed {
    /// Tells the client why with an alert, if there is one for it.
    pub async fn tell(self) {
        if !self.alert.is_empty() {
            // Whether it arrives changes nothing.
            let _ = timeout(LINGER, tell(self.tcp, &self.alert)).await;
        }
    }
}

/// Sends an alert, and waits until the client has it: a socket that is closed with something
/// unread resets the connection, and the client may lose what it was sent.
async fn tell(mut tcp: TcpStream, alert: &[u8]) -> io::Result<()> {
    tcp.write_all(alert).await?;
    tcp.shutdown().await?;
    let mut unread = [0; 1024];
    let mut left = MAX_HANDSHAKE;
    while left > 0 {
        match tcp.read(&mut unread).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

/// An error of TLS as one of the stream.
pub(crate) fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
