//! How the Kubernetes runtime is configured. The library reads no environment: whoever embeds it fills this in.

use crate::peers::Peers;
use archestra_core::{
    catalog::EnvFromKind,
    runtime::stdio::MultiplexerOptions,
    secret::{Derived, SecretValue},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// How the runtime reaches its cluster and what it adds to workloads.
///
/// ```
/// use archestra_k8s::{ClusterAccess, KubernetesConfig};
///
/// let config = KubernetesConfig {
///     access: ClusterAccess::Kubeconfig { path: "/etc/archestra/kubeconfig".into(), context: None },
///     namespace: "mcp-servers".to_owned(),
///     ..KubernetesConfig::default()
/// };
/// assert_eq!(config.requests["cpu"], "50m");
/// ```
#[derive(Debug, Clone)]
pub struct KubernetesConfig {
    /// Where the cluster is and who we are to it.
    pub access: ClusterAccess,
    /// Which platform this is, as the value of the label `archestra.dev/instance` on everything that it makes. Replicas of one
    /// platform share it; platforms that share a namespace must each have one of their own. With one, only objects with that
    /// label are ours: all others are neither observed nor changed nor removed. `None`: the objects of any platform are ours, so
    /// that no other may work in the same namespaces.
    pub instance: Option<String>,
    /// Where workloads go that are not somewhere already.
    pub namespace: String,
    /// Further namespaces that are watched from the start, because workloads were put there earlier. A namespace that a
    /// workload names is watched as soon as that workload is applied.
    pub more_namespaces: BTreeSet<String>,
    /// The pod this platform runs in, whose scheduling workloads inherit. `None`: none is looked for.
    pub own_pod: Option<OwnPod>,
    /// What this replica is called when it takes a Lease; something random is added at each start.
    pub replica: Option<String>,
    /// Where the other replicas reach this one. `None`: a process that is attached to is called by the one replica that has its
    /// stream, and the others say which one that is.
    pub peers: Option<Peers>,
    /// What workloads run on that name no image.
    pub base_image: String,
    /// Where the bridge comes from that serves a stdio server on a port.
    pub bridge_image: String,
    /// When images are pulled. `None`: Kubernetes decides.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// What a workload's container requests by default.
    pub requests: BTreeMap<String, String>,
    /// What a workload's container is limited to by default.
    pub limits: BTreeMap<String, String>,
    /// The user that containers run as when their entry says nothing.
    pub run_as_user: i64,
    /// The keys for [`Digests`](archestra_core::secret::Purpose::Digests). What tells whether secret values have changed stands
    /// in annotations, which more people may read than Secrets: without a key they can try out what a value may be. The same on
    /// every replica; a key that is new rolls nothing.
    pub digest_keys: Option<Arc<Derived>>,
    /// What entries may relax of the way pods are locked down.
    pub policy: OverridePolicy,
    /// Who reaches workloads, and what they reach.
    pub network: NetworkConfig,
    /// How workloads are reached from here.
    pub reach: ReachMode,
    /// The domain of Services inside the cluster.
    pub cluster_domain: String,
    /// How stdio processes that are attached to are multiplexed.
    pub multiplexer: MultiplexerOptions,
    /// How long one call of the API server may take.
    pub call_timeout: Duration,
    /// How long a connection to a workload that is not ready is waited for.
    pub connect_wait: Duration,
    /// How long a removal waits for the workload's pods to be gone.
    pub removal_wait: Duration,
    /// How often what was left behind is looked for: failed and evicted pods, and objects whose Deployment is gone.
    pub gc_interval: Duration,
    /// How old an object must be before it counts as left behind.
    pub gc_age: Duration,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            access: ClusterAccess::InCluster { server: None },
            instance: None,
            namespace: "default".to_owned(),
            more_namespaces: BTreeSet::new(),
            own_pod: None,
            replica: None,
            peers: None,
            base_image: concat!("ghcr.io/archestra-rs/mcp-base:", env!("CARGO_PKG_VERSION")).to_owned(),
            bridge_image: concat!("ghcr.io/archestra-rs/archestra-bridge:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: None,
            requests: quantities(&[("cpu", "50m"), ("memory", "128Mi"), ("ephemeral-storage", "256Mi")]),
            limits: quantities(&[("memory", "512Mi"), ("ephemeral-storage", "1Gi")]),
            run_as_user: 65532,
            digest_keys: None,
            policy: OverridePolicy::default(),
            network: NetworkConfig::default(),
            reach: ReachMode::default(),
            cluster_domain: "cluster.local".to_owned(),
            multiplexer: MultiplexerOptions::default(),
            call_timeout: Duration::from_secs(10),
            connect_wait: Duration::from_secs(2),
            removal_wait: Duration::from_secs(45),
            gc_interval: Duration::from_secs(600),
            gc_age: Duration::from_secs(300),
        }
    }
}

