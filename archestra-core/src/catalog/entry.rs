//! Entries: the templates of the private registry.

use super::{AdditionalHeader, CredentialModel, FixedValue, Labels, PullSecret, SelfHosted, Transport};
use crate::{
    Finding, Validate,
    id::{EntryId, TeamId, UserId},
    secret::{SecretBundle, SecretRef},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// Who sees an entry, or may use a consumer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Everybody in the organization.
    #[default]
    Organization,
    /// The members of these teams.
    Teams(BTreeSet<TeamId>),
    /// One user.
    User(UserId),
}

/// A template in the private registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its identifier.
    pub id: EntryId,
    /// What a person filled in.
    #[serde(flatten)]
    pub spec: EntrySpec,
    /// Who sees it.
    pub scope: Scope,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<UserId>,
    /// Where its fixed secret values are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretRef>,
    /// The `apply` set that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_set: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a person fills in for an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntrySpec {
    /// Its name, unique in the registry: 1 to 128 printable characters.
    pub name: String,
    /// What it is, in a line or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How to use it, for people who install it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Where its documentation is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs_url: Option<String>,
    /// Where its source is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// An emoji or an `https:` or `data:` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// Its version, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A server outside the platform. Exactly one of `remote` and `selfHosted` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteServer>,
    /// A server that the platform runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_hosted: Option<SelfHosted>,
    /// How an installation authenticates.
    #[serde(default)]
    pub credential: CredentialModel,
    /// Headers that go with every request and are no credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_headers: Vec<AdditionalHeader>,
    /// Labels, which also select the entry for consumers in automatic mode.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// One workload for all installations; their credentials go with each request. `streamable-http` only.
    #[serde(default)]
    pub shared_deployment: bool,
    /// Whether one process serves many sessions at once.
    #[serde(default)]
    pub tool_concurrency: ToolConcurrency,
    /// How long a call may take, in seconds; absent: the consumer's, then the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_timeout: Option<u32>,
}

/// A server that runs elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoteServer {
    /// Its streamable-http endpoint.
    pub url: String,
}

/// Whether one process serves many sessions at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ToolConcurrency {
    /// Yes; the process is offered no client capabilities.
    #[default]
    Shared,
    /// One session at a time has the process, with its own client's capabilities.
    Exclusive,
}

/// Which kind of server an entry describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server<'a> {
    /// One that runs elsewhere.
    Remote(&'a RemoteServer),
    /// One that the platform runs.
    SelfHosted(&'a SelfHosted),
}

impl EntrySpec {
    /// The server; `None` only for a specification that does not validate.
    #[must_use]
    pub fn server(&self) -> Option<Server<'_>> {
        match (&self.remote, &self.self_hosted) {
            (Some(remote), None) => Some(Server::Remote(remote)),
            (None, Some(hosted)) => Some(Server::SelfHosted(hosted)),
            _ => None,
        }
    }

    /// How long a call may take.
    #[must_use]
    pub fn call_timeout(&self) -> Option<Duration> {
        self.call_timeout.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Whether requests to this server can carry headers.
    #[must_use]
    pub fn speaks_http(&self) -> bool {
        match self.server() {
            Some(Server::Remote(_)) => true,
            Some(Server::SelfHosted(hosted)) => hosted.transport == Transport::StreamableHttp,
            None => false,
        }
    }

    /// Takes every fixed secret value out, so that it can be stored elsewhere; each is replaced by [`FixedValue::Stored`].
    ///
    /// The keys are `env.<NAME>`, `field.<name>`, `pull.<server>.<user>`, `oauth.clientSecret` and
    /// `clientCredentials.clientSecret`.
    pub fn take_secrets(&mut self) -> SecretBundle {
        let mut bundle = SecretBundle::new();
        self.credential.take_secrets(|key, value| {
            bundle.insert(key, value);
        });
        if let Some(hosted) = &mut self.self_hosted {
            let mut take = |key: String, value: &mut Option<FixedValue>| {
                if matches!(value, Some(FixedValue::Secret(_)))
                    && let Some(FixedValue::Secret(secret)) = value.replace(FixedValue::Stored)
                {
                    bundle.insert(key, secret);
                }
            };
            for var in &mut hosted.env {
                take(format!("env.{}", var.name), &mut var.value);
            }
            for pull in &mut hosted.image_pull_secrets {
                if let Some(key) = pull.password_key()
                    && let PullSecret::Credentials { password, .. } = pull
                {
                    take(key, password);
                }
            }
        }
        bundle
    }

    /// The keys of all secrets that are marked [`FixedValue::Stored`]; the entry's bundle must hold each.
    #[must_use]
    pub fn stored_secret_keys(&self) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        let mut note = |key: String, value: &Option<FixedValue>| {
            if matches!(value, Some(FixedValue::Stored)) {
                keys.insert(key);
            }
        };
        match &self.credential {
            CredentialModel::Static(fields) => fields.iter().for_each(|field| note(format!("field.{}", field.name), &field.value)),
            CredentialModel::OAuth(config) => note("oauth.clientSecret".to_owned(), &config.client_secret),
            CredentialModel::ClientCredentials(config) => note("clientCredentials.clientSecret".to_owned(), &config.client_secret),
            CredentialModel::None | CredentialModel::Enterprise(_) | CredentialModel::JwtPassthrough => {}
        }
        if let Some(hosted) = &self.self_hosted {
            hosted.env.iter().for_each(|var| note(format!("env.{}", var.name), &var.value));
            for pull in &hosted.image_pull_secrets {
                if let (Some(key), PullSecret::Credentials { password, .. }) = (pull.password_key(), pull) {
                    note(key, password);
                }
            }
        }
        keys
    }
}

