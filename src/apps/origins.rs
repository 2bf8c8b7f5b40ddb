//! Which pages may connect.

use std::net::Ipv6Addr;

/// The pages that may open a connection, by their `Origin` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    patterns: Vec<String>,
    missing: bool,
}

/// An `Origin` header as RFC 6454 writes one: scheme, host and perhaps a port, and
/// nothing else that a pattern could be made to match, in lower case.
struct Origin {
    scheme: String,
    host: String,
    /// The host with the port, if there is one.
    authority: String,
}

impl Origins {
    /// Patterns in which `*` stands for any run of characters: `*`,
    /// `example.com`, `*.example.com`, `example.com:8443`, `https://example.com`.
    /// `missing` says whether connections without an `Origin`, which only programs
    /// and native clients leave out, are allowed although pages are restricted.
    pub fn new(patterns: Vec<String>, missing: bool) -> Self {
        let patterns = patterns.iter().map(|pattern| as_sent(pattern)).collect();
        Self { patterns, missing }
    }

    /// Whether a page may connect that sent these `Origin` headers.
    pub fn allow<'a>(&self, sent: impl IntoIterator<Item = &'a [u8]>) -> bool {
        if self.patterns.iter().any(|pattern| pattern == "*") {
            return true;
        }
        let mut sent = sent.into_iter();
        match (sent.next(), sent.next()) {
            (None, _) => self.missing,
            (Some(origin), None) => Origin::parse(origin).is_some_and(|origin| {
                let mut patterns = self.patterns.iter();
                patterns.any(|pattern| origin.matches(pattern))
            }),
            // Which of them is the page's, nobody can tell.
            (Some(_), Some(_)) => false,
        }
    }
}

impl Origin {
    fn parse(sent: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(sent).ok()?.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://")?;
        // An IPv6 host keeps its brackets; a port is what follows the last colon outside of them.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let is_host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok(),
            // Schemes of native clients may have no host at all: `file://`.
            None if host.is_empty() => port.is_none(),
            None => host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
        };
        let is_port =
            |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
        (is_scheme && is_host && port.is_none_or(is_port)).then(|| Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            authority: authority.to_owned(),
        })
    }

    fn matches(&self, pattern: &str) -> bool {
        let (is_scheme, rest) = match pattern.split_once("://") {
            Some((scheme, rest)) => (scheme == self.scheme, rest),
            None => (true, pattern),
        };
        is_scheme && (matches(rest, &self.host) || matches(rest, &self.authority))
    }
}

/// A pattern in the form in which browsers send hosts: lower case, and labels of
/// other alphabets in Punycode.
fn as_sent(pattern: &str) -> String {
    const MARKS: [char; 4] = ['.', ':', '/', '*'];
    let label = |piece: &str| {
        let label = piece.trim_end_matches(MARKS);
        let encoded = url::Host::parse(label).ok().filter(|_| !label.is_ascii());
        encoded.map_or(piece.to_ascii_lowercase(), |host| {
            format!("{host}{}", &piece[label.len()..])
        })
    };
    pattern.split_inclusive(MARKS).map(label).collect()
}

/// Whether `text` is `pattern` with each `*` replaced by some run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_hosts_ports_and_schemes() {
        for (pattern, origin, allowed) in [
            ("*", None, true),
            ("good.example", None, false),
            ("good.example", Some("null"), false),
            ("good.example", Some("http://good.example"), true),
            ("good.example", Some("https://good.example:8443"), true),
            ("good.example", Some("http://sub.good.example"), false),
            ("good.example", Some("http://evil.example"), false),
            ("*.good.example", Some("http://a.b.good.example"), true),
            ("*.good.example", Some("http://good.example"), false),
            ("good.example:8443", Some("https://good.example:8443"), true),
            ("good.example:8443", Some("https://good.example"), false),
            ("https://good.example", Some("https://good.example"), true),
            ("https://good.example", Some("http://good.example"), false),
            (
                "https://*.good.example:*",
                Some("https://a.good.example:1"),
                true,
            ),
            ("[::1]", Some("http://[::1]:3000"), true),
            ("[::1]", Some("http://[::1]"), true),
            ("Good.Example", Some("HTTPS://GOOD.example"), true),
            ("HTTPS://good.example", Some("https://good.example"), true),
            ("capacitor://localhost", Some("capacitor://localhost"), true),
            ("ionic://localhost", Some("ionic://localhost"), true),
            ("localhost", Some("ionic://localhost"), true),
            ("app://*", Some("app://"), true),
            ("file://", Some("file://"), true),
            (
                "chrome-extension://*",
                Some("chrome-extension://gighmmpiobklfepjocnamgkkbiglidom"),
                true,
            ),
            (
                "*.xn--bcher-kva.example",
                Some("https://a.xn--bcher-kva.example"),
                true,
            ),
            (
                "https://*.Bücher.example:*",
                Some("https://a.xn--bcher-kva.example:1"),
                true,
            ),
            ("bücher", Some("http://xn--bcher-kva"), true),
        ] {
            assert_eq!(
                allows(pattern, false, origin),
                allowed,
                "{pattern} {origin:?}"
            );
        }
    }

    fn allows(pattern: &str, missing: bool, sent: impl IntoIterator<Item = &'static str>) -> bool {
        let sent = sent.into_iter().map(str::as_bytes);
        Origins::new(vec![pattern.to_owned()], missing).allow(sent)
    }

    /// A pattern with a star would match each of them as a text.
    #[test]
    fn what_is_no_origin_is_not_allowed() {
        for origin in [
            "http://evil.example/.shop.example",
            "http://evil.example?.shop.example",
            "http://evil.example#.shop.example",
            "http://evil.example\\.shop.example",
            "http://evil.example\t.shop.example",
            "http://evil.example .shop.example",
            "http://evil.example%2f.shop.example",
            "http://evil.example,http://a.shop.example",
            "http://evil.example http://a.shop.example",
            "http://user@a.shop.example",
            "http://evil.example:80@a.shop.example",
            "http://evil.example:a.shop.example",
            "http://a.shop.example/",
            "http://a.shop.example:",
            "http://a.shop.example:+80",
            "http://a.shop.example:65536",
            "http://[a.shop.example",
            "http://[::1].shop.example",
            "http://:80",
            "http:a.shop.example",
            "1http://a.shop.example",
            "://a.shop.example",
            "a.shop.example",
            "http://ä.shop.example",
            "null",
            "",
        ] {
            for pattern in ["*.shop.example", "http://*.shop.example", "**"] {
                assert!(!allows(pattern, true, [origin]), "{pattern} {origin}");
            }
        }
        assert!(!Origins::new(vec!["**".to_owned()], true).allow([&b"http://\xff"[..]]));
    }

    #[test]
    fn two_origins_are_none() {
        let good = "https://good.example";
        assert!(allows("good.example", false, [good]));
        assert!(!allows("good.example", true, [good, good]));
        assert!(!allows(
            "good.example",
            true,
            [good, "https://evil.example"]
        ));
        assert!(allows("good.example", true, []));
        assert!(allows("*", false, [good, good]));
    }

    #[test]
    fn stars_match_any_run() {
        for (pattern, text, expected) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
