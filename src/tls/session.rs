//! An established session: records in, records out, and no input or output of its own.
//!
//! The keys are rustls's, and so are those that follow them. What clients do wrong is
//! answered as rustls answers it, and bounded by the same numbers.

use std::borrow::Cow;
use std::io::IoSlice;
use std::mem;
use std::ops::Range;

use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ContentType, Error, ExtractedSecrets, HandshakeType, InvalidMessage,
    PeerMisbehaved, ProtocolVersion, SupportedCipherSuite,
};

use super::cipher::{Direction, HEADER, Header, Kept, MAX_FRAGMENT, MAX_OVERHEAD, Version};

/// Empty records in a row.
const MAX_EMPTY: u8 = 32;

/// Updates of keys in a row, without application data.
const MAX_KEY_UPDATES: u8 = 32;

/// Alerts that are only warnings.
const MAX_WARNINGS: u8 = 4;

/// The levels of an alert.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// What is left of what a client may do without use.
struct Patience {
    empty: u8,
    key_updates: u8,
    warnings: u8,
    renegotiations: u8,
}

/// An established TLS session of a server.
///
/// What it has to say waits in it until it is sent: [`Self::unsent`] and [`Self::advance`].
/// With nothing to send and nothing half received, it holds no buffer; after
/// [`Self::rest`], not even an expanded key.
pub struct Session {
    sending: Direction,
    sealing: Kept,
    receiving: Direction,
    /// The beginning of a record.
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// How much of `unsent` is sent.
    sent: usize,
    /// Records that one key may encrypt.
    max_records: u64,
    version: Version,
    patience: Patience,
    /// Whether an answer to an update of keys is in `unsent`: one is enough.
    is_update_unsent: bool,
    /// Whether nothing more can be sent.
    is_finished: bool,
    is_peer_finished: bool,
    /// Where the next keys of TLS 1.3 come from.
    updates: KernelConnection<ServerConnectionData>,
}