fn quantities(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Where the cluster is and who we are to it.
#[derive(Debug, Clone)]
pub enum ClusterAccess {
    /// The cluster that this process runs in, by its pod's service account.
    InCluster {
        /// The API server's URL. `None`: `https://kubernetes.default.svc`, which needs cluster DNS.
        server: Option<String>,
    },
    /// What a kubeconfig file says.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context. `None`: the file's current one.
        context: Option<String>,
    },
    /// What a kubeconfig says that is no file.
    KubeconfigText {
        /// The kubeconfig. It may hold credentials, so it is treated as a secret.
        text: SecretValue,
        /// The context. `None`: its current one.
        context: Option<String>,
    },
}

/// The pod this platform runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnPod {
    /// Its name: from the downward API, or the host name, which is the same unless the pod says otherwise.
    pub name: String,
    /// Its namespace. `None`: the one that the service account names, or else that of the workloads.
    pub namespace: Option<String>,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// At each start.
    Always,
    /// Where the node does not have it yet.
    IfNotPresent,
    /// Never.
    Never,
}

impl ImagePullPolicy {
    /// Kubernetes' own word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl FromStr for ImagePullPolicy {
    type Err = archestra_core::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Always, Self::IfNotPresent, Self::Never].into_iter().find(|policy| policy.label() == text).ok_or_else(
            || {
                archestra_core::Error::invalid(
                    "imagePullPolicy",
                    format!("{text:?} is not an image pull policy"),
                    "use Always, IfNotPresent or Never",
                )
            },
        )
    }
}

/// The ConfigMap that Kubernetes itself puts into every namespace.
const CLUSTER_CERTIFICATES: &str = "kube-root-ca.crt";

/// What entries may relax of the way pods are locked down. The default: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverridePolicy {
    /// What is allowed.
    pub allow: BTreeSet<Relaxation>,
    /// The service accounts that workloads may run as. None by default.
    pub service_accounts: BTreeSet<String>,
    /// Pull secrets that deployment YAML may name beside those the workload itself lists.
    pub pull_secrets: BTreeSet<String>,
    /// Secrets of the workloads' namespace that entries may name, in `envFrom` and in deployment YAML, beside the workload's own
    /// and those that are opted in by a label. None by default. Those of other workloads are refused even if they are named here.
    pub secrets: BTreeSet<String>,
    /// ConfigMaps of the workloads' namespace, likewise. The cluster's own certificates, `kube-root-ca.crt`, are everybody's.
    pub config_maps: BTreeSet<String>,
}

impl OverridePolicy {
    /// Whether this is allowed.
    #[must_use]
    pub fn allows(&self, what: Relaxation) -> bool {
        self.allow.contains(&what)
    }

    /// Whether every workload may read the object of this name.
    #[must_use]
    pub fn may_read(&self, kind: EnvFromKind, name: &str) -> bool {
        match kind {
            EnvFromKind::Secret => self.secrets.contains(name),
            EnvFromKind::ConfigMap => name == CLUSTER_CERTIFICATES || self.config_maps.contains(name),
        }
    }
}

/// One way in which a pod may be less locked down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relaxation {
    /// Volumes of the node's own file system.
    HostPath,
    /// The node's network, processes or IPC.
    HostNamespaces,
    /// Ports of the node.
    HostPorts,
    /// Privileged containers.
    Privileged,
    /// Gaining privileges, as `sudo` does.
    PrivilegeEscalation,
    /// Added capabilities.
    Capabilities,
    /// The user id 0.
    Root,
    /// No seccomp or AppArmor profile.
    Unconfined,
    /// A mounted service account token.
    ServiceAccountToken,
    /// Volumes other than `emptyDir`, `configMap`, `downwardAPI`, `projected` and `secret`: claims, CSI, network storage and
    /// whatever else the namespace offers. [`Self::HostPath`] is apart from these.
    Volumes,
    /// Labels of the pod beside those that the platform sets itself. With such labels a pod may become a backend of somebody
    /// else's Service, or be let in by somebody else's network policy. Labels of the Deployment are free.
    Labels,
    /// Annotations of the pod in domains of others, beside a few that are known to be harmless. By such annotations networks,
    /// cloud roles and devices are given. Annotations of the Deployment are free.
    Annotations,
    /// A node, a scheduler or a runtime class that the pod names itself.
    Scheduling,
    /// Resources other than CPU, memory and ephemeral storage, and resource claims: devices of the node.
    Devices,
    /// Deleting a limit that the platform gives.
    Limits,
}

