//! The credential models of an entry: none, static fields, OAuth, client credentials, enterprise exchange, JWT passthrough; and additional headers.

use super::value::{FixedValue, Scalar, Secrecy, WireValue};
use crate::id::IdentityProviderId;
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

impl ClientCredentialsConfig {
    /// The names of the fields that each installation gives.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &'static str> {
        // With a signed assertion the platform's own key stands in for a secret.
        let secret = self.client_secret.is_none() && self.token_endpoint_auth != TokenEndpointAuth::PrivateKeyJwt;
        let id = self.client_id.is_none().then_some(Self::CLIENT_ID);
        id.into_iter().chain(secret.then_some(Self::CLIENT_SECRET))
    }

    /// The field that holds the client, where the entry does not.
    pub(crate) const CLIENT_ID: &'static str = "clientId";

    /// The field that holds its secret, where the entry does not.
    pub(crate) const CLIENT_SECRET: &'static str = "clientSecret";
}
