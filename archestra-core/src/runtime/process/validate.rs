//! What a local process cannot honour, said before anything is started.

use super::plan::PORT_PLACEHOLDER;
use crate::{
    Finding,
    runtime::{EnvValue, WorkloadSpec, WorkloadTransport},
};

/// Every reason why this specification cannot run as a local process.
pub(super) fn findings(spec: &WorkloadSpec) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut refuse = |field: &str, what: &str, remedy: &str| {
        findings.push(Finding::new(format!("selfHosted.{field}"), format!("the process runtime {what}"), remedy));
    };
    if spec.image.is_some() {
        refuse(
            "image",
            "runs commands on this machine and no container images",
            "give a `command` instead, or use the Kubernetes runtime",
        );
    }
    if spec.command.first().is_none_or(String::is_empty) {
        refuse(
            "command",
            "needs a command to run",
            "give the program and its arguments, such as `npx` with `-y` and a package name",
        );
    }
    if !spec.pull_secrets.is_empty() {
        refuse("imagePullSecrets", "pulls no images", "remove them, or use the Kubernetes runtime");
    }
    if !spec.env_from.is_empty() {
        refuse(
            "envFrom",
            "knows no Secrets and ConfigMaps of a cluster",
            "put the values into `env`, or use the Kubernetes runtime",
        );
    }
    if spec.deployment_yaml.is_some() {
        refuse("deploymentYaml", "makes no Deployment", "remove it, or use the Kubernetes runtime");
    }
    if spec.service_account.is_some() {
        refuse("serviceAccount", "knows no service accounts", "remove it, or use the Kubernetes runtime");
    }
    if spec.run_as_user.is_some() {
        refuse("runAsUser", "runs everything as its own user", "remove it, or use the Kubernetes runtime");
    }
    for (n, variable) in spec.env.iter().enumerate() {
        if matches!(variable.value, EnvValue::Mounted(_)) {
            let remedy = format!(
                "set `mount: false`, so that {} comes in the environment, or use the Kubernetes runtime",
                variable.name
            );
            refuse(&format!("env[{n}].mount"), "cannot mount files at /secrets", &remedy);
        }
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            refuse(
                &format!("env[{n}].name"),
                "cannot set a variable of this name",
                "use letters, digits and underscores",
            );
        }
        if matches!(&variable.value, EnvValue::Plain(value) if value.contains('\0')) {
            refuse(&format!("env[{n}].value"), "cannot pass a NUL character", "remove it");
        }
    }
    for (field, texts) in [("command", &spec.command), ("args", &spec.args)] {
        if texts.iter().any(|text| text.contains('\0')) {
            refuse(field, "cannot pass a NUL character", "remove it");
        }
    }
    let names_port = |text: &String| text.contains(PORT_PLACEHOLDER);
    if spec.transport == WorkloadTransport::Stdio && spec.args.iter().any(names_port) {
        let what = format!("has no port to put for {PORT_PLACEHOLDER} with the transport stdio");
        refuse("args", &what, "remove it, or set the transport to streamable-http");
    }
    findings
}
