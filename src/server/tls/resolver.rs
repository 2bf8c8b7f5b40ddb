//! Which of several certificates a client gets: the one for the name that it asks for (SNI).

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate that may be chosen.
pub(super) struct Candidate {
    pub(super) key: Arc<CertifiedKey>,
    /// In lower case; one that begins with `*.` stands for any first label.
    pub(super) names: Vec<String>,
    pub(super) path: PathBuf,
}

/// Several for one name differ in the algorithm of their keys.
type Keys = Vec<Arc<CertifiedKey>>;

/// Certificates by their names.
pub(super) struct ByName {
    /// For unknown names and for none.
    default: Option<Arc<CertifiedKey>>,
    exact: HashMap<String, Keys>,
    /// By what follows `*.`.
    wildcards: HashMap<String, Keys>,
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.exact.keys().chain(self.wildcards.keys());
        f.debug_set().entries(names).finish()
    }
}

impl ByName {
    /// The first candidate is the default. Returns what is probably a mistake, too.
    pub(super) fn new(candidates: Vec<Candidate>) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let mut found = Self {
            default: candidates.first().map(|first| Arc::clone(&first.key)),
            exact: HashMap::new(),
            wildcards: HashMap::new(),
        };
        let mut owners: HashMap<String, Vec<(PathBuf, rustls::SignatureAlgorithm)>> =
            HashMap::new();
        for (index, candidate) in candidates.into_iter().enumerate() {
            let path = candidate.path.display();
            let algorithm = candidate.key.key.algorithm();
            let mut is_used = index == 0;
            for name in &candidate.names {
                let owners = owners.entry(name.clone()).or_default();
                if let Some((owner, _)) = owners.iter().find(|(_, of)| *of == algorithm) {
                    if index > 0 && *owner != candidate.path {
                        warnings.push(format!(
                            "server.tls_cert: {path} and {} are both for {name}: clients get the latter, which is \
                             named first",
                            owner.display()
                        ));
                    }
                    continue;
                }
                owners.push((candidate.path.clone(), algorithm));
                is_used = true;
                let keys = match name.strip_prefix("*.") {
                    Some(parent) => found.wildcards.entry(parent.to_owned()),
                    None => found.exact.entry(name.clone()),
                };
                keys.or_default().push(Arc::clone(&candidate.key));
            }
            if !is_used {
                warnings.push(format!(
                    "server.tls_cert: no client gets {path}: it has no host name that is not another's"
                ));
            }
        }
        (found, warnings)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let keys = name.and_then(|name| self.keys(name));
        let Some(keys) = keys else {
            return self.default.clone();
        };
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        keys.iter().find(fits).or(keys.first()).cloned()
    }

    fn keys(&self, name: &str) -> Option<&Keys> {
        // rustls gives it in lower case; with a dot at the end it is the same name.
        let name = name.strip_suffix('.').unwrap_or(name);
        let wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use rustls::pki_types::PrivateKeyDer;

    fn candidate(
        path: &str,
        names: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> Candidate {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let made = CertificateParams::new(vec![]).unwrap().self_signed(&key);
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let chain = vec![made.unwrap().der().clone()];
        Candidate {
            key: Arc::new(CertifiedKey::from_der(chain, der, &provider).unwrap()),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            path: path.into(),
        }
    }

    #[test]
    fn a_client_gets_the_certificate_that_has_its_name() {
        let p256 = &PKCS_ECDSA_P256_SHA256;
        let all = [
            candidate("a", &["a.example"], p256),
            candidate("wild", &["*.example", "b.a.example"], p256),
            candidate("late", &["c.example", "a.example"], p256),
            candidate("ed", &["c.example"], &PKCS_ED25519),
        ];
        let keys: Vec<_> = all.iter().map(|it| Arc::clone(&it.key)).collect();
        let (resolver, warnings) = ByName::new(all.into());
        let (ecdsa, ed) = (
            [SignatureScheme::ECDSA_NISTP256_SHA256],
            [SignatureScheme::ED25519],
        );
        for (name, schemes, expected) in [
            (Some("a.example"), &ecdsa[..], 0),
            (Some("a.example."), &ecdsa, 0),
            (Some("x.example"), &ecdsa, 1),
            (Some("b.a.example"), &ecdsa, 1),
            // A wildcard is one label.
            (Some("x.y.example"), &ecdsa, 0),
            (Some("example"), &ecdsa, 0),
            (Some("*.example"), &ecdsa, 1),
            (Some(""), &ecdsa, 0),
            (Some("."), &ecdsa, 0),
            (None, &ecdsa, 0),
            (Some("c.example"), &ecdsa, 2),
            (Some("c.example"), &ed, 3),
            (Some("c.example"), &[], 2),
        ] {
            let chosen = resolver.choose(name, schemes).unwrap();
            assert!(Arc::ptr_eq(&chosen, &keys[expected]), "{name:?}");
        }
        let expected = "server.tls_cert: late and a are both for a.example: clients get the latter, which is named first";
        assert_eq!(warnings, [expected]);
    }

    #[test]
    fn one_that_nobody_can_get_is_warned_of() {
        let all = vec![
            candidate("a", &["a.example"], &PKCS_ECDSA_P256_SHA256),
            candidate("nameless", &[], &PKCS_ECDSA_P256_SHA256),
            candidate("a", &["a.example"], &PKCS_ECDSA_P256_SHA256),
        ];
        let (_, warnings) = ByName::new(all);
        let text = "it has no host name that is not another's";
        assert_eq!(
            warnings,
            ["nameless", "a"].map(|path| format!("server.tls_cert: no client gets {path}: {text}"))
        );
    }
}
