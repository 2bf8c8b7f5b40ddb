//! Who a request comes from, as `X-Forwarded-For` or `Forwarded` (RFC 7239) says.
//!
//! Each proxy adds at the right what it sees itself, so what stands there is as good as the
//! proxy. From right to left, addresses of trusted proxies are skipped; the first other one
//! is the client. What stands further left was written by that client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use self::Node::{Address, Unknown};
use super::Networks;

/// Entries that are looked at, from the right.
pub const MAX_HOPS: usize = 32;

/// Which header field says who a request comes from. Only one: a proxy that sets one of them
/// passes the other one on as the client wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
}

impl ForwardedHeader {
    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }

    /// The client, if the fields of this name, in their order, say who it is.
    ///
    /// They end where something stands that is no address: then the one before it counts.
    pub fn client<'a>(
        self,
        fields: impl DoubleEndedIterator<Item = &'a [u8]>,
        trusted: &Networks,
    ) -> Option<SocketAddr> {
        let entries = fields.rev().flat_map(Entries);
        // An empty one says nothing (RFC 9110, 5.6.1.2).
        let entries = entries.filter(|entry| !entry.trim_ascii().is_empty());
        let mut last = None;
        for entry in entries.take(MAX_HOPS) {
            let node = match self {
                Self::XForwardedFor => node(entry),
                Self::Forwarded => node_of_element(entry),
            };
            let Address(address) = node else { break };
            last = Some(address);
            if !trusted.contains(address.ip()) {
                break;
            }
        }
        last
    }
}

/// As in the settings.
impl FromStr for ForwardedHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::XForwardedFor, Self::Forwarded];
        all.into_iter()
            .find(|header| text.eq_ignore_ascii_case(header.name()))
            .ok_or_else(|| "x-forwarded-for or forwarded".to_owned())
    }
}

/// The entries of a field, the last one first.
///
/// They are looked for from the right, so that nothing that a client wrote, such as a quote
/// that does not end, hides what proxies have added to it.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let mut is_quoted = false;
        for (at, byte) in self.0.iter().enumerate().rev() {
            match byte {
                b'"' => is_quoted ^= !is_escaped(&self.0[..at]),
                b',' if !is_quoted => {
                    let entry = &self.0[at + 1..];
                    self.0 = &self.0[..at];
                    return Some(entry);
                }
                _ => {}
            }
        }
        Some(std::mem::take(&mut self.0))
    }
}

/// Whether what follows is made part of a quoted text by a backslash.
fn is_escaped(before: &[u8]) -> bool {
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

/// Who one entry says it was.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    Address(SocketAddr),
    /// Hidden, or not to be understood.
    Unknown,
}

/// An element of `Forwarded`, such as `for="[2001:db8::1]:4711";proto=https`.
fn node_of_element(element: &[u8]) -> Node {
    let (mut found, mut rest) = (None, element);
    while !rest.is_empty() {
        let mut is_quoted = false;
        let end = (0..rest.len()).find(|at| {
            is_quoted ^= rest[*at] == b'"' && !is_escaped(&rest[..*at]);
            rest[*at] == b';' && !is_quoted
        });
        let (pair, after) = match end {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &[][..]),
        };
        rest = after;
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
            return Unknown;
        };
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        if name.trim_ascii().eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return Unknown;
        }
    }
    found.map_or(Unknown, node)
}

