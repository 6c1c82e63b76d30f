//! Vault as the flags and variables say: its settings, and the stores on it.

#[cfg(test)]
mod tests;

use crate::{
    environment::Environment,
    failure::Failure,
    flags::{SecretsChoice, VaultAuthChoice, VaultFlags},
};
use archestra_core::secret::{SecretStore, SecretValue};
use archestra_store::{
    AwsCredentialSource, AwsCredentials, AwsCredentialsFile, SqlSecrets, VaultAuth, VaultConfig, VaultReadOnly,
    VaultStore, VaultTransit,
};
use std::{fs::File, io::Read, path::Path, sync::Arc, time::Duration};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The variable of the token.
const TOKEN: &str = "ARCHESTRA_VAULT_TOKEN";
/// The variable of the secret id.
const SECRET_ID: &str = "ARCHESTRA_VAULT_SECRET_ID";
/// The variables of AWS's credentials.
const AWS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
/// The variable of the section of a file with AWS's credentials.
const AWS_PROFILE: &str = "AWS_PROFILE";
/// For how long a value is used that was read: as long as anything else is before a replica has heard of a change.
const CACHE: Duration = Duration::from_secs(5);
/// The largest file of a secret id.
const MAX_FILE: u64 = 64 * 1024;
/// Room for it, and for the look at whether there is more.
const ROOM: usize = 65 * 1024;

/// Where secrets are kept.
#[derive(Debug, Clone)]
pub(crate) enum Secrets {
    /// In the database.
    Database,
    /// In Vault.
    Vault(VaultConfig),
    /// By people in Vault.
    VaultReadOnly(VaultConfig),
}

impl Secrets {
    /// Decides.
    ///
    /// # Errors
    /// What is missing or cannot work, with the flag that says so.
    pub(crate) fn decide(
        choice: SecretsChoice,
        flags: &VaultFlags,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        match choice {
            SecretsChoice::Database => Ok(Self::Database),
            SecretsChoice::Vault => settings("--secrets", flags, environment).map(Self::Vault),
            SecretsChoice::VaultReadOnly => settings("--secrets", flags, environment).map(Self::VaultReadOnly),
        }
    }

    /// Opens the store, beside the one in the database that is this `instance`.
    ///
    /// # Errors
    /// Why Vault cannot be used, or that what is there belongs to another database.
    pub(crate) async fn open(&self, database: &Arc<SqlSecrets>, instance: Uuid) -> Result<Opened, Failure> {
        match self {
            Self::Database => Ok(Opened::Database(Arc::clone(database))),
            Self::Vault(config) => {
                warn_of_plain_http(config);
                let store = VaultStore::connect(config).await.map_err(|error| unusable(config, &error))?;
                // Before anything is written or swept there.
                if let Err(error) = store.claim(instance).await {
                    store.close().await;
                    return Err(foreign(config, &error));
                }
                tracing::info!(address = config.address, kv = ?store.kv_version(), "secrets are kept in Vault");
                Ok(Opened::Vault(store))
            }
            Self::VaultReadOnly(config) => {
                warn_of_plain_http(config);
                let references = Arc::new(database.of_references());
                let store =
                    VaultReadOnly::connect(config, references).await.map_err(|error| unusable(config, &error))?;
                tracing::info!(
                    address = config.address,
                    "secrets of people are read from Vault; what this server makes itself is kept in the encrypted database store"
                );
                Ok(Opened::VaultReadOnly(store))
            }
        }
    }
}

/// An open store.
#[derive(Debug)]
pub(crate) enum Opened {
    Database(Arc<SqlSecrets>),
    Vault(VaultStore),
    VaultReadOnly(VaultReadOnly),
}

impl Opened {
    /// The store.
    pub(crate) fn store(&self) -> Arc<dyn SecretStore> {
        match self {
            Self::Database(store) => Arc::<SqlSecrets>::clone(store),
            Self::Vault(store) => Arc::new(store.clone()),
            Self::VaultReadOnly(store) => Arc::new(store.clone()),
        }
    }

    /// Ends our login at Vault. The database is closed by whoever opened it.
    pub(crate) async fn close(&self) {
        match self {
            Self::Database(_) => {}
            Self::Vault(store) => store.close().await,
            Self::VaultReadOnly(store) => store.close().await,
        }
    }
}

/// The key in Vault that wraps those of the key file.
#[derive(Debug, Clone)]
pub(crate) struct Transit {
    config: VaultConfig,
    mount: String,
    name: String,
}

impl Transit {
    /// Decides whether there is one.
    ///
    /// # Errors
    /// What is missing or cannot work, with the flag that says so.
    pub(crate) fn decide(flags: &VaultFlags, environment: &Environment) -> Result<Option<Self>, Failure> {
        let Some(name) = flags.key_transit.clone() else { return Ok(None) };
        let mount = flags.key_transit_mount.clone().unwrap_or_else(|| "transit".to_owned());
        VaultTransit::validate(&mount, &name).map_err(|error| Failure::unusable(format!("--key-transit…: {error}")))?;
        let config = settings("--key-transit", flags, environment)?;
        Ok(Some(Self { config, mount, name }))
    }

    /// Logs in.
    ///
    /// # Errors
    /// Why Vault cannot be used.
    pub(crate) async fn connect(&self) -> Result<VaultTransit, Failure> {
        warn_of_plain_http(&self.config);
        let connected = VaultTransit::connect(&self.config, &self.mount, &self.name).await;
        connected.map_err(|error| self.failed(&error))
    }

    /// What Vault said about the key.
    pub(crate) fn failed(&self, error: &archestra_core::Error) -> Failure {
        let Self { config, mount, name } = self;
        Failure::because(
            format!("the keys cannot be unwrapped by {mount}/{name} of Vault at {}", config.address),
            error,
        )
    }

