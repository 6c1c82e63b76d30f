//! The flags about Kubernetes.

use archestra_k8s::{ImagePullPolicy, Relaxation};
use clap::Args;
use std::collections::BTreeMap;

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
    /// privilege-escalation, capabilities, root, unconfined, service-account-token, volumes, labels
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = relaxation)]
    pub(crate) workload_allow: Option<Vec<Relaxation>>,
    /// The service accounts that entries may name
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) workload_service_accounts: Option<Vec<String>>,
    /// The Secrets of the namespace that the deployment YAML of entries may read
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) workload_secrets: Option<Vec<String>>,
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
        }
    }
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
    use super::{is_quantity, quantities};

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
}
