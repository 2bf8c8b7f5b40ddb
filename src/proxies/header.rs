//! The header of the PROXY protocol, versions 1 and 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>), which a proxy sends
//! before anything else on a connection.
//!
//! What follows it is TLS or HTTP, of which no byte must be taken: so a [`Header`] says of
//! the bytes that are there how many are its own. It is our own code because the crates for
//! it want the whole header at once, and do not say what is wrong with one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;

/// How a header of version 1 begins.
const V1: &[u8] = b"PROXY ";

/// How a header of version 2 begins.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of a header of version 1 at most, line end included.
const V1_MAX: usize = 107;

/// Bytes of a header of version 2 before the addresses.
const V2_FIXED: usize = 16;

/// Bytes of addresses and other fields that a header of version 2 may have.
const V2_MAX: usize = 4096;

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The connection begins with something else.
    #[error("it begins with something else")]
    Missing,
    /// The connection ended within it.
    #[error("it is cut off")]
    Truncated,
    /// More than 107 bytes without a line end, or over 4096 bytes of fields.
    #[error("it is too long")]
    TooLong,
    /// A line that does not end with CR LF.
    #[error("its line does not end with CR LF")]
    LineEnd,
    /// A protocol or a family that there is not.
    #[error("its protocol is none of TCP4, TCP6, UNKNOWN and what stands for them")]
    Protocol,
    /// Addresses that are none.
    #[error("its addresses are none")]
    Addresses,
    /// Ports that are none.
    #[error("its ports are none")]
    Ports,
    /// Another version than 1 and 2.
    #[error("its version is neither 1 nor 2")]
    Version,
    /// Neither LOCAL nor PROXY.
    #[error("its command is neither LOCAL nor PROXY")]
    Command,
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With a header.
    Header,
    /// With something else.
    Other,
    /// More has to come.
    Undecided,
}

impl Beginning {
    /// What the first bytes of a connection are.
    pub fn of(bytes: &[u8]) -> Self {
        let begins = |with: &[u8]| {
            let count = bytes.len().min(with.len());
            bytes[..count] == with[..count]
        };
        match (begins(V1), begins(V2)) {
            (false, false) => Self::Other,
            (true, false) if bytes.len() >= V1.len() => Self::Header,
            (false, true) if bytes.len() >= V2.len() => Self::Header,
            _ => Self::Undecided,
        }
    }
}

/// A header of which some bytes are there. It begins as [`Beginning::Header`].
#[derive(Debug, Default)]
pub struct Header(Vec<u8>);

impl Header {
    /// How many of the bytes that come next belong to it; none if it is whole.
    ///
    /// # Errors
    /// If it is longer than it may be.
    pub fn own(&self, next: &[u8]) -> Result<usize, HeaderError> {
        let had = self.0.len();
        // What begins as neither is found to be wrong by `source`.
        let begin = self.0.first().or(next.first());
        if begin == Some(&V1[0]) {
            if self.0.ends_with(b"\n") {
                return Ok(0);
            }
            let line = next.iter().position(|byte| *byte == b'\n');
            let own = line.map_or(next.len(), |end| end + 1);
            return if had + own > V1_MAX || (line.is_none() && had + own == V1_MAX) {
                Err(HeaderError::TooLong)
            } else {
                Ok(own)
            };
        }
        if had < V2_FIXED {
            return Ok(next.len().min(V2_FIXED - had));
        }
        let fields = usize::from(u16::from_be_bytes([self.0[14], self.0[15]]));
        if fields > V2_MAX {
            return Err(HeaderError::TooLong);
        }
        Ok(next.len().min(V2_FIXED + fields - had))
    }

    /// Adds bytes that [`Self::own`] has counted.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Whether all of it is there.
    pub fn is_whole(&self) -> bool {
        !self.0.is_empty() && self.own(&[0]) == Ok(0)
    }

    /// Who the proxy has connected for, once it is whole; `None` for itself, as when it
    /// checks whether the server is there, or if what it says is no IP address.
    ///
    /// # Errors
    /// If it is not as the protocol says.
    pub fn source(&self) -> Result<Option<SocketAddr>, HeaderError> {
        if let Some(line) = self.0.strip_prefix(V1) {
            return v1(line);
        }
        match self.0.strip_prefix(V2) {
            Some([command, family, _, _, fields @ ..]) => v2(*command, *family, fields),
            Some(_) => Err(HeaderError::Truncated),
            None => Err(HeaderError::Missing),
        }
    }
}