impl Relaxation {
    /// All there are.
    pub const ALL: [Self; 15] = [
        Self::HostPath,
        Self::HostNamespaces,
        Self::HostPorts,
        Self::Privileged,
        Self::PrivilegeEscalation,
        Self::Capabilities,
        Self::Root,
        Self::Unconfined,
        Self::ServiceAccountToken,
        Self::Volumes,
        Self::Labels,
        Self::Annotations,
        Self::Scheduling,
        Self::Devices,
        Self::Limits,
    ];

    /// The word an operator writes.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::HostPath => "host-path",
            Self::HostNamespaces => "host-namespaces",
            Self::HostPorts => "host-ports",
            Self::Privileged => "privileged",
            Self::PrivilegeEscalation => "privilege-escalation",
            Self::Capabilities => "capabilities",
            Self::Root => "root",
            Self::Unconfined => "unconfined",
            Self::ServiceAccountToken => "service-account-token",
            Self::Volumes => "volumes",
            Self::Labels => "labels",
            Self::Annotations => "annotations",
            Self::Scheduling => "scheduling",
            Self::Devices => "devices",
            Self::Limits => "limits",
        }
    }
}

impl fmt::Display for Relaxation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for Relaxation {
    type Err = archestra_core::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|one| one.label() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|one| one.label()).collect();
            archestra_core::Error::invalid(
                "allow",
                format!("{text:?} is nothing that can be allowed"),
                format!("use one of {}", known.join(", ")),
            )
        })
    }
}

/// Who reaches workloads, and what they reach: the NetworkPolicy of each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The labels of the pods that may reach workloads: the gateway's own.
    pub gateway_labels: BTreeMap<String, String>,
    /// The namespace of those pods. `None`: the workload's.
    pub gateway_namespace: Option<String>,
    /// Networks that may reach workloads too, for a gateway outside the cluster.
    pub gateway_cidrs: BTreeSet<String>,
    /// What workloads may reach.
    pub egress: Egress,
    /// Networks whose DNS servers workloads may ask too, where what they reach is limited. Without any they ask pods with the
    /// label `k8s-app: kube-dns` in any namespace, as CoreDNS has it nearly everywhere, and a cache on the node at
    /// 169.254.20.10. A cluster whose DNS is elsewhere, or answers behind another port than 53, has to be named here, and so
    /// has the address of its Service where a cache on the node answers there: whoever runs in a pod gives its own name servers.
    pub dns: BTreeSet<String>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            gateway_labels: BTreeMap::from([("app.kubernetes.io/name".to_owned(), "archestra".to_owned())]),
            gateway_namespace: None,
            gateway_cidrs: BTreeSet::new(),
            egress: Egress::default(),
            dns: BTreeSet::new(),
        }
    }
}

/// What workloads may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Egress {
    /// Cluster DNS, everything public, and these private networks; no other private, link-local or metadata address.
    Public {
        /// Private networks that are reachable all the same.
        private: BTreeSet<String>,
    },
    /// Everything.
    Everything,
}

impl Default for Egress {
    fn default() -> Self {
        Self::Public { private: BTreeSet::new() }
    }
}

/// How workloads are reached from here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReachMode {
    /// At the pod's own address, which says which process answers; where pods are out of reach, at the Service's; and where
    /// that is too, as outside the cluster, through the API server. What is tried at an address is told the bridge's token:
    /// where a network of this machine overlaps the cluster's, use [`PortForward`](Self::PortForward).
    #[default]
    Auto,
    /// By the Services' names.
    Cluster,
    /// By the Services' or pods' addresses, for a machine that routes to them.
    Direct,
    /// By port-forwards through the API server.
    PortForward,
}
