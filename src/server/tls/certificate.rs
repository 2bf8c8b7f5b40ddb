//! What a certificate says: for which names it is, and until when.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::{DateTime, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// How long before its end a certificate is warned of.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// A certificate that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Its file.
    pub path: PathBuf,
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
    /// When it ends; shown as RFC 3339.
    pub not_after: DateTime,
    not_before: DateTime,
}

impl CertificateInfo {
    /// Nothing if it cannot be read for this: whether it can be served is not judged here.
    pub(super) fn of(path: &Path, der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate();
        let names = certificate.get_extension::<SubjectAltName>();
        let names = names.ok().flatten().map(|(_, SubjectAltName(names))| names);
        let validity = certificate.validity();
        Some(Self {
            path: path.to_owned(),
            names: names.iter().flatten().filter_map(name).collect(),
            not_after: validity.not_after.to_date_time(),
            not_before: validity.not_before.to_date_time(),
        })
    }

    /// Whether it has begun and has not ended.
    pub(super) fn is_valid(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        (self.not_before.unix_duration()..=self.not_after.unix_duration()).contains(&now)
    }

    /// Says that it is not valid, or not for long.
    pub(super) fn problem(&self, now: SystemTime) -> Option<String> {
        let problem = judge(self.not_before, self.not_after, now)?;
        let path = self.path.display();
        Some(format!(
            "server.tls_cert: the certificate in {path} {problem}"
        ))
    }

    /// Those of the names that a client can ask for.
    pub(super) fn dns_names(&self) -> impl Iterator<Item = &str> {
        let is_address = |name: &str| name.parse::<std::net::IpAddr>().is_ok();
        let names = self.names.iter().map(String::as_str);
        names.filter(move |name| !is_address(name))
    }

    /// When it ends, in seconds since 1970.
    pub(super) fn ends(&self) -> u64 {
        self.not_after.unix_duration().as_secs()
    }
}

pub(super) fn shown_names(names: &[String]) -> String {
    if names.is_empty() {
        "no name".to_owned()
    } else {
        names.join(", ")
    }
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let of_4 = <[u8; 4]>::try_from(bytes).map(|it| Ipv4Addr::from(it).to_string());
            let of_6 = || <[u8; 16]>::try_from(bytes).map(|it| Ipv6Addr::from(it).to_string());
            of_4.or_else(|_| of_6()).ok()
        }
        _ => None,
    }
}

/// Says which certificates of a file are not valid now, or not for long.
pub(super) fn problems(path: &Path, chain: &[CertificateDer<'_>], now: SystemTime) -> Vec<String> {
    let path = path.display();
    let found = chain.iter().enumerate().filter_map(|(index, der)| {
        let problem = out_of_date(der, now)?;
        let name = match index {
            0 => "the certificate".to_owned(),
            _ => format!("certificate {} (of an authority)", index + 1),
        };
        Some(format!("server.tls_cert: {name} in {path} {problem}"))
    });
    found.collect()
}

/// One that cannot be read for this is not judged.
fn out_of_date(der: &CertificateDer<'_>, now: SystemTime) -> Option<String> {
    let certificate = Certificate::from_der(der).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let (begin, end) = (validity.not_before, validity.not_after);
    judge(begin.to_date_time(), end.to_date_time(), now)
}

/// Says that a certificate is not valid now, or will soon not be.
fn judge(begins: DateTime, ends: DateTime, now: SystemTime) -> Option<String> {
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    let (begin, end) = (begins.unix_duration(), ends.unix_duration());
    if end < now {
        Some(format!(
            "expired at {ends}: clients refuse it; renew it (the new one is loaded without a restart)"
        ))
    } else if begin > now {
        Some(format!(
            "is valid only from {begins}: clients refuse it until then; is the clock of this machine right?"
        ))
    } else if let Some(left) = left_if_soon(begin, end, now) {
        let left = match left.as_secs() / 86_400 {
            0 => "in less than a day".to_owned(),
            1 => "in a day".to_owned(),
            days => format!("in {days} days"),
        };
        Some(format!(
            "expires at {ends}, {left}: renew it (the new one is loaded without a restart)"
        ))
    } else {
        None
    }
}

/// How long it is until its end, if that is soon: 14 days, or a third of the time that it is valid
/// for, if that is less. All since 1970.
fn left_if_soon(begin: Duration, end: Duration, now: Duration) -> Option<Duration> {
    let left = end.checked_sub(now)?;
    let soon = SOON.min(end.saturating_sub(begin) / 3);
    (left < soon).then_some(left)
}

/// How long a certificate (DER) is valid yet, if it is so no longer than 14 days, or than a third of
/// its whole time. One that cannot be read for this is not judged.
pub fn ends_soon(der: &[u8], now: SystemTime) -> Option<Duration> {
    let certificate = Certificate::from_der(der).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let (begin, end) = (validity.not_before, validity.not_after);
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    left_if_soon(begin.to_unix_duration(), end.to_unix_duration(), now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    #[test]
    fn the_end_is_warned_of_two_weeks_before_and_with_little_time_a_third_of_it() {
        let day = |count: u64| Duration::from_secs(count * 86_400);
        let now = SystemTime::now();
        for (lifetime, left, expected) in [
            (90, 15, None),
            (90, 13, Some("in 12 days: renew it")),
            (90, 2, Some("in a day: renew it")),
            (90, 1, Some("in less than a day: renew it")),
            (6, 3, None),
            (6, 2, Some("in a day: renew it")),
        ] {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_before = (now + day(left) - day(lifetime)).into();
            params.not_after = (now + day(left)).into();
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let problem = out_of_date(made.der(), now + Duration::from_secs(60));
            match expected {
                Some(text) => assert!(problem.unwrap().contains(text), "{left}"),
                None => assert_eq!(problem, None, "{left}"),
            }
        }
    }

    #[test]
    fn names_are_host_names_and_addresses() {
        let names = ["Shop.example", "*.shop.example", "10.0.0.7", "::1"];
        let params = CertificateParams::new(names.map(str::to_owned)).unwrap();
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let info = CertificateInfo::of(Path::new("cert.pem"), made.der()).unwrap();
        assert_eq!(
            info.names,
            ["shop.example", "*.shop.example", "10.0.0.7", "::1"]
        );
        assert_eq!(
            info.dns_names().collect::<Vec<_>>(),
            ["shop.example", "*.shop.example"]
        );
        assert_eq!(info.not_after.to_string(), "4096-01-01T00:00:00Z");
        assert_eq!(info.ends(), 67_090_118_400);
    }
}
