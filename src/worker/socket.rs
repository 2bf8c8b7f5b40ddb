//! One socket's state and its non-blocking input and output.
//!
//! It is shared, on one thread, by the task that reads it and by the fan-out that
//! writes it. Nothing in here waits; where the socket would block, the reading
//! task is woken to watch for writability.

mod freeze;
mod stream;
mod tls;

pub(super) use freeze::SocketState;
use stream::Stream;

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketContext};
use tokio_tungstenite::tungstenite::{self, Message};

use super::backlog::Backlog;
use super::outbox::{MAX_PIECES, Outbox, Outgoing};
use super::wheel::BEAT;
use crate::apps::{AppHandle, Counter};
use crate::hub::{Channel, log_sent};
use crate::protocol::{CloseReason, Frame, SocketId, message};
use crate::tls::Session;

/// Bytes that may wait for a client even when too many wait in all: it may have been
/// slow for a moment only.
const A_LITTLE: usize = 64 * 1024;

/// `repr(C)`: in this order, what every message touches lies together. The state of
/// thousands of sockets does not fit into the processor's caches.
#[repr(C)]
pub(super) struct Socket {
    pub(super) id: SocketId,
    /// What frames cost it that were appended since it was last taken out of a queue of
    /// touched sockets.
    pub(super) queued: Cell<usize>,
    /// The queues that it is in, as bits.
    pub(super) queues: Cell<u8>,
    /// Whether the last write would have blocked.
    blocked: Cell<bool>,
    /// Whether nobody listens to the client, so that it cannot be taken for silent.
    is_paused: Cell<bool>,
    /// Whether a frame could not be read: where the next one begins is not known.
    is_unreadable: Cell<bool>,
    /// Its application; none if it is only told why it is refused.
    pub(super) app: Option<AppHandle>,
    pub(super) out: RefCell<Outbox>,
    /// Bytes of large frames in what is [`Self::queued`], which cost it next to nothing.
    pub(super) queued_large: Cell<usize>,
    /// Bytes of answers to its client that were appended since nothing waited.
    answers: Cell<usize>,
    /// Its part of what waits in all out-buffers.
    held: Cell<usize>,
    backlog: Rc<Backlog>,
    phase: Cell<Phase>,
    /// None before it has come from another worker, and after it has gone to one.
    tcp: RefCell<Option<TcpStream>>,
    tls: Option<RefCell<Box<Session>>>,
    /// Its slot among the worker's sockets.
    pub(super) key: Cell<usize>,
    /// Of the task that reads.
    waker: RefCell<Option<Waker>>,
    last_activity: Cell<Instant>,
    pinged: Cell<Option<Instant>>,
    ping_interval: Duration,
    /// Until when it has to have authorised itself, if it has to.
    authorize_by: Cell<Option<Instant>>,
    pub(super) subscriptions: RefCell<Vec<Arc<Channel>>>,
    websocket: RefCell<WebSocketContext>,
}

#[derive(Clone, Copy)]
enum Phase {
    Open,
    /// A close frame was queued; when it is written, our half is shut.
    Closing {
        reason: CloseReason,
        deadline: Instant,
        shut: bool,
    },
    /// The task may go.
    Ended(CloseReason),
}

/// What the heartbeat finds.
pub(super) enum Health {
    /// To be looked at again after this time.
    Fine(Duration),
    /// Silent for its ping interval.
    Silent,
    /// To be closed.
    Over(CloseReason),
    /// Closing for too long.
    Overdue,
}

