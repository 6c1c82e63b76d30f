//! The Secrets of a workload: the values its containers read, and credentials for pulling its images.

use super::Context;
use crate::names::{self, PULL_SECRET, YES};
use archestra_core::{
    Error, Result,
    runtime::{EnvValue, WorkloadPullSecret},
    secret::SecretValue,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use std::collections::BTreeMap;

/// The greatest Secret that Kubernetes keeps.
const MAX_SECRET: usize = 1 << 20;

/// The values that containers read, by key.
pub(super) fn values<'a>(cx: &Context<'a>) -> Result<BTreeMap<&'a str, &'a SecretValue>> {
    let mut values = BTreeMap::new();
    for (n, variable) in cx.workload.spec.env.iter().enumerate() {
        let (EnvValue::Secret(key) | EnvValue::Mounted(key)) = &variable.value else { continue };
        let field = || format!("selfHosted.env[{n}]");
        let value = cx.workload.secrets.get(key).ok_or_else(|| {
            let reason = format!("the secret {} has no value", variable.name);
            Error::invalid(field(), reason, "install again and supply it")
        })?;
        if matches!(variable.value, EnvValue::Secret(_)) && value.expose().contains('\0') {
            let reason = format!("the value of {} holds a NUL character, which no environment can", variable.name);
            return Err(Error::invalid(field(), reason, "remove it, or mount the value as a file"));
        }
        values.insert(key.as_str(), value);
    }
    let size: usize = values.iter().map(|(key, value)| key.len() + value.expose().len()).sum();
    if size > MAX_SECRET {
        return Err(Error::invalid(
            "selfHosted.env",
            format!("data: Too long: must have at most {MAX_SECRET} bytes: the secret values have {size} together"),
            "shorten them, or let the server read the large ones from elsewhere",
        ));
    }
    Ok(values)
}

/// The Secret with these values; none where there are none.
pub(super) fn secret(cx: &Context<'_>, values: &BTreeMap<&str, &SecretValue>) -> Option<Secret> {
    if values.is_empty() {
        return None;
    }
    let data = values.iter().map(|(key, value)| ((*key).to_owned(), bytes(value.expose()))).collect();
    Some(Secret {
        metadata: cx.meta(names::object(&cx.workload.id), []),
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    })
}

/// The Secrets that are made of credentials.
pub(super) fn pull_secrets(cx: &Context<'_>) -> Result<Vec<Secret>> {
    let mut secrets = Vec::new();
    for (n, pull) in cx.workload.spec.pull_secrets.iter().enumerate() {
        let WorkloadPullSecret::Credentials { server, username, password_key, email } = pull else { continue };
        let password = cx.workload.secrets.get(password_key).ok_or_else(|| {
            Error::invalid(
                format!("selfHosted.imagePullSecrets[{n}].password"),
                format!("the password of {username} for {server} is missing"),
                "enter it again",
            )
        })?;
        let mut auth = serde_json::json!({
            "username": username,
            "password": password.expose(),
            "auth": STANDARD.encode(format!("{username}:{}", password.expose())),
        });
        if let Some(email) = email {
            auth["email"] = email.as_str().into();
        }
        let config = serde_json::json!({"auths": {server.as_str(): auth}}).to_string();
        secrets.push(Secret {
            metadata: cx.meta(names::pull_secret(&cx.workload.id, n), [(PULL_SECRET, YES)]),
            type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
            data: Some(BTreeMap::from([(".dockerconfigjson".to_owned(), bytes(&config))])),
            ..Secret::default()
        });
    }
    Ok(secrets)
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}
