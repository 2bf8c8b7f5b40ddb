//! Against clients of rustls.

mod tcp;

use std::io::{IoSlice, Read, Write};
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ContentType, Error, InvalidMessage,
    RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};

use super::cipher::{Direction, Version};
use super::handshake::Handshake;
use super::{Acceptor, Session};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// A server's acceptor, and what its clients need.
struct Ends {
    acceptor: Acceptor,
    roots: RootCertStore,
}

fn ends() -> Ends {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    Ends {
        acceptor: Acceptor::new(config, false),
        roots,
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Ends {
    fn client_config(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        self.client_config_with(version, provider())
    }

    fn client_config_with(
        &self,
        version: &'static SupportedProtocolVersion,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        Arc::new(config)
    }

    fn pair(&self, version: &'static SupportedProtocolVersion) -> Pair {
        self.pair_with(self.client_config(version))
    }

    /// A client and a server after their handshake.
    fn pair_with(&self, config: Arc<ClientConfig>) -> Pair {
        let mut client = client(config);
        let mut handshake = Handshake::new(Arc::clone(&self.acceptor.config)).unwrap();
        loop {
            handshake.incoming.extend(written(&mut client));
            let is_complete = handshake.advance().unwrap();
            receive(&mut client, &std::mem::take(&mut handshake.outgoing));
            if is_complete {
                break;
            }
        }
        let (session, early) = handshake.finish().unwrap();
        assert!(early.is_empty() && !client.is_handshaking());
        let server = Box::new(session);
        Pair { client, server }
    }
}

struct Pair {
    client: ClientConnection,
    server: Box<Session>,
}

fn client(config: Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap()
}

/// What a client has to send.
fn written(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn receive(client: &mut ClientConnection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
    }
}

impl Pair {
    /// Has the client say something. Returns it encrypted.
    fn client_says(&mut self, plain: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(plain).unwrap();
        written(&mut self.client)
    }

    /// Has the server receive bytes. Returns them decrypted.
    fn server_gets(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let mut input = &mut bytes[..];
        let mut plain = Vec::new();
        while let Some(text) = self.server.open(&mut input)? {
            assert!(!text.is_empty());
            plain.extend_from_slice(&text);
        }
        assert!(input.is_empty());
        Ok(plain)
    }

    /// Has the client receive what the server has to send. Returns it decrypted.
    fn client_gets(&mut self) -> Vec<u8> {
        let bytes = self.server.unsent().to_vec();
        self.server.advance(bytes.len());
        let mut bytes = &bytes[..];
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            self.client.process_new_packets().unwrap();
            // Until there is nothing more, or the end.
            let _ = self.client.reader().read_to_end(&mut plain);
        }
        plain
    }

    fn server_says(&mut self, plain: &[u8]) -> usize {
        self.server
            .seal(&[IoSlice::new(plain)], usize::MAX)
            .unwrap()
    }

    fn expect_idle(&self) {
        assert_eq!(self.server.buffers(), 0);
    }

    /// Both understand each other.
    fn expect_alive(&mut self) {
        let bytes = self.client_says(b"hello");
        assert_eq!(self.server_gets(bytes).unwrap(), b"hello");
        assert_eq!(self.server_says(b"welcome"), 7);
        assert_eq!(self.client_gets(), b"welcome");
        self.expect_idle();
    }

    /// The server has refused this, and the client is told so.
    fn expect_refused(&mut self, bytes: Vec<u8>, alert: AlertDescription) -> Error {
        let error = self.server_gets(bytes).unwrap_err();
        let sent = self.server.unsent().to_vec();
        self.client.read_tls(&mut &sent[..]).unwrap();
        let told = self.client.process_new_packets().unwrap_err();
        assert_eq!(told, Error::AlertReceived(alert));
        assert!(self.server.is_peer_finished());
        assert!(self.server.seal(&[IoSlice::new(b"x")], 1).is_err());
        error
    }
}

/// A client that sends what one of rustls does not.
struct Peer(Direction, Version);

impl Peer {
    fn of(pair: &mut Pair) -> Self {
        let (direction, version) = pair.server.client_direction();
        Self(direction, version)
    }

    fn seal(&mut self, kind: u8, text: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        let mut cipher = self.0.cipher(self.1, None).unwrap();
        let pieces = std::iter::once(text);
        cipher
            .seal(ContentType::from(kind), pieces, text.len(), &mut record)
            .unwrap();
        record
    }
}

/// Bytes that differ.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * at) >> 7) as u8).collect()
}

