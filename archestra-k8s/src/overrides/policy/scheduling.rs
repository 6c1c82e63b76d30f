//! Where and by what a pod is run, which the cluster decides.

use super::Check;
use crate::{config::Relaxation, platform::Template};
use serde_json::Value;

/// The label of a node that is its name, or as good as that.
const HOSTNAME: &str = "kubernetes.io/hostname";

impl Check<'_> {
    pub(super) fn scheduling(&mut self, pod: &Value) {
        for key in ["nodeName", "schedulerName", "runtimeClassName"] {
            self.inside(pod, key, |check, name| {
                if name != "default-scheduler" {
                    check.place("the cluster decides where and by what a pod is run");
                }
            });
        }
        self.inside(pod, "nodeSelector", |check, labels| {
            check.inside(labels, HOSTNAME, |check, _| check.place("this label chooses a node"));
        });
        self.inside(pod, "affinity", |check, affinity| {
            check.inside(affinity, "nodeAffinity", |check, affinity| {
                check.inside(affinity, "requiredDuringSchedulingIgnoredDuringExecution", |check, required| {
                    check.each(required, "nodeSelectorTerms", Self::node_term);
                });
                check.each(affinity, "preferredDuringSchedulingIgnoredDuringExecution", |check, preferred| {
                    check.inside(preferred, "preference", Self::node_term);
                });
            });
        });
    }

    fn node_term(&mut self, term: &Value) {
        self.inside(term, "matchFields", |check, fields| {
            if fields.as_array().is_some_and(|fields| !fields.is_empty()) {
                check.place("fields of a node choose it by its name");
            }
        });
        self.each(term, "matchExpressions", |check, expression| {
            check.inside(expression, "key", |check, key| {
                if key == HOSTNAME {
                    check.place("this label chooses a node");
                }
            });
        });
    }

    fn place(&mut self, reason: &str) {
        self.relax_since(Template::Two, Relaxation::Scheduling, reason);
    }
}
