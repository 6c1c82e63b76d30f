//! Findings about self-hosted servers: image, command, arguments, transport, environment, pull secrets, override.

use crate::{
    Finding, Validate,
    catalog::{EnvFrom, PullSecret, SelfHosted, Transport, env::is_env_name, self_hosted::placeholders},
};

/// What stands before the name of a field in an argument.
const USER_CONFIG: &str = "user_config.";

/// The greatest user id that Kubernetes takes.
const MAX_USER: i64 = i32::MAX as i64;

/// How many objects variables may come from: each is asked for whenever the workload is applied.
const MAX_SOURCES: usize = 32;

/// The longest prefix of variables. No name of a variable that somebody uses is longer.
const MAX_PREFIX: usize = 128;

impl Validate for SelfHosted {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.command_findings());
        findings.extend(self.image_finding());
        findings.extend(self.endpoint_findings());
        findings.extend(self.env_findings());
        findings.extend(self.env_from_findings());
        findings.extend(self.argument_findings());
        findings.extend(self.pull_secret_findings());
        if self.service_account.as_deref().is_some_and(|name| !is_object_name(name)) {
            findings.push(Finding::new(
                "serviceAccount",
                "not the name of a service account",
                "use lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
            ));
        }
        if self.run_as_user.is_some_and(|user| !(0..=MAX_USER).contains(&user)) {
            findings.push(Finding::new(
                "runAsUser",
                "not a user id",
                format!("use 0 to {MAX_USER}; images that need no root work with 1 or greater"),
            ));
        }
        findings.extend(self.deployment_yaml.as_deref().and_then(yaml_finding));
        findings
    }
}