#[test]
fn a_session_is_small_and_holds_nothing_while_idle() {
    assert!(size_of::<Session>() <= 768, "{}", size_of::<Session>());
    for version in VERSIONS {
        let mut pair = ends().pair(version);
        pair.expect_idle();
        for _ in 0..3 {
            pair.expect_alive();
            pair.server.rest();
        }
    }
}

#[test]
fn every_cipher_is_understood_in_both_directions() {
    let ends = ends();
    let suites = provider().cipher_suites.clone();
    let mut tried = 0;
    for suite in suites {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites = vec![suite];
        let version = match suite {
            rustls::SupportedCipherSuite::Tls12(_) => &version::TLS12,
            rustls::SupportedCipherSuite::Tls13(_) => &version::TLS13,
        };
        // The certificate has an elliptic curve's key.
        if format!("{:?}", suite.suite()).contains("RSA") {
            continue;
        }
        let mut pair = ends.pair_with(ends.client_config_with(version, Arc::new(provider)));
        pair.expect_alive();
        let long = text(100_000);
        let bytes = pair.client_says(&long[..50_000]);
        assert_eq!(pair.server_gets(bytes).unwrap(), &long[..50_000]);
        assert_eq!(pair.server_says(&long), long.len());
        assert_eq!(pair.client_gets(), long);
        tried += 1;
    }
    assert_eq!(tried, 6);
}

#[test]
fn records_that_come_in_pieces_are_put_together() {
    for version in VERSIONS {
        let mut pair = ends().pair(version);
        let long = text(60_000);
        for size in [1, 2, 4, 5, 6, 100, 4096, 16_383, 16_500, 40_000] {
            let bytes = pair.client_says(&long);
            let mut plain = Vec::new();
            for piece in bytes.chunks(size) {
                plain.extend(pair.server_gets(piece.to_vec()).unwrap());
                let held = pair.server.buffers();
                assert!(held < 40_000, "{held}");
            }
            assert_eq!(plain, long, "{size}");
            pair.expect_idle();
        }
    }
}

#[test]
fn what_is_sent_is_packed_into_few_records_and_sent_in_pieces() {
    for version in VERSIONS {
        let mut pair = ends().pair(version);
        let long = text(50_000);
        let slices: Vec<_> = long.chunks(777).map(IoSlice::new).collect();
        assert_eq!(pair.server.seal(&slices, 40_000).unwrap(), 40_000);
        let sealed = pair.server.unsent().len();
        assert!(
            (40_000..40_100).contains(&sealed),
            "three records: {sealed}"
        );
        let mut plain = Vec::new();
        while !pair.server.unsent().is_empty() {
            assert_eq!(pair.server.unsent_cost(), sealed);
            let count = pair.server.unsent().len().min(999);
            let mut piece = &pair.server.unsent()[..count];
            pair.client.read_tls(&mut piece).unwrap();
            pair.client.process_new_packets().unwrap();
            let _ = pair.client.reader().read_to_end(&mut plain);
            pair.server.advance(count);
        }
        assert_eq!(plain, &long[..40_000]);
        pair.expect_idle();
    }
}

#[test]
fn close_notify_ends_each_half() {
    for version in VERSIONS {
        let mut pair = ends().pair(version);
        let mut bytes = pair.client_says(b"last words");
        pair.client.send_close_notify();
        bytes.extend(written(&mut pair.client));
        bytes.extend_from_slice(b"whatever");
        assert_eq!(pair.server_gets(bytes).unwrap(), b"last words");
        assert!(pair.server.is_peer_finished());
        assert_eq!(pair.server_gets(b"more".to_vec()).unwrap(), b"");
        // Our half is still open.
        pair.server_says(b"bye");
        pair.server.finish();
        pair.server.finish();
        assert!(pair.server.seal(&[IoSlice::new(b"x")], 1).is_err());
        assert_eq!(pair.client_gets(), b"bye");
        assert_eq!(pair.client.reader().read(&mut [0; 9]).unwrap(), 0);
        pair.expect_idle();
    }
}

#[test]
fn keys_are_updated_when_the_client_wants_it() {
    let mut pair = ends().pair(&version::TLS13);
    for _ in 0..40 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.expect_alive();
    }
    // Many at once are answered once.
    let mut bytes = Vec::new();
    for _ in 0..10 {
        pair.client.refresh_traffic_keys().unwrap();
        bytes.extend(written(&mut pair.client));
    }
    assert_eq!(pair.server_gets(bytes).unwrap(), b"");
    assert!(pair.server.unsent().len() < 30);
    assert_eq!(pair.client_gets(), b"");
    pair.expect_alive();
}

