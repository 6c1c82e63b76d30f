//! What Kubernetes, or the operator's policy, would refuse of a workload: said when it is saved, with Kubernetes' own reason.

pub(crate) mod image;

use crate::{
    config::{KubernetesConfig, Relaxation},
    manifest::{self, Context, Variables},
    names,
    platform::Platform,
};
use archestra_core::{
    Error, Finding,
    catalog::EnvFrom,
    runtime::{
        EnvValue, RevisionNumber, Workload, WorkloadEnv, WorkloadId, WorkloadPullSecret, WorkloadSpec,
        WorkloadTransport,
    },
    secret::SecretValue,
};
use std::collections::BTreeMap;

/// The longest argument or variable that Linux takes.
const MAX_TEXT: usize = 128 * 1024 - 1;
/// What arguments and variables may come to together, so that the Deployment stays below what etcd keeps.
const MAX_TOTAL: usize = 512 * 1024;
/// The greatest user id that Kubernetes takes.
const MAX_USER: i64 = i32::MAX as i64;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const C_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// Everything that is wrong with a workload that has all variables of its entry, its deployment YAML included. No I/O.
///
/// The field of each finding is that of the entry the workload was made from: `selfHosted.env[2].name`.
#[must_use]
pub fn findings(spec: &WorkloadSpec, config: &KubernetesConfig) -> Vec<Finding> {
    findings_of(spec, config, Variables::All)
}

/// The same, of a workload that may have fewer variables.
pub(crate) fn findings_of(spec: &WorkloadSpec, config: &KubernetesConfig, variables: Variables) -> Vec<Finding> {
    let findings = of_spec(spec, config);
    if !findings.is_empty() {
        return findings;
    }
    let workload = sample(spec);
    let namespace = spec.namespace.as_deref().unwrap_or(&config.namespace);
    let computed = Platform::stored(&spec.platform, config).and_then(|platform| {
        let key = manifest::new_key(config);
        manifest::compute(&Context { workload: &workload, config, platform, namespace, key, variables })
    });
    match computed {
        Ok(_) => Vec::new(),
        Err(Error::Invalid(findings)) => findings,
        Err(error) => vec![Finding::new("selfHosted", error.to_string(), "")],
    }
}

/// A workload of this specification: the Deployment does not depend on the id or on secret values, as far as it can be refused.
pub(crate) fn sample(spec: &WorkloadSpec) -> Workload {
    Workload {
        id: WorkloadId::of_installation(archestra_core::id::InstallationId::new()),
        revision: RevisionNumber(1),
        spec: spec.clone(),
        secrets: sample_secrets(spec),
    }
}

fn sample_secrets(spec: &WorkloadSpec) -> BTreeMap<String, SecretValue> {
    let env = spec.env.iter().filter_map(|variable| match &variable.value {
        EnvValue::Secret(key) | EnvValue::Mounted(key) => Some(key),
        EnvValue::Plain(_) => None,
    });
    let pulls = spec.pull_secrets.iter().filter_map(|pull| match pull {
        WorkloadPullSecret::Credentials { password_key, .. } => Some(password_key),
        WorkloadPullSecret::Existing { .. } => None,
    });
    env.chain(pulls).map(|key| (key.clone(), SecretValue::from("sample"))).collect()
}

