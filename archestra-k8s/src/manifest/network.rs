//! How a workload is reached and what it reaches: its Service and its NetworkPolicy.

use super::Context;
use crate::{
    config::{Egress, NetworkConfig},
    names::{self, MCP_PORT, Wiring},
};
use archestra_core::runtime::WorkloadId;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Everything that is not the public internet: what the egress floor keeps out, private networks among it.
const PRIVATE_V4: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// Where a cache of cluster DNS on the node listens, by convention.
const NODE_LOCAL_DNS: &str = "169.254.20.10/32";

/// The same for IPv6, with the form that stands for IPv4 addresses behind a translator.
const PRIVATE_V6: [&str; 6] = ["::/128", "::1/128", "64:ff9b::/96", "fc00::/7", "fe80::/10", "ff00::/8"];

/// The Service, for whatever listens.
pub(super) fn service(cx: &Context<'_>, wiring: Wiring) -> Option<Value> {
    let port = match wiring {
        Wiring::Bridge => names::BRIDGE_PORT,
        Wiring::Http => cx.http_port(),
        Wiring::Attach => return None,
    };
    Some(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": cx.metadata(&names::object(&cx.workload.id)),
        "spec": {
            "type": "ClusterIP",
            "selector": names::selector(&cx.workload.id),
            "ports": [{"name": MCP_PORT, "port": port, "targetPort": MCP_PORT, "protocol": "TCP"}],
        },
    }))
}

/// The NetworkPolicy.
pub(super) fn policy(cx: &Context<'_>, wiring: Wiring) -> Value {
    let id = &cx.workload.id;
    policy_of(id, &cx.metadata(&names::object(id)), &cx.config.network, wiring)
}

/// The NetworkPolicy of a workload: in from the gateway alone, and to the one port; out as the operator decided.
pub(super) fn policy_of(id: &WorkloadId, metadata: &Value, network: &NetworkConfig, wiring: Wiring) -> Value {
    let mut types = vec!["Ingress"];
    let mut spec = json!({
        "podSelector": {"matchLabels": names::selector(id)},
        "ingress": ingress(network, wiring),
    });
    if let Egress::Public { private } = &network.egress {
        types.push("Egress");
        spec["egress"] = egress(private, &network.dns);
    }
    spec["policyTypes"] = json!(types);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    })
}

fn ingress(network: &NetworkConfig, wiring: Wiring) -> Value {
    let mut from = Vec::new();
    if !network.gateway_labels.is_empty() {
        let mut peer = json!({"podSelector": {"matchLabels": network.gateway_labels}});
        if let Some(namespace) = &network.gateway_namespace {
            peer["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
        }
        from.push(peer);
    }
    from.extend(network.gateway_cidrs.iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}})));
    // A rule without peers would let everybody in.
    if wiring == Wiring::Attach || from.is_empty() {
        return json!([]);
    }
    json!([{"from": from, "ports": [{"port": MCP_PORT, "protocol": "TCP"}]}])
}

fn egress(private: &BTreeSet<String>, dns: &BTreeSet<String>) -> Value {
    let block = |cidr: &str| json!({"ipBlock": {"cidr": cidr}});
    // Whoever may ask any address at port 53 can carry anything out over it.
    let mut servers = vec![
        json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}),
        block(NODE_LOCAL_DNS),
    ];
    servers.extend(dns.iter().map(|cidr| block(cidr)));
    let dns = json!({"to": servers, "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]});
    let public = json!({"to": [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": PRIVATE_V4}},
        {"ipBlock": {"cidr": "::/0", "except": PRIVATE_V6}},
    ]});
    let private: Vec<_> = private.iter().map(|cidr| block(cidr)).collect();
    if private.is_empty() { json!([dns, public]) } else { json!([dns, public, {"to": private}]) }
}
