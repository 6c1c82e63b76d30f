//! OAuth clients of the gateway, and the OpenID providers that it trusts.

use super::{TokenHash, name_finding};
use crate::{
    Finding, Validate,
    catalog::{TokenEndpointAuth, client_id_finding, scope_findings, url_finding, visible_finding},
    id::{ClientId, ConsumerId, IdentityProviderId},
    secret::SecretRef,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A registered OAuth client of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// The identifier.
    pub id: ClientId,
    /// `client_id`: unique; the URL of its metadata document where it has one.
    pub client_id: String,
    /// For people.
    pub name: String,
    /// The SHA-256 of its secret, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hash: Option<TokenHash>,
    /// Its public keys, as a JWK set, for `private_key_jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// How it shows who it is (RFC 7591 `token_endpoint_auth_method`).
    #[serde(default)]
    pub token_endpoint_auth: TokenEndpointAuth,
    /// What it may ask for; empty: whatever the consumer offers.
    #[serde(default)]
    pub scopes: BTreeSet<String>,
    /// Where codes may be sent.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// The grants it may use (RFC 7591 `grant_types`).
    #[serde(default)]
    pub grant_types: BTreeSet<GrantType>,
    /// For client credentials: the consumers it may use.
    #[serde(default)]
    pub consumers: BTreeSet<ConsumerId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A way to a token (RFC 6749, RFC 7523), as RFC 7591 names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GrantType {
    /// A code that a person's consent leads to, with PKCE.
    AuthorizationCode,
    /// A refresh token.
    RefreshToken,
    /// The client's own credentials.
    ClientCredentials,
    /// An assertion: an ID-JAG.
    #[serde(rename = "urn:ietf:params:oauth:grant-type:jwt-bearer")]
    JwtBearer,
}

/// An OpenID provider whose users and tokens the platform trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct IdentityProvider {
    /// The identifier.
    pub id: IdentityProviderId,
    /// Unique; part of the login URL.
    pub name: String,
    /// Its issuer, byte for byte as in its tokens. Unique.
    pub issuer: String,
    /// Our client there.
    pub client_id: String,
    /// Where our client secret is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretRef>,
    /// How our client shows who it is there.
    #[serde(default)]
    pub token_endpoint_auth: TokenEndpointAuth,
    /// Where people are sent to log in; absent: discovered (OpenID Connect Discovery).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// Where tokens are given out and exchanged (RFC 8693); absent: discovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// What a login asks for beside `openid`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The `aud` that its tokens must have at the gateway; our client there if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Its keys (RFC 7517); absent: discovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// Which claim holds the address of a user; `email` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_claim: Option<String>,
    /// Which claim holds the name of a user; `name` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_claim: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl Validate for Client {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(client_id_finding("clientId", &self.client_id));
        findings.extend(name_finding("a client", &self.name));
        findings.extend(self.proof_findings());
        let jwks = self.jwks.as_deref();
        if jwks.is_some_and(|jwks| !is_key_set(jwks)) {
            findings.push(Finding::new("jwks", "not a set of keys", "use a JWK set (RFC 7517): `{\"keys\": […]}`"));
        }
        findings.extend(scope_findings("scopes", &self.scopes));
        for (n, uri) in self.redirect_uris.iter().enumerate() {
            findings.extend(redirect_finding(n, uri));
        }
        let codes = self.grant_types.contains(&GrantType::AuthorizationCode);
        if codes && self.redirect_uris.is_empty() {
            findings.push(Finding::new(
                "redirectUris",
                "a client for codes needs a place to send them to",
                "add one, or remove `authorization_code` from `grantTypes`",
            ));
        }
        if self.grant_types.contains(&GrantType::ClientCredentials) && self.consumers.is_empty() {
            findings.push(Finding::new(
                "consumers",
                "a client with credentials of its own may use nothing",
                "name the gateways and agents it may use, or remove `client_credentials` from `grantTypes`",
            ));
        }
        findings
    }
}

impl Client {
    /// Whether it may use a consumer with nothing but its own credentials.
    #[must_use]
    pub fn may_use(&self, consumer: ConsumerId) -> bool {
        self.grant_types.contains(&GrantType::ClientCredentials) && self.consumers.contains(&consumer)
    }

