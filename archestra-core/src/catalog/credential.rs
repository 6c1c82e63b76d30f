//! The credential models of an entry: none, static fields, OAuth, client credentials, enterprise exchange, JWT passthrough; and additional headers.

use super::value::{FixedValue, Scalar, Secrecy, WireValue};
use crate::{Finding, Validate, id::IdentityProviderId, secret::SecretValue};
use serde::{Deserialize, Serialize};

/// How an installation of the entry authenticates to its server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum CredentialModel {
    /// Not at all; or, for a self-hosted server, by what its environment holds.
    #[default]
    None,
    /// Fields that the platform sends as headers.
    Static(Vec<StaticField>),
    /// OAuth 2.1 authorization code with PKCE, once per installation, refreshed automatically.
    #[serde(rename = "oauth")]
    OAuth(OAuthConfig),
    /// OAuth client credentials, shared by everybody who may use the installation.
    ClientCredentials(ClientCredentialsConfig),
    /// The caller's enterprise identity, exchanged for a credential of this server (RFC 8693, Entra on-behalf-of, ID-JAG).
    Enterprise(EnterpriseConfig),
    /// The caller's own IdP token, which the server itself validates.
    JwtPassthrough,
}

/// A credential field that is sent as a header of every request to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", from = "WireField")]
pub struct StaticField {
    /// The field's name, by which an installation gives its value.
    pub name: String,
    /// The header that carries it.
    pub header: String,
    /// What stands before the value: `"Bearer "`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Whether the value is kept in the secret store and never shown.
    pub secret: bool,
    /// Whether each installation gives its own value. On unless the entry has a `value`.
    pub prompt: bool,
    /// Whether an installation must give one.
    pub required: bool,
    /// The value of every installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<FixedValue>,
    /// What to enter, for whoever installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireField {
    name: String,
    header: String,
    prefix: Option<String>,
    #[serde(default = "yes")]
    secret: bool,
    prompt: Option<bool>,
    #[serde(default)]
    required: bool,
    value: Option<WireValue>,
    description: Option<String>,
}

const fn yes() -> bool {
    true
}

impl From<WireField> for StaticField {
    fn from(wire: WireField) -> Self {
        let secrecy = if wire.secret { Secrecy::Secret } else { Secrecy::Plain };
        Self {
            name: wire.name,
            header: wire.header,
            prefix: wire.prefix,
            secret: wire.secret,
            prompt: wire.prompt.unwrap_or(wire.value.is_none()),
            required: wire.required,
            value: wire.value.map(|value| value.into_fixed(secrecy)),
            description: wire.description,
        }
    }
}

/// A header that is no credential and goes with every request to the server: a tenant, an API version, a feature flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", from = "WireHeader")]
pub struct AdditionalHeader {
    /// The header's name.
    pub name: String,
    /// The value of every installation, unless it is prompted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether each installation gives its own value.
    pub prompt: bool,
    /// Whether an installation must give one.
    pub required: bool,
    /// What to enter, for whoever installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireHeader {
    name: String,
    value: Option<Scalar>,
    #[serde(default)]
    prompt: bool,
    #[serde(default)]
    required: bool,
    description: Option<String>,
}

impl From<WireHeader> for AdditionalHeader {
    fn from(wire: WireHeader) -> Self {
        Self {
            name: wire.name,
            value: wire.value.map(|Scalar(value)| value.expose().to_owned()),
            prompt: wire.prompt,
            required: wire.required,
            description: wire.description,
        }
    }
}

/// How a client shows who it is at a token endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TokenEndpointAuth {
    /// Public client.
    None,
    /// HTTP Basic.
    #[default]
    ClientSecretBasic,
    /// In the form body.
    ClientSecretPost,
    /// A signed assertion (RFC 7523).
    PrivateKeyJwt,
}

