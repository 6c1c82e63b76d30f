//! From an entry and the values of an installation to what a runtime is asked to run, as pure functions.

use archestra_core::{
    catalog::{EntrySpec, EnvVar, FieldType, FixedValue, PullSecret, SelfHosted, ToolConcurrency, Transport},
    id::TeamId,
    installation::{InstallField, Installation, Owner, install_fields},
    runtime::{EnvValue, WorkloadEnv, WorkloadPullSecret, WorkloadSpec, WorkloadTransport},
    secret::{SecretBundle, SecretValue},
    tool::slug,
};
use std::collections::{BTreeMap, BTreeSet};

const USER_CONFIG: &str = "${user_config.";

/// What an installation brings into its workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadValues {
    /// Plain values by field name.
    pub plain: BTreeMap<String, String>,
    /// The names of the secret fields that have a value.
    pub secret: BTreeSet<String>,
    /// The team it is for.
    pub team: Option<TeamId>,
}

impl WorkloadValues {
    /// What this installation brings; nothing when the workload belongs to the entry.
    #[must_use]
    pub fn of(spec: &EntrySpec, installation: &Installation) -> Self {
        if spec.shared_deployment {
            return Self::default();
        }
        let team = match installation.owner {
            Owner::Team(team) => Some(team),
            Owner::User(_) | Owner::Organization => None,
        };
        Self { plain: installation.values.clone(), secret: installation.secret_fields.clone(), team }
    }

    /// A value for every field that an installation may give, to see whether a runtime could run what comes of it.
    #[must_use]
    pub fn sample(spec: &EntrySpec) -> Self {
        let mut values = Self::default();
        for InstallField { name, field_type, secret, default, .. } in install_fields(spec) {
            if secret {
                values.secret.insert(name);
                continue;
            }
            let text = default.unwrap_or_else(|| match field_type {
                FieldType::String => "value".to_owned(),
                FieldType::Number => "1".to_owned(),
                FieldType::Boolean => "true".to_owned(),
            });
            values.plain.insert(name, text);
        }
        values
    }
}

/// What a runtime is asked to run for an entry with these values; `None` for a server that runs elsewhere.
///
/// Variables stand in the entry's order: the value of the entry, else what was given, else the default; one with none of
/// these is left out. A secret is named by the key it has in its bundle: `env.<NAME>` when the entry fixes it, the field's
/// name when the installation gives it. `${user_config.NAME}` in arguments becomes the plain value of that variable, or
/// nothing; a secret never gets there.
#[must_use]
pub fn build_workload_spec(
    spec: &EntrySpec,
    values: &WorkloadValues,
    platform: &BTreeMap<String, String>,
) -> Option<WorkloadSpec> {
    let hosted = spec.self_hosted.as_ref()?;
    let plain: BTreeMap<&str, &str> = hosted
        .env
        .iter()
        .filter(|var| !var.secret)
        .filter_map(|var| Some((var.name.as_str(), plain_value(var, values)?)))
        .collect();
    Some(WorkloadSpec {
        name: slug(&spec.name),
        image: hosted.image.clone(),
        command: hosted.command.clone(),
        args: hosted.args.iter().map(|arg| fill(arg, &plain)).collect(),
        env: hosted.env.iter().filter_map(|var| variable(var, values)).collect(),
        env_from: hosted.env_from.clone(),
        transport: transport(hosted),
        exclusive: spec.tool_concurrency == ToolConcurrency::Exclusive,
        pull_secrets: hosted.image_pull_secrets.iter().map(pull_secret).collect(),
        service_account: hosted.service_account.clone(),
        run_as_user: hosted.run_as_user,
        deployment_yaml: hosted.deployment_yaml.clone(),
        platform: platform.clone(),
        team: values.team,
        namespace: None,
    })
}

/// The keys of all secrets that a workload needs.
pub(super) fn secret_keys(spec: &WorkloadSpec) -> BTreeSet<&str> {
    let env = spec.env.iter().filter_map(|var| match &var.value {
        EnvValue::Plain(_) => None,
        EnvValue::Secret(key) | EnvValue::Mounted(key) => Some(key.as_str()),
    });
    let pull = spec.pull_secrets.iter().filter_map(|pull| match pull {
        WorkloadPullSecret::Existing { .. } => None,
        WorkloadPullSecret::Credentials { password_key, .. } => Some(password_key.as_str()),
    });
    env.chain(pull).collect()
}

/// The secrets that a workload needs, out of the bundles of its revision; or the keys that are in none.
pub(super) fn pick_secrets(
    spec: &WorkloadSpec,
    bundles: &[SecretBundle],
) -> Result<BTreeMap<String, SecretValue>, Vec<String>> {
    let mut picked = BTreeMap::new();
    let mut missing = Vec::new();
    for key in secret_keys(spec) {
        match bundles.iter().rev().find_map(|bundle| bundle.get(key)) {
            Some(value) => {
                picked.insert(key.to_owned(), value.clone());
            }
            None => missing.push(key.to_owned()),
        }
    }
    if missing.is_empty() { Ok(picked) } else { Err(missing) }
}

/// Whether two specifications run the same, whatever the platform of their time added and however the entry is called.
pub(super) fn same_workload(a: &WorkloadSpec, b: &WorkloadSpec) -> bool {
    let bare = |spec: &WorkloadSpec| WorkloadSpec {
        name: String::new(),
        platform: BTreeMap::new(),
        namespace: None,
        ..spec.clone()
    };
    bare(a) == bare(b)
}

fn plain_value<'a>(var: &'a EnvVar, values: &'a WorkloadValues) -> Option<&'a str> {
    let own = if var.prompt {
        values.plain.get(&var.name).map(String::as_str)
    } else {
        var.value.as_ref().and_then(FixedValue::plain)
    };
    own.or(var.default.as_deref())
}

fn variable(var: &EnvVar, values: &WorkloadValues) -> Option<WorkloadEnv> {
    let value = if !var.secret {
        EnvValue::Plain(plain_value(var, values)?.to_owned())
    } else {
        let key = match (var.prompt, &var.value) {
            (true, _) => values.secret.contains(&var.name).then(|| var.name.clone())?,
            (false, value) => value.is_some().then(|| format!("env.{}", var.name))?,
        };
        if var.mount { EnvValue::Mounted(key) } else { EnvValue::Secret(key) }
    };
    Some(WorkloadEnv { name: var.name.clone(), value })
}

fn fill(arg: &str, plain: &BTreeMap<&str, &str>) -> String {
    let mut out = String::with_capacity(arg.len());
    let mut rest = arg;
    while let Some((before, after)) = rest.split_once(USER_CONFIG) {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            out.push_str(USER_CONFIG);
            rest = after;
            continue;
        };
        out.push_str(plain.get(name).copied().unwrap_or_default());
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn transport(hosted: &SelfHosted) -> WorkloadTransport {
    match hosted.transport {
        Transport::Stdio => WorkloadTransport::Stdio,
        Transport::StreamableHttp => {
            WorkloadTransport::StreamableHttp { port: hosted.port, path: hosted.http_path().to_owned() }
        }
    }
}

fn pull_secret(pull: &PullSecret) -> WorkloadPullSecret {
    match pull {
        PullSecret::Existing { existing } => WorkloadPullSecret::Existing { name: existing.clone() },
        PullSecret::Credentials { server, username, email, .. } => WorkloadPullSecret::Credentials {
            server: server.clone(),
            username: username.clone(),
            password_key: pull.password_key().unwrap_or_default(),
            email: email.clone(),
        },
    }
}

#[cfg(test)]
mod tests;
