//! What TLS is served with: loaded from files at the start, and anew while the server runs.
//!
//! [`load`] reads everything that the settings name, or says what is wrong with it, and
//! changes nothing. [`Live`] is what connections are served with; what was loaded is swapped
//! in as a whole, by whoever reads the settings anew or by [`watch()`], which looks at the files.

mod certificate;
mod files;
mod live;
mod resolver;
mod tickets;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use crate::config::{Tls, TlsFiles, TlsVersion};
use crate::tls::Acceptor;
pub use certificate::{CertificateInfo, ends_soon};
pub(super) use live::Live;
use resolver::{ByName, Candidate};
pub(super) use tickets::Tickets;
pub use tickets::{TicketKeys, TicketKeysError};
use tickets::{Ticketer, context};
use watch::Stamps;
pub(super) use watch::{INTERVAL, watch};

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or has not what it should have.
    #[error("server.tls_{what}: cannot use {}: {error}", path.display())]
    File {
        /// `cert`, `key`, `client_ca` or `ticket_keys`.
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
    #[error(
        "server.tls_cert and server.tls_key: cannot use {} with {}: {error}", cert.display(), key.display()
    )]
    Pair {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong with them.
        error: rustls::Error,
    },
    /// A certificate is not valid now, and the one that is in use is.
    #[error("{0}")]
    OutOfDate(String),
    /// What is offered does not go together.
    #[error("server.tls_min_version: {0}")]
    Versions(rustls::Error),
}

/// What TLS is served with.
pub(super) struct Loaded {
    pub(super) acceptor: Acceptor,
    /// What whoever runs it should know of the certificates.
    pub(super) warnings: Vec<String>,
    pub(super) certificates: Vec<CertificateInfo>,
    /// What it was loaded by.
    settings: Tls,
    /// How the files were before they were read.
    stamps: Stamps,
}

/// Reads all files. Clients that come back with a ticket of `tickets` are known again, unless
/// the settings name files with keys.
pub(super) fn load(settings: &Tls, tickets: &Arc<Tickets>) -> Result<Loaded, TlsError> {
    let stamps = Stamps::of(settings);
    let now = SystemTime::now();
    let (mut warnings, mut certificates, mut candidates) = (Vec::new(), Vec::new(), Vec::new());
    for files in &settings.files {
        let (key, info) = certified(files, now, &mut warnings)?;
        candidates.push(Candidate {
            key: Arc::new(key),
            names: info
                .iter()
                .flat_map(CertificateInfo::dns_names)
                .map(str::to_owned)
                .collect(),
            path: files.cert.clone(),
        });
        certificates.extend(info);
    }
    let authorities = match &settings.client_ca {
        Some(path) => Some(files::Authorities::read(path)?),
        None => None,
    };
    let context = context(authorities.as_ref().map(|found| &found.certificates[..]));
    let ticketer = if settings.ticket_keys.is_empty() {
        Ticketer::own(tickets, context)
    } else {
        Ticketer::fixed(files::ticket_keys(&settings.ticket_keys)?, context)
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[_] = match settings.min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let (resolver, of_names) = ByName::new(candidates);
    warnings.extend(of_names);
    let asks_for_certificates = authorities.is_some();
    let verifier = authorities.map(|found| found.verifier);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(TlsError::Versions)?
        .with_client_cert_verifier(verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
        .with_cert_resolver(Arc::new(resolver));
    if asks_for_certificates {
        // rustls does not look at a certificate again when a session is resumed: one that has
        // expired would be good for as long as its client comes back.
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = Arc::new(ticketer);
    }
    // All but very old clients take tickets; a store is a lock that all workers share, and
    // what is in it is lost at each load.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Loaded {
        acceptor: Acceptor::new(config, asks_for_certificates),
        warnings,
        certificates,
        settings: settings.clone(),
        stamps,
    })
}

/// Reads a certificate and its key, which have to belong together.
fn certified(
    files: &TlsFiles,
    now: SystemTime,
    warnings: &mut Vec<String>,
) -> Result<(CertifiedKey, Option<CertificateInfo>), TlsError> {
    let chain = files::certificates("cert", &files.cert)?;
    let key = files::key(&files.key)?;
    warnings.extend(certificate::problems(&files.cert, &chain, now));
    let info = chain
        .first()
        .and_then(|der| CertificateInfo::of(&files.cert, der));
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
        let (cert, key) = (files.cert.clone(), files.key.clone());
        match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { cert, key },
            error => TlsError::Pair { cert, key, error },
        }
    })?;
    Ok((key, info))
}

#[cfg(test)]
mod tests;