    /// What is wrong with how it shows who it is.
    fn proof_findings(&self) -> Vec<Finding> {
        let finding = |field: &str, reason: &str, remedy: &str| vec![Finding::new(field, reason, remedy)];
        let alone = self.grant_types.contains(&GrantType::ClientCredentials);
        match self.token_endpoint_auth {
            TokenEndpointAuth::None if self.secret_hash.is_some() => finding(
                "tokenEndpointAuth",
                "a public client has no secret",
                "use `client_secret_basic` or `client_secret_post`, or remove the secret",
            ),
            TokenEndpointAuth::None if alone => finding(
                "tokenEndpointAuth",
                "a public client gets no client credentials",
                "use `client_secret_basic`, `client_secret_post` or `private_key_jwt`",
            ),
            TokenEndpointAuth::ClientSecretBasic | TokenEndpointAuth::ClientSecretPost
                if self.secret_hash.is_none() =>
            {
                finding("tokenEndpointAuth", "there is no secret to show", "give it a secret, or use `none`")
            }
            // Keys that are absent are found in the metadata document that the identifier leads to.
            TokenEndpointAuth::PrivateKeyJwt if self.jwks.is_none() && !self.client_id.starts_with("https://") => {
                finding("jwks", "there is no key to check its assertions with", "add its public keys as a JWK set")
            }
            _ => Vec::new(),
        }
    }
}

impl Validate for IdentityProvider {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let in_path = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(in_path) {
            findings.push(Finding::new(
                "name",
                format!("{:?} cannot be part of the login URL", self.name),
                "use 1 to 64 lower-case letters, digits and '-'",
            ));
        }
        findings.extend(url_finding("issuer", &self.issuer));
        findings.extend(client_id_finding("clientId", &self.client_id));
        for (field, url) in [
            ("authorizationEndpoint", &self.authorization_endpoint),
            ("tokenEndpoint", &self.token_endpoint),
            ("jwksUri", &self.jwks_uri),
        ] {
            findings.extend(url.as_deref().and_then(|url| url_finding(field, url)));
        }
        if self.client_secret.is_some()
            && matches!(self.token_endpoint_auth, TokenEndpointAuth::None | TokenEndpointAuth::PrivateKeyJwt)
        {
            findings.push(Finding::new(
                "tokenEndpointAuth",
                "this client shows no secret, and there is one",
                "use `client_secret_basic` or `client_secret_post`, or remove the secret",
            ));
        }
        findings.extend(scope_findings("scopes", &self.scopes));
        findings.extend(self.audience.as_deref().and_then(|text| visible_finding("audience", text, "an audience")));
        for (field, claim) in [("emailClaim", &self.email_claim), ("nameClaim", &self.name_claim)] {
            findings.extend(claim.as_deref().and_then(|claim| visible_finding(field, claim, "the name of a claim")));
        }
        findings
    }
}

/// Whether this is a JWK set.
fn is_key_set(text: &str) -> bool {
    let keys = serde_json::from_str::<serde_json::Value>(text).ok();
    keys.is_some_and(|set| {
        set["keys"].as_array().is_some_and(|keys| !keys.is_empty() && keys.iter().all(|key| key["kty"].is_string()))
    })
}

/// What is wrong with a place where codes are sent to (RFC 8252, OAuth 2.1): `https`, `http` of this machine, or a program's own
/// scheme.
fn redirect_finding(n: usize, uri: &str) -> Option<Finding> {
    let reason = match url::Url::parse(uri) {
        Err(error) => format!("not a URI: {error}"),
        Ok(uri) if uri.fragment().is_some() => "a redirect URI has no fragment".to_owned(),
        Ok(uri) if uri.scheme() == "http" && !is_loopback(&uri) => {
            "codes would go over the network in clear".to_owned()
        }
        Ok(uri) if matches!(uri.scheme(), "javascript" | "data" | "file" | "blob" | "vbscript") => {
            format!("{} URIs take no code", uri.scheme())
        }
        Ok(uri) if !matches!(uri.scheme(), "http" | "https") && !uri.scheme().contains('.') => {
            "a scheme of one's own is a reversed domain name".to_owned()
        }
        Ok(_) => return None,
    };
    Some(Finding::new(
        format!("redirectUris[{n}]"),
        reason,
        "use `https://…`, `http://127.0.0.1/…`, or a scheme such as `com.example.app:/callback`",
    ))
}

fn is_loopback(uri: &url::Url) -> bool {
    match uri.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests;
