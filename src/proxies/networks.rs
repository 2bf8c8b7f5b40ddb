//! A list of addresses and networks.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

/// RFC 1918, RFC 4193, and link-local addresses.
const PRIVATE: [&str; 6] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// Bits of an IPv6 address before the IPv4 address that is mapped into it.
const MAPPED: u8 = 96;

/// Addresses and networks, none of them twice as IPv4 and as the IPv6 it is mapped to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Arc<[IpNet]>);

impl Networks {
    /// Whether an address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A comma list. The error says what is expected, and which entry is wrong.
impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim);
        let mut networks = Vec::new();
        for entry in entries.filter(|entry| !entry.is_empty()) {
            match entry {
                "loopback" => networks.extend(LOOPBACK.map(known)),
                "private" => networks.extend(PRIVATE.map(known)),
                _ => networks.push(network(entry)?),
            }
        }
        Ok(Self(networks.into()))
    }
}

fn known(text: &str) -> IpNet {
    text.parse().expect("it is a network")
}

fn network(entry: &str) -> Result<IpNet, String> {
    let wrong = |why: &str| {
        format!("addresses, networks such as 10.0.0.0/8, loopback or private; {entry:?} {why}")
    };
    let network = match entry.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().into(),
        Err(_) => entry.parse().map_err(|_| wrong("is none of them"))?,
    };
    let network = unmapped(network);
    // Whoever writes 10.1.2.3/8 may mean that one address, and would trust 16 million.
    if network.trunc() != network {
        return Err(wrong(&format!(
            "is an address in the network {}",
            network.trunc()
        )));
    }
    Ok(network)
}

/// The IPv4 network that an IPv6 network stands for, if it does.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let (Some(v4), Some(bits)) = (
        v6.addr().to_ipv4_mapped(),
        v6.prefix_len().checked_sub(MAPPED),
    ) else {
        return network;
    };
    Ipv4Net::new(v4, bits).map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(list: &str, address: &str) -> bool {
        let networks: Networks = list.parse().unwrap();
        networks.contains(address.parse().unwrap())
    }

    #[test]
    fn addresses_networks_and_names_are_taken() {
        for (list, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            (" 192.0.2.1 , 2001:db8::/32,", "2001:db8:1::", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("loopback", "127.8.9.1", "128.0.0.1"),
            ("loopback", "::1", "::2"),
            ("private", "10.255.0.1", "11.0.0.0"),
            ("private", "172.31.0.1", "172.32.0.1"),
            ("private", "192.168.4.1", "192.169.0.0"),
            ("private", "169.254.1.1", "127.0.0.1"),
            ("private", "fd00::1", "fe00::1"),
            ("private", "fe80::1", "ff02::1"),
            ("0.0.0.0/0", "192.0.2.1", "2001:db8::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("10.0.0.0/8,loopback", "127.0.0.1", "172.16.0.1"),
        ] {
            assert!(contains(list, inside), "{inside} in {list}");
            assert!(!contains(list, outside), "{outside} in {list}");
        }
        for nothing in ["", " ", ","] {
            assert!(nothing.parse::<Networks>().unwrap().is_empty());
        }
    }

    #[test]
    fn ipv4_that_is_mapped_to_ipv6_is_ipv4_on_both_sides() {
        for list in ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.0/120"] {
            for address in ["192.0.2.1", "::ffff:192.0.2.1"] {
                assert!(contains(list, address), "{address} in {list}");
            }
        }
        assert!(contains("::ffff:127.0.0.0/104", "127.0.0.1"));
        assert!(contains("loopback", "::ffff:127.0.0.1"));
    }

    #[test]
    fn a_wrong_entry_is_named() {
        for (list, wrong) in [
            ("10.0.0.0/33", "\"10.0.0.0/33\" is none of them"),
            ("10.0.0.1, foo, bar", "\"foo\" is none of them"),
            ("10.0.0.1:80", "\"10.0.0.1:80\" is none"),
            ("fe80::1%eth0", "\"fe80::1%eth0\" is none"),
            ("*", "\"*\" is none"),
            ("10.1.2.3/8", "is an address in the network 10.0.0.0/8"),
        ] {
            let error = list.parse::<Networks>().unwrap_err();
            assert!(error.ends_with(wrong) || error.contains(wrong), "{error}");
        }
    }
}
