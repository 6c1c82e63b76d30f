//! The backends of this binary: SQLite or PostgreSQL, secrets in it or in Vault, and Kubernetes or local processes.

use crate::{
    config::{Database, RuntimeKind, ServeConfig},
    environment::Environment,
    failure::Failure,
    key_file, kubernetes, supervise,
    vault::Opened,
};
use archestra_core::{
    catalog::{CatalogStore, CatalogStoreExt as _, Query},
    identity::IdentityStore,
    runtime::{
        Revision, Runtime,
        process::{ProcessConfig, ProcessRuntime, SupervisorCommand},
    },
    secret::{KeyRing, Purpose},
    state::StateStore,
};
use archestra_gateway::platform::{Options, Platform};
use archestra_store::{Resealed, RingClaim, SqlConfig, SqlSecrets, SqlStore};
use std::{
    collections::BTreeSet,
    fs::File,
    io::ErrorKind,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// What local servers inherit of our environment.
const INHERITED: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];

/// How many secrets are sealed anew at once.
const RESEAL_STEP: u64 = 50;
/// The pause between, in which others write.
const RESEAL_PAUSE: Duration = Duration::from_millis(100);
const RESEAL_RETRY: Duration = Duration::from_secs(300);

/// All of them, open.
#[derive(Debug)]
pub(super) struct Backends {
    store: SqlStore,
    secrets: Opened,
    ring: Arc<KeyRing>,
    claim: RingClaim,
    runtime: Option<Arc<dyn Runtime>>,
    binary: PathBuf,
    resealing: AbortOnDropHandle<()>,
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
        let ring = Arc::new(key_file::load(&config.key_file, config.key_transit.as_ref(), &config.database).await?);
        let store = open_store(&config.database).await?;
        let secrets = Arc::new(SqlSecrets::new(&store, Arc::clone(&ring)));
        secrets
            .verify_ring()
            .await
            .map_err(|error| Failure::because("the key file does not fit the database", &error))?;
        let claim = secrets
            .claim_ring(&replica(&config.database, instance))
            .await
            .map_err(|error| Failure::because("the database cannot be claimed", &error))?;
        let opened = async {
            let supplied = config.secrets.open(&secrets, instance_id(&store).await?).await?;
            let started = async {
                Ok(match config.runtime {
                    RuntimeKind::Kubernetes => {
                        let mut settings = config.kubernetes.clone().expect("it is decided with the runtime");
                        settings.instance = Some(instance_id(&store).await?.simple().to_string());
                        settings.digest_keys = Some(Arc::new(ring.derive(Purpose::Digests)));
                        if let Some(peers) = &config.peers {
                            settings.peers = Some(peers.open(&ring).await?);
                        }
                        Some(Arc::new(kubernetes::start(settings, namespaces(&store).await?).await?) as Arc<dyn Runtime>)
                    }
                    RuntimeKind::Process => Some(start_runtime(config, data_dir, &binary, environment).await?),
                    RuntimeKind::None => None,
                })
            };
            match started.await {
                Ok(runtime) => Ok((supplied, runtime)),
                Err(failure) => {
                    supplied.close().await;
                    Err::<_, Failure>(failure)
                }
            }
        };
        let (supplied, runtime) = match Box::pin(opened).await {
            Ok(opened) => opened,
            Err(failure) => {
                // Whoever starts next may have another key file, and would have to wait for the claim to expire.
                release(claim).await;
                return Err(failure);
            }
        };
        let resealing = AbortOnDropHandle::new(tokio::spawn(reseal(Arc::clone(&secrets))));
        Ok(Self { store, secrets: supplied, ring, claim, runtime, binary, resealing })
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
            .secrets(self.secrets.store())
            .key_ring(Arc::clone(&self.ring))
            .options(options);
        if let Some(runtime) = &self.runtime {
            builder = builder.runtime(Arc::clone(runtime));
        }
        builder.build().await.map_err(|error| Failure::because("the platform cannot start", &error))
    }

    /// The catalog.
    pub(super) fn catalog(&self) -> &dyn CatalogStore {
        &self.store
    }

    /// What replicas share for a while.
    pub(super) fn state(&self) -> &dyn StateStore {
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
        self.resealing.abort();
        // It may be interrupted at any time; what it left is done at the next start.
        drop(self.resealing.await);
        self.secrets.close().await;
        release(self.claim).await;
        self.store.close().await;
    }
}

async fn release(claim: RingClaim) {
    if let Err(error) = claim.release().await {
        tracing::debug!(%error, "the claim of the key ring was not released; it expires by itself");
    }
}

