//! Which volumes a pod may have, and whose Secrets and ConfigMaps it may read.

use super::Check;
use crate::{config::Relaxation, names, platform::Template};
use archestra_core::catalog::EnvFromKind;
use serde_json::Value;

/// Volumes of which nothing outlives the pod; whose Secrets and ConfigMaps they hold is looked at apart.
const KINDS: [&str; 5] = ["emptyDir", "configMap", "downwardAPI", "projected", "secret"];

/// What a projected volume may be made of; its Secrets, ConfigMaps and tokens are looked at one by one.
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
        self.config_map_in(volume, "configMap");
        self.inside(volume, "projected", |check, projected| check.each(projected, "sources", Self::source));
        for (kind, reference) in REFERENCES {
            self.inside(volume, kind, |check, volume| check.secret_in(volume, reference));
        }
        self.inside(volume, "azureFile", |check, file| check.inside(file, "secretName", Self::secret));
    }

    /// One source of a projected volume.
    fn source(&mut self, source: &Value) {
        self.secret_in(source, "secret");
        self.config_map_in(source, "configMap");
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

    /// The reference to a ConfigMap under this key.
    pub(super) fn config_map_in(&mut self, value: &Value, key: &str) {
        // What was saved before this was looked at is applied again as it was.
        if self.cx.platform.template >= Template::Three {
            self.inside(value, key, |check, map| {
                check.inside(map, "name", |check, name| check.object(EnvFromKind::ConfigMap, name));
            });
        }
    }

    fn secret(&mut self, name: &Value) {
        self.object(EnvFromKind::Secret, name);
    }

    /// A workload reads its own Secret, what its entry names in `envFrom`, which is looked at when it is applied, and what the
    /// operator names. What is another workload's, or is ours and no container reads it, is nobody's to name.
    fn object(&mut self, kind: EnvFromKind, name: &Value) {
        let Some(name) = name.as_str() else { return };
        if kind == EnvFromKind::Secret && name == names::object(&self.cx.workload.id) {
            return;
        }
        let word = match kind {
            EnvFromKind::Secret => "secret",
            EnvFromKind::ConfigMap => "config map",
        };
        if names::is_of_workload(name) {
            self.refuse(
                format!("Forbidden: the {word} {name:?} belongs to another workload, or to the platform"),
                "remove it",
            );
            return;
        }
        let is_named = self.cx.workload.spec.env_from.iter().any(|source| source.kind == kind && source.name == name);
        if !is_named && !self.policy.may_read(kind, name) {
            self.refuse(
                format!("Forbidden: the {word} {name:?} is not this workload's"),
                format!(
                    "put what is in it into `env` of the entry, name it in `envFrom` of the entry, or ask the operator to add it to \
                     the {word}s of the override policy (`--workload-secrets`)"
                ),
            );
        }
    }
}

fn keys(object: &Value) -> impl Iterator<Item = &str> {
    object.as_object().into_iter().flatten().map(|(key, _)| key.as_str())
}
