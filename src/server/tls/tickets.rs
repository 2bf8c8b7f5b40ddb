//! Session tickets: with one, a client that comes back is known again without the work of a
//! whole handshake (RFC 5077, RFC 8446 section 4.6.1).
//!
//! The server keeps nothing of a session; the ticket has it, encrypted. So tickets are good
//! as long as the keys are there: over a reload of certificates, with keys in files over a
//! restart and on other nodes, too. Whoever has a key can read what was said over TLS 1.2
//! sessions that began with its tickets, so keys that nobody looks after do not last.
//!
//! rustls does not verify a client's certificate again when a session is resumed. Tickets are
//! therefore bound to the authorities that were in force: without, whoever was let in without
//! a certificate could come back after one was asked for.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use rustls::pki_types::CertificateDer;
use rustls::server::ProducesTickets;
use sha2::{Digest, Sha256};

/// For how long a ticket is good, and after which own keys make place for new ones.
const LIFETIME: Duration = Duration::from_secs(6 * 3600);

/// How far the clock of another node may be ahead.
const MAX_SKEW: Duration = Duration::from_secs(60);

/// Sizes of a file with a key: nginx's for AES-256 and for AES-128.
pub(super) const KEY_SIZES: [usize; 2] = [80, 48];

/// Of [`TicketKeys::to_bytes`].
const VERSION: u8 = 1;

/// Keys that are kept: one that encrypts, the one before, and one more if the clock was set.
const MAX_OWN_KEYS: usize = 3;

const NAME: usize = 16;
const SECRET: usize = 32;
const NONCE: usize = 12;
const TIME: usize = 8;
/// Of one key as bytes.
const RECORD: usize = NAME + SECRET + TIME;

/// What tickets are encrypted with: the first key encrypts, each decrypts.
#[derive(Clone)]
pub struct TicketKeys(Vec<TicketKey>);

#[derive(Clone)]
struct TicketKey {
    /// Stands at the beginning of its tickets.
    name: [u8; NAME],
    secret: [u8; SECRET],
    /// Seconds since 1970.
    made: u64,
    cipher: LessSafeKey,
}

/// Why bytes are no [`TicketKeys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketKeysError {
    /// They are of another release.
    #[error("keys of session tickets have version {0}, and {VERSION} was expected")]
    Version(u8),
    /// They are cut off, or go on after the end.
    #[error("keys of session tickets have {0} bytes, which is not what they say")]
    Length(usize),
}

/// Nothing of the secrets.
impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|key| hex::encode(key.name));
        f.debug_tuple("TicketKeys")
            .field(&names.collect::<Vec<_>>())
            .finish()
    }
}

impl TicketKeys {
    /// A random one.
    fn random(now: SystemTime) -> Self {
        Self(vec![TicketKey::random(now)])
    }

    /// Those that files have, each of one of [`KEY_SIZES`].
    pub(super) fn of_files(files: &[Vec<u8>]) -> Self {
        Self(
            files
                .iter()
                .map(|bytes| TicketKey::of_file(bytes))
                .collect(),
        )
    }

    /// With a new key if the present one has encrypted for long enough, and without those
    /// whose last ticket is no longer good.
    fn rotated(&self, now: SystemTime) -> Option<Self> {
        let is_due = |key: &TicketKey| key.age(now).is_none_or(|age| age >= LIFETIME);
        if self.0.first().is_some_and(|first| !is_due(first)) {
            return None;
        }
        // One from the future is from before the clock was set.
        let is_needed = |key: &&TicketKey| key.age(now).is_none_or(|age| age < LIFETIME * 2);
        let old = self.0.iter().filter(is_needed).cloned();
        let keys = std::iter::once(TicketKey::random(now)).chain(old);
        Some(Self(keys.take(MAX_OWN_KEYS).collect()))
    }

    /// Writes them down for a successor. They are secret.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for key in &self.0 {
            bytes.extend(key.name);
            bytes.extend(key.secret);
            bytes.extend(key.made.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] has written.
    ///
    /// # Errors
    /// If another release has, or if it is not whole.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TicketKeysError> {
        let fail = TicketKeysError::Length(bytes.len());
        let (version, rest) = bytes.split_first().ok_or(fail)?;
        if *version != VERSION {
            return Err(TicketKeysError::Version(*version));
        }
        let (records, []) = rest.as_chunks::<RECORD>() else {
            return Err(fail);
        };
        if records.is_empty() {
            return Err(fail);
        }
        let keys = records.iter().map(|record| {
            let (name, rest) = record.split_first_chunk().ok_or(fail)?;
            let (secret, made) = rest.split_first_chunk().ok_or(fail)?;
            let made = u64::from_be_bytes(made.try_into().map_err(|_| fail)?);
            Ok(TicketKey::new(*name, *secret, made))
        });
        Ok(Self(keys.collect::<Result<_, _>>()?))
    }

    /// Layout: the key's name, the nonce, and encrypted the time and what the ticket is for.
    fn encrypt(&self, plain: &[u8], context: &[u8; 32], now: SystemTime) -> Option<Vec<u8>> {
        let key = self.0.first()?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = [&seconds(now).to_be_bytes()[..], plain].concat();
        let unique = Nonce::assume_unique_for_key(nonce);
        key.cipher
            .seal_in_place_append_tag(unique, Aad::from(context), &mut sealed)
            .ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    /// `ticket` is whatever a client has sent.
    fn decrypt(&self, ticket: &[u8], context: &[u8; 32], now: SystemTime) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let key = self.0.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key
            .cipher
            .open_in_place(nonce, Aad::from(context), &mut sealed)
            .ok()?;
        let (time, plain) = opened.split_first_chunk::<TIME>()?;
        let (time, now) = (u64::from_be_bytes(*time), seconds(now));
        let is_good = time <= now.saturating_add(MAX_SKEW.as_secs())
            && now.saturating_sub(time) < LIFETIME.as_secs();
        is_good.then(|| plain.to_vec())
    }
}

