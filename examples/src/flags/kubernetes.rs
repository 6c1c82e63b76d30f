//! The flags about Kubernetes.

use super::network::NetworkFlags;
use archestra_k8s::{ImagePullPolicy, Relaxation};
use clap::Args;
use std::{collections::BTreeMap, net::SocketAddr};

/// What servers on Kubernetes run on, get, and may do.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct KubernetesFlags {
    /// The image of self-hosted servers that name a command and no image
    #[arg(long, value_name = "IMAGE")]
    pub(crate) base_image: Option<String>,
    /// The image of the bridge, which serves stdio servers on a port of their pod
    #[arg(long, value_name = "IMAGE")]
    pub(crate) bridge_image: Option<String>,
    /// When images are pulled: Always, IfNotPresent or Never
    #[arg(long, value_name = "POLICY", value_parser = pull_policy)]
    pub(crate) image_pull_policy: Option<ImagePullPolicy>,
    /// What a self-hosted server's container requests, as `cpu=50m,memory=128Mi`
    #[arg(long, value_name = "LIST", value_parser = quantities)]
    pub(crate) workload_requests: Option<Quantities>,
    /// What it is limited to, as `memory=512Mi`
    #[arg(long, value_name = "LIST", value_parser = quantities)]
    pub(crate) workload_limits: Option<Quantities>,
    /// What entries may relax of the way pods are locked down: host-path, host-namespaces, host-ports, privileged,
    /// privilege-escalation, capabilities, root, unconfined, service-account-token, volumes, labels, annotations, scheduling,
    /// devices, limits
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = relaxation)]
    pub(crate) workload_allow: Option<Vec<Relaxation>>,
    /// The service accounts that entries may name
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) workload_service_accounts: Option<Vec<String>>,
    /// The Secrets and ConfigMaps of the namespace that entries may name, in envFrom and in deployment YAML, beside those that
    /// have the label archestra.dev/env-from
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) workload_secrets: Option<Vec<String>>,
    /// The pull secrets that the deployment YAML of entries may name, beside those that the entry itself lists
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) workload_pull_secrets: Option<Vec<String>>,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    /// Where other replicas of this server reach this one: servers that are attached to have one stream, which one replica holds
    #[arg(long, value_name = "ADDRESS", value_parser = super::values::address)]
    pub(crate) peer_listen: Option<SocketAddr>,
    /// The host or address and the port that they connect to
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub(crate) peer_advertise: Option<String>,
}

/// Amounts of resources by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quantities(pub(crate) BTreeMap<String, String>);

impl KubernetesFlags {
    /// These, and where one is not set that of `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            base_image: self.base_image.or(other.base_image),
            bridge_image: self.bridge_image.or(other.bridge_image),
            image_pull_policy: self.image_pull_policy.or(other.image_pull_policy),
            workload_requests: self.workload_requests.or(other.workload_requests),
            workload_limits: self.workload_limits.or(other.workload_limits),
            workload_allow: self.workload_allow.or(other.workload_allow),
            workload_service_accounts: self.workload_service_accounts.or(other.workload_service_accounts),
            workload_secrets: self.workload_secrets.or(other.workload_secrets),
            workload_pull_secrets: self.workload_pull_secrets.or(other.workload_pull_secrets),
            network: self.network.or(other.network),
            peer_listen: self.peer_listen.or(other.peer_listen),
            peer_advertise: self.peer_advertise.or(other.peer_advertise),
        }
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    let named = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
        is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if named { Ok(text.to_owned()) } else { Err("use as in `10.0.0.7:9001` or `archestra-0.peers:9001`".to_owned()) }
}

fn pull_policy(text: &str) -> Result<ImagePullPolicy, String> {
    text.parse().map_err(|_| "use `Always`, `IfNotPresent` or `Never`".to_owned())
}

fn relaxation(text: &str) -> Result<Relaxation, String> {
    let known = || Relaxation::ALL.map(Relaxation::label).join(", ");
    text.trim().parse().map_err(|_| format!("use some of {}", known()))
}

fn quantities(text: &str) -> Result<Quantities, String> {
    let mut amounts = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').map(|(name, amount)| (name.trim(), amount.trim())) {
            Some((name, amount)) if !name.is_empty() && is_quantity(amount) => {
                amounts.insert(name.to_owned(), amount.to_owned())
            }
            _ => return Err(format!("{pair:?} is no amount of a resource; use as in `cpu=50m,memory=128Mi`")),
        };
    }
    Ok(Quantities(amounts))
}

/// Whether Kubernetes reads this as a quantity: a number and one of its suffixes.
fn is_quantity(text: &str) -> bool {
    const SUFFIXES: [&str; 14] = ["", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    number.parse::<f64>().is_ok() && SUFFIXES.contains(&suffix)
}

#[cfg(test)]
mod tests {
    use super::{host_and_port, is_quantity, quantities};

    #[test]
    fn amounts_are_read_by_resource() {
        let read = quantities("cpu=50m, memory=128Mi").unwrap().0;
        assert_eq!((read["cpu"].as_str(), read["memory"].as_str()), ("50m", "128Mi"));
        assert!(quantities("").unwrap().0.is_empty());
        for bad in ["cpu", "cpu=", "=1", "memory=128MiB", "memory=much"] {
            assert!(quantities(bad).unwrap_err().contains("cpu=50m"), "{bad}");
        }
        assert!(is_quantity("0.5") && !is_quantity("Mi") && !is_quantity("-1"));
    }

    #[test]
    fn peers_are_told_a_host_and_a_port() {
        for good in ["10.0.0.7:9001", "[fd00::1]:9001", "archestra-0.peers.mcp.svc:9001"] {
            assert_eq!(host_and_port(good).unwrap(), good);
        }
        for bad in ["", "10.0.0.7", ":9001", "host:0", "host:99999", "http://host:1"] {
            assert!(host_and_port(bad).unwrap_err().contains("10.0.0.7:9001"), "{bad}");
        }
    }
}
