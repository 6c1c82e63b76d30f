//! What containers may use of a node.

use super::Check;
use crate::{config::Relaxation, overrides::document::Step, platform::Template};
use serde_json::Value;

/// What every container is measured by; everything else is a device, or comes out of what others have.
const COMMON: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

impl Check<'_> {
    pub(super) fn resources(&mut self, container: &Value) {
        self.inside(container, "resources", |check, resources| {
            for kind in ["requests", "limits"] {
                check.inside(resources, kind, |check, amounts| {
                    let names = amounts.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
                    for name in names.filter(|name| !COMMON.contains(name)) {
                        check.inside(amounts, name, |check, _| check.device());
                    }
                });
            }
            check.claims(resources, "claims");
        });
        for name in self.cx.platform.limits.keys() {
            if container["resources"]["limits"][name].is_null() {
                let path = ["resources", "limits", name].map(|key| Step::Key(key.to_owned()));
                self.path.extend(path);
                self.relax_since(Template::Two, Relaxation::Limits, "a limit of the platform must not be deleted");
                self.path.truncate(self.path.len() - 3);
            }
        }
    }

    /// Claims of devices, of a pod or a container.
    pub(super) fn claims(&mut self, value: &Value, key: &str) {
        self.inside(value, key, |check, claims| {
            if claims.as_array().is_some_and(|claims| !claims.is_empty()) {
                check.device();
            }
        });
    }

    fn device(&mut self) {
        self.relax_since(Template::Two, Relaxation::Devices, "devices of the node");
    }
}
