//! Addresses and subnets as the API writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A subnet in CIDR form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The network's first address.
    pub base: IpAddr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

impl Cidr {
    /// Bits of an address of this family.
    #[must_use]
    pub fn width(&self) -> u8 {
        if self.base.is_ipv4() { 32 } else { 128 }
    }

    /// How many bits number the hosts.
    #[must_use]
    pub fn host_bits(&self) -> u8 {
        self.width() - self.prefix
    }

    /// The `n`th address, counted from the network's own as 0; `None` outside the subnet.
    #[must_use]
    pub fn nth(&self, n: u32) -> Option<IpAddr> {
        if self.host_bits() < 32 && n >> self.host_bits() != 0 {
            return None;
        }
        match self.base {
            IpAddr::V4(ip) => u32::from(ip).checked_add(n).map(|ip| Ipv4Addr::from(ip).into()),
            IpAddr::V6(ip) => u128::from(ip).checked_add(u128::from(n)).map(|ip| Ipv6Addr::from(ip).into()),
        }
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr, String> {
        let bad = || "want a subnet such as 10.96.0.0/12".to_owned();
        let (ip, prefix) = text.trim().split_once('/').ok_or_else(bad)?;
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let base = match ip {
            IpAddr::V4(ip) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Ipv4Addr::from(u32::from(ip) & mask).into()
            }
            IpAddr::V6(ip) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Ipv6Addr::from(u128::from(ip) & mask).into()
            }
            _ => return Err(bad()),
        };
        Ok(Cidr { base, prefix })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// The subnets of a comma-separated list (one, or one of each family).
///
/// # Errors
/// One of them is no subnet.
pub fn subnets(list: &str) -> Result<Vec<Cidr>, String> {
    list.split(',').filter(|part| !part.trim().is_empty()).map(str::parse).collect()
}

/// The `n`th address of the first subnet of `list`.
#[must_use]
pub fn nth_address(list: &str, n: u32) -> Option<IpAddr> {
    subnets(list).ok()?.first()?.nth(n)
}

/// `host:port`, IPv6 in brackets.
#[must_use]
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Splits `host[:port]`, brackets around IPv6 taken off.
///
/// # Errors
/// The port is no port, or there is no host.
pub fn split_host_port(text: &str) -> Result<(String, Option<u16>), String> {
    let bad = || "want HOST or HOST:PORT".to_owned();
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
        (host, rest.strip_prefix(':').or_else(|| (!rest.is_empty()).then_some("?")))
    } else if text.parse::<Ipv6Addr>().is_ok() {
        (text, None)
    } else {
        text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    if host.is_empty() {
        return Err(bad());
    }
    let port = port.map(|p| p.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(bad)).transpose()?;
    Ok((host.to_owned(), port))
}

/// Whether `name` is a DNS-1123 subdomain: dot-separated labels of lower-case letters, digits and inner hyphens.
#[must_use]
pub fn is_dns1123_subdomain(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_a_subnet() {
        for (cidr, n, ip) in [
            ("10.96.0.0/12", 1, Some("10.96.0.1")),
            ("10.96.0.0/12", 10, Some("10.96.0.10")),
            ("10.96.7.9/12", 10, Some("10.96.0.10")),
            ("fd00::/108", 10, Some("fd00::a")),
            ("192.168.0.0/30", 10, None),
            ("0.0.0.0/0", 10, Some("0.0.0.10")),
        ] {
            let found = cidr.parse::<Cidr>().unwrap().nth(n).map(|ip| ip.to_string());
            assert_eq!(found.as_deref(), ip, "failed testcase: {cidr} {n}");
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129"] {
            assert!(text.parse::<Cidr>().is_err(), "failed testcase: {text}");
        }
    }

    #[test]
    fn endpoints() {
        for (text, wanted) in [
            ("a.example", Some(("a.example", None))),
            ("a:6443", Some(("a", Some(6443)))),
            ("[fd00::1]:8443", Some(("fd00::1", Some(8443)))),
            ("[fd00::1]", Some(("fd00::1", None))),
            ("fd00::1", Some(("fd00::1", None))),
            ("a:0", None),
            ("a:b", None),
            (":6443", None),
            ("[fd00::1]x", None),
        ] {
            let found = split_host_port(text).ok();
            assert_eq!(found, wanted.map(|(h, p)| (h.to_owned(), p)), "failed testcase: {text}");
        }
    }

    #[test]
    fn names() {
        for (name, good) in
            [("n1", true), ("a.b-c", true), ("", false), ("A", false), ("-a", false), ("a..b", false)]
        {
            assert_eq!(is_dns1123_subdomain(name), good, "failed testcase: {name}");
        }
    }
}