/// An address, perhaps with brackets and a port, perhaps in quotes.
fn node(text: &[u8]) -> Node {
    let text = text.trim_ascii();
    let bare = match text {
        [b'"', inner @ .., b'"'] => inner,
        _ => text,
    };
    let Ok(text) = str::from_utf8(bare) else {
        return Unknown;
    };
    let address = |ip: IpAddr, port| Address(SocketAddr::new(ip.to_canonical(), port));
    if let Ok(ip) = text.parse() {
        return address(ip, 0);
    }
    let (ip, after) = match text.strip_prefix('[') {
        Some(inner) => {
            let parts = inner.split_once(']');
            let parsed = parts.map(|(ip, after)| (ip.parse::<Ipv6Addr>(), after));
            let Some((Ok(ip), after)) = parsed else {
                return Unknown;
            };
            (IpAddr::V6(ip), after)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (ip, after) = text.split_at(end);
            let Ok(ip) = ip.parse::<Ipv4Addr>() else {
                return Unknown;
            };
            (IpAddr::V4(ip), after)
        }
    };
    match after.strip_prefix(':') {
        None if after.is_empty() => address(ip, 0),
        None => Unknown,
        // It may be hidden while the address is not.
        Some(port) if port.starts_with('_') => address(ip, 0),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().map_or(Unknown, |port| address(ip, port))
        }
        Some(_) => Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trusted are 10.0.0.0/8 and `fd00::/8`.
    fn client(header: ForwardedHeader, fields: &[&str]) -> Option<String> {
        let trusted = "10.0.0.0/8, fd00::/8".parse().unwrap();
        let fields = fields.iter().map(|field| field.as_bytes());
        let address = header.client(fields, &trusted);
        address.map(|address| super::super::Shown(address).to_string())
    }

    fn x_forwarded_for(fields: &[&str]) -> Option<String> {
        client(ForwardedHeader::XForwardedFor, fields)
    }

    fn forwarded(fields: &[&str]) -> Option<String> {
        client(ForwardedHeader::Forwarded, fields)
    }

    #[test]
    fn the_client_is_the_first_from_the_right_who_is_not_trusted() {
        for (fields, expected) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6,192.0.2.1,10.0.0.1, 10.0.0.2"], "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1, 10.0.0.1", "fd00::1"], "192.0.2.1"),
            (&["::ffff:192.0.2.1, ::ffff:10.0.0.1"], "192.0.2.1"),
            // Only proxies: the one that began.
            (&["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
            // With ports, brackets and quotes.
            (&["192.0.2.1:4711"], "192.0.2.1:4711"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:4711"], "[2001:db8::1]:4711"),
            (&["\"192.0.2.1:4711\""], "192.0.2.1:4711"),
            (&["\t 192.0.2.1 \t"], "192.0.2.1"),
            // Empty entries.
            (&["192.0.2.1,, 10.0.0.1 ,", "", ", "], "192.0.2.1"),
            // What is no address ends the list.
            (&["6.6.6.6, unknown, 10.0.0.1"], "10.0.0.1"),
            (&["6.6.6.6, _hidden, 10.0.0.1"], "10.0.0.1"),
            (&["6.6.6.6, 192.0.2.1:99999, 10.0.0.1"], "10.0.0.1"),
            (&["6.6.6.6, \"a, 192.0.2.1"], "192.0.2.1"),
        ] {
            assert_eq!(
                x_forwarded_for(fields).as_deref(),
                Some(expected),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in [
            "",
            " ",
            ",",
            "unknown",
            "_secret",
            "localhost",
            "192.0.2.1.",
            "192.0.2",
            "1",
            "192.0.2.1:",
            "192.0.2.1:+80",
            "192.0.2.1:8o",
            "192.0.2.1 80",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]80",
            "[]",
            "[",
            "\"",
            "\"\"",
            "fe80::1%eth0",
            "for=192.0.2.1",
            "192.0.2.1\u{e9}",
            "0x7f000001",
            "192.0.2.01",
        ] {
            assert_eq!(x_forwarded_for(&[text]), None, "{text:?}");
        }
        assert_eq!(x_forwarded_for(&[]), None);
        let binary: &[u8] = b"\xff\xfe";
        let header = ForwardedHeader::XForwardedFor;
        assert_eq!(
            header.client([binary].into_iter(), &Networks::default()),
            None
        );
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_says() {
        for (fields, expected) in [
            (&["for=192.0.2.1"][..], "192.0.2.1"),
            (
                &["For=\"[2001:db8:cafe::17]:4711\""],
                "[2001:db8:cafe::17]:4711",
            ),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
            (
                &["by=203.0.113.43; FOR=\"192.0.2.60:80\" ;proto=http"],
                "192.0.2.60:80",
            ),
            (
                &["for=6.6.6.6, for=192.0.2.1, for=10.0.0.1;proto=https"],
                "192.0.2.1",
            ),
            (
                &["for=6.6.6.6", "for=192.0.2.1", "for=\"[fd00::1]\""],
                "192.0.2.1",
            ),
            (&["host=\"a,for=6.6.6.6;b\";for=192.0.2.1"], "192.0.2.1"),
            (&["for=\"192.0.2.1:_port\""], "192.0.2.1"),
            // A client cannot swallow what a proxy adds.
            (&["for=\"6.6.6.6, for=192.0.2.1"], "192.0.2.1"),
            (&["host=\"a\\\", for=192.0.2.1, for=10.0.0.1"], "192.0.2.1"),
            (&["for=6.6.6.6, for=192.0.2.1;host=\"a\\\"b\""], "192.0.2.1"),
            (
                &["for=6.6.6.6, for=192.0.2.1;host=\"a\\\\\";by=x"],
                "192.0.2.1",
            ),
            (&["for=unknown, for=10.0.0.1"], "10.0.0.1"),
            (&["for=\"_gazonk\", for=10.0.0.1"], "10.0.0.1"),
            (&["proto=https, for=10.0.0.1"], "10.0.0.1"),
            (&["for=6.6.6.6;for=7.7.7.7, for=10.0.0.1"], "10.0.0.1"),
            (&["192.0.2.1, for=10.0.0.1"], "10.0.0.1"),
        ] {
            assert_eq!(forwarded(fields).as_deref(), Some(expected), "{fields:?}");
        }
        for text in [
            "for=",
            "for",
            "192.0.2.1",
            "=192.0.2.1",
            ";",
            "for=a;for=b",
            "fork=192.0.2.1",
        ] {
            assert_eq!(forwarded(&[text]), None, "{text:?}");
        }
    }

    #[test]
    fn a_long_list_is_not_read_to_its_end() {
        let proxies = "10.0.0.1,".repeat(MAX_HOPS);
        let list = format!("192.0.2.1,{proxies}");
        assert_eq!(x_forwarded_for(&[&list]).as_deref(), Some("10.0.0.1"));
        assert_eq!(
            x_forwarded_for(&[&list[..list.len() - 9]]).as_deref(),
            Some("192.0.2.1")
        );
        let names = ForwardedHeader::from_str("Forwarded").unwrap();
        assert_eq!(names, ForwardedHeader::Forwarded);
        assert!(ForwardedHeader::from_str("x-real-ip").is_err());
    }
}