/// `TCP4 192.0.2.1 198.51.100.1 4711 443` and a line end.
fn v1(line: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let line = line.strip_suffix(b"\r\n").ok_or(HeaderError::LineEnd)?;
    let line = str::from_utf8(line).map_err(|_| HeaderError::Addresses)?;
    let mut words = line.split(' ');
    let address = match words.next() {
        // What else is on the line has to be ignored.
        Some("UNKNOWN") => return Ok(None),
        Some("TCP4") => |text: &str| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Some("TCP6") => |text: &str| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(HeaderError::Protocol),
    };
    let mut next = || words.next().and_then(address).ok_or(HeaderError::Addresses);
    let (source, _) = (next()?, next()?);
    let mut next = || words.next().and_then(port).ok_or(HeaderError::Ports);
    let (port, _) = (next()?, next()?);
    match words.next() {
        None => Ok(Some(SocketAddr::new(source.to_canonical(), port))),
        Some(_) => Err(HeaderError::Ports),
    }
}

/// A number without a sign and without zeros before it.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = text == "0" || !text.starts_with('0');
    (is_plain && is_short).then(|| text.parse().ok()).flatten()
}

fn v2(command: u8, family: u8, fields: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    match command {
        // Of itself; what else it says has to be ignored.
        0x20 => return Ok(None),
        0x21 => {}
        0x22..=0x2f => return Err(HeaderError::Command),
        _ => return Err(HeaderError::Version),
    }
    // Both addresses, then both ports; other fields may follow.
    let source = match family {
        0x11 => fields.first_chunk::<12>().map(|fields| {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *fields;
            SocketAddr::new([a, b, c, d].into(), u16::from_be_bytes([high, low]))
        }),
        0x21 => fields.first_chunk::<36>().map(|fields| {
            let (address, rest) = fields.split_first_chunk::<16>().expect("there are 36");
            let ip = IpAddr::from(*address).to_canonical();
            SocketAddr::new(ip, u16::from_be_bytes([rest[16], rest[17]]))
        }),
        // Unspecified, datagrams, Unix sockets.
        0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30..=0x32 => return Ok(None),
        _ => return Err(HeaderError::Protocol),
    };
    source.map(Some).ok_or(HeaderError::Addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads it in pieces of a size, as it would come, with something behind it.
    fn read(bytes: &[u8], piece: usize) -> Result<Option<SocketAddr>, HeaderError> {
        let all = [bytes, b"\x16\x03\x01GET"].concat();
        let (mut header, mut at) = (Header::default(), 0);
        while !header.is_whole() {
            let next = &all[at..all.len().min(at + piece)];
            let own = header.own(next)?;
            header.push(&next[..own]);
            at += own;
        }
        assert_eq!(at, bytes.len(), "what is behind it is not touched");
        header.source()
    }

    fn source(bytes: &[u8]) -> Result<Option<String>, HeaderError> {
        let whole = read(bytes, 4200);
        for piece in [1, 2, 5, 16, 17] {
            assert_eq!(read(bytes, piece), whole, "{piece}");
        }
        whole.map(|address| address.map(|address| address.to_string()))
    }

    fn v2(command: u8, family: u8, fields: &[u8]) -> Vec<u8> {
        let length = u16::try_from(fields.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, fields].concat()
    }

    #[test]
    fn version_1_is_read() {
        for (line, expected) in [
            (
                "TCP4 192.0.2.1 198.51.100.1 4711 443",
                Some("192.0.2.1:4711"),
            ),
            ("TCP4 192.0.2.1 198.51.100.1 0 65535", Some("192.0.2.1:0")),
            ("TCP6 2001:db8::1 ::1 4711 443", Some("[2001:db8::1]:4711")),
            ("TCP6 ::ffff:192.0.2.1 ::1 4711 443", Some("192.0.2.1:4711")),
            ("UNKNOWN", None),
            ("UNKNOWN what ever", None),
        ] {
            let found = source(format!("PROXY {line}\r\n").as_bytes());
            assert_eq!(found, Ok(expected.map(str::to_owned)), "{line}");
        }
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
        let line = format!("PROXY UNKNOWN {longest} {longest}\r\n");
        assert_eq!(source(line.as_bytes()), Ok(None));
    }

    #[test]
    fn what_is_wrong_with_version_1_is_told() {
        use HeaderError::{Addresses, LineEnd, Ports, Protocol, TooLong};
        for (rest, expected) in [
            ("TCP4 192.0.2.1 198.51.100.1 4711 443\n", LineEnd),
            ("TCP4 192.0.2.1 198.51.100.1 4711\r\n", Ports),
            ("TCP4 192.0.2.1 198.51.100.1 4711 443 1\r\n", Ports),
            ("TCP4 192.0.2.1 198.51.100.1 4711 443 \r\n", Ports),
            ("TCP4 192.0.2.1 198.51.100.1 +1 443\r\n", Ports),
            ("TCP4 192.0.2.1 198.51.100.1 01 443\r\n", Ports),
            ("TCP4 192.0.2.1 198.51.100.1 65536 443\r\n", Ports),
            ("TCP4 192.0.2.1 198.51.100.1  443\r\n", Ports),
            ("TCP4 192.0.2.1\r\n", Addresses),
            ("TCP4\r\n", Addresses),
            ("TCP4  192.0.2.1 198.51.100.1 4711 443\r\n", Addresses),
            ("TCP4 2001:db8::1 ::1 4711 443\r\n", Addresses),
            ("TCP6 192.0.2.1 198.51.100.1 4711 443\r\n", Addresses),
            ("TCP4 example 198.51.100.1 4711 443\r\n", Addresses),
            ("TCP4 192.0.2.1 198.51.100.1\u{e9} 4711 443\r\n", Addresses),
            ("TCP5 192.0.2.1 198.51.100.1 4711 443\r\n", Protocol),
            ("tcp4 192.0.2.1 198.51.100.1 4711 443\r\n", Protocol),
            ("UNKNOWNS\r\n", Protocol),
            ("\r\n", Protocol),
            ("\n", LineEnd),
        ] {
            let found = source(format!("PROXY {rest}").as_bytes());
            assert_eq!(found, Err(expected), "{rest:?}");
        }
        // 107 bytes are the most, with the line end.
        let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
        assert_eq!(source(line(107).as_bytes()), Ok(None));
        assert_eq!(source(line(108).as_bytes()), Err(TooLong));
        let endless = format!("PROXY {}", "x".repeat(10_000));
        assert_eq!(source(endless.as_bytes()), Err(TooLong));
    }

    #[test]
    fn version_2_is_read() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        v6[15] = 1;
        v6[32..].copy_from_slice(&[0x12, 0x67, 1, 187]);
        let tlvs = [3, 0, 4, 1, 2, 3, 4, 4, 0, 1, 0];
        for (command, family, fields, expected) in [
            (0x21, 0x11, v4.to_vec(), Some("192.0.2.1:4711")),
            (
                0x21,
                0x11,
                [&v4[..], &tlvs].concat(),
                Some("192.0.2.1:4711"),
            ),
            (
                0x21,
                0x11,
                [&v4[..], &[4; V2_MAX - 12]].concat(),
                Some("192.0.2.1:4711"),
            ),
            (0x21, 0x21, v6.to_vec(), Some("[2001:db8::1]:4711")),
            // Its own connections.
            (0x20, 0x00, Vec::new(), None),
            (0x20, 0x00, tlvs.to_vec(), None),
            (0x20, 0x11, v4.to_vec(), None),
            (0x20, 0xff, vec![1], None),
            // What is no connection over TCP.
            (0x21, 0x00, Vec::new(), None),
            (0x21, 0x12, v4.to_vec(), None),
            (0x21, 0x31, vec![b'/'; 216], None),
        ] {
            let found = source(&v2(command, family, &fields));
            assert_eq!(found, Ok(expected.map(str::to_owned)), "{command} {family}");
        }
    }

    #[test]
    fn what_is_wrong_with_version_2_is_told() {
        use HeaderError::{Addresses, Command, Protocol, TooLong, Version};
        for (command, family, fields, expected) in [
            (0x21, 0x11, vec![0; 11], Addresses),
            (0x21, 0x11, vec![], Addresses),
            (0x21, 0x21, vec![0; 35], Addresses),
            (0x22, 0x11, vec![0; 12], Command),
            (0x11, 0x11, vec![0; 12], Version),
            (0x31, 0x11, vec![0; 12], Version),
            (0x21, 0x41, vec![0; 12], Protocol),
            (0x21, 0x13, vec![0; 12], Protocol),
            (0x21, 0x11, vec![0; V2_MAX + 1], TooLong),
            (0x20, 0x00, vec![0; 65_535], TooLong),
        ] {
            let found = source(&v2(command, family, &fields));
            assert_eq!(found, Err(expected), "{command} {family}");
        }
    }

    #[test]
    fn a_header_is_told_from_what_else_a_connection_begins_with() {
        for (bytes, expected) in [
            (&b""[..], Beginning::Undecided),
            (b"P", Beginning::Undecided),
            (b"PRO", Beginning::Undecided),
            (b"PROXY", Beginning::Undecided),
            (b"PROXY ", Beginning::Header),
            (b"PROXY TCP4", Beginning::Header),
            (b"PROXYX", Beginning::Other),
            (b"POST / HTTP/1.1", Beginning::Other),
            (b"PO", Beginning::Other),
            (b"GET / HTTP/1.1", Beginning::Other),
            (b"\r", Beginning::Undecided),
            (b"\r\nGET", Beginning::Other),
            (b"\r\n\r\n\0\r\nQUIT", Beginning::Undecided),
            (b"\r\n\r\n\0\r\nQUIT\n", Beginning::Header),
            (b"\r\n\r\n\0\r\nQUIT\n!", Beginning::Header),
            (b"\x16\x03\x01", Beginning::Other),
        ] {
            assert_eq!(Beginning::of(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn less_than_a_header_is_none() {
        let mut header = Header::default();
        assert_eq!(header.source(), Err(HeaderError::Missing));
        assert!(!header.is_whole());
        header.push(V2);
        assert_eq!(header.source(), Err(HeaderError::Truncated));
        assert!(!header.is_whole());
    }
}
