//! The private networks and hosts an operator opens to registry admins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use super::block::{layers, never_block};

/// Networks and host names that may be dialled although their addresses are private.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivateNetworks {
    networks: Vec<IpNet>,
    hosts: Vec<HostPattern>,
}

impl PrivateNetworks {
    /// This machine's own loopback addresses.
    #[must_use]
    pub fn loopback() -> Self {
        const V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        const V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
        Self { networks: vec![IpNet::V4(V4), IpNet::V6(V6)], hosts: Vec::new() }
    }

    /// Reads entries such as `10.0.0.0/8`, `fd00::1`, `git.corp.example` and `*.svc.cluster.local`.
    ///
    /// # Errors
    ///
    /// The first entry that is none of these, or that names addresses which are never dialled.
    pub fn parse<I>(entries: I) -> Result<Self, PrivateNetworksError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut parsed = Self::default();
        for entry in entries {
            parsed.push(entry.as_ref().trim())?;
        }
        Ok(parsed)
    }

    /// These networks and hosts and those of `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.networks.extend(other.networks);
        self.hosts.extend(other.hosts);
        self
    }

    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.hosts.is_empty()
    }

    /// Whether the host or its address is listed.
    #[must_use]
    pub fn contains(&self, host: &str, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
            || self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    fn push(&mut self, entry: &str) -> Result<(), PrivateNetworksError> {
        if entry.contains('/') {
            let network = parse_network(entry)?;
            self.networks.push(network);
        } else if let Ok(address) = entry.parse::<IpAddr>() {
            self.networks.push(dialable(entry, IpNet::from(address))?);
        } else {
            self.hosts.push(HostPattern::parse(entry)?);
        }
        Ok(())
    }
}

impl FromStr for PrivateNetworks {
    type Err = PrivateNetworksError;

    /// Reads a comma-separated list; an empty one lists nothing.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        Self::parse(list.split(',').filter(|entry| !entry.trim().is_empty()))
    }
}

/// Why an entry of a list of private networks was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PrivateNetworksError {
    /// Neither a network, an address nor a host name.
    #[error("{entry:?} is neither a network (10.0.0.0/8), an address (10.1.2.3) nor a host name (git.corp.example)")]
    Malformed {
        /// The entry.
        entry: String,
    },
    /// A network written with an address inside it.
    #[error("{entry:?} has address bits beyond its prefix: write {network} for the network")]
    HostBits {
        /// The entry.
        entry: String,
        /// The network it lies in.
        network: IpNet,
    },
    /// IPv6 notation for IPv4 addresses, which are compared as IPv4.
    #[error("{entry:?} stands for IPv4 addresses: write it as IPv4")]
    EmbeddedV4 {
        /// The entry.
        entry: String,
    },
    /// Every address of the network is one that is never dialled.
    #[error("{entry:?} cannot be allowed: {block} addresses are never dialled")]
    Never {
        /// The entry.
        entry: String,
        /// The block it lies in.
        block: &'static str,
    },
}

fn parse_network(entry: &str) -> Result<IpNet, PrivateNetworksError> {
    let network = entry.parse::<IpNet>().map_err(|_| PrivateNetworksError::Malformed { entry: entry.to_owned() })?;
    if network.trunc() != network {
        return Err(PrivateNetworksError::HostBits { entry: entry.to_owned(), network: network.trunc() });
    }
    dialable(entry, network)
}

fn dialable(entry: &str, network: IpNet) -> Result<IpNet, PrivateNetworksError> {
    if let Some(block) = never_block(network) {
        return Err(PrivateNetworksError::Never { entry: entry.to_owned(), block });
    }
    // A wide IPv6 network that merely contains such addresses is meant for its IPv6 ones.
    let first_is_v4 = layers(network.addr()).all(|layer| layer.is_ipv4());
    let last_is_v4 = layers(network.broadcast()).all(|layer| layer.is_ipv4());
    if matches!(network, IpNet::V6(_)) && first_is_v4 && last_is_v4 {
        return Err(PrivateNetworksError::EmbeddedV4 { entry: entry.to_owned() });
    }
    Ok(network)
}

/// A host name, or every name below one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Exact(Box<str>),
    Below(Box<str>),
}

impl HostPattern {
    fn parse(entry: &str) -> Result<Self, PrivateNetworksError> {
        let (name, below) = match entry.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (entry, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if !is_host_name(name) {
            return Err(PrivateNetworksError::Malformed { entry: entry.to_owned() });
        }
        let name = name.to_ascii_lowercase().into_boxed_str();
        Ok(if below { Self::Below(name) } else { Self::Exact(name) })
    }

    fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(parent) => {
                let Some((label, tail)) = split_before(host, parent.len()) else { return false };
                tail.eq_ignore_ascii_case(parent) && label.len() > 1 && label.ends_with('.')
            }
        }
    }
}

fn split_before(host: &str, tail: usize) -> Option<(&str, &str)> {
    host.split_at_checked(host.len().checked_sub(tail)?)
}

/// A name whose last label is a number would be read as an address by a URL parser, and so never be met as a name.
fn is_host_name(name: &str) -> bool {
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(label_ok) && !name.rsplit('.').next().is_some_and(numeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<PrivateNetworks, PrivateNetworksError> {
        list.parse()
    }

    #[test]
    fn lists_are_read_and_joined() {
        assert!(parse("").unwrap().is_empty());
        assert!(parse(" , ").unwrap().is_empty());
        let list = parse("10.0.0.0/8, fd00::/8,10.1.2.3,::1, Git.Corp.Example., *.svc.cluster.local").unwrap();
        assert_eq!((list.networks.len(), list.hosts.len()), (4, 2));
        let joined = list.and(PrivateNetworks::loopback());
        assert!(joined.contains("any", "127.0.0.1".parse().unwrap()));
        assert!(joined.contains("git.corp.example", "1.1.1.1".parse().unwrap()));
    }

    #[test]
    fn bad_entries_are_refused_with_the_entry_and_the_remedy() {
        for (entry, wanted) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.0.0.0/33", "neither a network"),
            ("10.0.0", "neither a network"),
            ("http://git.corp", "neither a network"),
            ("git.corp:8080", "neither a network"),
            ("*", "neither a network"),
            ("a..b", "neither a network"),
            ("*.", "neither a network"),
            ("169.254.0.0/16", "link-local addresses are never dialled"),
            ("169.254.169.254", "link-local addresses are never dialled"),
            ("fd00:ec2::254", "cloud metadata addresses are never dialled"),
            ("::ffff:10.0.0.0/104", "write it as IPv4"),
            ("64:ff9b::10.0.0.1", "write it as IPv4"),
        ] {
            let text = parse(entry).unwrap_err().to_string();
            assert!(text.contains(wanted) && text.contains(entry), "{entry}: {text}");
        }
    }
}
