//! What a socket does with its TLS session.

use std::io::{self, IoSlice};

use tokio::net::TcpStream;

use super::{Phase, Socket};
use crate::tls::{Session, invalid};
use crate::worker::outbox::{MAX_PIECES, Outbox};

/// Bytes that are encrypted before they are written: two records. What is encrypted cannot
/// be cut off any more, and does not share large frames.
const MAX_ENCRYPTED: usize = 32 * 1024;

impl Socket {
    /// Bytes that wait encrypted.
    pub(super) fn encrypted(&self) -> usize {
        self.tls
            .as_ref()
            .map_or(0, |tls| tls.borrow().unsent_cost())
    }

    /// Whether the client has ended its half of the session.
    pub(super) fn has_tls_ended(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.borrow().is_peer_finished())
    }

    /// Writes what waits, and behind the close frame the `close_notify`.
    pub(super) fn write_encrypted(
        &self,
        tls: &mut Session,
        tcp: &TcpStream,
        out: &mut Outbox,
    ) -> io::Result<()> {
        loop {
            if tls.unsent().is_empty() {
                if out.len() > 0 {
                    let mut slices = [IoSlice::new(&[]); MAX_PIECES];
                    let pieces = out.waiting_slices(&mut slices);
                    let sealed = tls.seal(&slices[..pieces], MAX_ENCRYPTED);
                    let count = sealed.map_err(|error| {
                        // The client is told that no more comes, if it can be told now.
                        let _ = tcp.try_write(tls.unsent());
                        invalid(error)
                    })?;
                    out.advance(count);
                }
                if out.len() == 0 && matches!(self.phase.get(), Phase::Closing { .. }) {
                    tls.finish();
                }
                if tls.unsent().is_empty() {
                    return Ok(());
                }
            }
            let count = tcp.try_write(tls.unsent())?;
            tls.advance(count);
        }
    }

    /// Decrypts in place what was read from a TLS connection; plaintext is `bytes` itself.
    /// `each` may be called several times, or not at all.
    pub(in crate::worker) fn decrypt(
        &self,
        mut bytes: &mut [u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            each(bytes);
            return Ok(());
        };
        loop {
            // `each` may write.
            let opened = tls.borrow_mut().open(&mut bytes);
            match opened {
                Ok(Some(plain)) => each(&plain),
                Ok(None) => return Ok(()),
                Err(error) => {
                    // The alert, if it can be sent now; that it failed is what counts here.
                    if let Some(tcp) = &*self.tcp.borrow() {
                        let _ = tcp.try_write(tls.borrow().unsent());
                    }
                    return Err(invalid(error));
                }
            }
        }
    }
}