impl Socket {
    pub(super) fn new(
        (id, app): (SocketId, Option<AppHandle>),
        (tcp, tls): (Option<TcpStream>, Option<Box<Session>>),
        websocket: WebSocketContext,
        ping_interval: Duration,
        backlog: Rc<Backlog>,
    ) -> Self {
        Self {
            id,
            app,
            key: Cell::new(usize::MAX),
            subscriptions: RefCell::default(),
            queued: Cell::new(0),
            queued_large: Cell::new(0),
            queues: Cell::new(0),
            out: RefCell::default(),
            websocket: RefCell::new(websocket),
            is_unreadable: Cell::new(false),
            tcp: RefCell::new(tcp),
            tls: tls.map(RefCell::new),
            answers: Cell::new(0),
            blocked: Cell::new(false),
            backlog,
            held: Cell::new(0),
            phase: Cell::new(Phase::Open),
            waker: RefCell::default(),
            ping_interval,
            last_activity: Cell::new(Instant::now()),
            pinged: Cell::new(None),
            is_paused: Cell::new(false),
            authorize_by: Cell::new(None),
        }
    }

    /// Counts for its application.
    pub(super) fn count(&self, counter: Counter, more: u64) {
        if let Some(app) = &self.app {
            app.counters().add(counter, more);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase.get(), Phase::Open)
    }

    /// Whether writing has to wait for the client.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether its client reads too slowly to be given more: more than `max` bytes
    /// wait for it, or, when too many wait in the whole process, more than a little, and
    /// in the end any at all.
    pub(super) fn is_behind(&self, max: usize) -> bool {
        let max = match self.blocked.get() {
            true if self.backlog.is_full() => 0,
            true if self.backlog.is_high() => max.min(A_LITTLE),
            _ => max,
        };
        if self.waiting() <= max {
            return false;
        }
        self.flush();
        self.blocked.get() && self.waiting() > max
    }

    /// Bytes that wait for its client, encrypted or not.
    fn waiting(&self) -> usize {
        let encrypted = self.tls.as_ref();
        let encrypted = encrypted.map_or(0, |tls| tls.borrow().unsent().len());
        self.out.borrow().len() + encrypted
    }

    /// Bytes of what its client has asked for and not read, at most.
    pub(super) fn unread_answers(&self) -> usize {
        self.answers.get().min(self.waiting())
    }

    /// Counts what it holds among what waits in the process, if writing waits for the
    /// client; what was not tried to be written is counted by the fan-out.
    pub(super) fn settle(&self) {
        let holds = match self.ended() {
            None if self.blocked.get() => self.out.borrow().cost() + self.encrypted(),
            _ => 0,
        };
        let before = self.held.replace(holds);
        if holds != before {
            self.backlog.change(before, holds);
        }
    }

    /// Why it ended, once it has.
    pub(super) fn ended(&self) -> Option<CloseReason> {
        match self.phase.get() {
            Phase::Ended(reason) => Some(reason),
            Phase::Open | Phase::Closing { .. } => None,
        }
    }

    /// Appends a frame, to be written by the next [`Self::flush`].
    pub(super) fn send(&self, frame: &Frame) {
        if self.is_open() {
            log_sent(self.id, frame);
            let frame = Outgoing::new(frame, &self.backlog);
            self.out.borrow_mut().push(&frame);
            self.answers.set(self.answers.get() + frame.len());
            self.count(Counter::MessagesSent, 1);
            self.settle();
        }
    }

    /// Records a sign of life.
    pub(super) fn record_activity(&self, now: Instant) {
        self.last_activity.set(now);
        self.pinged.set(None);
    }

    /// Has it not taken for silent while nobody listens to it.
    pub(super) fn pause_heartbeat(&self, is_paused: bool) {
        self.is_paused.set(is_paused);
    }

    /// Has it closed after `time` unless it has authorised itself by then;
    /// `None` once it has.
    pub(super) fn authorize_within(&self, time: Option<Duration>) {
        self.authorize_by
            .set(time.map(|time| Instant::now() + time));
    }

