//! A TCP stream over which HTTP is spoken encrypted.

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::invalid;
use super::session::Session;

/// Bytes that one read takes: a record, but for its overhead.
const READ_BYTES: usize = 16 * 1024;

/// Bytes that one write encrypts: a record, so that whoever waits for the client to read
/// sees it go on.
const WRITE_BYTES: usize = 16 * 1024;

/// A TCP stream with its TLS session.
pub struct TlsStream {
    tcp: TcpStream,
    session: Box<Session>,
    /// What came with the handshake and is to be decrypted.
    early: Vec<u8>,
    /// Decrypted, and how much of it was read.
    plain: Vec<u8>,
    read: usize,
}

/// What a [`TlsStream`] is made of.
pub struct Parts {
    /// The socket.
    pub tcp: TcpStream,
    /// Its session.
    pub session: Box<Session>,
    /// What was decrypted and not read.
    pub unread: Vec<u8>,
}

impl TlsStream {
    pub(super) fn new(tcp: TcpStream, session: Session, early: Vec<u8>) -> Self {
        Self {
            tcp,
            session: Box::new(session),
            early,
            plain: Vec::new(),
            read: 0,
        }
    }

    /// Takes it apart, once it was read from.
    pub fn into_parts(mut self) -> Parts {
        debug_assert!(self.early.is_empty(), "the first read takes it");
        self.plain.drain(..self.read);
        Parts {
            tcp: self.tcp,
            session: self.session,
            unread: self.plain,
        }
    }

    /// Sends what is to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.session.unsent().is_empty() {
            let tcp = Pin::new(&mut self.tcp);
            let count = ready!(tcp.poll_write(cx, self.session.unsent()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.session.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Decrypts, into `buffer` as long as there is room, and the rest for later.
    fn decrypt(
        &mut self,
        cx: &mut Context<'_>,
        mut input: &mut [u8],
        buffer: &mut ReadBuf<'_>,
    ) -> io::Result<()> {
        loop {
            match self.session.open(&mut input) {
                Ok(Some(plain)) => {
                    let (now, later) = plain.split_at(plain.len().min(buffer.remaining()));
                    buffer.put_slice(now);
                    self.plain.extend_from_slice(later);
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    // For the client to know; that it failed is what counts here.
                    let _ = self.poll_send(cx);
                    return Err(invalid(error));
                }
            }
        }
    }

    /// Takes from what was decrypted before.
    fn take_plain(&mut self, buffer: &mut ReadBuf<'_>) {
        let left = &self.plain[self.read..];
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.read += count;
        if self.read == self.plain.len() {
            (self.plain, self.read) = (Vec::new(), 0);
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        this.take_plain(buffer);
        // Ends when something was read, or the socket has nothing.
        while buffer.filled().len() == before && buffer.remaining() > 0 {
            if !this.early.is_empty() {
                let mut early = mem::take(&mut this.early);
                this.decrypt(cx, &mut early, buffer)?;
                continue;
            }
            if this.session.is_peer_finished() {
                break;
            }
            let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                let error = "the client has closed without close_notify";
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, error);
                return Poll::Ready(Err(error));
            }
            this.decrypt(cx, read.filled_mut(), buffer)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let count = this.session.seal(slices, WRITE_BYTES).map_err(invalid)?;
        // What cannot be sent now is sent before the next write, or by the flush.
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.finish();
        ready!(this.poll_send(cx))?;
        match ready!(Pin::new(&mut this.tcp).poll_shutdown(cx)) {
            // The client was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }
}