impl SelfHosted {
    fn command_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.image.is_none() && self.command.is_empty() {
            findings.push(Finding::new(
                "command",
                "neither an image nor a command",
                "add `command` to run on the base image, or `image`",
            ));
        }
        if self.command.first().is_some_and(|program| program.trim().is_empty()) {
            findings.push(Finding::new("command", "the command is blank", "name a program"));
        }
        for (n, part) in self.command.iter().enumerate() {
            if placeholders(part, USER_CONFIG).next().is_some() {
                findings.push(Finding::new(
                    format!("command[{n}]"),
                    "values of an installation are filled into arguments only",
                    "move it to `args`",
                ));
            }
        }
        findings
    }

    fn image_finding(&self) -> Option<Finding> {
        let image = self.image.as_deref()?;
        let bad = image.is_empty() || image.len() > 512 || image.chars().any(|c| c.is_whitespace() || c.is_control());
        bad.then(|| {
            Finding::new(
                "image",
                format!("{image:?} is not an image reference"),
                "use `registry/name:tag` or `name@sha256:…`",
            )
        })
    }

    fn endpoint_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.transport == Transport::Stdio {
            for (field, set) in [("port", self.port.is_some()), ("path", self.path.is_some())] {
                if set {
                    findings.push(Finding::new(
                        field,
                        "only streamable-http servers have one",
                        "remove it, or set `transport: streamable-http`",
                    ));
                }
            }
        }
        if self.port == Some(0) {
            findings.push(Finding::new("port", "port 0 cannot be reached", "use 1 to 65535, or leave it out"));
        }
        if let Some(path) = &self.path
            && (!path.starts_with('/')
                || path.contains(['?', '#'])
                || path.chars().any(|c| c.is_whitespace() || c.is_control()))
        {
            findings.push(Finding::new(
                "path",
                format!("{path:?} is not a path"),
                "start with '/', without '?' and '#'",
            ));
        }
        findings
    }

    fn env_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (n, var) in self.env.iter().enumerate() {
            findings.extend(var.findings().into_iter().map(|finding| finding.under(&format!("env[{n}]"))));
            if self.env[..n].iter().any(|other| other.name == var.name) {
                findings.push(Finding::new(
                    format!("env[{n}].name"),
                    format!("{} is there twice", var.name),
                    "keep one",
                ));
            }
        }
        findings
    }

    fn env_from_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.env_from.len() > MAX_SOURCES {
            findings.push(Finding::new(
                "envFrom",
                format!("{} sources of variables are too many", self.env_from.len()),
                format!("name at most {MAX_SOURCES}"),
            ));
        }
        for (n, source) in self.env_from.iter().enumerate() {
            let EnvFrom { kind, name, prefix } = source;
            if !is_object_name(name) {
                findings.push(Finding::new(
                    format!("envFrom[{n}].name"),
                    format!("{name:?} is not the name of a {}", kind.label()),
                    "use lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
                ));
            }
            if prefix.as_deref().is_some_and(|prefix| prefix.len() > MAX_PREFIX || !is_env_name(prefix)) {
                findings.push(Finding::new(
                    format!("envFrom[{n}].prefix"),
                    "no name of an environment variable begins with it",
                    format!("use a letter or '_', then letters, digits and '_', at most {MAX_PREFIX}; or leave it out"),
                ));
            }
            if self.env_from[..n].contains(source) {
                findings.push(Finding::new(
                    format!("envFrom[{n}]"),
                    format!("the {} {name} is there twice with the same prefix", kind.label()),
                    "keep one",
                ));
            }
        }
        findings
    }

    fn argument_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (field, texts) in [("command", &self.command), ("args", &self.args)] {
            for (n, _) in texts.iter().enumerate().filter(|(_, text)| text.contains('\0')) {
                findings.push(Finding::new(format!("{field}[{n}]"), "arguments cannot hold a NUL byte", "remove it"));
            }
        }
        for (n, arg) in self.args.iter().enumerate() {
            for name in placeholders(arg, USER_CONFIG) {
                let (reason, remedy) = match self.env.iter().find(|var| var.name == name) {
                    Some(var) if var.secret => (
                        format!("{name} is secret, and arguments are visible to everybody on the machine"),
                        "let the server read it from its environment",
                    ),
                    Some(_) => continue,
                    None => (format!("there is no field {name}"), "add it to `env`"),
                };
                findings.push(Finding::new(format!("args[{n}]"), reason, remedy));
            }
        }
        findings
    }

    fn pull_secret_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (n, pull) in self.image_pull_secrets.iter().enumerate() {
            let at = format!("imagePullSecrets[{n}]");
            match pull {
                PullSecret::Existing { existing } if !is_object_name(existing) => findings.push(Finding::new(
                    format!("{at}.existing"),
                    format!("{existing:?} is not the name of a secret"),
                    "use lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
                )),
                PullSecret::Existing { .. } => {}
                PullSecret::Credentials { server, username, password, .. } => {
                    if password.is_none() {
                        findings.push(Finding::new(
                            format!("{at}.password"),
                            "credentials need a password",
                            "enter it, or name an `existing` secret",
                        ));
                    }
                    for (field, text) in [("server", server), ("username", username)] {
                        if text.trim().is_empty() || text.chars().any(char::is_control) {
                            findings.push(Finding::new(
                                format!("{at}.{field}"),
                                "an image pull secret needs `server`, `username` and `password`",
                                "fill it in, or name an `existing` secret",
                            ));
                        }
                    }
                }
            }
            let key = pull.password_key();
            if key.is_some() && self.image_pull_secrets[..n].iter().any(|other| other.password_key() == key) {
                findings.push(Finding::new(at, "the same server and user twice", "keep one"));
            }
        }
        findings
    }
}

/// The name of a Kubernetes object: a DNS subdomain.
fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn yaml_finding(yaml: &str) -> Option<Finding> {
    match serde_saphyr::from_str::<serde_json::Value>(yaml) {
        Err(error) => Some(Finding::new("deploymentYaml", format!("not YAML: {error}"), "correct the line it names")),
        Ok(serde_json::Value::Object(_)) => None,
        Ok(_) => Some(Finding::new(
            "deploymentYaml",
            "not a mapping of keys to values",
            "write a Deployment, or the part of one that differs: `spec: {template: …}`",
        )),
    }
}
