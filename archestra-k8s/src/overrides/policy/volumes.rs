//! Which volumes a pod may have, and whose Secrets it may read.

use super::Check;
use crate::{config::Relaxation, names};
use serde_json::Value;

/// Volumes of which nothing outlives the pod, and that hold only what the pod may read anyway.
const KINDS: [&str; 5] = ["emptyDir", "configMap", "downwardAPI", "projected", "secret"];

/// What a projected volume may be made of; its Secrets and tokens are looked at one by one.
const SOURCES: [&str; 5] = ["configMap", "downwardAPI", "secret", "serviceAccountToken", "clusterTrustBundle"];

/// Where volumes of these kinds name a Secret.
const REFERENCES: [(&str, &str); 8] = [
    ("csi", "nodePublishSecretRef"),
    ("flexVolume", "secretRef"),
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("iscsi", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("storageos", "secretRef"),
];

impl Check<'_> {
    pub(super) fn volume(&mut self, volume: &Value) {
        if names::VOLUMES.iter().any(|name| volume["name"] == *name) {
            // Whatever it says, ours is put in its place.
            return;
        }
        self.inside(volume, "hostPath", |check, _| {
            check.relax(Relaxation::HostPath, "hostPath volumes are not allowed");
        });
        for kind in keys(volume).filter(|key| !["name", "hostPath"].contains(key) && !KINDS.contains(key)) {
            self.inside(volume, kind, |check, _| {
                check.relax(Relaxation::Volumes, &format!("{kind} volumes are not allowed"));
            });
        }
        self.inside(volume, "secret", |check, secret| check.inside(secret, "secretName", Self::secret));
        self.inside(volume, "projected", |check, projected| check.each(projected, "sources", Self::source));
        for (kind, reference) in REFERENCES {
            self.inside(volume, kind, |check, volume| check.secret_in(volume, reference));
        }
        self.inside(volume, "azureFile", |check, file| check.inside(file, "secretName", Self::secret));
    }

    /// One source of a projected volume.
    fn source(&mut self, source: &Value) {
        self.secret_in(source, "secret");
        self.inside(source, "serviceAccountToken", |check, _| {
            check.relax(Relaxation::ServiceAccountToken, "a service account token");
        });
        for kind in keys(source).filter(|key| !SOURCES.contains(key)) {
            self.inside(source, kind, |check, _| {
                check.relax(Relaxation::Volumes, &format!("{kind} in projected volumes is not allowed"));
            });
        }
    }

    /// The reference to a Secret under this key.
    pub(super) fn secret_in(&mut self, value: &Value, key: &str) {
        self.inside(value, key, |check, secret| check.inside(secret, "name", Self::secret));
    }

    /// A workload reads its own Secret and those that the operator names. That of another workload, or one of ours that no
    /// container reads, is nobody's to name.
    fn secret(&mut self, name: &Value) {
        let Some(name) = name.as_str() else { return };
        if name == names::object(&self.cx.workload.id) {
            return;
        }
        if names::is_of_workload(name) {
            self.refuse(
                format!("Forbidden: the secret {name:?} belongs to another workload, or to the platform"),
                "remove it",
            );
        } else if !self.policy.secrets.contains(name) {
            self.refuse(
                format!("Forbidden: the secret {name:?} is not this workload's"),
                "make its values secret variables of the entry, or ask the operator to add it to the secrets of the override policy (`--workload-secrets`)",
            );
        }
    }
}

fn keys(object: &Value) -> impl Iterator<Item = &str> {
    object.as_object().into_iter().flatten().map(|(key, _)| key.as_str())
}
