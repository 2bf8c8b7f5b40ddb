//! `tls_*` of `[server]`: which files TLS is served with, and how. It reads none of them.

use std::path::PathBuf;
use std::str::FromStr;

use super::read::{Group, Reader};

/// How TLS is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates with their keys, at least one. The first is for clients that ask for a
    /// name that no certificate has, or for none.
    pub files: Vec<TlsFiles>,
    /// The port for TLS if there is one beside the plain one; 0 takes a free one.
    pub port: Option<u16>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Authorities one of which each client has to have a certificate of, PEM.
    pub client_ca: Option<PathBuf>,
    /// Keys of session tickets; the first encrypts. If there are none, the server makes its own.
    pub ticket_keys: Vec<PathBuf>,
}

/// Paths of PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those it is signed with.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    #[default]
    V1_2,
    /// TLS 1.3, RFC 8446.
    V1_3,
}

impl FromStr for TlsVersion {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1.2" => Ok(Self::V1_2),
            "1.3" => Ok(Self::V1_3),
            _ => Err("1.2 or 1.3"),
        }
    }
}

impl Reader {
    pub(super) fn tls(&mut self, group: &Group<'_>) -> Option<Tls> {
        let certs = self.paths(group, "tls_cert");
        let keys = self.paths(group, "tls_key");
        let port = self.take(group, "tls_port", port).flatten();
        let min_version = self.parsed(group, "tls_min_version");
        let client_ca = self.text(group, "tls_client_ca").map(PathBuf::from);
        let ticket_keys = self.paths(group, "tls_ticket_keys");
        match (certs.len(), keys.len()) {
            (0, 0) => {
                let useless = [
                    ("port", port.is_some()),
                    ("client_ca", client_ca.is_some()),
                    ("ticket_keys", !ticket_keys.is_empty()),
                ];
                for (key, _) in useless.iter().filter(|(_, is_set)| *is_set) {
                    self.problems.push(format!(
                        "server.tls_{key} is set, and server.tls_cert and server.tls_key are missing: TLS needs \
                         both (--tls-cert, RESOUND_TLS_CERT, --tls-key, RESOUND_TLS_KEY)"
                    ));
                }
                None
            }
            (_, 0) => self.one_is_missing("cert", "key"),
            (0, _) => self.one_is_missing("key", "cert"),
            (certificates, keys) if certificates != keys => {
                self.problems.push(format!(
                    "server.tls_cert names {certificates} and server.tls_key {keys}: expected a key for each \
                     certificate, in the same order"
                ));
                None
            }
            _ => Some(Tls {
                files: certs
                    .into_iter()
                    .zip(keys)
                    .map(|(cert, key)| TlsFiles { cert, key })
                    .collect(),
                port,
                min_version,
                client_ca,
                ticket_keys,
            }),
        }
    }

    fn one_is_missing(&mut self, given: &str, missing: &str) -> Option<Tls> {
        self.problems.push(format!(
            "server.tls_{missing} is missing: TLS needs both, and server.tls_{given} is set \
             (--tls-{missing}, RESOUND_TLS_{})",
            missing.to_uppercase()
        ));
        None
    }

    fn paths(&mut self, group: &Group<'_>, key: &'static str) -> Vec<PathBuf> {
        let text = self.text(group, key).unwrap_or_default();
        let items = text.split(',').map(str::trim);
        let items = items.filter(|item| !item.is_empty());
        items.map(PathBuf::from).collect()
    }
}

fn port(text: &str) -> Result<Option<u16>, String> {
    match text {
        "" => Ok(None),
        _ => text
            .parse()
            .map(Some)
            .map_err(|_| "a whole number from 0 to 65535, or nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn load(settings: &[(&str, &str)]) -> Result<Config, String> {
        let app = [
            ("REVERB_APP_ID", "1"),
            ("REVERB_APP_KEY", "k"),
            ("REVERB_APP_SECRET", "s"),
        ];
        let pairs = app.iter().chain(settings);
        let sources = Sources {
            environment: pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Sources::default()
        };
        Config::load(&sources).map_err(|error| error.to_string())
    }

    const PAIR: [(&str, &str); 2] = [("RESOUND_TLS_CERT", "c"), ("RESOUND_TLS_KEY", "k")];

    #[test]
    fn several_certificates_have_their_keys_in_the_same_order() {
        let config = load(&[
            ("RESOUND_TLS_CERT", "a.pem, b.pem"),
            ("RESOUND_TLS_KEY", "a.key,b.key"),
            ("RESOUND_TLS_PORT", "8443"),
            ("RESOUND_TLS_MIN_VERSION", "1.3"),
            ("RESOUND_TLS_CLIENT_CA", "ca.pem"),
            ("RESOUND_TLS_TICKET_KEYS", "new,old"),
        ]);
        let pair = |cert: &str, key: &str| TlsFiles {
            cert: cert.into(),
            key: key.into(),
        };
        let expected = Tls {
            files: vec![pair("a.pem", "a.key"), pair("b.pem", "b.key")],
            port: Some(8443),
            min_version: TlsVersion::V1_3,
            client_ca: Some("ca.pem".into()),
            ticket_keys: vec!["new".into(), "old".into()],
        };
        let server = config.unwrap().server;
        assert!(!server.is_port_secure());
        assert_eq!(server.tls, Some(expected));
        let server = load(&PAIR).unwrap().server;
        assert!(server.is_port_secure());
        let tls = server.tls.unwrap();
        assert_eq!((tls.port, tls.min_version), (None, TlsVersion::V1_2));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let metrics = ("RESOUND_METRICS_PORT", "8443");
        for (settings, expected) in [
            (
                &[("RESOUND_TLS_CERT", "a,b,c"), ("RESOUND_TLS_KEY", "a")][..],
                "server.tls_cert names 3 and server.tls_key 1: expected a key for each certificate",
            ),
            (
                &[("RESOUND_TLS_PORT", "8443")],
                "server.tls_port is set, and server.tls_cert and server.tls_key are missing",
            ),
            (
                &[("RESOUND_TLS_PORT", "8443"), PAIR[1]],
                "server.tls_cert is missing: TLS needs both, and server.tls_key is set",
            ),
            (
                &[("RESOUND_TLS_CLIENT_CA", "ca.pem")],
                "server.tls_client_ca is set, and server.tls_cert",
            ),
            (
                &[("RESOUND_TLS_TICKET_KEYS", "k")],
                "server.tls_ticket_keys is set, and server.tls_cert",
            ),
            (
                &[PAIR[0], PAIR[1], ("RESOUND_TLS_PORT", "443x")],
                "server.tls_port = \"443x\" (environment variable RESOUND_TLS_PORT): expected a whole number from 0 \
                 to 65535, or nothing",
            ),
            (
                &[PAIR[0], PAIR[1], ("RESOUND_TLS_MIN_VERSION", "1.1")],
                "server.tls_min_version = \"1.1\" (environment variable RESOUND_TLS_MIN_VERSION): expected 1.2 or 1.3",
            ),
            (
                &[PAIR[0], PAIR[1], ("RESOUND_TLS_PORT", "8080")],
                "server.tls_port = 8080 (RESOUND_TLS_PORT) is server.port, too: expected another one",
            ),
            (
                &[PAIR[0], PAIR[1], ("RESOUND_TLS_PORT", "8443"), metrics],
                "metrics.port = 8443 (RESOUND_METRICS_PORT) is server.tls_port, too",
            ),
        ] {
            let error = load(settings).unwrap_err();
            assert!(error.contains(expected), "{settings:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
