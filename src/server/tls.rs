//! Loads a certificate and its key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::TlsAcceptor;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::config::TlsFiles;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or has no PEM of its kind.
    #[error("server.tls_{what}: cannot use {}: {error}", path.display())]
    File {
        /// `cert` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// Certificate and key do not belong together.
    #[error(
        "server.tls_cert and server.tls_key: the key of {} is not that of the first certificate in {}; \
         the server's own certificate comes first, then those it is signed with", key.display(), cert.display()
    )]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// Certificate and key cannot be used.
    #[error("server.tls_cert and server.tls_key: {0}")]
    Pair(rustls::Error),
}

/// What TLS is offered with.
pub(super) struct Loaded {
    pub(super) acceptor: TlsAcceptor,
    /// What whoever runs it should know of the certificates.
    pub(super) warnings: Vec<String>,
}

pub(super) fn load(files: &TlsFiles) -> Result<Loaded, TlsError> {
    let certificates = certificates(&files.cert)?;
    let key = key(&files.key)?;
    let now = SystemTime::now();
    let warnings = certificates
        .iter()
        .enumerate()
        .filter_map(|(index, der)| {
            let problem = out_of_date(der, now)?;
            let name = match index {
                0 => "the certificate".to_owned(),
                _ => format!("certificate {} (of an authority)", index + 1),
            };
            let path = files.cert.display();
            Some(format!("server.tls_cert: {name} in {path} {problem}"))
        })
        .collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(certificates, key)
        })
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
                cert: files.cert.clone(),
                key: files.key.clone(),
            },
            other => TlsError::Pair(other),
        })?;
    Ok(Loaded {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        warnings,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |error: String| TlsError::File {
        what: "cert",
        path: path.to_owned(),
        error,
    };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| fail(error.to_string()))?;
    if !found.is_empty() {
        return Ok(found);
    }
    let text = String::from_utf8_lossy(&bytes);
    let more = if text.contains("PRIVATE KEY-----") {
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

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let fail = |error: String| TlsError::File {
        what: "key",
        path: path.to_owned(),
        error,
    };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
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
                Err(other) => other.to_string(),
            }
        },
    ))
}

/// Whether a file begins as every certificate and key does that is not written as text.
fn is_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x81..=0x84, ..])
}

/// Says that a certificate is not valid now. One that cannot be read for this is not judged.
fn out_of_date(der: &CertificateDer<'_>, now: SystemTime) -> Option<String> {
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    let certificate = Certificate::from_der(der).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let (begin, end) = (validity.not_before, validity.not_after);
    if end.to_unix_duration() < now {
        let ended = end.to_date_time();
        Some(format!(
            "expired at {ended}: clients refuse it; renew it and restart"
        ))
    } else if begin.to_unix_duration() > now {
        let begins = begin.to_date_time();
        Some(format!(
            "is valid only from {begins}: clients refuse it until then; is the clock of this machine right?"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    struct Made {
        dir: tempfile::TempDir,
        files: TlsFiles,
    }

    /// Writes these texts as the two files.
    fn made(cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Made {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            cert: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        std::fs::write(&files.cert, cert).unwrap();
        std::fs::write(&files.key, key).unwrap();
        Made { dir, files }
    }

    /// A certificate that is valid in these years, and its key.
    fn pair(first: i32, last: i32) -> (String, KeyPair) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(first, 1, 1);
        params.not_after = date_time_ymd(last, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key)
    }

    #[test]
    fn certificates_that_are_not_valid_now_are_warned_of() {
        let (valid, key) = pair(2020, 2999);
        let (old, old_key) = pair(2019, 2020);
        let (future, future_key) = pair(2998, 2999);
        for (cert, key, expected) in [
            (valid.clone(), &key, None),
            (
                old.clone(),
                &old_key,
                Some("cert.pem expired at 2020-01-01T00:00:00Z: clients refuse it"),
            ),
            (
                future,
                &future_key,
                Some("cert.pem is valid only from 2998-01-01T00:00:00Z"),
            ),
            (
                valid + &old,
                &key,
                Some("certificate 2 (of an authority) in"),
            ),
        ] {
            let made = made(cert, key.serialize_pem());
            let warnings = load(&made.files).ok().unwrap().warnings;
            assert_eq!(
                warnings.len(),
                usize::from(expected.is_some()),
                "{warnings:?}"
            );
            if let Some(text) = expected {
                assert!(warnings[0].contains(text), "{warnings:?}");
            }
            drop(made.dir);
        }
    }

    fn expect_refused(cases: &[(&[u8], &[u8], &[&str])]) {
        for (cert, key, texts) in cases {
            let error = load(&made(cert, key).files).err().unwrap().to_string();
            for text in *texts {
                assert!(error.contains(text), "{text}: {error}");
            }
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_reported_with_what_to_do() {
        let (cert, key) = pair(2020, 2999);
        let (other, _) = pair(2020, 2999);
        let pem = key.serialize_pem();
        let request =
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
        let exchanged = "no PEM certificate, but a private key; are server.tls_cert and server.tls_key exchanged?";
        let der = "no PEM certificate; it looks like DER: openssl x509";
        let mismatch = "key.pem is not that of the first certificate in ";
        let one: CertificateDer<'_> = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        expect_refused(&[
            (
                pem.as_bytes(),
                pem.as_bytes(),
                &["server.tls_cert: cannot use ", exchanged],
            ),
            (other.as_bytes(), pem.as_bytes(), &[mismatch, "comes first"]),
            // In the wrong order.
            (
                (other.clone() + &cert).as_bytes(),
                pem.as_bytes(),
                &[mismatch],
            ),
            (&one, pem.as_bytes(), &[der]),
            (
                request.as_bytes(),
                pem.as_bytes(),
                &["no PEM certificate, but a request for one"],
            ),
            (
                b"",
                pem.as_bytes(),
                &["cert.pem: it has no PEM certificate"],
            ),
        ]);
    }

    #[test]
    fn a_key_that_cannot_be_used_is_reported_with_what_to_do() {
        let (cert, key) = pair(2020, 2999);
        let cert = cert.as_bytes();
        let pkcs8 = key
            .serialize_pem()
            .replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                     -----END RSA PRIVATE KEY-----\n";
        let encrypted = "key.pem: the private key is encrypted";
        let exchanged = "no PEM private key, but a certificate; are server.tls_cert and server.tls_key exchanged?";
        let der = "no PEM private key; it looks like DER: openssl pkey";
        expect_refused(&[
            (
                cert,
                pkcs8.as_bytes(),
                &[
                    "server.tls_key: cannot use ",
                    encrypted,
                    "openssl pkey -in ",
                ],
            ),
            (cert, older.as_bytes(), &[encrypted]),
            (cert, cert, &["server.tls_key: cannot use ", exchanged]),
            (cert, &key.serialize_der(), &[der]),
            (cert, b"", &["key.pem: it has no PEM private key"]),
        ]);
    }
}