/// What is wrong with everything but the deployment YAML.
pub(crate) fn of_spec(spec: &WorkloadSpec, config: &KubernetesConfig) -> Vec<Finding> {
    let mut findings = Findings::default();
    findings.image(spec);
    findings.command(spec);
    findings.environment(&spec.env);
    findings.sources(&spec.env_from);
    findings.transport(&spec.transport);
    findings.pull_secrets(&spec.pull_secrets);
    findings.user(spec.run_as_user, config);
    if let Some(account) = spec.service_account.as_deref() {
        findings.service_account(account, config);
    }
    if let Some(namespace) = spec.namespace.as_deref().filter(|name| !is_label(name)) {
        findings.add(
            "namespace",
            format!("Invalid value: {namespace:?}: not the name of a namespace"),
            "use another one",
        );
    }
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, field: impl AsRef<str>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding::new(format!("selfHosted.{}", field.as_ref()), reason, remedy));
    }

    fn image(&mut self, spec: &WorkloadSpec) {
        let Some(image) = spec.image.as_deref() else { return };
        if let Err(reason) = image::check(image) {
            self.add("image", reason, "use `registry/name:tag` or `registry/name@sha256:…`, in lower case");
        }
    }

    fn command(&mut self, spec: &WorkloadSpec) {
        if spec.image.is_none() && spec.command.is_empty() {
            self.add(
                "command",
                "the base image needs a command to run",
                "give a `command`, or an `image` that has its own",
            );
        }
        if spec.command.first().is_some_and(|program| program.trim().is_empty()) {
            self.add("command", "the command is blank", "name a program, such as `npx`");
        }
        for (field, texts) in [("command", &spec.command), ("args", &spec.args)] {
            for (n, text) in texts.iter().enumerate() {
                self.text(&format!("{field}[{n}]"), text);
            }
        }
        let total: usize = spec.command.iter().chain(&spec.args).map(|text| text.len() + 1).sum();
        if total > MAX_TOTAL {
            let reason = format!("Too long: must have at most {MAX_TOTAL} bytes together, and has {total}");
            self.add("args", reason, "put what is long into a file of the image");
        }
    }

    fn text(&mut self, field: &str, text: &str) {
        if text.contains('\0') {
            self.add(field, "a NUL character ends the text for the program", "remove it");
        }
        if text.len() > MAX_TEXT {
            let reason = format!("Too long: must have at most {MAX_TEXT} bytes, and has {}", text.len());
            self.add(field, reason, "shorten it; Linux takes no longer arguments and variables");
        }
    }

    fn environment(&mut self, env: &[WorkloadEnv]) {
        let mut total = 0;
        for (n, variable) in env.iter().enumerate() {
            let name = &variable.name;
            if !is_identifier(name) {
                let remedy = "start with a letter or '_', then letters, digits and '_'";
                self.add(format!("env[{n}].name"), format!("Invalid value: {name:?}: {C_IDENTIFIER}"), remedy);
            }
            if env[..n].iter().any(|other| other.name == *name) {
                self.add(format!("env[{n}].name"), format!("Duplicate value: {name:?}"), "keep one");
            }
            match &variable.value {
                EnvValue::Plain(text) => {
                    self.text(&format!("env[{n}].value"), text);
                    total += name.len() + text.len();
                }
                EnvValue::Secret(key) | EnvValue::Mounted(key) if !is_config_key(key) => {
                    self.add(
                        format!("env[{n}].name"),
                        format!("Invalid value: {key:?}: {CONFIG_KEY}"),
                        "rename the variable",
                    );
                }
                EnvValue::Secret(_) | EnvValue::Mounted(_) => {}
            }
        }
        if total > MAX_TOTAL {
            let reason = format!("Too long: must have at most {MAX_TOTAL} bytes together, and has {total}");
            self.add("env", reason, "let the server read what is long from elsewhere");
        }
    }

    fn sources(&mut self, sources: &[EnvFrom]) {
        for (n, EnvFrom { kind, name, prefix }) in sources.iter().enumerate() {
            let at = format!("envFrom[{n}]");
            if !is_subdomain(name) {
                let remedy = format!("use the name of a {} of the workloads' namespace", kind.label());
                self.add(format!("{at}.name"), format!("Invalid value: {name:?}: {SUBDOMAIN}"), remedy);
            } else if names::is_of_workload(name) {
                let reason =
                    format!("Forbidden: the {} {name:?} belongs to a workload, or to the platform", kind.label());
                self.add(format!("{at}.name"), reason, "name another");
            }
            if let Some(prefix) = prefix.as_deref().filter(|prefix| !is_identifier(prefix)) {
                let remedy = "start with a letter or '_', then letters, digits and '_', or leave it out";
                self.add(format!("{at}.prefix"), format!("Invalid value: {prefix:?}: {C_IDENTIFIER}"), remedy);
            }
        }
    }

    fn transport(&mut self, transport: &WorkloadTransport) {
        let WorkloadTransport::StreamableHttp { port, path } = transport else { return };
        if *port == Some(0) {
            self.add(
                "port",
                "Invalid value: 0: must be between 1 and 65535, inclusive",
                "use another port, or leave it out",
            );
        }
        if !path.starts_with('/') || path.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#'))
        {
            self.add("path", format!("{path:?} is not a path"), "start with '/', without '?' and '#'");
        }
    }

    fn pull_secrets(&mut self, pulls: &[WorkloadPullSecret]) {
        for (n, pull) in pulls.iter().enumerate() {
            let at = format!("imagePullSecrets[{n}]");
            match pull {
                WorkloadPullSecret::Existing { name } => {
                    if !is_subdomain(name) {
                        let remedy = "choose one of the pull secrets that the API lists";
                        self.add(format!("{at}.existing"), format!("Invalid value: {name:?}: {SUBDOMAIN}"), remedy);
                    }
                }
                WorkloadPullSecret::Credentials { server, username, .. } => {
                    if !is_registry(server) {
                        let remedy = "give its host, with a port if it has one, such as `registry.example.com:5000`";
                        self.add(format!("{at}.server"), format!("{server:?} is not a registry"), remedy);
                    }
                    if username.is_empty() || username.contains(':') || username.chars().any(char::is_control) {
                        let reason = format!("{username:?} is not a user of a registry");
                        self.add(format!("{at}.username"), reason, "give the name without password and without ':'");
                    }
                }
            }
        }
    }

    fn user(&mut self, user: Option<i64>, config: &KubernetesConfig) {
        match user {
            Some(0) if !config.policy.allows(Relaxation::Root) => {
                let remedy = format!(
                    "use the user of the image, or ask the operator to allow `{}` in the override policy",
                    Relaxation::Root
                );
                self.add("runAsUser", "Forbidden: containers must not run as root", remedy);
            }
            Some(user) if !(0..=MAX_USER).contains(&user) => {
                let reason = format!("Invalid value: {user}: must be between 0 and {MAX_USER}, inclusive");
                self.add("runAsUser", reason, "use the user of the image; 1 or greater where it does not matter");
            }
            Some(_) | None => {}
        }
    }

    fn service_account(&mut self, account: &str, config: &KubernetesConfig) {
        if !is_subdomain(account) {
            let remedy = "use the name of a service account of the workloads' namespace";
            self.add("serviceAccount", format!("Invalid value: {account:?}: {SUBDOMAIN}"), remedy);
        } else if !config.policy.service_accounts.contains(account) {
            let remedy = "remove it, or ask the operator to add it to the service accounts of the override policy";
            self.add("serviceAccount", format!("Forbidden: workloads may not run as {account:?}"), remedy);
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_config_key(key: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=253).contains(&key.len()) && key.bytes().all(fits) && key != "." && !key.starts_with("..")
}

fn is_label(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || c == '-')
}

/// Whether an object may have this name.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| !label.is_empty() && label.len() <= 253 && is_subdomain_label(label))
}

fn is_subdomain_label(label: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    label.starts_with(edge) && label.ends_with(edge) && label.chars().all(|c| edge(c) || c == '-')
}

/// A registry's host, with or without scheme, port and path, as `docker login` takes it.
fn is_registry(server: &str) -> bool {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    !rest.is_empty()
        && !rest.starts_with('/')
        && rest.len() <= 512
        && rest
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'/' | b'[' | b']'))
}

#[cfg(test)]
mod tests;