    pub(super) fn check(&self, now: Instant, pong_timeout: Duration) -> Health {
        if self.is_paused.get() && self.is_open() {
            return Health::Fine(self.ping_interval);
        }
        let authorize_by = self.authorize_by.get().filter(|_| self.is_open());
        if authorize_by.is_some_and(|by| by <= now) {
            return Health::Over(CloseReason::NotAuthorized);
        }
        let fine =
            |left: Duration| Health::Fine(authorize_by.map_or(left, |by| left.min(by - now)));
        let left = |since: Instant, allowed: Duration| {
            allowed.saturating_sub(now.saturating_duration_since(since))
        };
        match (self.phase.get(), self.pinged.get()) {
            (Phase::Open, None) => match left(self.last_activity.get(), self.ping_interval) {
                // The next look would come too late.
                left if left < BEAT.min(self.ping_interval / 2) => Health::Silent,
                left => fine(left),
            },
            // It may answer at once, and then be silent for its ping interval again.
            (Phase::Open, Some(pinged)) => match left(pinged, pong_timeout) {
                Duration::ZERO => Health::Over(CloseReason::PongNotReceived),
                left => fine(left.min(self.ping_interval)),
            },
            (Phase::Closing { deadline, .. }, _) if now >= deadline => Health::Overdue,
            (Phase::Closing { deadline, .. }, _) => Health::Fine(deadline - now),
            (Phase::Ended(_), _) => Health::Overdue,
        }
    }

    /// Sends both kinds of ping: browsers only see `pusher:ping`, some native
    /// clients only answer WebSocket pings.
    pub(super) fn ping(&self, now: Instant) {
        self.pinged.set(Some(now));
        self.send(&message::ping());
        self.drive(|websocket, stream| websocket.write(stream, Message::Ping(bytes::Bytes::new())));
        self.flush();
        if let Some(tls) = &self.tls {
            // It may be silent for as long again.
            tls.borrow_mut().rest();
        }
    }

    /// Queues the error and the close frame that `reason` asks for. False if it
    /// was closing already.
    pub(super) fn start_closing(&self, reason: CloseReason, deadline: Instant) -> bool {
        if !self.is_open() {
            return false;
        }
        if reason == CloseReason::TooSlow {
            self.out.borrow_mut().cut();
        }
        if let (Some(error), Some((_, text))) = (reason.error(), reason.code()) {
            self.send(&message::error(error, text));
        }
        self.phase.set(Phase::Closing {
            reason,
            deadline,
            shut: false,
        });
        self.drive(|websocket, stream| match reason.code() {
            Some((code, text)) => websocket.close(
                stream,
                Some(CloseFrame {
                    code: code.into(),
                    reason: text.into(),
                }),
            ),
            // The client closed: tungstenite has the answer to its close frame ready.
            None => websocket.flush(stream),
        });
        self.flush();
        self.settle();
        self.wake();
        true
    }

    /// Ends it now, whatever is still to be written.
    pub(super) fn end(&self) {
        let reason = match self.phase.get() {
            Phase::Open => CloseReason::Gone,
            Phase::Closing { reason, .. } | Phase::Ended(reason) => reason,
        };
        self.phase.set(Phase::Ended(reason));
        self.settle();
        self.wake();
    }

    /// Has tungstenite write into the out-buffer, which never blocks.
    fn drive(
        &self,
        say: impl FnOnce(&mut WebSocketContext, &mut Stream<'_, '_>) -> tungstenite::Result<()>,
    ) {
        let mut stream = Stream {
            input: &[],
            out: &self.out,
        };
        // What it reports is that the connection is closed, which the phase already says.
        let _ = say(&mut self.websocket.borrow_mut(), &mut stream);
    }

    /// The next message in `input`, which is used up on the way; `None` when it
    /// holds no further whole one, and after an error. Answers to pings go to the
    /// out-buffer.
    pub(super) fn next_message(&self, input: &mut &[u8]) -> Option<tungstenite::Result<Message>> {
        if self.is_unreadable.get() {
            return None;
        }
        let before = self.out.borrow().len();
        let mut stream = Stream {
            input,
            out: &self.out,
        };
        let read = self.websocket.borrow_mut().read(&mut stream);
        *input = stream.input;
        let pongs = self.out.borrow().len() - before;
        self.answers.set(self.answers.get() + pongs);
        match read {
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            other => {
                self.is_unreadable.set(other.is_err());
                Some(other)
            }
        }
    }