impl TicketKey {
    fn new(name: [u8; NAME], secret: [u8; SECRET], made: u64) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &secret).expect("a secret is as long as its keys");
        Self {
            name,
            secret,
            made,
            cipher: LessSafeKey::new(key),
        }
    }

    fn random(now: SystemTime) -> Self {
        let (mut name, mut secret) = ([0; NAME], [0; SECRET]);
        for part in [&mut name[..], &mut secret[..]] {
            getrandom::fill(part).expect("the system has random numbers");
        }
        Self::new(name, secret, seconds(now))
    }

    /// The name as in nginx. What it encrypts with is not what nginx does: the same file may
    /// be used for both.
    fn of_file(bytes: &[u8]) -> Self {
        let (name, rest) = bytes.split_at(NAME.min(bytes.len()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, rest);
        let derived = hmac::sign(&key, b"resound session tickets, AES-256-GCM");
        let (mut own_name, mut secret) = ([0; NAME], [0; SECRET]);
        own_name[..name.len()].copy_from_slice(name);
        secret.copy_from_slice(derived.as_ref());
        Self::new(own_name, secret, 0)
    }

    /// `None` for one from the future.
    fn age(&self, now: SystemTime) -> Option<Duration> {
        seconds(now).checked_sub(self.made).map(Duration::from_secs)
    }
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// What tickets are bound to: the authorities of clients' certificates, if any are asked for.
pub(super) fn context(authorities: Option<&[CertificateDer<'_>]>) -> [u8; 32] {
    let Some(authorities) = authorities else {
        return [0; 32];
    };
    // In any order they are the same.
    let mut hashes: Vec<_> = authorities.iter().map(Sha256::digest).collect();
    hashes.sort_unstable();
    Sha256::digest(hashes.concat()).into()
}

/// The server's own keys, which new ones take the place of.
#[derive(Debug)]
pub(in crate::server) struct Tickets(ArcSwap<TicketKeys>);

impl Tickets {
    pub(in crate::server) fn new() -> Self {
        Self(ArcSwap::from_pointee(TicketKeys::random(SystemTime::now())))
    }

    /// For a successor.
    pub(in crate::server) fn keys(&self) -> TicketKeys {
        TicketKeys::clone(&self.0.load())
    }

    /// Goes on with those of a predecessor.
    pub(in crate::server) fn set_keys(&self, keys: TicketKeys) {
        self.0.store(Arc::new(keys));
    }

    /// Makes a new key if it is time.
    pub(super) fn rotate(&self, now: SystemTime) {
        // Not over keys that a predecessor has given meanwhile.
        self.0.rcu(|keys| match keys.rotated(now) {
            Some(rotated) => Arc::new(rotated),
            None => Arc::clone(keys),
        });
    }
}

/// Makes the tickets of one loaded configuration.
#[derive(Debug)]
pub(super) struct Ticketer {
    keys: Keys,
    context: [u8; 32],
}

#[derive(Debug)]
enum Keys {
    Own(Arc<Tickets>),
    Fixed(TicketKeys),
}

impl Ticketer {
    /// With the server's own keys.
    pub(super) fn own(tickets: &Arc<Tickets>, context: [u8; 32]) -> Self {
        let keys = Keys::Own(Arc::clone(tickets));
        Self { keys, context }
    }

    /// With keys of files.
    pub(super) fn fixed(keys: TicketKeys, context: [u8; 32]) -> Self {
        let keys = Keys::Fixed(keys);
        Self { keys, context }
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let now = SystemTime::now();
        match &self.keys {
            Keys::Own(tickets) => tickets.0.load().encrypt(plain, &self.context, now),
            Keys::Fixed(keys) => keys.encrypt(plain, &self.context, now),
        }
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let now = SystemTime::now();
        match &self.keys {
            Keys::Own(tickets) => tickets.0.load().decrypt(cipher, &self.context, now),
            Keys::Fixed(keys) => keys.decrypt(cipher, &self.context, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOBODY: [u8; 32] = [0; 32];

    fn files(bytes: &[u8]) -> TicketKeys {
        TicketKeys::of_files(&[bytes.to_vec()])
    }

    #[test]
    fn a_ticket_is_good_for_six_hours_and_for_whoever_has_the_key() {
        let now = SystemTime::now();
        let (long, short) = ([7; 80], [8; 48]);
        for (key, ours, theirs) in [
            (files(&long), files(&long), files(&short)),
            (files(&short), files(&short), files(&[9; 48])),
        ] {
            let ticket = key.encrypt(b"session", &NOBODY, now).unwrap();
            assert_eq!(ours.decrypt(&ticket, &NOBODY, now).unwrap(), b"session");
            assert_eq!(theirs.decrypt(&ticket, &NOBODY, now), None);
            assert_eq!(ours.decrypt(&ticket, &[1; 32], now), None, "other clients");
            let after = |time| ours.decrypt(&ticket, &NOBODY, now + time).is_some();
            assert!(after(HOUR * 5) && !after(HOUR * 6));
            let before = |seconds| {
                let then = now - Duration::from_secs(seconds);
                ours.decrypt(&ticket, &NOBODY, then).is_some()
            };
            assert!(before(30) && !before(90), "clocks of other nodes differ");
        }
        let both = TicketKeys::of_files(&[short.to_vec(), long.to_vec()]);
        let old = files(&long).encrypt(b"a", &NOBODY, now).unwrap();
        let new = both.encrypt(b"a", &NOBODY, now).unwrap();
        assert!(both.decrypt(&old, &NOBODY, now).is_some());
        assert!(files(&short).decrypt(&new, &NOBODY, now).is_some());
    }

    #[test]
    fn whatever_a_client_sends_is_no_ticket() {
        let now = SystemTime::now();
        let keys = TicketKeys::random(now);
        let ticket = keys.encrypt(b"session", &NOBODY, now).unwrap();
        for length in 0..ticket.len() {
            assert_eq!(keys.decrypt(&ticket[..length], &NOBODY, now), None);
            let mut other = ticket.clone();
            other[length] ^= 1;
            assert_eq!(keys.decrypt(&other, &NOBODY, now), None);
        }
        let longer = [&ticket[..], b"x"].concat();
        assert_eq!(keys.decrypt(&longer, &NOBODY, now), None);
    }

    #[test]
    fn own_keys_encrypt_for_six_hours_and_decrypt_for_twelve() {
        let start = SystemTime::now();
        let mut keys = TicketKeys::random(start);
        let first = keys.encrypt(b"a", &NOBODY, start + HOUR * 5).unwrap();
        assert!(keys.rotated(start + HOUR * 5).is_none());
        keys = keys.rotated(start + HOUR * 6).unwrap();
        assert!(keys.rotated(start + HOUR * 7).is_none());
        let is_good = |keys: &TicketKeys, hour| {
            let now = start + HOUR * hour;
            keys.decrypt(&first, &NOBODY, now).is_some()
        };
        assert!(is_good(&keys, 10));
        let second = keys.encrypt(b"b", &NOBODY, start + HOUR * 6).unwrap();
        assert_ne!(first[..NAME], second[..NAME]);
        keys = keys.rotated(start + HOUR * 12).unwrap();
        assert_eq!(keys.0.len(), 2);
        assert!(!is_good(&keys, 10), "its key is gone");
        // The clock is set back: there is a new key, and tickets stay good.
        for _ in 0..5 {
            keys = keys.rotated(start).unwrap_or(keys);
        }
        assert_eq!(keys.0.len(), 3);
        assert!(keys.rotated(start + HOUR * 100).unwrap().0.len() == 1);
    }

    #[test]
    fn a_successor_reads_what_was_written_down() {
        let now = SystemTime::now();
        let keys = TicketKeys::random(now);
        let keys = keys.rotated(now + LIFETIME).unwrap();
        let bytes = keys.to_bytes();
        let read = TicketKeys::from_bytes(&bytes).unwrap();
        assert_eq!(read.to_bytes(), bytes);
        let ticket = keys.encrypt(b"a", &NOBODY, now).unwrap();
        assert!(read.decrypt(&ticket, &NOBODY, now).is_some());
        assert!(read.rotated(now + LIFETIME).is_none());
        for length in (0..bytes.len()).filter(|length| *length != 1 + RECORD) {
            let fail = TicketKeysError::Length(length);
            assert_eq!(TicketKeys::from_bytes(&bytes[..length]).unwrap_err(), fail);
        }
        let other = TicketKeys::from_bytes(&[&[2], &bytes[1..]].concat());
        assert_eq!(other.unwrap_err(), TicketKeysError::Version(2));
        let shown = format!("{keys:?} {:?}", Ticketer::fixed(keys.clone(), NOBODY));
        assert!(!shown.contains(&hex::encode(keys.0[0].secret)), "{shown}");
    }

    #[test]
    fn the_order_of_authorities_means_nothing() {
        let [a, b] = [1, 2].map(|byte| CertificateDer::from(vec![byte; 10]));
        let both = context(Some(&[a.clone(), b.clone()]));
        assert_eq!(both, context(Some(&[b.clone(), a.clone()])));
        assert_ne!(both, context(Some(&[a])));
        assert_ne!(both, context(Some(&[b])));
        assert_ne!(both, context(None));
    }
}
