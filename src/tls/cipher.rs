//! Encrypts and decrypts single records.
//!
//! Expanded, a key takes 544 bytes; expanding it takes a fifth of a microsecond. So one is
//! kept only as long as much may be encrypted with it: of a connection that sends, until it
//! rests.

use std::ops::{Deref, Range};

use ring::aead::{self, Aad, LessSafeKey, UnboundKey};
use rustls::crypto::cipher::{AeadKey, Iv, NONCE_LEN, Nonce, make_tls12_aad, make_tls13_aad};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, PeerMisbehaved, ProtocolVersion};

/// Bytes that a record may hold.
pub(super) const MAX_FRAGMENT: usize = 16 * 1024;

/// Bytes of a record's header.
pub(super) const HEADER: usize = 5;

/// What a record takes more than it holds, at most: its header, the nonce of TLS 1.2, the
/// type of TLS 1.3, and the tag.
pub(super) const MAX_OVERHEAD: usize = HEADER + EXPLICIT_NONCE + 1 + TAG;

const TAG: usize = 16;
const EXPLICIT_NONCE: usize = 8;

/// The version that every record says.
const RECORD_VERSION: ProtocolVersion = ProtocolVersion::TLSv1_2;

/// How records look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// TLS 1.2, whose type of content is in the clear.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What a record says of itself.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: ContentType,
    pub(super) version: ProtocolVersion,
    /// Bytes that follow.
    pub(super) len: usize,
}

/// Keys of one direction, and the number of its next record.
pub(super) struct Direction {
    secrets: ConnectionTrafficSecrets,
    pub(super) sequence: u64,
}

/// The expanded key of a direction, or none. It does not outlive the direction.
pub(super) type Kept = Option<Box<LessSafeKey>>;

/// An expanded key.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack, for a moment"
)]
enum Key<'a> {
    Kept(&'a LessSafeKey),
    Own(LessSafeKey),
}

/// A direction whose key is expanded.
pub(super) struct Cipher<'a> {
    key: Key<'a>,
    iv: &'a Iv,
    sequence: &'a mut u64,
    version: Version,
    /// Bytes of the nonce that each record carries.
    explicit: usize,
}

impl Header {
    pub(super) fn read(bytes: [u8; HEADER]) -> Self {
        let [kind, major, minor, high, low] = bytes;
        Self {
            kind: ContentType::from(kind),
            version: ProtocolVersion::from(u16::from_be_bytes([major, minor])),
            len: usize::from(u16::from_be_bytes([high, low])),
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        out.push(self.kind.into());
        out.extend_from_slice(&u16::from(self.version).to_be_bytes());
        // No record of ours is longer than `MAX_FRAGMENT + MAX_OVERHEAD`.
        out.extend_from_slice(&(self.len as u16).to_be_bytes());
    }
}

impl Direction {
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        Self { secrets, sequence }
    }

    /// The same keys again. Of the ciphers, only AES-256 can be had twice.
    #[cfg(test)]
    pub(super) fn duplicate(&self) -> Self {
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = &self.secrets else {
            panic!("another cipher");
        };
        let key: [u8; 32] = key.as_ref().try_into().unwrap();
        let secrets = ConnectionTrafficSecrets::Aes256Gcm {
            key: key.into(),
            iv: Iv::copy(iv.as_ref()),
        };
        Self::new((self.sequence, secrets))
    }

    /// Expands the key, unless it was kept, and keeps it if there is a place for it.
    pub(super) fn cipher<'a>(
        &'a mut self,
        version: Version,
        place: Option<&'a mut Kept>,
    ) -> Result<Cipher<'a>, Error> {
        let (algorithm, key, iv): (_, &AeadKey, _) = match &self.secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&aead::CHACHA20_POLY1305, key, iv)
            }
            _ => return Err(Error::General("an unknown cipher".to_owned())),
        };
        let expand = || {
            UnboundKey::new(algorithm, key.as_ref())
                .map(LessSafeKey::new)
                .map_err(|_| Error::General("a key of another cipher".to_owned()))
        };
        let key = match place {
            Some(Some(key)) => Key::Kept(key),
            Some(kept @ None) => Key::Kept(kept.insert(Box::new(expand()?))),
            None => Key::Own(expand()?),
        };
        let is_explicit = version == Version::Tls12 && algorithm != &aead::CHACHA20_POLY1305;
        Ok(Cipher {
            key,
            iv,
            sequence: &mut self.sequence,
            version,
            explicit: if is_explicit { EXPLICIT_NONCE } else { 0 },
        })
    }
}

