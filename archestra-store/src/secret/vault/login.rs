//! Each way to log in: from what we have to a token with a lifetime.

use super::{
    config::{VaultAuth, token_finding},
    trouble::Trouble,
    wire::{Call, Identity, Verb, Wire},
};
use archestra_core::secret::{SecretValue, wiped_json};
use serde::Deserialize;
use std::{path::Path, time::Duration};
use zeroize::Zeroizing;

/// The largest file that holds a token.
const MAX_FILE: u64 = 64 * 1024;
/// Room for it, and for the look at whether there is more.
const ROOM: usize = 65 * 1024;

/// A token and how long it lasts.
pub(super) struct Granted {
    pub(super) token: SecretValue,
    /// Nothing when it does not expire.
    pub(super) lease: Option<Duration>,
    pub(super) renewable: bool,
    pub(super) origin: Origin,
}

/// Whose a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Somebody gave it to us, and may use it elsewhere.
    Given,
    /// We logged in for it.
    Made,
}

#[derive(Deserialize)]
struct Authenticated {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: SecretValue,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct Looked {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

impl From<Authenticated> for Granted {
    fn from(Authenticated { auth }: Authenticated) -> Self {
        let Auth { client_token: token, lease_duration, renewable } = auth;
        Self { token, lease: lease(lease_duration), renewable, origin: Origin::Made }
    }
}

fn lease(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Logs in, once.
pub(super) async fn login(wire: &Wire, auth: &VaultAuth) -> Result<Granted, Trouble> {
    match auth {
        VaultAuth::Token(token) => look_up(wire, token.clone()).await,
        VaultAuth::TokenFile(path) => {
            let token = read(path).await?;
            if let Some(finding) = token_finding(&token) {
                return Err(Trouble::File(format!("the token file {}: {}", path.display(), finding.reason)));
            }
            look_up(wire, token).await
        }
        VaultAuth::Kubernetes { mount, role, jwt_file } | VaultAuth::Jwt { mount, role, jwt_file } => {
            let jwt = read(jwt_file).await?;
            let body = body(&[("role", role), ("jwt", jwt.expose())]);
            authenticate(wire, mount, body, jwt).await
        }
        #[cfg(feature = "vault-aws")]
        VaultAuth::Aws { mount, role, region, server_id, credentials } => {
            let credentials = credentials
                .credentials()
                .await
                .map_err(|error| Trouble::File(format!("no credentials of AWS: {error}")))?;
            let (region, server_id, at) = (region.as_deref(), server_id.as_deref(), chrono::Utc::now());
            let body = super::aws::login_body(&super::aws::Question { role, region, server_id, at }, &credentials);
            let hidden = credentials.session_token.unwrap_or(credentials.secret_access_key);
            authenticate(wire, mount, body, hidden).await
        }
        VaultAuth::AppRole { mount, role_id, secret_id } => {
            let body = body(&[("role_id", role_id), ("secret_id", secret_id.expose())]);
            authenticate(wire, mount, body, secret_id.clone()).await
        }
    }
}

/// Has the lifetime of a token extended. Whose it is the caller knows.
pub(super) async fn renew(wire: &Wire, token: &SecretValue) -> Result<Granted, Trouble> {
    let call = Call::new(Verb::Post, "auth/token/renew-self".to_owned()).with(body(&[]), []);
    wire.send(&wire.identity(token.expose()), &call).await?.read::<Authenticated>().map(Granted::from)
}

/// Ends a login, once.
pub(super) async fn revoke(wire: &Wire, who: &Identity) -> Result<(), Trouble> {
    let call = Call::new(Verb::Post, "auth/token/revoke-self".to_owned()).with(body(&[]), []);
    wire.send(who, &call).await.map(drop)
}

async fn authenticate(
    wire: &Wire,
    mount: &str,
    body: Zeroizing<Vec<u8>>,
    credential: SecretValue,
) -> Result<Granted, Trouble> {
    let call = Call::new(Verb::Post, format!("auth/{mount}/login")).with(body, [credential]);
    let granted: Granted = wire.send(&wire.identity(""), &call).await?.read::<Authenticated>()?.into();
    match token_finding(&granted.token) {
        Some(finding) => Err(Trouble::Strange(format!("a token that cannot be one ({})", finding.reason))),
        None => Ok(granted),
    }
}

async fn look_up(wire: &Wire, token: SecretValue) -> Result<Granted, Trouble> {
    let call = Call::new(Verb::Get, "auth/token/lookup-self".to_owned());
    let looked: Looked = wire.send(&wire.identity(token.expose()), &call).await?.data()?;
    Ok(Granted { token, lease: lease(looked.ttl), renewable: looked.renewable, origin: Origin::Given })
}

/// The content of a small file, without blanks around it.
pub(super) async fn read(path: &Path) -> Result<SecretValue, Trouble> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        // Of one length from the start: what grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(ROOM));
        std::fs::File::open(owned)?.take(MAX_FILE).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(SecretValue::new(text.trim()))
    })
    .await;
    match read {
        Ok(Ok(text)) if !text.is_blank() => Ok(text),
        Ok(Ok(_)) => Err(Trouble::File(format!("{} is empty", path.display()))),
        Ok(Err(error)) => Err(Trouble::File(format!("{} cannot be read: {error}", path.display()))),
        Err(_) => Err(Trouble::File(format!("{} cannot be read now", path.display()))),
    }
}

fn body(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let map: std::collections::BTreeMap<_, _> = fields.iter().copied().collect();
    wiped_json(&map).expect("a map of strings is always JSON")
}
