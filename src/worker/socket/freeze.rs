//! A socket as plain data, and a socket that waits for its stream.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::WebSocketContext;

use super::stream::Stream;
use super::{Phase, Socket};
use crate::apps::AppHandle;
use crate::protocol::{CloseReason, SocketId};
use crate::worker::backlog::Backlog;
use crate::worker::outbox::Outbox;
use crate::worker::state::{Deadlines, FreezeError, Output, PhaseState};

/// What a socket says of itself.
pub(in crate::worker) struct SocketState {
    pub(in crate::worker) phase: PhaseState,
    pub(in crate::worker) deadlines: Deadlines,
    pub(in crate::worker) output: Output,
    pub(in crate::worker) is_unreadable: bool,
}

impl Socket {
    /// One that has no stream yet, and keeps what it is sent until it has.
    pub(in crate::worker) fn placeholder(
        (id, app): (SocketId, Option<AppHandle>),
        websocket: WebSocketContext,
        ping_interval: Duration,
        backlog: Rc<Backlog>,
    ) -> Self {
        let socket = Self::new((id, app), (None, None), websocket, ping_interval, backlog);
        socket.blocked.set(true);
        socket
    }

    pub(in crate::worker) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Silence after which it is pinged.
    pub(in crate::worker) fn ping_interval(&self) -> Duration {
        self.ping_interval
    }

    /// Bytes that a message of its client may have.
    pub(in crate::worker) fn max_message_size(&self) -> usize {
        let websocket = self.websocket.borrow();
        websocket
            .get_config()
            .max_message_size
            .unwrap_or(usize::MAX)
    }

    /// Takes its stream away: nothing is read or written any more.
    pub(in crate::worker) fn take_stream(&self) -> Result<std::net::TcpStream, FreezeError> {
        if self.is_tls() {
            return Err(FreezeError::Tls);
        }
        if self.ended().is_some() {
            return Err(FreezeError::Ended);
        }
        let tcp = self.tcp.take().ok_or(FreezeError::Ended)?;
        tcp.into_std().map_err(FreezeError::Stream)
    }

    /// What it is, without what it has to write, which is taken away.
    pub(in crate::worker) fn freeze(&self, now: Instant, pong_timeout: Duration) -> SocketState {
        // A pong is written when the parser is asked for more.
        self.drive(|websocket, stream| websocket.flush(stream));
        let left = |since: Instant, allowed: Duration| {
            allowed.saturating_sub(now.saturating_duration_since(since))
        };
        let until = |by: Instant| by.saturating_duration_since(now);
        let phase = match self.phase.get() {
            Phase::Open => PhaseState::Open,
            Phase::Closing {
                reason,
                deadline,
                shut,
            } => PhaseState::Closing {
                reason,
                time_left: until(deadline),
                is_shut: shut,
            },
            Phase::Ended(reason) => PhaseState::Closing {
                reason,
                time_left: Duration::ZERO,
                is_shut: true,
            },
        };
        let (head, written, bytes) = self.out.take().into_bytes();
        SocketState {
            phase,
            deadlines: Deadlines {
                ping: left(self.last_activity.get(), self.ping_interval),
                pong: self.pinged.get().map(|pinged| left(pinged, pong_timeout)),
                authorization: self.authorize_by.get().map(until),
            },
            output: Output {
                bytes,
                head,
                written,
                answers: self.answers.get(),
            },
            is_unreadable: self.is_unreadable.get(),
        }
    }

    /// Goes on as one that was frozen: what was to be written goes before what was sent
    /// here meanwhile.
    pub(in crate::worker) fn thaw(
        &self,
        tcp: std::net::TcpStream,
        state: SocketState,
        pong_timeout: Duration,
    ) -> io::Result<()> {
        let tcp = TcpStream::from_std(tcp)?;
        let now = Instant::now();
        let began = |left: Duration, allowed: Duration| {
            now.checked_sub(allowed.saturating_sub(left)).unwrap_or(now)
        };
        let Deadlines {
            ping,
            pong,
            authorization,
        } = state.deadlines;
        self.last_activity.set(began(ping, self.ping_interval));
        self.pinged.set(pong.map(|left| began(left, pong_timeout)));
        self.authorize_by.set(authorization.map(|left| now + left));
        self.answers.set(state.output.answers + self.answers.get());
        self.is_unreadable.set(state.is_unreadable);
        let Output {
            bytes,
            head,
            written,
            ..
        } = state.output;
        let mut before = Outbox::from_bytes(bytes, head, written);
        match (state.phase, self.phase.get()) {
            (PhaseState::Open, Phase::Open) => {}
            (PhaseState::Open, Phase::Closing { reason, .. } | Phase::Ended(reason)) => {
                if reason == CloseReason::TooSlow {
                    before.cut();
                }
            }
            (closing @ PhaseState::Closing { .. }, _) => self.thaw_closing(closing, now),
        }
        self.out.borrow_mut().put_after(before);
        *self.tcp.borrow_mut() = Some(tcp);
        self.blocked.set(false);
        self.flush();
        Ok(())
    }

    /// It was closed before it came: its close frame is in what comes first.
    fn thaw_closing(&self, state: PhaseState, now: Instant) {
        let PhaseState::Closing {
            reason,
            time_left,
            is_shut,
        } = state
        else {
            return;
        };
        self.out.take();
        self.phase.set(Phase::Closing {
            reason,
            deadline: now + time_left,
            shut: is_shut,
        });
        // The parser has to know, and what it says was said.
        let unused = RefCell::default();
        let mut stream = Stream {
            input: &[],
            out: &unused,
        };
        let _ = self.websocket.borrow_mut().close(&mut stream, None);
        if reason == CloseReason::ByClient {
            self.is_unreadable.set(true);
        }
    }
}