impl Validate for EntrySpec {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let name = self.name.trim();
        if name.is_empty() || name.len() != self.name.len() || name.chars().count() > 128 || name.chars().any(char::is_control) {
            findings.push(Finding::new("name", "an entry needs a name of 1 to 128 printable characters without blanks around it", "choose another name"));
        } else if crate::tool::slug(name).is_empty() {
            findings.push(Finding::new("name", format!("{name:?} holds nothing that a tool name can be made of"), "use at least one letter or digit"));
        }
        for (field, value) in [("docsUrl", &self.docs_url), ("repository", &self.repository)] {
            findings.extend(value.as_deref().and_then(|url| url_finding(field, url)));
        }
        if self.icon.as_ref().is_some_and(|icon| icon.len() > 64 * 1024) {
            findings.push(Finding::new("icon", "the icon is larger than 64 KiB", "use a smaller one, or its URL"));
        }
        match (&self.remote, &self.self_hosted) {
            (Some(remote), None) => findings.extend(url_finding("remote.url", &remote.url)),
            (None, Some(hosted)) => findings.extend(hosted.findings().into_iter().map(|finding| finding.under("selfHosted"))),
            (None, None) => findings.push(Finding::new("remote", "neither a remote nor a self-hosted server", "add `remote: {url: …}` or `selfHosted: {…}`")),
            (Some(_), Some(_)) => findings.push(Finding::new("remote", "both a remote and a self-hosted server", "keep one of `remote` and `selfHosted`")),
        }
        findings.extend(self.credential.findings().into_iter().map(|finding| finding.under("credential")));
        for (n, header) in self.additional_headers.iter().enumerate() {
            findings.extend(header.findings().into_iter().map(|finding| finding.under(&format!("additionalHeaders[{n}]"))));
            let taken = self.additional_headers[..n].iter().any(|other| other.name.eq_ignore_ascii_case(&header.name))
                || matches!(&self.credential, CredentialModel::Static(fields) if fields.iter().any(|field| field.header.eq_ignore_ascii_case(&header.name)));
            if taken {
                findings.push(Finding::new(format!("additionalHeaders[{n}].name"), format!("header {} is set twice", header.name), "keep one"));
            }
        }
        if self.server().is_some() && !self.speaks_http() {
            if matches!(self.credential, CredentialModel::Static(_) | CredentialModel::Enterprise(_) | CredentialModel::ClientCredentials(_) | CredentialModel::JwtPassthrough) {
                findings.push(Finding::new("credential", "a stdio server receives no headers", "give it the credential in its environment, or use `transport: streamable-http`"));
            }
            if !self.additional_headers.is_empty() {
                findings.push(Finding::new("additionalHeaders", "a stdio server receives no headers", "remove them, or use `transport: streamable-http`"));
            }
        }
        if self.shared_deployment {
            match &self.self_hosted {
                Some(hosted) if hosted.transport == Transport::StreamableHttp => {
                    if let Some(var) = hosted.env.iter().find(|var| var.prompt) {
                        findings.push(Finding::new("sharedDeployment", format!("{} differs per installation, which a shared process cannot honour", var.name), "set `prompt: false`, or remove `sharedDeployment`"));
                    }
                }
                _ => findings.push(Finding::new("sharedDeployment", "only a self-hosted streamable-http server can be shared", "remove it")),
            }
        }
        if self.call_timeout == Some(0) {
            findings.push(Finding::new("callTimeout", "a call cannot take no time", "use seconds from 1, or leave it out"));
        }
        findings.extend(self.labels.findings().into_iter().map(|finding| finding.under("labels")));
        findings
    }
}

/// What is wrong with a URL that a person typed.
pub(crate) fn url_finding(field: &str, text: &str) -> Option<Finding> {
    let remedy = "use an http or https URL without user name, password or fragment";
    match url::Url::parse(text) {
        Err(error) => Some(Finding::new(field, format!("not a URL: {error}"), remedy)),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => Some(Finding::new(field, format!("{} URLs cannot be used here", url.scheme()), remedy)),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => Some(Finding::new(field, "the URL holds credentials", remedy)),
        Ok(url) if url.fragment().is_some() => Some(Finding::new(field, "the URL has a fragment", remedy)),
        Ok(_) => None,
    }
}
