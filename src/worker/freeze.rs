//! How a connection becomes plain data, and goes on as what it was.

use std::rc::Rc;

use tokio::time::Instant;

use super::Running;
use super::connection::{Connection, Unhandled};
use super::socket::{Socket, SocketState};
use super::state::{ConnectionState, FreezeError, Frozen, Guards, Input, SessionState};

impl Connection {
    /// Takes it apart, once it has departed. It is of no use afterwards; dropping it ends
    /// nothing.
    ///
    /// # Errors
    /// Returns why it cannot be frozen; then it is whole, unless its stream is lost.
    pub fn freeze(&mut self, session: SessionState) -> Result<Frozen, FreezeError> {
        let (worker, socket) = (&self.worker, &self.socket);
        let tcp = match socket.take_stream() {
            Ok(tcp) => tcp,
            Err(error) => {
                if !matches!(error, FreezeError::Tls) {
                    socket.end();
                }
                return Err(error);
            }
        };
        let unhandled = self.unhandled.take().unwrap_or_default();
        let mut bytes = self
            .unfinished
            .take()
            .map_or_else(Vec::new, |held| held.to_frames());
        bytes.extend_from_slice(&unhandled.input);
        let frozen = socket.freeze(Instant::now(), worker.limits.get().pong_timeout);
        let state = ConnectionState {
            socket_id: socket.id.to_string(),
            origin: self.origin().map(str::to_owned),
            phase: frozen.phase,
            subscriptions: worker.end_departure(socket),
            deadlines: frozen.deadlines,
            input: Input {
                waiting_message: unhandled.message,
                bytes,
                is_unreadable: frozen.is_unreadable,
            },
            output: frozen.output,
            session,
        };
        let guards = Guards {
            slot: self.slot.take(),
            permit: self.permit.take(),
        };
        Ok(Frozen { state, tcp, guards })
    }

    /// Goes on with one that was frozen, over the placeholder that was made for it.
    pub(super) fn thaw(
        socket: Rc<Socket>,
        running: Running,
        frozen: Frozen,
    ) -> (Self, SessionState) {
        let Frozen { state, tcp, guards } = frozen;
        let connection = Self::over(socket, running, guards, state.origin.as_deref());
        let (worker, socket) = (&connection.worker, &connection.socket);
        let Input {
            waiting_message: message,
            bytes: input,
            is_unreadable,
        } = state.input;
        if message.is_some() || !input.is_empty() {
            // Until it is taken up, its client is not listened to.
            socket.pause_heartbeat(true);
            *connection.unhandled.borrow_mut() = Some(Box::new(Unhandled {
                message,
                input,
                is_old: true,
            }));
        }
        for channel in &*socket.subscriptions.borrow() {
            let mut states = state.subscriptions.iter();
            let name = channel.name().as_str();
            if states.any(|state| state.channel == name && state.is_answer_pending) {
                worker.fanout.mark_answer_pending(channel.id(), socket);
            }
        }
        let frozen = SocketState {
            phase: state.phase,
            deadlines: state.deadlines,
            output: state.output,
            is_unreadable,
        };
        if socket
            .thaw(tcp, frozen, worker.limits.get().pong_timeout)
            .is_err()
        {
            socket.end();
        }
        if !socket.is_open() {
            worker.leave_all(socket);
        }
        worker.look_at(socket, Instant::now());
        (connection, state.session)
    }
}