#[test]
fn too_many_updates_of_keys_are_refused() {
    let mut pair = ends().pair(&version::TLS13);
    let mut bytes = Vec::new();
    for _ in 0..33 {
        pair.client.refresh_traffic_keys().unwrap();
        bytes.extend(written(&mut pair.client));
    }
    let too_many = rustls::PeerMisbehaved::TooManyKeyUpdateRequests;
    let error = pair.expect_refused(bytes, AlertDescription::UnexpectedMessage);
    assert_eq!(error, Error::PeerMisbehaved(too_many));
}

#[test]
fn keys_are_updated_before_they_are_used_up() {
    let mut pair = ends().pair(&version::TLS13);
    pair.server.set_max_records(3);
    let long = text(200_000);
    assert_eq!(pair.server_says(&long), long.len());
    assert_eq!(pair.client_gets(), long);
    // It was asked to do the same.
    pair.expect_alive();
    let mut pair = ends().pair(&version::TLS12);
    pair.server.set_max_records(3);
    assert!(
        pair.server
            .seal(&[IoSlice::new(&long)], usize::MAX)
            .is_err()
    );
    pair.client_gets();
    assert_eq!(pair.client.reader().read(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn what_was_tampered_with_is_refused_with_an_alert() {
    for version in VERSIONS {
        for at in [5, 20, 30] {
            let mut pair = ends().pair(version);
            let mut bytes = pair.client_says(&text(100));
            bytes[at] ^= 1;
            let error = pair.expect_refused(bytes, AlertDescription::BadRecordMac);
            assert_eq!(error, Error::DecryptError);
        }
        // Twice the same, or in another order.
        let mut pair = ends().pair(version);
        let first = pair.client_says(b"first");
        let second = pair.client_says(b"second");
        assert_eq!(pair.server_gets(first.clone()).unwrap(), b"first");
        assert_eq!(pair.server_gets(second).unwrap(), b"second");
        pair.expect_refused(first, AlertDescription::BadRecordMac);
    }
}

#[test]
fn what_is_no_record_is_refused_at_its_header() {
    let cases: [(&[u8], _); 3] = [
        (b"GET / HTTP/1.1\r\n", InvalidMessage::InvalidContentType),
        (&[23, 9, 3, 0, 30], InvalidMessage::UnknownProtocolVersion),
        (&[23, 3, 3, 0xff, 0xff], InvalidMessage::MessageTooLarge),
    ];
    for version in VERSIONS {
        for (bytes, expected) in &cases {
            for size in [1, 100] {
                let mut pair = ends().pair(version);
                let got = bytes
                    .chunks(size)
                    .map(|piece| pair.server_gets(piece.to_vec()));
                let error = got.flat_map(Result::err).next().unwrap();
                assert_eq!(error, Error::InvalidMessage(*expected));
                // The alert.
                assert!(pair.server.buffers() < 64);
            }
        }
    }
}

#[test]
fn records_in_the_clear_are_refused() {
    for (record, alert) in [
        (&[21, 3, 3, 0, 2, 1, 0][..], "an alert"),
        (&[20, 3, 3, 0, 1, 1][..], "a change of the cipher"),
        (&[22, 3, 3, 0, 5, 24, 0, 0, 1, 0][..], "a handshake"),
    ] {
        for version in VERSIONS {
            let mut pair = ends().pair(version);
            assert!(pair.server_gets(record.to_vec()).is_err(), "{alert}");
            assert!(!pair.server.unsent().is_empty());
        }
    }
}

#[test]
fn endless_empty_records_are_refused_and_a_few_are_not() {
    for version in VERSIONS {
        let mut pair = ends().pair(version);
        let mut other = Peer::of(&mut pair);
        for _ in 0..3 {
            let bytes: Vec<u8> = (0..32).flat_map(|_| other.seal(23, b"")).collect();
            assert_eq!(pair.server_gets(bytes).unwrap(), b"");
            assert_eq!(pair.server_gets(other.seal(23, b"x")).unwrap(), b"x");
        }
        let bytes: Vec<u8> = (0..33).flat_map(|_| other.seal(23, b"")).collect();
        pair.expect_refused(bytes, AlertDescription::UnexpectedMessage);
    }
}

#[test]
fn alerts_and_messages_of_a_handshake_are_answered_as_the_version_has_it() {
    use AlertDescription::{DecodeError, IllegalParameter, UnexpectedMessage};
    let refused: [(_, u8, &[u8], _); 10] = [
        (&version::TLS13, 21, &[1, 90, 0], DecodeError),
        (&version::TLS13, 21, &[1, 100], DecodeError),
        (&version::TLS13, 21, &[3, 100], IllegalParameter),
        (&version::TLS13, 22, &[24, 0, 0, 1, 2], IllegalParameter),
        (
            &version::TLS13,
            22,
            &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
            UnexpectedMessage,
        ),
        (&version::TLS13, 22, &[1, 0, 0, 0], UnexpectedMessage),
        (&version::TLS13, 20, &[1], UnexpectedMessage),
        (&version::TLS12, 22, &[24, 0, 0, 1, 0], UnexpectedMessage),
        (&version::TLS12, 20, &[1], UnexpectedMessage),
        (&version::TLS12, 21, &[], DecodeError),
    ];
    for (version, kind, message, alert) in refused {
        let mut pair = ends().pair(version);
        let bytes = Peer::of(&mut pair).seal(kind, message);
        pair.expect_refused(bytes, alert);
    }
    // Warnings, as old versions of some libraries send them.
    for version in VERSIONS {
        let mut pair = ends().pair(version);
        let bytes = Peer::of(&mut pair).seal(21, &[1, 90]);
        assert_eq!(pair.server_gets(bytes).unwrap(), b"");
        pair.expect_idle();
        // One that has given up is told nothing.
        let mut pair = ends().pair(version);
        let bytes = Peer::of(&mut pair).seal(21, &[2, 40]);
        let error = pair.server_gets(bytes).unwrap_err();
        assert_eq!(
            error,
            Error::AlertReceived(AlertDescription::HandshakeFailure)
        );
        assert!(pair.server.unsent().is_empty() && pair.server.is_peer_finished());
    }
    // Asked to negotiate again, it says no, and once only.
    let mut pair = ends().pair(&version::TLS12);
    let mut other = Peer::of(&mut pair);
    assert_eq!(
        pair.server_gets(other.seal(22, &[1, 0, 0, 0])).unwrap(),
        b""
    );
    assert_eq!(pair.server.unsent().len(), 31);
    assert!(pair.server_gets(other.seal(22, &[1, 0, 0, 0])).is_err());
}

/// Records of every kind with all sorts of contents, encrypted or not, whole or not: nothing
/// of it panics, makes data of what is none, or goes on after an error.
#[test]
fn whatever_a_client_sends_is_taken_or_refused() {
    let seed = std::cell::Cell::new(0x9e37_79b9_7f4a_7c15_u64);
    let random = |below: u64| {
        let mut next = seed.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        seed.set(next);
        next % below
    };
    let ends = ends();
    let mut refused = 0;
    for round in 0..600 {
        let mut pair = ends.pair(VERSIONS[round % 2]);
        let mut peer = Peer::of(&mut pair);
        let mut said = Vec::new();
        for _ in 0..8 {
            let len = usize::try_from(random(8)).unwrap();
            let text: Vec<u8> = (0..len)
                .map(|_| u8::try_from(random(32)).unwrap())
                .collect();
            // Mostly data, and all other kinds that there are and some that there are not.
            let kind = u8::try_from(18 + random(12)).unwrap();
            let kind = if random(3) > 0 { 23 } else { kind };
            let mut bytes = peer.seal(kind, &text);
            let is_harmed = random(10) == 0;
            if is_harmed {
                let at = usize::try_from(random(bytes.len() as u64)).unwrap();
                // The minor version is looked at by nobody (RFC 8446, 5.1).
                let at = if at == 2 { 3 } else { at };
                bytes[at] ^= 1 << random(8);
            }
            if kind == 23 && !is_harmed {
                said.extend(text);
            }
            let mut got = Vec::new();
            let pieces = bytes.chunks(1 + usize::try_from(random(40)).unwrap());
            let fails = pieces.map(|piece| pair.server_gets(piece.to_vec()));
            let error = fails
                .map(|taken| taken.map(|data| got.extend(data)))
                .find(Result::is_err);
            assert!(said.starts_with(&got));
            said.drain(..got.len());
            if error.is_some() || pair.server.is_peer_finished() {
                refused += 1;
                assert_eq!(
                    pair.server_gets(peer.seal(23, b"more")).ok(),
                    Some(Vec::new())
                );
                assert!(pair.server.buffers() < 200, "alerts");
                break;
            }
        }
    }
    assert!((100..600).contains(&refused), "{refused}");
}