impl Session {
    pub(super) fn new(
        secrets: ExtractedSecrets,
        updates: KernelConnection<ServerConnectionData>,
    ) -> Result<Self, Error> {
        let version = match updates.protocol_version() {
            ProtocolVersion::TLSv1_2 => Version::Tls12,
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            _ => return Err(Error::General("an unknown version".to_owned())),
        };
        let suite = match updates.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls12(suite) => &suite.common,
            SupportedCipherSuite::Tls13(suite) => &suite.common,
        };
        Ok(Self {
            sending: Direction::new(secrets.tx),
            sealing: None,
            receiving: Direction::new(secrets.rx),
            received: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            max_records: suite.confidentiality_limit,
            version,
            patience: Patience {
                empty: MAX_EMPTY,
                key_updates: MAX_KEY_UPDATES,
                warnings: MAX_WARNINGS,
                renegotiations: 1,
            },
            is_update_unsent: false,
            is_finished: false,
            is_peer_finished: false,
            updates,
        })
    }

    /// What is to be sent, encrypted.
    pub fn unsent(&self) -> &[u8] {
        &self.unsent[self.sent..]
    }

    /// Records that the first `count` bytes of it were sent.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.unsent.len() {
            (self.unsent, self.sent) = (Vec::new(), 0);
            self.is_update_unsent = false;
        }
    }

    /// Bytes that what is to be sent takes, with what is sent of it.
    pub fn unsent_cost(&self) -> usize {
        self.unsent.len()
    }

    /// Whether the client has ended its half: nothing more is received.
    pub fn is_peer_finished(&self) -> bool {
        self.is_peer_finished
    }

    /// Encrypts up to `max` bytes of what `plain` holds, into as few records as they fit
    /// in. Returns how many bytes that were.
    ///
    /// # Errors
    /// If nothing more can be encrypted: after [`Self::finish`], or in TLS 1.2 when its
    /// keys are used up.
    pub fn seal(&mut self, plain: &[IoSlice<'_>], max: usize) -> Result<usize, Error> {
        if self.is_finished {
            return Err(Error::EncryptError);
        }
        let all: usize = plain.iter().map(|piece| piece.len()).sum();
        let all = all.min(max);
        let records = all.div_ceil(MAX_FRAGMENT);
        self.unsent.reserve_exact(all + records * MAX_OVERHEAD);
        let mut done = 0;
        while done < all {
            // The last one is for the update of the keys.
            let last = self.max_records.saturating_sub(1);
            if self.sending.sequence >= last {
                self.update_sending(true)?;
            }
            let mut cipher = self.sending.cipher(self.version, Some(&mut self.sealing))?;
            let mut left = last.saturating_sub(cipher.sequence());
            while done < all && left > 0 {
                let len = MAX_FRAGMENT.min(all - done);
                let pieces = pieces(plain, done, len);
                cipher.seal(ContentType::ApplicationData, pieces, len, &mut self.unsent)?;
                done += len;
                left -= 1;
            }
        }
        Ok(done)
    }

    /// Keeps less until more is encrypted: for when that may take a while.
    pub fn rest(&mut self) {
        self.sealing = None;
    }

    /// Says that nothing more is sent, once; this waits to be sent behind all the rest.
    pub fn finish(&mut self) {
        if !self.is_finished {
            self.alert(WARNING, AlertDescription::CloseNotify);
            self.is_finished = true;
        }
    }

    /// Decrypts the next record that holds data, in place, and takes it off `input`. The
    /// beginning of a record is kept for the next call. `None` if there is no whole one.
    ///
    /// # Errors
    /// The client has failed, or has said that we have. An alert that tells it what is wrong
    /// is to be sent, and nothing more is received.
    pub fn open<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<Cow<'i, [u8]>>, Error> {
        while !self.is_peer_finished {
            if self.received.is_empty() {
                let Some((header, record)) = self.next_record(input)? else {
                    return Ok(None);
                };
                if let Some(text) = self.take(header, record)? {
                    return Ok(Some(Cow::Borrowed(&record[text])));
                }
            } else {
                let Some((header, mut record)) = self.complete_record(input)? else {
                    return Ok(None);
                };
                if let Some(text) = self.take(header, &mut record[HEADER..])? {
                    record.truncate(HEADER + text.end);
                    record.drain(..HEADER + text.start);
                    return Ok(Some(Cow::Owned(record)));
                }
            }
        }
        // Whatever comes behind the end is not looked at.
        *input = &mut [];
        Ok(None)
    }

    /// Takes a whole record off the input, or else keeps what there is.
    fn next_record<'i>(
        &mut self,
        input: &mut &'i mut [u8],
    ) -> Result<Option<(Header, &'i mut [u8])>, Error> {
        let header = read_header(input, self.version).map_err(|wrong| self.malformed(wrong))?;
        let bytes = mem::take(input);
        let whole = header.filter(|header| HEADER + header.len <= bytes.len());
        let Some(header) = whole else {
            self.received.extend_from_slice(bytes);
            return Ok(None);
        };
        let (record, rest) = bytes.split_at_mut(HEADER + header.len);
        *input = rest;
        Ok(Some((header, &mut record[HEADER..])))
    }

    /// Takes off the input what is missing of the record that has begun.
    fn complete_record(
        &mut self,
        input: &mut &mut [u8],
    ) -> Result<Option<(Header, Vec<u8>)>, Error> {
        self.receive(HEADER, input);
        let header =
            read_header(&self.received, self.version).map_err(|wrong| self.malformed(wrong))?;
        let Some(header) = header else {
            return Ok(None);
        };
        let end = HEADER + header.len;
        self.receive(end, input);
        if self.received.len() < end {
            return Ok(None);
        }
        Ok(Some((header, mem::take(&mut self.received))))
    }

    /// Takes bytes off the input until there are so many.
    fn receive(&mut self, len: usize, input: &mut &mut [u8]) {
        let missing = len.saturating_sub(self.received.len()).min(input.len());
        let (taken, rest) = mem::take(input).split_at_mut(missing);
        // It is not counted anywhere, so it has no room to spare.
        self.received.reserve_exact(taken.len());
        self.received.extend_from_slice(taken);
        *input = rest;
    }

    /// Handles a record. Returns where its data is, if it has any.
    fn take(&mut self, header: Header, record: &mut [u8]) -> Result<Option<Range<usize>>, Error> {
        if self.version == Version::Tls13 && header.kind != ContentType::ApplicationData {
            return Err(self.unexpected(header.kind));
        }
        let opened = self
            .receiving
            .cipher(self.version, None)
            .and_then(|mut cipher| cipher.open(header, record));
        let (kind, text) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let alert = match error {
                    Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
                    Error::PeerMisbehaved(_) => AlertDescription::UnexpectedMessage,
                    _ => AlertDescription::BadRecordMac,
                };
                return Err(self.fail(alert, error));
            }
        };
        if text.is_empty() {
            self.spend(
                |patience| &mut patience.empty,
                PeerMisbehaved::TooManyEmptyFragments,
            )?;
        } else {
            self.patience.empty = MAX_EMPTY;
        }
        match (kind, &record[text.clone()]) {
            (ContentType::ApplicationData, []) => Ok(None),
            (ContentType::ApplicationData, _) => {
                self.patience.key_updates = MAX_KEY_UPDATES;
                Ok(Some(text))
            }
            (ContentType::Alert, alert) => self.take_alert(alert).map(|()| None),
            (ContentType::Handshake, message) => self.take_handshake(message).map(|()| None),
            _ => Err(self.unexpected(kind)),
        }
    }

    fn take_alert(&mut self, alert: &[u8]) -> Result<(), Error> {
        let &[level, description] = alert else {
            return Err(self.malformed(InvalidMessage::TrailingData("AlertMessagePayload")));
        };
        let description = AlertDescription::from(description);
        let received = Error::AlertReceived(description);
        match (level, self.version) {
            (WARNING | FATAL, _) if description == AlertDescription::CloseNotify => {
                self.is_peer_finished = true;
                Ok(())
            }
            (WARNING, Version::Tls13) if description != AlertDescription::UserCanceled => {
                Err(self.fail(AlertDescription::DecodeError, received))
            }
            (WARNING, _) => {
                let too_many = PeerMisbehaved::TooManyWarningAlertsReceived;
                self.spend(|patience| &mut patience.warnings, too_many)
            }
            (FATAL, _) => {
                // Nothing is said to one that has given up.
                (self.is_finished, self.is_peer_finished) = (true, true);
                Err(received)
            }
            _ => Err(self.fail(AlertDescription::IllegalParameter, received)),
        }
    }

    /// Handles a message of a handshake: the update of keys of TLS 1.3, which is the only
    /// one that a client may send now. Nobody parts its five bytes, and nothing may follow
    /// them under the same keys.
    fn take_handshake(&mut self, message: &[u8]) -> Result<(), Error> {
        let kind = message.first().copied().map(HandshakeType::from);
        match (self.version, message) {
            (Version::Tls13, &[_, 0, 0, 1, request]) if kind == Some(HandshakeType::KeyUpdate) => {
                let too_many = PeerMisbehaved::TooManyKeyUpdateRequests;
                self.spend(|patience| &mut patience.key_updates, too_many)?;
                self.receiving = Direction::new(self.updates.update_rx_secret()?);
                match request {
                    0 => Ok(()),
                    1 if self.is_update_unsent || self.is_finished => Ok(()),
                    1 => {
                        self.is_update_unsent = true;
                        self.update_sending(false)
                    }
                    _ => {
                        let wrong = InvalidMessage::InvalidKeyUpdate;
                        Err(self.fail(AlertDescription::IllegalParameter, wrong))
                    }
                }
            }
            (Version::Tls12, _) if kind == Some(HandshakeType::ClientHello) => {
                let too_many = PeerMisbehaved::TooManyRenegotiationRequests;
                self.spend(|patience| &mut patience.renegotiations, too_many)?;
                self.alert(WARNING, AlertDescription::NoRenegotiation);
                Ok(())
            }
            _ => Err(self.unexpected(ContentType::Handshake)),
        }
    }

    /// Has the client know that other keys follow, and uses them from then on; with
    /// `request`, the client is to do the same.
    fn update_sending(&mut self, request: bool) -> Result<(), Error> {
        if self.version == Version::Tls12 {
            self.finish();
            return Err(Error::EncryptError);
        }
        let message = [HandshakeType::KeyUpdate.into(), 0, 0, 1, request.into()];
        self.seal_message(ContentType::Handshake, &message)?;
        self.sealing = None;
        self.sending = Direction::new(self.updates.update_tx_secret()?);
        Ok(())
    }

    fn seal_message(&mut self, kind: ContentType, message: &[u8]) -> Result<(), Error> {
        let piece = std::iter::once(message);
        let mut cipher = self.sending.cipher(self.version, None)?;
        cipher.seal(kind, piece, message.len(), &mut self.unsent)
    }

    fn alert(&mut self, level: u8, alert: AlertDescription) {
        if !self.is_finished {
            // One that cannot be encrypted is not sent.
            let _ = self.seal_message(ContentType::Alert, &[level, alert.into()]);
        }
    }

    fn malformed(&mut self, wrong: InvalidMessage) -> Error {
        let alert = match wrong {
            InvalidMessage::MessageTooLarge => AlertDescription::RecordOverflow,
            _ => AlertDescription::DecodeError,
        };
        self.fail(alert, wrong)
    }

    fn unexpected(&mut self, kind: ContentType) -> Error {
        let error = Error::InappropriateMessage {
            expect_types: vec![ContentType::ApplicationData],
            got_type: kind,
        };
        self.fail(AlertDescription::UnexpectedMessage, error)
    }

    /// Takes one off what a client may do without use.
    fn spend(
        &mut self,
        left: impl FnOnce(&mut Patience) -> &mut u8,
        too_many: PeerMisbehaved,
    ) -> Result<(), Error> {
        let left = left(&mut self.patience);
        match left.checked_sub(1) {
            Some(fewer) => {
                *left = fewer;
                Ok(())
            }
            None => Err(self.fail(AlertDescription::UnexpectedMessage, too_many)),
        }
    }

    /// Ends both halves, and tells the client why.
    fn fail(&mut self, alert: AlertDescription, error: impl Into<Error>) -> Error {
        self.alert(FATAL, alert);
        (self.is_finished, self.is_peer_finished) = (true, true);
        self.received = Vec::new();
        error.into()
    }
}

