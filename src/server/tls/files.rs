//! Reads the files of certificates and keys, and says what is wrong with one and what to do.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::TlsError;
use super::tickets::{KEY_SIZES, TicketKeys};

/// Bytes that a file may have: enough for every authority that browsers know.
const MAX_BYTES: u64 = 1 << 20;

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let fail = |error: String| TlsError::File {
        what,
        path: path.to_owned(),
        error,
    };
    let of_system = |error: io::Error| {
        fail(match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("{error}; the user that the server runs as has to be able to read it")
            }
            _ => error.to_string(),
        })
    };
    let mut bytes = Vec::new();
    let file = open(path).map_err(of_system)?;
    let size = file
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(of_system)?;
    if size as u64 > MAX_BYTES {
        return Err(fail("it has more than 1 MiB".to_owned()));
    }
    Ok(bytes)
}

/// Nothing but a file: a pipe would have whoever reads it wait, for ever if nobody writes.
fn open(path: &Path) -> io::Result<File> {
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options()
        .read(true)
        .custom_flags(at_once)
        .open(path)?;
    let found = file.metadata()?;
    if found.is_dir() {
        Err(Errno::ISDIR.into())
    } else if found.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no file"))
    }
}

/// What is wrong with text that is not quite PEM.
fn not_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "it ends in the middle of a PEM section; is it cut off?".to_owned()
        }
        error => error.to_string(),
    }
}

/// The certificates of a file that `server.tls_{what}` names, at least one.
pub(super) fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |error: String| TlsError::File {
        what,
        path: path.to_owned(),
        error,
    };
    let bytes = read(what, path)?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| fail(not_pem(&error)))?;
    if !found.is_empty() {
        return Ok(found);
    }
    let text = String::from_utf8_lossy(&bytes);
    let more = if text.contains("PRIVATE KEY-----") && what == "cert" {
        ", but a private key; are server.tls_cert and server.tls_key exchanged?".to_owned()
    } else if text.contains("-----BEGIN CERTIFICATE REQUEST")
        || text.contains("-----BEGIN NEW CERTIFICATE REQUEST")
    {
        ", but a request for one; the authority answers it with the certificate".to_owned()
    } else if is_der(&bytes) {
        let path = path.display();
        format!("; it looks like DER: openssl x509 -inform DER -in {path} -out cert.pem")
    } else {
        String::new()
    };
    Err(fail(format!("it has no PEM certificate{more}")))
}

/// The private key of a file.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let fail = |error: String| TlsError::File {
        what: "key",
        path: path.to_owned(),
        error,
    };
    let bytes = read("key", path)?;
    let text = String::from_utf8_lossy(&bytes);
    // The older form keeps its label and says so in a header.
    let is_encrypted = "Proc-Type: 4,ENCRYPTED";
    let found = match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) if !text.contains(is_encrypted) => return Ok(key),
        found => found,
    };
    let name = path.display();
    Err(fail(
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY") || text.contains(is_encrypted) {
            format!(
                "the private key is encrypted, and nobody can be asked for its passphrase; decrypt it: \
                 openssl pkey -in {name} -out key.pem && chmod 600 key.pem"
            )
        } else if text.contains("-----BEGIN CERTIFICATE-----") {
            "it has no PEM private key, but a certificate; are server.tls_cert and server.tls_key exchanged?"
                .to_owned()
        } else if is_der(&bytes) {
            format!(
                "it has no PEM private key; it looks like DER: openssl pkey -inform DER -in {name} -out key.pem"
            )
        } else {
            match found {
                Ok(_) | Err(pem::Error::NoItemsFound) => "it has no PEM private key".to_owned(),
                Err(other) => not_pem(&other),
            }
        },
    ))
}

/// Whether a file begins as every certificate and key does that is not written as text.
fn is_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x81..=0x84, ..])
}

/// Who may sign the certificates of clients.
pub(super) struct Authorities {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
}

impl Authorities {
    /// Reads them from a file.
    pub(super) fn read(path: &Path) -> Result<Self, TlsError> {
        let fail = |error: String| TlsError::File {
            what: "client_ca",
            path: path.to_owned(),
            error,
        };
        let certificates = certificates("client_ca", path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots
                .add(certificate.clone())
                .map_err(|error| fail(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| fail(error.to_string()))?;
        Ok(Self {
            certificates,
            verifier,
        })
    }
}

/// The keys of session tickets, one in each file; the first encrypts.
pub(super) fn ticket_keys(paths: &[PathBuf]) -> Result<TicketKeys, TlsError> {
    let keys = paths.iter().map(|path| {
        let bytes = read("ticket_keys", path)?;
        if KEY_SIZES.contains(&bytes.len()) {
            return Ok(bytes);
        }
        Err(TlsError::File {
            what: "ticket_keys",
            path: path.clone(),
            error: format!(
                "it has {} bytes; expected 80 or 48 random ones: openssl rand 80 > ticket.key",
                bytes.len()
            ),
        })
    });
    let keys: Vec<Vec<u8>> = keys.collect::<Result<_, _>>()?;
    Ok(TicketKeys::of_files(&keys))
}
