//! The credential models of an entry: none, static fields, OAuth, client credentials, enterprise exchange, JWT passthrough; and additional headers.

mod enterprise;
mod oauth;

pub use enterprise::{EnterpriseConfig, ExchangeStrategy, Injection, ResourceClient, TokenType};
pub use oauth::{ClientCredentialsConfig, OAuthConfig, TokenEndpointAuth};

use super::value::{FixedValue, Scalar, Secrecy, WireValue};
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
        let secrecy = Secrecy::of(wire.secret);
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

fn secret_value<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<FixedValue>, D::Error> {
    Ok(Option::<WireValue>::deserialize(deserializer)?.map(|value| value.into_fixed(Secrecy::Secret)))
}
