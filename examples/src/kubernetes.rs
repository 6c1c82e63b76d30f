//! Kubernetes as the flags and variables say: where the cluster is, and the runtime on it.

use crate::{
    environment::Environment,
    failure::Failure,
    flags::{KubernetesFlags, NetworkFlags},
};
use archestra_core::secret::KeyRing;
use archestra_k8s::{ClusterAccess, KubernetesConfig, KubernetesRuntime, OwnPod, Peers};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Variables that begin so ask for Kubernetes.
pub(crate) const ORCHESTRATOR: &str = "ARCHESTRA_ORCHESTRATOR_";
const KUBECONFIG: &str = "ARCHESTRA_ORCHESTRATOR_KUBECONFIG";
const FROM_CLUSTER: &str = "ARCHESTRA_ORCHESTRATOR_LOAD_KUBECONFIG_FROM_CURRENT_CLUSTER";
const NAMESPACE: &str = "ARCHESTRA_ORCHESTRATOR_K8S_NAMESPACE";
/// Where kubectl looks.
const KUBECTL: &str = "KUBECONFIG";

/// Where the cluster says to each of its pods who is asked for names.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The address of the pod, from the downward API.
const POD_IP: &str = "POD_IP";

/// Where the other replicas reach this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerPlace {
    listen: SocketAddr,
    advertised: Option<String>,
}

impl PeerPlace {
    /// What the flags come to, if they name a place.
    ///
    /// # Errors
    /// Others could not connect to it.
    pub(crate) fn decide(flags: &KubernetesFlags, environment: &Environment) -> Result<Option<Self>, Failure> {
        let Some(listen) = flags.peer_listen else {
            return match flags.peer_advertise {
                Some(_) => Err(Failure::unusable("--peer-advertise needs --peer-listen")),
                None => Ok(None),
            };
        };
        let pod = environment.get(POD_IP).and_then(|address| address.parse::<IpAddr>().ok());
        let advertised = match (&flags.peer_advertise, pod) {
            (Some(advertised), _) => Some(advertised.clone()),
            (None, _) if !listen.ip().is_unspecified() => None,
            (None, Some(pod)) if listen.port() != 0 => Some(SocketAddr::new(pod, listen.port()).to_string()),
            (None, _) => {
                return Err(Failure::unusable(format!(
                    "--peer-listen {listen}: other replicas cannot connect to that; set --peer-advertise, or {POD_IP} to the pod's address"
                )));
            }
        };
        Ok(Some(Self { listen, advertised }))
    }

    /// Listens there.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub(crate) async fn open(&self, ring: &KeyRing) -> Result<Peers, Failure> {
        let opened = Peers::listen(self.listen, self.advertised.clone(), ring).await;
        opened.map_err(|error| Failure::because(format!("--peer-listen {}", self.listen), &error))
    }
}

/// Whether this process runs in a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    Pod,
    Outside,
}

/// The configuration that the flags and variables come to.
///
/// # Errors
/// What does not fit, with its name.
pub(crate) fn decide(
    flags: &KubernetesFlags,
    environment: &Environment,
    place: Where,
) -> Result<KubernetesConfig, Failure> {
    let mut config = KubernetesConfig { access: access(environment, place)?, ..KubernetesConfig::default() };
    if let Some(namespace) = environment.get(NAMESPACE) {
        config.namespace = namespace.to_owned();
    }
    if place == Where::Pod
        && let Some(name) = environment.get("POD_NAME").or_else(|| environment.get("HOSTNAME"))
    {
        config.own_pod =
            Some(OwnPod { name: name.to_owned(), namespace: environment.get("POD_NAMESPACE").map(str::to_owned) });
        config.replica = Some(name.to_owned());
        config.network.gateway_namespace = environment.get("POD_NAMESPACE").map(str::to_owned);
    }
    if let Some(image) = &flags.base_image {
        config.base_image.clone_from(image);
    }
    if let Some(image) = &flags.bridge_image {
        config.bridge_image.clone_from(image);
    }
    config.image_pull_policy = flags.image_pull_policy;
    if let Some(requests) = &flags.workload_requests {
        config.requests.clone_from(&requests.0);
    }
    if let Some(limits) = &flags.workload_limits {
        config.limits.clone_from(&limits.0);
    }
    config.policy.allow.extend(flags.workload_allow.iter().flatten().copied());
    config.policy.service_accounts.extend(flags.workload_service_accounts.iter().flatten().cloned());
    config.policy.secrets.extend(flags.workload_secrets.iter().flatten().cloned());
    config.policy.config_maps.extend(flags.workload_secrets.iter().flatten().cloned());
    config.policy.pull_secrets.extend(flags.workload_pull_secrets.iter().flatten().cloned());
    decide_network(&flags.network, &mut config);
    Ok(config)
}

