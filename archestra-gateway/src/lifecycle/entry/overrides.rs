//! Deployment YAML in step with the variables of its entry, and with what they come from.

use super::super::Lifecycle;
use archestra_core::{
    Result,
    catalog::{Entry, EntrySpec},
};

/// What becomes of the deployment YAML of a draft.
#[derive(Debug, Clone)]
pub(super) enum Overrides {
    /// It is kept in step with the variables.
    InStep,
    /// It is taken as it is, and this is how it was given.
    AsTheyWere(Option<String>),
}

impl Lifecycle {
    /// Takes what deployment YAML says of variables whose definition changes now out of it, and returns the YAML as it was given
    /// where something was taken out of it, now or before.
    ///
    /// YAML that somebody has just edited is taken as it is: it was written knowing the variables. YAML that is given as it was
    /// given before, as by a document that is applied again, is the stored one.
    pub(super) fn sync_yaml(
        &self,
        before: Option<&Entry>,
        spec: &mut EntrySpec,
        yaml: Overrides,
    ) -> Result<Option<String>> {
        if let Overrides::AsTheyWere(given) = yaml {
            return Ok(given);
        }
        let (Some(before), Some(runtime), Some(next)) = (before, self.runtime(), &mut spec.self_hosted) else {
            return Ok(None);
        };
        let Some(hosted) = &before.spec.self_hosted else { return Ok(None) };
        let (Some(stored), Some(draft)) = (&hosted.deployment_yaml, &next.deployment_yaml) else { return Ok(None) };
        let given = before.given_yaml.as_ref();
        if draft != stored && Some(draft) != given {
            return Ok(None);
        }
        let synced = runtime.sync_overrides(stored, hosted, next)?;
        let given = if synced == *stored { given.cloned() } else { given.or(Some(stored)).cloned() };
        next.deployment_yaml = Some(synced);
        Ok(given)
    }
}