/// OAuth 2.1 authorization code towards an upstream server. What is absent is discovered (RFC 9728, RFC 8414).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OAuthConfig {
    /// The authorization server's issuer, if it is not to be discovered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Together with `tokenEndpoint`, in place of discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// Together with `authorizationEndpoint`, in place of discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// A client that was registered by hand; otherwise a client metadata document, then dynamic registration (RFC 7591).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Its secret.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "secret_value")]
    pub client_secret: Option<FixedValue>,
    /// How the client authenticates.
    pub token_endpoint_auth: TokenEndpointAuth,
    /// What to ask for.
    pub scopes: Vec<String>,
    /// RFC 8707 resource, if it is not the server's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `audience`, for servers that want one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// For a self-hosted server: the environment variable that receives the access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token_env: Option<String>,
}

/// OAuth client credentials towards an upstream server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCredentialsConfig {
    /// Where tokens come from; absent: discovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// The client; absent: each installation gives `clientId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Its secret; absent: each installation gives `clientSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "secret_value")]
    pub client_secret: Option<FixedValue>,
    /// How the client authenticates.
    #[serde(default)]
    pub token_endpoint_auth: TokenEndpointAuth,
    /// What to ask for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// RFC 8707 resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `audience`, for servers that want one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

/// How the caller's identity becomes a credential of this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnterpriseConfig {
    /// Who exchanges; absent: the consumer's identity provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<IdentityProviderId>,
    /// The way of exchange.
    pub strategy: ExchangeStrategy,
    /// RFC 8693 `audience`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// RFC 8707 `resource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What to ask for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// How the result is sent.
    #[serde(default)]
    pub injection: Injection,
}

/// A way to exchange one token for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExchangeStrategy {
    /// RFC 8693 token exchange.
    TokenExchange,
    /// Microsoft Entra on-behalf-of.
    EntraObo,
    /// ID-JAG at the identity provider, then RFC 7523 at the server's authorization server.
    IdJag,
}

/// Where an exchanged credential goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Injection {
    /// `Authorization: Bearer <token>`.
    #[default]
    Bearer,
    /// `Authorization: <token>`.
    Raw,
    /// A header of this name.
    Header(String),
}

fn secret_value<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<FixedValue>, D::Error> {
    Ok(Option::<WireValue>::deserialize(deserializer)?.map(|value| value.into_fixed(Secrecy::Secret)))
}

/// Headers that the platform or HTTP itself sets.
const RESERVED_HEADERS: &[&str] = &[
    "host", "content-length", "content-type", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "proxy-authorization",
    "proxy-authenticate", "proxy-connection", "accept", "mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id",
];

/// What is wrong with a header name that an entry sends.
pub(crate) fn header_name_finding(field: &str, name: &str) -> Option<Finding> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
        return Some(Finding::new(field, format!("{name:?} is not a header name"), "use letters, digits and '-'"));
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED_HEADERS.contains(&lower.as_str()) || lower.starts_with("mcp-param-") {
        return Some(Finding::new(field, format!("header {name} is set by the platform"), "use another header"));
    }
    None
}

/// What is wrong with text that goes into a header.
pub(crate) fn header_text_finding(field: &str, text: &str) -> Option<Finding> {
    let bad = text.bytes().any(|b| b != b'\t' && !(0x20..0x7f).contains(&b));
    bad.then(|| Finding::new(field, "a header value may hold printable ASCII only", "remove line breaks and other special characters"))
}

impl Validate for StaticField {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !super::env::is_env_name(&self.name.replace('-', "_")) {
            findings.push(Finding::new("name", format!("{:?} is not a field name", self.name), "start with a letter, then letters, digits, '_' and '-'"));
        }
        findings.extend(header_name_finding("header", &self.header));
        findings.extend(self.prefix.as_deref().and_then(|prefix| header_text_finding("prefix", prefix)));
        if self.prompt && self.value.is_some() {
            findings.push(Finding::new("value", "a prompted field cannot have a fixed value", "remove `value`, or set `prompt: false`"));
        }
        if !self.prompt && self.value.is_none() {
            findings.push(Finding::new("value", "a field that is not prompted needs a value", "add `value`, or set `prompt: true`"));
        }
        let text = match &self.value {
            Some(FixedValue::Plain(text)) => Some(text.as_str()),
            Some(FixedValue::Secret(secret)) => Some(secret.expose()),
            Some(FixedValue::Stored) | None => None,
        };
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
            (false, None) => findings.push(Finding::new("value", "an additional header needs a value", "add `value`, or set `prompt: true`")),
            (true, Some(_)) => findings.push(Finding::new("value", "a prompted header cannot have a fixed value", "remove `value`, or set `prompt: false`")),
            _ => {}
        }
        findings
    }
}

