//! Enterprise credentials: how the caller's identity is exchanged for a credential of the server.

use super::{FixedValue, TokenEndpointAuth, secret_value};
use crate::id::IdentityProviderId;
use serde::{Deserialize, Serialize};

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
    /// RFC 8693 `requested_token_type`; absent: what the strategy leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_token_type: Option<TokenType>,
    /// RFC 8693 `subject_token_type` of the caller's token; an access token if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_token_type: Option<TokenType>,
    /// `requested_issuer`, for providers that broker several (Keycloak).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_issuer: Option<String>,
    /// RFC 8693 `audience`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// RFC 8707 `resource`: an absolute URI. For Entra, `<resource>/.default` is asked for where `scopes` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What to ask for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Where the credential is in the answer, as keys joined by dots; `access_token` (RFC 8693 section 2.2.1) if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_path: Option<String>,
    /// For ID-JAG: our client at the authorization server of the resource, which takes the assertion (RFC 7523); absent:
    /// that server is discovered (RFC 9728) and the client registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_client: Option<Box<ResourceClient>>,
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
    /// Microsoft Entra on-behalf-of: RFC 7523 with `requested_token_use=on_behalf_of`.
    EntraObo,
    /// ID-JAG at the identity provider, then RFC 7523 at the server's authorization server.
    IdJag,
}

/// What kind of token, by the last part of its identifier (RFC 8693 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenType {
    /// An OAuth access token.
    AccessToken,
    /// An OAuth refresh token.
    RefreshToken,
    /// An OpenID Connect ID token.
    IdToken,
    /// A JWT of no particular use.
    Jwt,
    /// A SAML 2.0 assertion.
    Saml2,
    /// An identity assertion authorization grant (draft-ietf-oauth-identity-assertion-authz-grant).
    #[serde(rename = "id-jag")]
    IdJag,
}

impl TokenType {
    /// The identifier that goes over the wire.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
            Self::RefreshToken => "urn:ietf:params:oauth:token-type:refresh_token",
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::Jwt => "urn:ietf:params:oauth:token-type:jwt",
            Self::Saml2 => "urn:ietf:params:oauth:token-type:saml2",
            Self::IdJag => "urn:ietf:params:oauth:token-type:id-jag",
        }
    }
}

/// Our client at the authorization server of the resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceClient {
    /// Where that server gives tokens out; absent: discovered (RFC 8414).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// The client.
    pub client_id: String,
    /// Its secret.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "secret_value")]
    pub client_secret: Option<FixedValue>,
    /// How the client authenticates.
    #[serde(default)]
    pub token_endpoint_auth: TokenEndpointAuth,
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