/// Seals what older keys of the ring sealed under the newest one, so that the older ones can be taken out of the key file. Goes
/// through all of it again until nothing is left to do: others write meanwhile.
async fn reseal(secrets: Arc<SqlSecrets>) {
    let mut total = 0;
    let mut pass = Resealed::default();
    loop {
        match secrets.reseal(pass.last.as_deref(), RESEAL_STEP).await {
            Ok(Resealed { last: None, .. }) if pass.resealed > 0 => {
                total += pass.resealed;
                pass = Resealed::default();
            }
            Ok(Resealed { last: None, .. }) => {
                match pass.left {
                    0 if total == 0 => {}
                    0 => tracing::info!(
                        resealed = total,
                        "all secrets are sealed under the newest key: older keys are no longer needed"
                    ),
                    left => tracing::error!(
                        resealed = total,
                        left,
                        "secrets that do not open stay under older keys: enter them anew, and keep the older keys until then"
                    ),
                }
                return;
            }
            Ok(step) => {
                pass =
                    Resealed { resealed: pass.resealed + step.resealed, left: pass.left + step.left, last: step.last };
                tokio::time::sleep(RESEAL_PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(%error, "secrets could not be sealed under the newest key; trying again later");
                tokio::time::sleep(RESEAL_RETRY).await;
            }
        }
    }
}

/// What tells this process from all others on the same database.
fn replica(database: &Database, address: SocketAddr) -> String {
    let unique = Uuid::now_v7().simple();
    match database {
        // Two may be told the same address, of which one will not get it.
        Database::Sqlite(_) => format!("{address} {unique}"),
        // Others listen at the same address on other machines, which may even have the same name.
        Database::Postgres(_) => {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("{} {address} {unique}", host.trim())
        }
    }
}

/// What tells the platform on this database, with all its replicas, from those on other databases.
///
/// # Errors
/// Why the database does not say so.
pub(crate) async fn instance_id(store: &SqlStore) -> Result<Uuid, Failure> {
    store.instance().await.map_err(|error| Failure::because("the database", &error))
}

/// The namespaces that workloads were put into.
async fn namespaces(store: &SqlStore) -> Result<BTreeSet<String>, Failure> {
    let all = store.list_all::<Revision>(Query::Revisions { workload: None }).await;
    let all = all.map_err(|error| Failure::because("the revisions of workloads cannot be read", &error))?;
    Ok(all.into_iter().filter_map(|revision| revision.value.spec.namespace).collect())
}

/// Opens the database.
///
/// # Errors
/// Why it cannot be used.
pub(crate) async fn open_store(database: &Database) -> Result<SqlStore, Failure> {
    let path = match database {
        Database::Sqlite(path) => path,
        Database::Postgres(url) => {
            let store = SqlStore::connect(SqlConfig::new(url)).await;
            return store.map_err(|error| Failure::because("the database", &error));
        }
    };
    let shown = path.display();
    // SQLite gives its other files the mode of this one.
    File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Failure::failed(format!(
                "the database {shown}: {error}; make the file and its folder writable for the user that runs this process, or name another --data-dir"
            )),
            _ => Failure::because(format!("the database {shown}"), &error),
        })?;
    let store = SqlStore::connect(SqlConfig::new(format!("sqlite://{shown}"))).await;
    store.map_err(|error| Failure::because(format!("the database {shown}"), &error))
}

async fn start_runtime(
    settings: &ServeConfig,
    data_dir: &Path,
    binary: &Path,
    environment: &Environment,
) -> Result<Arc<dyn Runtime>, Failure> {
    let supervisor = SupervisorCommand { program: binary.to_owned(), args: vec![supervise::COMMAND.to_owned()] };
    let mut config = ProcessConfig::new(data_dir.join("workloads"), supervisor);
    config.ready_timeout = settings.start_timeout;
    config.inherit =
        INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), environment.get(name)?.to_owned()))).collect();
    let runtime = ProcessRuntime::start(config)
        .await
        .map_err(|error| Failure::because("the process runtime cannot start", &error))?;
    Ok(Arc::new(runtime))
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_core::{
        secret::{Expect, SecretStore as _},
        testing::fixtures,
    };

    #[test]
    fn two_processes_of_one_address_have_claims_of_their_own() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        for database in [Database::Sqlite("a.db".into()), Database::Postgres("postgres://host/db".into())] {
            assert_ne!(replica(&database, address), replica(&database, address));
        }
    }

    #[tokio::test]
    async fn a_start_with_a_newer_key_seals_everything_under_it() {
        let directory = std::env::temp_dir().join(format!("archestra-reseal-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let store = open_store(&Database::Sqlite(directory.join("archestra.db"))).await.unwrap();
        let (old, new) = (KeyRing::generate().unwrap(), KeyRing::generate().unwrap());
        let both = Arc::new(KeyRing::parse(&format!("{}{}", *new.to_text(), *old.to_text())).unwrap());
        let before = SqlSecrets::new(&store, Arc::new(old));
        for n in 0..RESEAL_STEP + 1 {
            let reference = fixtures::secret_ref(&format!("entry/{n}"));
            before.put(&reference, &fixtures::bundle(&[("k", "v")]), Expect::Any).await.unwrap();
        }
        reseal(Arc::new(SqlSecrets::new(&store, both))).await;
        SqlSecrets::new(&store, Arc::new(new)).verify_ring().await.unwrap();
        store.close().await;
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
