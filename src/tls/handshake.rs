//! The handshake, which rustls does, without input and output.

use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{Error, ServerConfig};

use super::cipher::{HEADER, Header};
use super::session::Session;

type Data<'c> = EncodeTlsData<'c, rustls::server::ServerConnectionData>;

/// A handshake under way.
pub(super) struct Handshake {
    connection: Box<UnbufferedServerConnection>,
    /// What was received and is not done with.
    pub(super) incoming: Vec<u8>,
    /// How much of it rustls was given, in whole records.
    seen: usize,
    /// What is to be sent before more is received, or, after an error, at last.
    pub(super) outgoing: Vec<u8>,
}

impl Handshake {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            connection: Box::new(UnbufferedServerConnection::new(config)?),
            incoming: Vec::new(),
            seen: 0,
            outgoing: Vec::new(),
        })
    }

    /// Goes on with what was received. Returns whether it is complete.
    pub(super) fn advance(&mut self) -> Result<bool, Error> {
        loop {
            // One record after the other: what comes after the last one of the handshake is
            // not for rustls.
            let (mut end, is_whole) = record_end(&self.incoming, self.seen);
            while self.turn(&mut end)? {}
            if !self.connection.is_handshaking() {
                return Ok(true);
            }
            if !is_whole {
                return Ok(false);
            }
            self.seen = end;
        }
    }

    /// Has rustls do one thing with what was received up to `end`. Returns whether there is
    /// more to do.
    fn turn(&mut self, end: &mut usize) -> Result<bool, Error> {
        let UnbufferedStatus { discard, state, .. } = self
            .connection
            .process_tls_records(&mut self.incoming[..*end]);
        let is_more = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, &mut self.outgoing);
                true
            }
            // It is sent before anything else is done.
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                true
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => false,
            // Early data is not accepted, and nothing was given that comes later.
            Ok(_) => return Err(Error::HandshakeNotComplete),
            Err(error) => {
                self.encode_alert();
                return Err(error);
            }
        };
        self.incoming.drain(..discard);
        *end -= discard;
        self.seen = self.seen.saturating_sub(discard);
        Ok(is_more)
    }

    /// Takes the alert that tells the client what is wrong.
    fn encode_alert(&mut self) {
        while self.connection.wants_write() {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(data)) = state else {
                return;
            };
            encode(data, &mut self.outgoing);
        }
    }

    /// The session, and what was received behind the handshake.
    pub(super) fn finish(mut self) -> Result<(Session, Vec<u8>), Error> {
        self.incoming.shrink_to_fit();
        let (secrets, updates) = self.connection.dangerous_into_kernel_connection()?;
        Ok((Session::new(secrets, updates)?, self.incoming))
    }
}

fn encode(mut data: Data<'_>, out: &mut Vec<u8>) {
    let before = out.len();
    loop {
        match data.encode(&mut out[before..]) {
            Ok(count) => return out.truncate(before + count),
            Err(EncodeError::InsufficientSize(error)) => {
                out.resize(before + error.required_size, 0);
            }
            Err(EncodeError::AlreadyEncoded) => return,
        }
    }
}

/// Where the record that begins at `start` ends, or else the end of all, and whether it is
/// whole.
fn record_end(bytes: &[u8], start: usize) -> (usize, bool) {
    let header = bytes.get(start..).and_then(|rest| rest.first_chunk());
    let end = header.map(|header: &[u8; HEADER]| start + HEADER + Header::read(*header).len);
    match end {
        Some(end) if end <= bytes.len() => (end, true),
        _ => (bytes.len(), false),
    }
}