impl Deref for Key<'_> {
    type Target = LessSafeKey;

    fn deref(&self) -> &LessSafeKey {
        match self {
            Self::Kept(key) => key,
            Self::Own(key) => key,
        }
    }
}

impl Cipher<'_> {
    /// The number of the next record.
    pub(super) fn sequence(&self) -> u64 {
        *self.sequence
    }

    /// Appends a record that holds `len` bytes, which are those of `plain`.
    pub(super) fn seal<'p>(
        &mut self,
        kind: ContentType,
        plain: impl Iterator<Item = &'p [u8]>,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let nonce = Nonce::new(self.iv, *self.sequence).0;
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let before = out.len();
        let sealed = match self.version {
            Version::Tls12 => {
                let header = Header {
                    kind,
                    version: RECORD_VERSION,
                    len: self.explicit + len + TAG,
                };
                header.write(out);
                out.extend_from_slice(&nonce.as_ref()[NONCE_LEN - self.explicit..]);
                plain.for_each(|piece| out.extend_from_slice(piece));
                let aad = make_tls12_aad(*self.sequence, kind, RECORD_VERSION, len);
                let text = &mut out[before + HEADER + self.explicit..];
                self.key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
            }
            Version::Tls13 => {
                let header = Header {
                    kind: ContentType::ApplicationData,
                    version: RECORD_VERSION,
                    len: len + 1 + TAG,
                };
                header.write(out);
                plain.for_each(|piece| out.extend_from_slice(piece));
                out.push(kind.into());
                let aad = make_tls13_aad(header.len);
                let text = &mut out[before + HEADER..];
                self.key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
            }
        };
        let Ok(tag) = sealed else {
            // Nothing that was not encrypted may be left.
            out.truncate(before);
            return Err(Error::EncryptError);
        };
        out.extend_from_slice(tag.as_ref());
        *self.sequence += 1;
        Ok(())
    }

    /// Decrypts what follows a header. Returns its type, and where its text is.
    pub(super) fn open(
        &mut self,
        header: Header,
        record: &mut [u8],
    ) -> Result<(ContentType, Range<usize>), Error> {
        let Some(len) = record.len().checked_sub(self.explicit + TAG) else {
            return Err(Error::DecryptError);
        };
        let mut nonce = Nonce::new(self.iv, *self.sequence).0;
        let (explicit, text) = record.split_at_mut(self.explicit);
        nonce[NONCE_LEN - self.explicit..].copy_from_slice(explicit);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let opened = match self.version {
            Version::Tls12 => {
                let aad = make_tls12_aad(*self.sequence, header.kind, header.version, len);
                self.key.open_in_place(nonce, Aad::from(aad), text)
            }
            Version::Tls13 => {
                let aad = make_tls13_aad(header.len);
                self.key.open_in_place(nonce, Aad::from(aad), text)
            }
        };
        let text = opened.map_err(|_| Error::DecryptError)?;
        *self.sequence += 1;
        let (kind, len) = match self.version {
            Version::Tls12 => (header.kind, text.len()),
            Version::Tls13 => unpadded(text)?,
        };
        if len > MAX_FRAGMENT {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok((kind, self.explicit..self.explicit + len))
    }
}

/// The type of content of TLS 1.3, which comes before any number of zeros, and the number
/// of bytes before it.
fn unpadded(text: &[u8]) -> Result<(ContentType, usize), Error> {
    if text.len() > MAX_FRAGMENT + 1 {
        return Err(Error::PeerSentOversizedRecord);
    }
    let at = text.iter().rposition(|byte| *byte != 0);
    let at = at.ok_or(PeerMisbehaved::IllegalTlsInnerPlaintext)?;
    Ok((ContentType::from(text[at]), at))
}