/// Who reaches workloads, what they reach, and how we reach them.
fn decide_network(flags: &NetworkFlags, config: &mut KubernetesConfig) {
    if let Some(reach) = flags.workload_reach {
        config.reach = reach;
    }
    let network = &mut config.network;
    if let Some(egress) = &flags.workload_egress {
        network.egress = egress.0.clone();
    }
    if let Some(labels) = &flags.gateway_labels {
        network.gateway_labels.clone_from(&labels.0);
    }
    if let Some(namespace) = &flags.gateway_namespace {
        network.gateway_namespace = Some(namespace.clone());
    }
    network.dns.extend(flags.workload_dns.iter().flatten().cloned());
    network.gateway_cidrs.extend(flags.gateway_networks.iter().flatten().cloned());
}

/// The name servers in a resolv.conf, as networks of one address. Those that only this pod reaches are left out.
fn name_servers(resolv_conf: &str) -> impl Iterator<Item = String> {
    resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        match address.parse::<IpAddr>().ok()? {
            address if address.is_loopback() || address.is_unspecified() => None,
            IpAddr::V4(address) => Some(format!("{address}/32")),
            IpAddr::V6(address) => Some(format!("{address}/128")),
        }
    })
}

/// The pod's own service account when that is asked for, else the kubeconfig that is named, else what the surroundings offer.
fn access(environment: &Environment, place: Where) -> Result<ClusterAccess, Failure> {
    let from_cluster = match environment.get(FROM_CLUSTER) {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(other) => return Err(Failure::unusable(format!("{FROM_CLUSTER}: use `true` or `false`, not {other:?}"))),
    };
    let file = |path: &str| ClusterAccess::Kubeconfig { path: PathBuf::from(path), context: None };
    match (from_cluster, environment.get(KUBECONFIG)) {
        (Some(true), _) => Ok(in_cluster(environment)),
        (_, Some(path)) => Ok(file(path)),
        (None, None) if place == Where::Pod => Ok(in_cluster(environment)),
        (_, None) => match (environment.get(KUBECTL), environment.get("HOME")) {
            (Some(path), _) => Ok(file(path)),
            (None, Some(home)) => Ok(file(&format!("{home}/.kube/config"))),
            (None, None) => Err(Failure::unusable(format!("no cluster is named: set {KUBECONFIG} to a kubeconfig"))),
        },
    }
}

