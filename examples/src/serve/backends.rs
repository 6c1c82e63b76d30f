//! The backends of this binary: SQLite, secrets in it, and local processes.

use crate::{
    config::{Database, RuntimeKind, ServeConfig},
    environment::Environment,
    failure::Failure,
    key_file, supervise,
};
use archestra_core::{
    catalog::CatalogStore,
    identity::IdentityStore,
    runtime::process::{ProcessConfig, ProcessRuntime, SupervisorCommand},
    secret::{KeyRing, SecretStore},
};
use archestra_gateway::platform::{Options, Platform};
use archestra_store::{RingClaim, SqlConfig, SqlSecrets, SqlStore};
use std::{
    fs::File,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What local servers inherit of our environment.
const INHERITED: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];

/// All of them, open.
#[derive(Debug)]
pub(super) struct Backends {
    store: SqlStore,
    secrets: Arc<SqlSecrets>,
    ring: Arc<KeyRing>,
    claim: RingClaim,
    runtime: Option<Arc<ProcessRuntime>>,
    binary: PathBuf,
}

impl Backends {
    /// Opens them; `instance` tells us from others on the same database.
    ///
    /// # Errors
    /// Which one is not usable, and why.
    pub(super) async fn open(
        config: &ServeConfig,
        data_dir: &Path,
        environment: &Environment,
        instance: SocketAddr,
    ) -> Result<Self, Failure> {
        let binary =
            std::env::current_exe().map_err(|error| Failure::because("this program cannot be found", &error))?;
        let ring = Arc::new(key_file::load(&config.key_file, &config.database)?);
        let store = open_store(&config.database).await?;
        let secrets = Arc::new(SqlSecrets::new(&store, Arc::clone(&ring)));
        secrets
            .verify_ring()
            .await
            .map_err(|error| Failure::because("the key file does not fit the database", &error))?;
        let claim = secrets
            .claim_ring(&instance.to_string())
            .await
            .map_err(|error| Failure::because("the key file does not fit the database", &error))?;
        let runtime = match config.runtime {
            RuntimeKind::Process => Some(start_runtime(data_dir, &binary, environment).await?),
            RuntimeKind::None => None,
        };
        Ok(Self { store, secrets, ring, claim, runtime, binary })
    }

    /// The platform on them.
    ///
    /// # Errors
    /// What it refused.
    pub(super) async fn platform(&self, options: Options) -> Result<Platform, Failure> {
        let store = Arc::new(self.store.clone());
        let mut builder = Platform::builder()
            .catalog(Arc::<SqlStore>::clone(&store))
            .identity(Arc::<SqlStore>::clone(&store))
            .state(Arc::<SqlStore>::clone(&store))
            .audit(store)
            .secrets(Arc::<SqlSecrets>::clone(&self.secrets) as Arc<dyn SecretStore>)
            .key_ring(Arc::clone(&self.ring))
            .options(options);
        if let Some(runtime) = &self.runtime {
            builder = builder.runtime(Arc::<ProcessRuntime>::clone(runtime));
        }
        builder.build().await.map_err(|error| Failure::because("the platform cannot start", &error))
    }

    /// The catalog.
    pub(super) fn catalog(&self) -> &dyn CatalogStore {
        &self.store
    }

    /// The identities.
    pub(super) fn identity(&self) -> &dyn IdentityStore {
        &self.store
    }

    /// Where this program is.
    pub(super) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Completes when another process with other keys has taken the database over.
    pub(super) async fn lost(&self) {
        self.claim.lost().await;
    }

    /// Closes what the platform leaves open.
    pub(super) async fn close(self) {
        if let Err(error) = self.claim.release().await {
            tracing::debug!(%error, "the claim of the key ring was not released; it expires by itself");
        }
        self.store.close().await;
    }
}

async fn open_store(database: &Database) -> Result<SqlStore, Failure> {
    let path = database.path.display();
    // SQLite gives its other files the mode of this one.
    File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&database.path)
        .map_err(|error| Failure::because(format!("the database {path}"), &error))?;
    let store = SqlStore::connect(SqlConfig::new(format!("sqlite://{path}"))).await;
    store.map_err(|error| Failure::because(format!("the database {path}"), &error))
}

async fn start_runtime(
    data_dir: &Path,
    binary: &Path,
    environment: &Environment,
) -> Result<Arc<ProcessRuntime>, Failure> {
    let supervisor = SupervisorCommand { program: binary.to_owned(), args: vec![supervise::COMMAND.to_owned()] };
    let mut config = ProcessConfig::new(data_dir.join("run"), supervisor);
    config.inherit =
        INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), environment.get(name)?.to_owned()))).collect();
    let runtime = ProcessRuntime::start(config)
        .await
        .map_err(|error| Failure::because("the process runtime cannot start", &error))?;
    Ok(Arc::new(runtime))
}
