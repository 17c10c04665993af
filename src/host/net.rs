//! The name of the machine and the addresses of its interfaces.

use std::net::IpAddr;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;

/// Every address, with the name of its interface, in the kernel's order.
///
/// # Errors
/// The kernel does not tell.
pub fn addresses() -> Result<Vec<(String, IpAddr)>> {
    let mut found = Vec::new();
    for interface in getifaddrs().context("listing the addresses of the interfaces")? {
        let Some(address) = interface.address else { continue };
        let ip = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        let ip = ip.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())));
        found.extend(ip.map(|ip| (interface.interface_name, ip)));
    }
    Ok(found)
}

/// The host's name.
///
/// # Errors
/// The kernel does not tell, or it is not text.
pub fn hostname() -> Result<String> {
    let name = nix::unistd::gethostname().context("reading the host's name")?;
    Ok(name.to_string_lossy().into_owned())
}