#[cfg(test)]
impl Session {
    /// Bytes that its buffers have.
    pub(super) fn buffers(&self) -> usize {
        self.received.capacity() + self.unsent.capacity()
    }

    pub(super) fn set_max_records(&mut self, max: u64) {
        self.max_records = max;
    }

    /// What its client sends with, to send what a client of rustls does not.
    pub(super) fn client_direction(&self) -> (Direction, Version) {
        (self.receiving.duplicate(), self.version)
    }
}

/// Bytes of a record behind its header (RFC 8446, 5.2; RFC 5246, 6.2.3).
fn max_payload(version: Version) -> usize {
    match version {
        Version::Tls12 => MAX_FRAGMENT + 2048,
        Version::Tls13 => MAX_FRAGMENT + 256,
    }
}

/// The header that bytes begin with, if they have a whole one.
fn read_header(bytes: &[u8], version: Version) -> Result<Option<Header>, InvalidMessage> {
    let Some(bytes) = bytes.first_chunk() else {
        return Ok(None);
    };
    let header = Header::read(*bytes);
    if matches!(header.kind, ContentType::Unknown(_)) {
        Err(InvalidMessage::InvalidContentType)
    } else if u16::from(header.version) >> 8 != 3 {
        Err(InvalidMessage::UnknownProtocolVersion)
    } else if header.len > max_payload(version) {
        Err(InvalidMessage::MessageTooLarge)
    } else {
        Ok(Some(header))
    }
}

/// The bytes of slices that are one, from one on and so many.
fn pieces<'p>(
    slices: &'p [IoSlice<'p>],
    mut from: usize,
    mut len: usize,
) -> impl Iterator<Item = &'p [u8]> {
    slices.iter().map(move |slice| {
        let start = from.min(slice.len());
        let count = len.min(slice.len() - start);
        (from, len) = (from - start, len - count);
        &slice[start..start + count]
    })
}