    /// The command that prints a wrapped key.
    pub(crate) fn command(&self) -> String {
        format!("bao write -field=ciphertext -f {}/datakey/wrapped/{}", self.mount, self.name)
    }
}

fn unusable(config: &VaultConfig, error: &archestra_core::Error) -> Failure {
    Failure::because(format!("Vault at {} cannot be used", config.address), error)
}

fn foreign(config: &VaultConfig, error: &archestra_core::Error) -> Failure {
    match error {
        archestra_core::Error::Conflict { .. } => Failure::because(
            format!("--vault-prefix {}: it belongs to another database at Vault {}", config.prefix, config.address),
            error,
        ),
        error => unusable(config, error),
    }
}

fn warn_of_plain_http(config: &VaultConfig) {
    let loopback = ["http://127.", "http://localhost", "http://[::1]"];
    if config.address.starts_with("http://") && !loopback.iter().any(|begin| config.address.starts_with(begin)) {
        tracing::warn!(address = config.address, "secrets go to Vault without encryption: use an https address");
    }
}

fn settings(asked: &str, flags: &VaultFlags, environment: &Environment) -> Result<VaultConfig, Failure> {
    let address = flags.address.as_deref().ok_or_else(|| {
        Failure::unusable(format!("{asked}: Vault needs --vault-address, as in `https://vault.example.com:8200`"))
    })?;
    let mut config = VaultConfig::new(address, auth(flags, environment)?);
    if let Some(mount) = &flags.mount {
        config.mount.clone_from(mount);
    }
    if let Some(prefix) = &flags.prefix {
        config.prefix.clone_from(prefix);
    }
    config.namespace.clone_from(&flags.namespace);
    config.ca_file.clone_from(&flags.ca_file);
    config.cache_for = CACHE;
    match config.validate() {
        Ok(()) => Ok(config),
        Err(error) => Err(Failure::unusable(format!("--vault-…: {error}"))),
    }
}

fn auth(flags: &VaultFlags, environment: &Environment) -> Result<VaultAuth, Failure> {
    let choice = flags.auth.unwrap_or(VaultAuthChoice::Token);
    let mount = flags.auth_mount.clone().unwrap_or_else(|| choice.mount().to_owned());
    let role = || {
        let needed = || Failure::unusable("--vault-auth: this method needs --vault-role");
        flags.role.clone().ok_or_else(needed)
    };
    let file = flags.credential_file.as_deref();
    match choice {
        VaultAuthChoice::Token => match (environment.get(TOKEN), file) {
            (Some(token), None) => Ok(VaultAuth::Token(token.into())),
            (None, Some(file)) => Ok(VaultAuth::TokenFile(file.to_owned())),
            (None, None) => Err(Failure::unusable(format!(
                "--vault-auth token: set {TOKEN}, or name the file of the token with --vault-credential-file"
            ))),
            (Some(_), Some(_)) => Err(both(TOKEN)),
        },
        VaultAuthChoice::Kubernetes => {
            let jwt_file = file.unwrap_or(Path::new(VaultAuth::SERVICE_ACCOUNT_TOKEN)).to_owned();
            Ok(VaultAuth::Kubernetes { mount, role: role()?, jwt_file })
        }
        VaultAuthChoice::AppRole => {
            let secret_id = match (environment.get(SECRET_ID), file) {
                (Some(secret_id), None) => SecretValue::new(secret_id),
                (None, Some(file)) => read(file)?,
                (None, None) => {
                    return Err(Failure::unusable(format!(
                        "--vault-auth approle: set {SECRET_ID}, or name the file of the secret id with --vault-credential-file"
                    )));
                }
                (Some(_), Some(_)) => return Err(both(SECRET_ID)),
            };
            Ok(VaultAuth::AppRole { mount, role_id: role()?, secret_id })
        }
        VaultAuthChoice::Jwt => {
            let jwt_file = file.map(Path::to_owned).ok_or_else(|| {
                Failure::unusable("--vault-auth jwt: name the file of the JWT with --vault-credential-file")
            })?;
            Ok(VaultAuth::Jwt { mount, role: role()?, jwt_file })
        }
        VaultAuthChoice::Aws => Ok(VaultAuth::Aws {
            mount,
            role: role()?,
            region: flags.aws_region.clone(),
            server_id: flags.aws_server_id.clone(),
            credentials: aws(file, environment)?,
        }),
    }
}

fn aws(file: Option<&Path>, environment: &Environment) -> Result<Arc<dyn AwsCredentialSource>, Failure> {
    let [access_key_id, secret_access_key, session_token] = AWS.map(|name| environment.get(name));
    match (access_key_id, secret_access_key, file) {
        (None, None, Some(path)) => Ok(Arc::new(AwsCredentialsFile {
            path: path.to_owned(),
            profile: environment.get(AWS_PROFILE).unwrap_or("default").to_owned(),
        })),
        (Some(access_key_id), Some(secret_access_key), None) => Ok(Arc::new(AwsCredentials {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.into(),
            session_token: session_token.map(SecretValue::from),
        })),
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => Err(both(AWS[0])),
        (_, _, None) => Err(Failure::unusable(format!(
            "--vault-auth aws: set {} and {}, or name a file of such credentials with --vault-credential-file",
            AWS[0], AWS[1]
        ))),
    }
}

fn both(variable: &str) -> Failure {
    Failure::unusable(format!("--vault-credential-file and {variable} are both set: use one of them"))
}

fn read(path: &Path) -> Result<SecretValue, Failure> {
    // Of one length from the start: what grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(ROOM));
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|error| Failure::unusable(format!("--vault-credential-file {}: {error}", path.display())))?;
    Ok(SecretValue::new(text.trim()))
}
