//! Proxies in front of the server: whose word is taken for who a client is, and how that
//! is read.
//!
//! Nothing here reads from a socket. What a proxy that is not trusted says is never
//! looked at: anybody can say it.

pub mod forwarded;
pub mod header;
mod networks;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use forwarded::ForwardedHeader;
pub use networks::Networks;

/// What is believed of proxies.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Whose word is taken.
    pub trusted: Networks,
    /// Where in a request it is.
    pub forwarded_header: ForwardedHeader,
    /// Whether their connections begin with a PROXY header.
    pub proxy_protocol: bool,
}

impl Proxies {
    /// Whether a connection from this address has to begin with a PROXY header.
    pub fn expects_header_from(&self, address: IpAddr) -> bool {
        self.proxy_protocol && self.trusted.contains(address)
    }
}

/// Who is at the other end of a connection or of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address; port 0 if that is not known.
    pub address: SocketAddr,
    /// Who has connected, if a trusted proxy said that `address` is somebody else's.
    pub proxy: Option<SocketAddr>,
    /// Whether `address` was read from the request.
    pub is_forwarded: bool,
}

impl Client {
    /// One who has connected itself.
    pub fn direct(peer: SocketAddr) -> Self {
        Self {
            address: peer,
            proxy: None,
            is_forwarded: false,
        }
    }

    /// The one for whom this one, who is trusted, has connected as its PROXY header says.
    pub fn with_proxied(self, address: SocketAddr) -> Self {
        Self {
            address,
            proxy: Some(self.proxy.unwrap_or(self.address)),
            ..self
        }
    }

    /// The one for whom this one, who is trusted, has sent a request.
    pub fn with_forwarded(self, address: SocketAddr) -> Self {
        Self {
            is_forwarded: true,
            ..self.with_proxied(address)
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(self.address).fmt(f)
    }
}

/// An address as it is logged: without its port if that is not known.
#[derive(Clone, Copy, Debug)]
pub struct Shown(pub SocketAddr);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port() {
            0 => self.0.ip().fmt(f),
            _ => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_is_shown_without_one() {
        for text in ["192.0.2.1:7", "[2001:db8::1]:7"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Shown(address).to_string(), text);
            let without = SocketAddr::new(address.ip(), 0);
            assert_eq!(Shown(without).to_string(), address.ip().to_string());
        }
    }

    #[test]
    fn the_proxy_of_a_client_is_the_one_that_has_connected() {
        let address = |text: &str| text.parse().unwrap();
        let outer = Client::direct(address("127.0.0.1:1")).with_proxied(address("10.0.0.1:2"));
        let client = outer.with_forwarded(address("192.0.2.1:3"));
        assert_eq!(client.proxy, Some(address("127.0.0.1:1")));
        assert!(client.is_forwarded && !outer.is_forwarded);
    }
}