impl Validate for CredentialModel {
    fn findings(&self) -> Vec<Finding> {
        let url = |field: &str, value: &Option<String>| value.as_deref().and_then(|value| super::entry::url_finding(field, value));
        match self {
            Self::None | Self::JwtPassthrough => Vec::new(),
            Self::Static(fields) => {
                let mut findings = Vec::new();
                for (n, field) in fields.iter().enumerate() {
                    findings.extend(field.findings().into_iter().map(|finding| finding.under(&format!("static[{n}]"))));
                    if fields[..n].iter().any(|other| other.name == field.name) {
                        findings.push(Finding::new(format!("static[{n}].name"), format!("{} is there twice", field.name), "give each field its own name"));
                    }
                    if fields[..n].iter().any(|other| other.header.eq_ignore_ascii_case(&field.header)) {
                        findings.push(Finding::new(format!("static[{n}].header"), format!("header {} is set twice", field.header), "give each field its own header"));
                    }
                }
                findings
            }
            Self::OAuth(config) => {
                let mut findings: Vec<_> = [("oauth.issuer", &config.issuer), ("oauth.authorizationEndpoint", &config.authorization_endpoint), ("oauth.tokenEndpoint", &config.token_endpoint), ("oauth.resource", &config.resource)]
                    .into_iter()
                    .filter_map(|(field, value)| url(field, value))
                    .collect();
                if config.authorization_endpoint.is_some() != config.token_endpoint.is_some() {
                    findings.push(Finding::new("oauth", "one endpoint without the other", "give both `authorizationEndpoint` and `tokenEndpoint`, or neither"));
                }
                if config.client_secret.is_some() && config.client_id.is_none() {
                    findings.push(Finding::new("oauth.clientId", "a client secret without its client", "add `clientId`"));
                }
                if let Some(name) = &config.access_token_env
                    && !super::env::is_env_name(name)
                {
                    findings.push(Finding::new("oauth.accessTokenEnv", format!("{name:?} is not the name of an environment variable"), "use letters, digits and '_'"));
                }
                findings
            }
            Self::ClientCredentials(config) => [("clientCredentials.tokenEndpoint", &config.token_endpoint), ("clientCredentials.resource", &config.resource)]
                .into_iter()
                .filter_map(|(field, value)| url(field, value))
                .collect(),
            Self::Enterprise(config) => {
                let mut findings = Vec::new();
                findings.extend(url("enterprise.resource", &config.resource));
                if let Injection::Header(name) = &config.injection {
                    findings.extend(header_name_finding("enterprise.injection.header", name));
                }
                findings
            }
        }
    }
}

impl CredentialModel {
    /// The secrets that are fixed by the entry and not in the secret store yet, taken out and replaced by
    /// [`FixedValue::Stored`]; by the key they are stored under.
    pub(crate) fn take_secrets(&mut self, mut take: impl FnMut(String, SecretValue)) {
        let mut swap = |key: String, value: &mut Option<FixedValue>| {
            if matches!(value, Some(FixedValue::Secret(_)))
                && let Some(FixedValue::Secret(secret)) = value.replace(FixedValue::Stored)
            {
                take(key, secret);
            }
        };
        match self {
            Self::Static(fields) => fields.iter_mut().for_each(|field| swap(format!("field.{}", field.name), &mut field.value)),
            Self::OAuth(config) => swap("oauth.clientSecret".to_owned(), &mut config.client_secret),
            Self::ClientCredentials(config) => swap("clientCredentials.clientSecret".to_owned(), &mut config.client_secret),
            Self::None | Self::Enterprise(_) | Self::JwtPassthrough => {}
        }
    }
}
