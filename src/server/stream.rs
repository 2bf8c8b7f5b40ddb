//! A connection while it speaks HTTP: plain or TLS.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::activity::Activity;
use crate::tls::{Session, TlsStream};

/// Bytes of hyper's read buffer: most of a request's head.
pub(super) const HEAD_BYTES: usize = 16 * 1024;

/// Header fields of a request: what hyper takes by itself, and not given to it, since
/// it would put them on the heap then.
pub(super) const MAX_HEADERS: usize = 100;

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// The socket and its TLS session, for the WebSocket that it becomes, and all that was
    /// received for it, of which `read` was read already.
    pub(super) fn into_parts(self, read: Bytes) -> (TcpStream, Option<Box<Session>>, Bytes) {
        match self {
            Self::Plain(tcp) => (tcp, None, read),
            Self::Tls(stream) => {
                let parts = stream.into_parts();
                let leftover = match parts.unread.is_empty() {
                    true => read,
                    false => [&read[..], &parts.unread].concat().into(),
                };
                (parts.tcp, Some(parts.session), leftover)
            }
        }
    }
}

/// A connection whose client has to read: a write that makes no progress for
/// `patience` is an error. (hyper has no such limit of its own.)
///
/// Once it is told to hold, it keeps what is written: the answer to a handshake goes
/// out in one system call with the first frame.
pub(super) struct Deadline {
    stream: Stream,
    patience: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    activity: Rc<Activity>,
    held: Vec<u8>,
    /// What of [`Self::write_head_too_large`] was written.
    answered: usize,
}

/// How hyper's own answer to a head that is too large begins. It has no text, and
/// nothing else here answers with this status.
const HEAD_TOO_LARGE: &[u8] = b"HTTP/1.1 431 ";

/// The answer with its text, complete. Neither limit can be set.
fn head_too_large() -> String {
    let text = format!(
        "Request header fields too large. The head of a request may have {HEAD_BYTES} bytes \
         and {MAX_HEADERS} header fields, whatever the settings are."
    );
    let length = text.len();
    format!(
        "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{text}"
    )
}

impl Deadline {
    pub(super) fn new(stream: Stream, patience: Duration, activity: Rc<Activity>) -> Self {
        Self {
            stream,
            patience,
            waiting: None,
            activity,
            held: Vec::new(),
            answered: 0,
        }
    }

    /// Writes the answer that says what is too large, in place of hyper's of `length`
    /// bytes.
    fn write_head_too_large(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        let answer = head_too_large();
        while self.answered < answer.len() {
            let rest = &answer.as_bytes()[self.answered..];
            let written = Pin::new(&mut self.stream).poll_write(cx, rest);
            self.answered += std::task::ready!(self.watch(cx, written))?;
        }
        Poll::Ready(Ok(length))
    }

    /// The connection, and what was held.
    pub(super) fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.stream, self.held)
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.activity.is_blocked.set(written.is_pending());
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        std::task::ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not read its answers",
        )))
    }
}

impl AsyncRead for Deadline {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Deadline {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.activity.is_held.get() {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        if bytes.starts_with(HEAD_TOO_LARGE) {
            return self.write_head_too_large(cx, bytes.len());
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.activity.is_held.get() {
            let before = self.held.len();
            slices
                .iter()
                .for_each(|slice| self.held.extend_from_slice(slice));
            return Poll::Ready(Ok(self.held.len() - before));
        }
        if let [only] = slices
            && only.starts_with(HEAD_TOO_LARGE)
        {
            return self.write_head_too_large(cx, only.len());
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.is_held.get() {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
