//! What connections are served with now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{Loaded, TicketKeys, Tickets, TlsError, load};
use crate::config::Tls;
use crate::metrics::CertificateEnds;
use crate::tls::Acceptor;

/// What TLS is served with, if it is; another one can take its place while the server runs.
pub(in crate::server) struct Live {
    loaded: ArcSwapOption<Loaded>,
    tickets: Arc<Tickets>,
    /// For metrics.
    ends: CertificateEnds,
}

impl Live {
    /// Loads what the settings name.
    pub(in crate::server) fn new(settings: Option<&Tls>) -> Result<Self, TlsError> {
        let live = Self {
            loaded: ArcSwapOption::empty(),
            tickets: Arc::new(Tickets::new()),
            ends: Arc::new(ArcSwap::default()),
        };
        if let Some(settings) = settings {
            live.replace(live.load(settings)?);
        }
        Ok(live)
    }

    /// Reads the files of these settings, for [`Self::go_on_with`].
    ///
    /// # Errors
    /// If they cannot be used, or if all certificates that are in use are valid now and one
    /// of these is not.
    pub(in crate::server) fn load(&self, settings: &Tls) -> Result<Loaded, TlsError> {
        let new = load(settings, &self.tickets)?;
        let now = SystemTime::now();
        if let Some(present) = self.loaded()
            && present.certificates.iter().all(|it| it.is_valid(now))
            && let Some(wrong) = new.certificates.iter().find(|it| !it.is_valid(now))
        {
            let problem = wrong.problem(now).unwrap_or_default();
            return Err(TlsError::OutOfDate(problem));
        }
        Ok(new)
    }

    /// Serves new connections with what was loaded by settings that were read anew. Those that
    /// are open go on as they are, and session tickets stay good unless the settings say
    /// otherwise. Returns warnings.
    pub(in crate::server) fn go_on_with(&self, loaded: Option<Loaded>) -> Vec<String> {
        let is_spoken = self.loaded.load().is_some();
        match loaded {
            Some(loaded) if is_spoken => {
                loaded.log_certificates();
                let warnings = loaded.warnings.clone();
                self.replace(loaded);
                warnings
            }
            None if !is_spoken => Vec::new(),
            _ => {
                let now = if is_spoken { "with" } else { "without" };
                vec![format!(
                    "server.tls_cert: the server goes on {now} TLS, which is switched on and off at the start only"
                )]
            }
        }
    }

    pub(super) fn replace(&self, loaded: Loaded) {
        self.ends.store(Arc::new(ends(&loaded)));
        self.loaded.store(Some(Arc::new(loaded)));
    }

    /// The same, unless somebody else has replaced `old` meanwhile. Returns whether it has
    /// replaced it.
    pub(super) fn replace_if(&self, old: &Arc<Loaded>, new: &Arc<Loaded>) -> bool {
        let before = self.loaded.compare_and_swap(old, Some(Arc::clone(new)));
        let is_replaced = before.as_ref().is_some_and(|it| Arc::ptr_eq(it, old));
        if is_replaced {
            self.ends.store(Arc::new(ends(new)));
        }
        is_replaced
    }

    /// With what a new connection to a socket that speaks TLS is served.
    pub(in crate::server) fn acceptor(&self) -> Option<Acceptor> {
        Some(self.loaded.load().as_ref()?.acceptor.clone())
    }

    pub(in crate::server) fn loaded(&self) -> Option<Arc<Loaded>> {
        self.loaded.load_full()
    }

    /// Logs what is served.
    pub(in crate::server) fn announce(&self) {
        if let Some(loaded) = self.loaded() {
            loaded.announce();
        }
    }

    /// When each certificate ends, as it is at any time.
    pub(in crate::server) fn ends(&self) -> CertificateEnds {
        Arc::clone(&self.ends)
    }

    pub(super) fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// The server's own keys of session tickets, for a successor.
    pub(in crate::server) fn ticket_keys(&self) -> TicketKeys {
        self.tickets.keys()
    }

    /// Goes on with the keys of a predecessor.
    pub(in crate::server) fn set_ticket_keys(&self, keys: TicketKeys) {
        self.tickets.set_keys(keys);
    }
}

impl Loaded {
    /// Logs which certificates there are, and what whoever runs it should know of them.
    pub(in crate::server) fn announce(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        self.log_certificates();
    }

    fn log_certificates(&self) {
        for certificate in &self.certificates {
            let path = certificate.path.display();
            let names = super::certificate::shown_names(&certificate.names);
            let not_after = certificate.not_after;
            tracing::info!(certificate = %path, names, %not_after, "certificate loaded");
        }
    }
}

fn ends(loaded: &Loaded) -> BTreeMap<String, u64> {
    let certificates = loaded.certificates.iter();
    let ends = certificates.map(|it| (it.path.display().to_string(), it.ends()));
    ends.collect()
}
