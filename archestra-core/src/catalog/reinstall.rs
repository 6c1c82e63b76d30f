//! What a change to an entry asks of its installations: nothing, a new revision with the stored values, or new input from a person.

use super::{CredentialModel, EntrySpec, FieldType, PullSecret};
use crate::installation::{InstallField, install_fields};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a change asks of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reinstall {
    /// Nothing.
    Nothing,
    /// Apply again with the values that are stored, and list the tools again.
    Automatic,
    /// A person must give something first; what runs stays as it is.
    Required(ReinstallReason),
}

/// Why a person must reinstall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ReinstallReason {
    /// These fields are required, and were not before.
    NewInput(Vec<String>),
    /// These prompted fields changed their type.
    TypeChanged(Vec<String>),
    /// The server now needs an OAuth authorization.
    OAuthAdded,
    /// The server no longer uses the OAuth authorization it was installed with.
    OAuthRemoved,
}

/// Whether secret values that the entry fixes were changed, which no comparison of two specifications shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FixedSecrets {
    /// They are as before.
    Unchanged,
    /// At least one was.
    Changed,
}

/// What the change of an entry from `before` to `after` asks of an installation that has values for the fields `given`.
///
/// New required input, a changed type of a field that has a value, and OAuth added or removed need a person. A rename and
/// other metadata, new optional fields, and what only concerns the next prompt (required to optional, default, description)
/// ask for nothing. Everything else applies by itself with the stored values: what is removed, a command, a fixed value, a
/// default that holds because nothing was given, a header and its prefix. The order of fields means nothing.
#[must_use]
pub fn reinstall(before: &EntrySpec, after: &EntrySpec, given: &BTreeSet<String>, secrets: FixedSecrets) -> Reinstall {
    let oauth = |spec: &EntrySpec| matches!(spec.credential, CredentialModel::OAuth(_));
    match (oauth(before), oauth(after)) {
        (false, true) => return Reinstall::Required(ReinstallReason::OAuthAdded),
        (true, false) => return Reinstall::Required(ReinstallReason::OAuthRemoved),
        _ => {}
    }
    let old: BTreeMap<String, InstallField> =
        install_fields(before).into_iter().map(|field| (field.name.clone(), field)).collect();
    let new = install_fields(after);
    let missing: Vec<_> = new
        .iter()
        .filter(|field| field.required && !given.contains(&field.name))
        .map(|field| field.name.clone())
        .collect();
    if !missing.is_empty() {
        return Reinstall::Required(ReinstallReason::NewInput(missing));
    }
    let retyped = |field: &&InstallField| {
        old.get(&field.name).is_some_and(|old| {
            given.contains(&field.name) && (old.field_type != field.field_type || old.secret != field.secret)
        })
    };
    let retyped: Vec<_> = new.iter().filter(retyped).map(|field| field.name.clone()).collect();
    if !retyped.is_empty() {
        return Reinstall::Required(ReinstallReason::TypeChanged(retyped));
    }
    if secrets == FixedSecrets::Changed || effective(before, given) != effective(after, given) {
        return Reinstall::Automatic;
    }
    Reinstall::Nothing
}

/// The part of a specification that reaches the server of an installation with these values, in one order.
fn effective(spec: &EntrySpec, given: &BTreeSet<String>) -> EntrySpec {
    let mut spec = spec.clone();
    spec.name = String::new();
    spec.description = None;
    spec.instructions = None;
    spec.docs_url = None;
    spec.repository = None;
    spec.icon = None;
    spec.version = None;
    spec.labels = super::Labels::default();
    spec.call_timeout = None;
    if let Some(hosted) = &mut spec.self_hosted {
        hosted
            .env
            .retain(|var| var.value.is_some() || var.default.is_some() || (var.prompt && given.contains(&var.name)));
        hosted.env.sort_by(|a, b| a.name.cmp(&b.name));
        hosted.image_pull_secrets.sort_by_key(pull_key);
        for var in &mut hosted.env {
            var.description = None;
            var.required = false;
            var.field_type = FieldType::String;
            if var.value.is_some() || (var.prompt && given.contains(&var.name)) {
                var.default = None;
            }
        }
    }
    if let CredentialModel::Static(fields) = &mut spec.credential {
        fields.retain(|field| !field.prompt || given.contains(&field.name));
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        for field in fields {
            field.description = None;
            field.required = false;
        }
    }
    spec.additional_headers.retain(|header| !header.prompt || given.contains(&header.name));
    spec.additional_headers.sort_by(|a, b| a.name.cmp(&b.name));
    for header in &mut spec.additional_headers {
        header.description = None;
        header.required = false;
    }
    spec
}

fn pull_key(pull: &PullSecret) -> (Option<String>, Option<String>) {
    match pull {
        PullSecret::Existing { existing } => (Some(existing.clone()), None),
        PullSecret::Credentials { .. } => (None, pull.password_key()),
    }
}

#[cfg(test)]
mod tests;
