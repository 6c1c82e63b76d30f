//! Findings about credential models and additional headers.

use super::text::{header_name_finding, header_text_finding, url_finding};
use crate::{
    Finding, Validate,
    catalog::{
        AdditionalHeader, ClientCredentialsConfig, CredentialModel, EnterpriseConfig, FixedValue, Injection,
        OAuthConfig, StaticField, TokenEndpointAuth,
        env::{is_env_name, secret_in_plain_field},
    },
};

impl Validate for StaticField {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.name.starts_with('-') || !is_env_name(&self.name.replace('-', "_")) {
            findings.push(Finding::new(
                "name",
                format!("{:?} is not a field name", self.name),
                "start with a letter or '_', then letters, digits, '_' and '-'",
            ));
        }
        findings.extend(header_name_finding("header", &self.header));
        findings.extend(self.prefix.as_deref().and_then(|prefix| header_text_finding("prefix", prefix)));
        if self.prompt && self.value.is_some() {
            findings.push(Finding::new(
                "value",
                "a prompted field cannot have a fixed value",
                "remove `value`, or set `prompt: false`",
            ));
        }
        if !self.prompt && self.value.is_none() {
            findings.push(Finding::new(
                "value",
                "a field that is not prompted needs a value",
                "add `value`, or set `prompt: true`",
            ));
        }
        if !self.secret {
            findings.extend(secret_in_plain_field(self.value.as_ref()));
        }
        let text = self.value.as_ref().and_then(FixedValue::text);
        findings.extend(text.and_then(|text| header_text_finding("value", text)));
        findings
    }
}

impl Validate for AdditionalHeader {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(header_name_finding("name", &self.name));
        findings.extend(self.value.as_deref().and_then(|value| header_text_finding("value", value)));
        match (self.prompt, &self.value) {
            (false, None) => findings.push(Finding::new(
                "value",
                "an additional header needs a value",
                "add `value`, or set `prompt: true`",
            )),
            (true, Some(_)) => findings.push(Finding::new(
                "value",
                "a prompted header cannot have a fixed value",
                "remove `value`, or set `prompt: false`",
            )),
            (true, None) | (false, Some(_)) => {}
        }
        findings
    }
}

impl Validate for CredentialModel {
    fn findings(&self) -> Vec<Finding> {
        let (name, findings) = match self {
            Self::None | Self::JwtPassthrough => return Vec::new(),
            Self::Static(fields) => return static_findings(fields),
            Self::OAuth(config) => ("oauth", config.findings()),
            Self::ClientCredentials(config) => ("clientCredentials", config.findings()),
            Self::Enterprise(config) => ("enterprise", config.findings()),
        };
        findings.into_iter().map(|finding| finding.under(name)).collect()
    }
}

fn static_findings(fields: &[StaticField]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, field) in fields.iter().enumerate() {
        let at = format!("static[{n}]");
        let before = &fields[..n];
        findings.extend(field.findings().into_iter().map(|finding| finding.under(&at)));
        if before.iter().any(|other| other.name == field.name) {
            findings.push(Finding::new(
                format!("{at}.name"),
                format!("{} is there twice", field.name),
                "give each field its own name",
            ));
        }
        if before.iter().any(|other| other.header.eq_ignore_ascii_case(&field.header)) {
            findings.push(Finding::new(
                format!("{at}.header"),
                format!("header {} is set twice", field.header),
                "give each field its own header",
            ));
        }
    }
    findings
}

impl Validate for OAuthConfig {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = url_findings([
            ("issuer", &self.issuer),
            ("authorizationEndpoint", &self.authorization_endpoint),
            ("tokenEndpoint", &self.token_endpoint),
            ("resource", &self.resource),
        ]);
        let half = match (&self.authorization_endpoint, &self.token_endpoint) {
            (Some(_), None) => Some("tokenEndpoint"),
            (None, Some(_)) => Some("authorizationEndpoint"),
            (Some(_), Some(_)) | (None, None) => None,
        };
        if let Some(absent) = half {
            findings.push(Finding::new(
                absent,
                "one endpoint without the other",
                "give both `authorizationEndpoint` and `tokenEndpoint`, or neither",
            ));
        }
        if self.client_secret.is_some() && self.client_id.is_none() {
            findings.push(Finding::new("clientId", "a client secret without its client", "add `clientId`"));
        }
        if let Some(name) = &self.access_token_env
            && !is_env_name(name)
        {
            findings.push(Finding::new(
                "accessTokenEnv",
                format!("{name:?} is not the name of an environment variable"),
                "start with a letter or '_', then letters, digits and '_'",
            ));
        }
        findings
    }
}

impl Validate for ClientCredentialsConfig {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = url_findings([("tokenEndpoint", &self.token_endpoint), ("resource", &self.resource)]);
        if self.token_endpoint_auth == TokenEndpointAuth::None {
            findings.push(Finding::new(
                "tokenEndpointAuth",
                "a public client gets no client credentials",
                "use `client_secret_basic`, `client_secret_post` or `private_key_jwt`",
            ));
        }
        findings
    }
}

impl Validate for EnterpriseConfig {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = url_findings([("resource", &self.resource)]);
        if let Injection::Header(name) = &self.injection {
            findings.extend(header_name_finding("injection.header", name));
        }
        findings
    }
}

fn url_findings<const N: usize>(urls: [(&str, &Option<String>); N]) -> Vec<Finding> {
    urls.into_iter().filter_map(|(field, url)| url_finding(field, url.as_deref()?)).collect()
}
