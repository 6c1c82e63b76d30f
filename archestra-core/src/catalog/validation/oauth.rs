//! Findings about OAuth towards a server: authorization code, client credentials, enterprise exchange.

use super::text::{
    client_id_finding, header_name_finding, resource_finding, scope_findings, url_finding, visible_finding,
};
use crate::{
    Finding, Validate,
    catalog::{
        ClientCredentialsConfig, EnterpriseConfig, ExchangeStrategy, FixedValue, Injection, OAuthConfig,
        ResourceClient, TokenEndpointAuth, TokenType, env::is_env_name,
    },
};

impl Validate for OAuthConfig {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = url_findings([
            ("issuer", &self.issuer),
            ("resourceMetadataUrl", &self.resource_metadata_url),
            ("wellKnownUrl", &self.well_known_url),
            ("authorizationEndpoint", &self.authorization_endpoint),
            ("tokenEndpoint", &self.token_endpoint),
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
        if self.well_known_url.is_some() && (self.authorization_endpoint.is_some() || self.token_endpoint.is_some()) {
            findings.push(Finding::new(
                "wellKnownUrl",
                "endpoints and the place where they are discovered",
                "keep `wellKnownUrl`, or both endpoints",
            ));
        }
        findings.extend(client_findings(
            self.client_id.as_deref(),
            self.client_secret.as_ref(),
            self.token_endpoint_auth,
        ));
        findings.extend(scope_findings("scopes", &self.scopes));
        findings.extend(scope_findings("defaultScopes", &self.default_scopes));
        findings.extend(target_findings(self.resource.as_deref(), self.audience.as_deref()));
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
        let mut findings = url_findings([("tokenEndpoint", &self.token_endpoint)]);
        if self.token_endpoint_auth == TokenEndpointAuth::None {
            findings.push(Finding::new(
                "tokenEndpointAuth",
                "a public client gets no client credentials",
                "use `client_secret_basic`, `client_secret_post` or `private_key_jwt`",
            ));
        }
        findings.extend(client_findings(
            self.client_id.as_deref(),
            self.client_secret.as_ref(),
            self.token_endpoint_auth,
        ));
        findings.extend(scope_findings("scopes", &self.scopes));
        findings.extend(target_findings(self.resource.as_deref(), self.audience.as_deref()));
        findings
    }
}

impl Validate for EnterpriseConfig {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(scope_findings("scopes", &self.scopes));
        findings.extend(target_findings(self.resource.as_deref(), self.audience.as_deref()));
        findings.extend(
            self.requested_issuer.as_deref().and_then(|text| visible_finding("requestedIssuer", text, "an issuer")),
        );
        findings.extend(self.strategy_findings());
        if let Some(path) = &self.token_path
            && path.split('.').any(|key| key.is_empty() || key.chars().any(|c| c.is_whitespace() || c.is_control()))
        {
            findings.push(Finding::new(
                "tokenPath",
                format!("{path:?} leads nowhere"),
                "write keys with a '.' between them: `data.credential`",
            ));
        }
        if let Some(client) = &self.resource_client {
            findings.extend(client.findings().into_iter().map(|finding| finding.under("resourceClient")));
        }
        if let Injection::Header(name) = &self.injection {
            findings.extend(header_name_finding("injection.header", name));
        }
        findings
    }
}

impl EnterpriseConfig {
    /// What does not go with the way of exchange.
    fn strategy_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let requested = match (self.strategy, self.requested_token_type) {
            (ExchangeStrategy::EntraObo, Some(kind)) if kind != TokenType::AccessToken => {
                Some("Entra gives access tokens only")
            }
            (ExchangeStrategy::IdJag, Some(kind)) if kind != TokenType::IdJag => {
                Some("this strategy asks the identity provider for an ID-JAG")
            }
            _ => None,
        };
        findings.extend(requested.map(|reason| {
            Finding::new("requestedTokenType", reason, "leave it out, or use `strategy: token-exchange`")
        }));
        if self.strategy == ExchangeStrategy::EntraObo && self.scopes.is_empty() && self.resource.is_none() {
            findings.push(Finding::new(
                "scopes",
                "Entra must be told for what the token is",
                "add `scopes`, or `resource`, of which `<resource>/.default` is made",
            ));
        }
        if self.strategy != ExchangeStrategy::IdJag && self.resource_client.is_some() {
            findings.push(Finding::new(
                "resourceClient",
                "only ID-JAG goes on to the authorization server of the resource",
                "remove it, or use `strategy: id-jag`",
            ));
        }
        findings
    }
}

impl Validate for ResourceClient {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = url_findings([("tokenEndpoint", &self.token_endpoint)]);
        findings.extend(client_findings(Some(&self.client_id), self.client_secret.as_ref(), self.token_endpoint_auth));
        let by_secret = matches!(
            self.token_endpoint_auth,
            TokenEndpointAuth::ClientSecretBasic | TokenEndpointAuth::ClientSecretPost
        );
        if by_secret && self.client_secret.is_none() {
            findings.push(Finding::new(
                "clientSecret",
                "the client shows a secret, and there is none",
                "add `clientSecret`, or set `tokenEndpointAuth` to `private_key_jwt` or `none`",
            ));
        }
        findings
    }
}

/// What is wrong with a client, its secret and how it shows who it is.
fn client_findings(id: Option<&str>, secret: Option<&FixedValue>, auth: TokenEndpointAuth) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(id.and_then(|id| client_id_finding("clientId", id)));
    let Some(secret) = secret else { return findings };
    if id.is_none() {
        findings.push(Finding::new("clientId", "a client secret without its client", "add `clientId`"));
    }
    let unused = match auth {
        TokenEndpointAuth::None => Some("a public client has no secret"),
        TokenEndpointAuth::PrivateKeyJwt => Some("a client that signs assertions sends no secret"),
        TokenEndpointAuth::ClientSecretBasic | TokenEndpointAuth::ClientSecretPost => None,
    };
    findings.extend(unused.map(|reason| {
        Finding::new(
            "clientSecret",
            reason,
            "remove it, or set `tokenEndpointAuth` to `client_secret_basic` or `client_secret_post`",
        )
    }));
    // The value itself is never shown.
    if secret.text().is_some_and(|text| text.trim().is_empty() || text.bytes().any(|b| !(0x20..0x7f).contains(&b))) {
        findings.push(Finding::new(
            "clientSecret",
            "the value is not a client secret",
            "use printable ASCII, at least one character",
        ));
    }
    findings
}

/// What is wrong with what a token is asked for.
fn target_findings(resource: Option<&str>, audience: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(resource.and_then(|resource| resource_finding("resource", resource)));
    findings.extend(audience.and_then(|audience| visible_finding("audience", audience, "an audience")));
    findings
}

fn url_findings<const N: usize>(urls: [(&str, &Option<String>); N]) -> Vec<Finding> {
    urls.into_iter().filter_map(|(field, url)| url_finding(field, url.as_deref()?)).collect()
}
