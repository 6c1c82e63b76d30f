//! OAuth towards an upstream server: authorization code, client credentials, and how a client shows who it is.

use super::{FixedValue, secret_value};
use serde::{Deserialize, Serialize};

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
    /// Where the server's protected resource metadata is (RFC 9728), if not where its URL leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_metadata_url: Option<String>,
    /// Where the authorization server's metadata is (RFC 8414, or OpenID discovery), if not where its issuer leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub well_known_url: Option<String>,
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
    /// What to ask for (RFC 6749 section 3.3); empty: what the server's metadata or its challenge names.
    pub scopes: Vec<String>,
    /// What to ask for where `scopes` is empty and the server names nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_scopes: Vec<String>,
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
