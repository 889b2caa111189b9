//! Addresses that may be reached: public ones, and networks that the configuration allows.
//!
//! Intuition: a user who may configure a URL must not use this machine to reach its internal network (server-side
//! request forgery). Invariant: an IPv4 address embedded in an IPv6 address is judged as the IPv4 address. Rejected:
//! a list of forbidden host names (any name may resolve to an internal address).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network that may be reached although it is not public: `10.0.0.0/8`, `127.0.0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u32,
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("`{text}` is no network; write it as 10.0.0.0/8 or 127.0.0.1");
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > most { Err(wrong()) } else { Ok(Network { address, bits }) }
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        let (own, other, all) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let shift = all - self.bits;
        shift >= 128 || own >> shift == other >> shift
    }
}

/// Whether an address is in one of these networks.
pub(crate) fn is_in(address: IpAddr, networks: &[Network]) -> bool {
    networks.iter().any(|one| one.has(address))
}

/// Whether an address may be reached.
pub(crate) fn is_allowed(address: IpAddr, allowed: &[Network]) -> bool {
    is_public(address) || is_in(address, allowed)
}

/// Whether an address is public, that is, routed on the internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b); // carrier-grade NAT
    let is_special = a == 0 || a >= 240 || (a == 192 && b == 0 && c == 0) || (a == 198 && (b & 0xfe) == 18);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || is_shared
        || is_special)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Public addresses are allocated only in 2000::/3. The documentation prefix 2001:db8::/32 is in this range, but
    // is not public.
    let first = address.segments();
    first[0] & 0xe000 == 0x2000 && !(first[0] == 0x2001 && first[1] == 0x0db8)
}

/// Returns the IPv4 address inside an IPv6 address: mapped, compatible, NAT64 or 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let of = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match s {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => of(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

/// An address that may not be reached.
#[derive(Debug)]
pub(crate) struct Refused(pub IpAddr);

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not public; add it to the receiver's `allow` if it may be reached", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_public_addresses_are_reached() {
        for text in ["1.1.1.1", "93.184.216.34", "2606:4700::1111"] {
            assert!(is_public(address(text)), "{text}");
        }
        let refused = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "::7f00:1",
            "2001:db8::1",
        ];
        for text in refused {
            assert!(!is_public(address(text)), "{text}");
        }
    }

    #[test]
    fn networks_are_allowed_by_name() {
        let has =
            |network: &str, text: &str| network.parse::<Network>().expect("a network").has(address(text));
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("127.0.0.1", "127.0.0.1") && !has("127.0.0.1", "127.0.0.2"));
        assert!(has("fd00::/8", "fdff::1") && !has("fd00::/8", "10.0.0.1") && has("::/0", "::1"));
        assert!("10.0.0.0/33".parse::<Network>().is_err() && "intranet".parse::<Network>().is_err());
    }
}
