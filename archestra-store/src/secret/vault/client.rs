//! vaultrs' client over an HTTP client that follows no redirect: wherever one leads, the token would go along.

use super::config::VaultConfig;
use archestra_core::{Error, Result};
use rustify::clients::reqwest::Client as HttpClient;
use std::{error::Error as StdError, fs, path::Path, time::Duration};
use vaultrs::{
    api::EndpointMiddleware,
    client::{VaultClient, VaultClientSettings, VaultClientSettingsBuilder},
};

const CA_FILE: &str = "caFile";
const CA_REMEDY: &str = "name a file of PEM certificates";
/// The limit of the HTTP client is only there for the case that ours is not kept.
const LATER: Duration = Duration::from_secs(1);

/// The client for a server, which belongs to nobody yet: who asks is said with each request.
pub(super) fn new(config: &VaultConfig) -> Result<VaultClient> {
    let settings = settings(config)?;
    let http = http(config)?;
    let middle = EndpointMiddleware {
        token: settings.token.clone(),
        version: format!("v{}", settings.version),
        wrap: None,
        namespace: settings.namespace.clone(),
    };
    Ok(VaultClient { http: HttpClient::new(settings.address.as_str(), http), middle, settings })
}

fn settings(config: &VaultConfig) -> Result<VaultClientSettings> {
    // Whatever is not set here, vaultrs reads from the environment.
    VaultClientSettingsBuilder::default()
        .address(config.address.trim_end_matches('/'))
        .ca_certs(config.ca_file.iter().map(|path| path.display().to_string()).collect())
        .identity(None)
        .timeout(Some(config.request_timeout + LATER))
        .token("")
        .verify(true)
        .version(1_u8)
        .wrapping(false)
        .namespace(config.namespace.clone())
        .build()
        .map_err(|error| Error::invalid("vault", error.to_string(), "change the settings"))
}

/// vaultrs would make one that follows redirects, to other hosts and from https to http too.
fn http(config: &VaultConfig) -> Result<reqwest::Client> {
    let mut http = reqwest::Client::builder()
        .tls_backend_rustls()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(config.request_timeout + LATER);
    if config.address.starts_with("http://") {
        // The certificates of the system are not needed, and may not be there.
        http = http.tls_certs_only([]);
    } else if let Some(path) = &config.ca_file {
        http = http.tls_certs_merge(certificates(path)?);
    }
    http.build().map_err(|error| {
        Error::invalid(CA_FILE, format!("the HTTP client cannot be made: {}", innermost(&error)), CA_REMEDY)
    })
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let shown = path.display();
    let content = fs::read(path)
        .map_err(|error| Error::invalid(CA_FILE, format!("{shown} cannot be read: {error}"), CA_REMEDY))?;
    match reqwest::Certificate::from_pem_bundle(&content) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::invalid(CA_FILE, format!("{shown} holds no certificate"), CA_REMEDY)),
        Err(error) => {
            let reason = format!("{shown} holds something else than certificates: {}", innermost(&error));
            Err(Error::invalid(CA_FILE, reason, CA_REMEDY))
        }
    }
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