    /// Writes what waits, as far as the client takes it.
    pub(super) fn flush(&self) {
        if self.blocked.get() || self.ended().is_some() {
            // tungstenite may have answered a ping meanwhile.
            return self.settle();
        }
        match self.write_all() {
            Ok(()) => self.shut_if_closing(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked.set(true);
                self.wake();
            }
            Err(_) => self.end(),
        }
        self.settle();
    }

    fn write_all(&self) -> io::Result<()> {
        let before = self.out.borrow().len();
        let written = self.write_out();
        let after = self.out.borrow().len();
        self.count(Counter::BytesSent, (before - after) as u64);
        written?;
        self.answers.set(0);
        Ok(())
    }

    fn write_out(&self) -> io::Result<()> {
        let mut out = self.out.borrow_mut();
        let tcp = self.tcp.borrow();
        let Some(tcp) = &*tcp else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        if let Some(tls) = &self.tls {
            return self.write_encrypted(&mut tls.borrow_mut(), tcp, &mut out);
        }
        while out.len() > 0 {
            let count = if out.is_one_piece() {
                tcp.try_write(out.waiting())?
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_PIECES];
                let pieces = out.waiting_slices(&mut slices);
                tcp.try_write_vectored(&slices[..pieces])?
            };
            out.advance(count);
        }
        Ok(())
    }

    /// Ends our half once the close frame is out: the client sees it at once and
    /// need not wait for us.
    fn shut_if_closing(&self) {
        let Phase::Closing {
            reason,
            deadline,
            shut: false,
        } = self.phase.get()
        else {
            return;
        };
        self.phase.set(Phase::Closing {
            reason,
            deadline,
            shut: true,
        });
        if let Some(tcp) = &*self.tcp.borrow() {
            // An error means that the client has gone, which reading will tell.
            let _ = SockRef::from(tcp).shutdown(Shutdown::Write);
        }
        // A client that closed says nothing more: there is nothing to wait for.
        if reason == CloseReason::ByClient {
            self.end();
        }
    }

    /// Writes on when the client takes more; is done when the connection begins to close.
    pub(super) fn poll_write_on(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.write_when_ready(cx);
        if self.is_open() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    pub(super) fn write_when_ready(&self, cx: &mut Context<'_>) {
        self.remember(cx.waker());
        while self.blocked.get() && self.ended().is_none() {
            let ready = match &*self.tcp.borrow() {
                Some(tcp) => tcp.poll_write_ready(cx),
                None => Poll::Pending,
            };
            match ready {
                Poll::Ready(Ok(())) => {
                    self.blocked.set(false);
                    self.flush();
                }
                Poll::Ready(Err(_)) => self.end(),
                Poll::Pending => break,
            }
        }
    }

    /// Whether the client has ended its half, whatever of it was not read yet.
    pub(super) fn is_read_closed(&self) -> bool {
        let tcp = self.tcp.borrow();
        let Some(tcp) = &*tcp else {
            return false;
        };
        let ready = pin!(tcp.ready(Interest::READABLE));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }

    /// Waits for bytes in `buffer`, and meanwhile writes on when the client takes
    /// more. `Ok(0)` is the end.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.write_when_ready(cx);
        if self.ended().is_some() || self.has_tls_ended() {
            return Poll::Ready(Ok(0));
        }
        let mut tcp = self.tcp.borrow_mut();
        let Some(tcp) = &mut *tcp else {
            return Poll::Pending;
        };
        let mut buffer = ReadBuf::new(buffer);
        std::task::ready!(Pin::new(tcp).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn remember(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.backlog.change(self.held.get(), 0);
    }
}
