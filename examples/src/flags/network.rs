//! The flags about who reaches servers on Kubernetes, and what those reach.

use archestra_k8s::{Egress, ReachMode};
use clap::Args;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What stands for every network.
const EVERYTHING: &str = "*";

/// Who reaches servers on Kubernetes, and what those reach.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NetworkFlags {
    /// The private networks that self-hosted servers may reach beside public addresses, as `10.20.0.0/16`; `*` for everything
    #[arg(long, value_name = "LIST", value_parser = egress)]
    pub(crate) workload_egress: Option<Destinations>,
    /// The networks of DNS servers that self-hosted servers may ask, as `10.96.0.10/32`, beside the pods of the cluster that are
    /// labelled k8s-app=kube-dns, a cache on the node at 169.254.20.10 and, in a pod, the name servers of the server's own pod
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = network)]
    pub(crate) workload_dns: Option<Vec<String>>,
    /// How self-hosted servers are reached: auto, cluster (by the names of their Services), direct (at the addresses of pods
    /// and Services) or port-forward (through the API server)
    #[arg(long, value_name = "MODE", value_parser = reach)]
    pub(crate) workload_reach: Option<ReachMode>,
    /// The labels of this server's own pods, which may reach self-hosted servers
    #[arg(long, value_name = "LIST", value_parser = labels)]
    pub(crate) gateway_labels: Option<Labels>,
    /// The namespace of this server's own pods
    #[arg(long, value_name = "NAME")]
    pub(crate) gateway_namespace: Option<String>,
    /// The networks from which self-hosted servers may be reached too, for a server outside their cluster
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = network)]
    pub(crate) gateway_networks: Option<Vec<String>>,
}

/// Labels by their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Labels(pub(crate) BTreeMap<String, String>);

/// Where servers may connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destinations(pub(crate) Egress);

impl NetworkFlags {
    /// These, and where one is not set that of `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            workload_egress: self.workload_egress.or(other.workload_egress),
            workload_dns: self.workload_dns.or(other.workload_dns),
            workload_reach: self.workload_reach.or(other.workload_reach),
            gateway_labels: self.gateway_labels.or(other.gateway_labels),
            gateway_namespace: self.gateway_namespace.or(other.gateway_namespace),
            gateway_networks: self.gateway_networks.or(other.gateway_networks),
        }
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn egress(text: &str) -> Result<Destinations, String> {
    if text.trim() == EVERYTHING {
        return Ok(Destinations(Egress::Everything));
    }
    let private: BTreeSet<String> = items(text).map(network).collect::<Result<_, _>>()?;
    Ok(Destinations(Egress::Public { private }))
}

fn reach(text: &str) -> Result<ReachMode, String> {
    match text {
        "auto" => Ok(ReachMode::Auto),
        "cluster" => Ok(ReachMode::Cluster),
        "direct" => Ok(ReachMode::Direct),
        "port-forward" => Ok(ReachMode::PortForward),
        _ => Err("use `auto`, `cluster`, `direct` or `port-forward`".to_owned()),
    }
}

/// A network as Kubernetes takes it: an address and the length of its prefix, with nothing behind the prefix.
fn network(text: &str) -> Result<String, String> {
    let text = text.trim();
    let wrong = |why: &str| format!("{text:?} is no network: {why}; use as in `10.20.0.0/16` or `fd12::/48`");
    let (address, length) = text.split_once('/').ok_or_else(|| wrong("it has no length"))?;
    let address: IpAddr = address.parse().map_err(|_| wrong("it does not begin with an address"))?;
    let length: u32 = length.parse().map_err(|_| wrong("its length is no number"))?;
    let (bits, all) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    if length > all {
        return Err(wrong("it is longer than an address"));
    }
    if bits.checked_shl(length).unwrap_or_default() != 0 {
        return Err(wrong("there are bits behind its length"));
    }
    Ok(text.to_owned())
}

fn labels(text: &str) -> Result<Labels, String> {
    let mut labels = BTreeMap::new();
    for pair in items(text) {
        match pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some((key, value)) if is_key(key) && is_value(value) => labels.insert(key.to_owned(), value.to_owned()),
            _ => return Err(format!("{pair:?} is no label; use as in `app.kubernetes.io/name=archestra`")),
        };
    }
    Ok(Labels(labels))
}

fn is_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| {
        (1..=253).contains(&prefix.len())
            && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    !name.is_empty() && is_value(name) && prefix.is_none_or(is_prefix)
}

fn is_value(value: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let outer = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63 && bytes.iter().all(|b| inner(*b)) && outer(bytes.first()) && outer(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_as_kubernetes_takes_them() {
        for good in ["10.20.0.0/16", "0.0.0.0/0", "192.168.7.1/32", "fd12::/48", "::/0", "fd00::1/128"] {
            assert_eq!(network(good).as_deref(), Ok(good));
        }
        for bad in ["10.20.0.0", "10.20.0.1/16", "10.0.0.0/33", "fd12::1/48", "::/129", "all", "10.0.0.0/", ""] {
            assert!(network(bad).unwrap_err().contains("10.20.0.0/16"), "{bad}");
        }
        assert_eq!(egress("*"), Ok(Destinations(Egress::Everything)));
        let private = ["10.20.0.0/16".to_owned(), "fd12::/48".to_owned()].into();
        assert_eq!(egress("10.20.0.0/16, fd12::/48"), Ok(Destinations(Egress::Public { private })));
        assert_eq!(egress(""), Ok(Destinations(Egress::default())));
        assert!(egress("10.20.0.0/16,*").is_err());
    }

    #[test]
    fn labels_are_as_kubernetes_takes_them() {
        let read = labels("app=gateway, example.com/part=mcp_1").unwrap().0;
        assert_eq!((read["app"].as_str(), read["example.com/part"].as_str()), ("gateway", "mcp_1"));
        for bad in ["app", "=x", "a b=c", "a=b c", "/a=b", "a/=b", "-a=b", "a=b-", "A.b/c/d=e"] {
            assert!(labels(bad).is_err(), "{bad}");
        }
        assert!(labels("app=").is_ok(), "a label may be empty");
    }

    #[test]
    fn ways_have_names() {
        assert_eq!(reach("port-forward"), Ok(ReachMode::PortForward));
        assert!(reach("Service").unwrap_err().contains("`cluster`"));
    }
}