fn in_cluster(environment: &Environment) -> ClusterAccess {
    let (host, port) = (environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT"));
    let server = host.zip(port).map(|(host, port)| match host.contains(':') {
        true => format!("https://[{host}]:{port}"),
        false => format!("https://{host}:{port}"),
    });
    ClusterAccess::InCluster { server }
}

/// Starts the runtime. A cluster that does not answer yet is waited for in the background; everything else goes on.
///
/// # Errors
/// What is wrong with the way to the cluster, when waiting would not help.
pub(crate) async fn start(
    mut config: KubernetesConfig,
    used_before: BTreeSet<String>,
) -> Result<KubernetesRuntime, Failure> {
    config.more_namespaces = used_before;
    if config.own_pod.is_some() {
        // Servers are told the same ones, wherever the DNS of this cluster is.
        match std::fs::read_to_string(RESOLV_CONF) {
            Ok(text) => config.network.dns.extend(name_servers(&text)),
            Err(error) => tracing::warn!(
                path = RESOLV_CONF,
                %error,
                "the name servers of this pod are not known; name them with --workload-dns where servers resolve no names"
            ),
        }
    }
    let refused = |error| Failure::because("the Kubernetes runtime cannot start", &error);
    match KubernetesRuntime::connect(config.clone()).await {
        Ok(runtime) => Ok(runtime),
        Err(error) if error.is_retryable() => {
            tracing::warn!(%error, "self-hosted servers have to wait until the cluster answers");
            KubernetesRuntime::connect_later(config).await.map_err(refused)
        }
        Err(error) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_k8s::{Egress, ReachMode, Relaxation};

    fn path(access: &ClusterAccess) -> Option<&str> {
        match access {
            ClusterAccess::Kubeconfig { path, .. } => path.to_str(),
            ClusterAccess::InCluster { .. } | ClusterAccess::KubeconfigText { .. } => None,
        }
    }

    fn decided(environment: &Environment, place: Where) -> KubernetesConfig {
        decide(&KubernetesFlags::default(), environment, place).unwrap()
    }

    #[test]
    fn the_variables_say_where_the_cluster_is() {
        let named = Environment::from([
            (KUBECONFIG, "/app/kubeconfig"),
            (FROM_CLUSTER, "false"),
            (NAMESPACE, "mcp"),
            ("HOME", "/root"),
        ]);
        let config = decided(&named, Where::Pod);
        assert_eq!((path(&config.access), config.namespace.as_str()), (Some("/app/kubeconfig"), "mcp"));
        let own = Environment::from([
            (KUBECONFIG, "/app/kubeconfig"),
            (FROM_CLUSTER, "true"),
            ("KUBERNETES_SERVICE_HOST", "fd00::1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("HOSTNAME", "archestra-0"),
        ]);
        let config = decided(&own, Where::Pod);
        assert!(
            matches!(config.access, ClusterAccess::InCluster { server: Some(url) } if url == "https://[fd00::1]:443")
        );
        assert_eq!(config.own_pod.map(|pod| pod.name).as_deref(), Some("archestra-0"));
        let config = decided(&Environment::from([("HOME", "/home/a")]), Where::Outside);
        assert_eq!((path(&config.access), config.namespace.as_str()), (Some("/home/a/.kube/config"), "default"));
        assert!(config.own_pod.is_none());
    }

    #[test]
    fn the_flags_say_what_entries_may_do() {
        let flags = KubernetesFlags {
            workload_allow: Some(vec![Relaxation::Volumes, Relaxation::Labels]),
            workload_secrets: Some(vec!["shared".to_owned()]),
            workload_pull_secrets: Some(vec!["regcred".to_owned()]),
            ..KubernetesFlags::default()
        };
        let environment = Environment::from([("HOME", "/home/a")]);
        let policy = decide(&flags, &environment, Where::Outside).unwrap().policy;
        assert!(policy.allows(Relaxation::Volumes) && policy.allows(Relaxation::Labels));
        assert!(!policy.allows(Relaxation::HostPath));
        assert_eq!(policy.secrets, BTreeSet::from(["shared".to_owned()]));
        assert_eq!(policy.config_maps, policy.secrets, "one list names what entries may read");
        assert_eq!(policy.pull_secrets, BTreeSet::from(["regcred".to_owned()]));
    }

    #[test]
    fn other_replicas_are_told_where_they_can_connect_to() {
        let place = |listen: &str, advertise: Option<&str>, pod: Option<&'static str>| {
            let flags = KubernetesFlags {
                peer_listen: Some(listen.parse().unwrap()),
                peer_advertise: advertise.map(str::to_owned),
                ..KubernetesFlags::default()
            };
            let environment = pod.map_or_else(Environment::default, |pod| Environment::from([(POD_IP, pod)]));
            PeerPlace::decide(&flags, &environment).map(|place| place.unwrap().advertised)
        };
        assert_eq!(place("10.0.0.7:9001", None, None).unwrap(), None);
        assert_eq!(place("0.0.0.0:9001", None, Some("10.1.2.3")).unwrap().as_deref(), Some("10.1.2.3:9001"));
        assert_eq!(place("[::]:9001", None, Some("fd00::7")).unwrap().as_deref(), Some("[fd00::7]:9001"));
        assert_eq!(place("0.0.0.0:9001", Some("a.b:1"), Some("10.1.2.3")).unwrap().as_deref(), Some("a.b:1"));
        assert!(place("0.0.0.0:9001", None, None).unwrap_err().text().contains("--peer-advertise"));
        let flags = KubernetesFlags { peer_advertise: Some("a.b:1".to_owned()), ..KubernetesFlags::default() };
        let refused = PeerPlace::decide(&flags, &Environment::default()).unwrap_err();
        assert!(refused.text().contains("needs --peer-listen"));
        assert_eq!(PeerPlace::decide(&KubernetesFlags::default(), &Environment::default()).unwrap(), None);
    }

    #[test]
    fn the_flags_say_who_reaches_servers_and_what_they_reach() {
        let environment = Environment::from([("HOME", "/home/a"), ("POD_NAMESPACE", "own"), ("HOSTNAME", "a-0")]);
        let unset = decided(&environment, Where::Pod);
        assert_eq!(unset.network.gateway_namespace.as_deref(), Some("own"));
        assert_eq!((unset.reach, &unset.network.egress), (ReachMode::Auto, &Egress::default()));
        let set = [
            ("ARCHESTRA_WORKLOAD_EGRESS", "10.20.0.0/16"),
            ("ARCHESTRA_WORKLOAD_DNS", "10.96.0.10/32"),
            ("ARCHESTRA_WORKLOAD_REACH", "port-forward"),
            ("ARCHESTRA_GATEWAY_LABELS", "app=gateway"),
            ("ARCHESTRA_GATEWAY_NAMESPACE", "edge"),
            ("ARCHESTRA_GATEWAY_NETWORKS", "192.168.1.0/24,192.168.2.0/24"),
        ];
        let flags = crate::flags::resolve(crate::flags::Settings::default(), &Environment::from(set)).unwrap();
        let config = decide(&flags.kubernetes, &environment, Where::Pod).unwrap();
        let network = config.network;
        assert_eq!(network.egress, Egress::Public { private: ["10.20.0.0/16".to_owned()].into() });
        assert_eq!(network.dns, ["10.96.0.10/32".to_owned()].into());
        assert_eq!(network.gateway_labels, [("app".to_owned(), "gateway".to_owned())].into());
        assert_eq!((config.reach, network.gateway_namespace.as_deref()), (ReachMode::PortForward, Some("edge")));
        assert_eq!(network.gateway_cidrs.len(), 2);
    }

    #[test]
    fn name_servers_are_read_as_networks_of_one_address() {
        let text = "# generated\nsearch mcp.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\n\
                    nameserver\tfd00:10:96::a # cluster\n; nameserver 10.0.0.1\nnameserver\nnameserver fe80::1%eth0\n\
                    nameserver 127.0.0.53\nnameserver ::1\nnameserver 0.0.0.0\nnameservers 10.0.0.2\n\
                    options ndots:5\n  nameserver 172.30.0.10\r\n";
        let found: Vec<_> = name_servers(text).collect();
        assert_eq!(found, ["10.96.0.10/32", "fd00:10:96::a/128", "172.30.0.10/32"]);
        assert_eq!(name_servers("").count(), 0);
    }

    #[test]
    fn what_is_neither_true_nor_false_is_refused() {
        let environment = Environment::from([(FROM_CLUSTER, "yes")]);
        let refused = decide(&KubernetesFlags::default(), &environment, Where::Pod).unwrap_err();
        assert!(refused.text().contains(FROM_CLUSTER));
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_refused_with_its_path() {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let config = decided(&Environment::from([(KUBECONFIG, "/does/not/exist")]), Where::Outside);
        let refused = start(config, BTreeSet::new()).await.unwrap_err();
        assert!(refused.text().contains("/does/not/exist does not exist"), "{}", refused.text());
    }
}
