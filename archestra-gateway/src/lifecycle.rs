//! What makes entries into tools: saving, installing, discovering, assigning, reinstalling, removing, and the reconciler.
//!
//! [`Lifecycle`] is the one service behind the REST API, `apply`, the built-in MCP server and embedders. Every operation is
//! one catalog commit that happens whole or not at all. Secrets are written first under a new reference, then the row that
//! names it, then the old reference goes; whatever fails leaves no row, secret or workload behind. An operation that has
//! begun runs to its end even when its caller goes away.
//!
//! Permissions are the caller's business; what is checked here is what belongs to the domain.
//!
//! * A self-hosted installation answers as soon as its row is there and its runtime accepted it; starting and listing go on
//!   in the background. A remote one is connected to and listed before anything is kept.
//! * Removing an installation keeps the tools and the assignments of its entry: those that were pinned to it resolve at call
//!   time from then on.
//! * [`Lifecycle::run`] is the reconciler. Several replicas may run it at once: everything it does can be repeated.

mod apply;
mod assign;
mod bring_up;
mod consumer;
mod delete;
mod discover;
mod entry;
mod install;
mod jobs;
mod listing;
mod manifest;
mod operate;
mod options;
mod owed;
mod reconciler;
mod reinstall;
mod restore;
mod retire;
mod revise;
mod secrets;
mod sweeper;
mod tools;
mod verdict;
mod workload;

pub use consumer::ConsumerDraft;
pub use delete::Cascade;
pub use discover::{Discover, DiscoverError};
pub use entry::{EntryDraft, Preview};
pub use install::InstallRequest;
pub use manifest::WorkloadPreview;
pub use operate::InstallationStatusView;
pub use options::LifecycleOptions;
pub use tools::{Listed, Listing, MAX_DEFINITION, MAX_TOOLS, ToolDiff, diff_tools, read_definitions};
pub use workload::{WorkloadValues, build_workload_spec};

use archestra_core::{
    Error, Result,
    catalog::{CatalogChanges, CatalogStore, CatalogStoreExt, Document, Entry, EntrySpec, Query, Server},
    feed::{Expect as FeedExpect, StoreRevision, Versioned},
    id::{EntryId, InstallationId},
    installation::Installation,
    runtime::{Runtime, WorkloadId},
    secret::{Expect, SecretStore},
};
use chrono::{DateTime, SubsecRound as _, Utc};
use jobs::Jobs;
use std::{fmt::Display, future::Future, sync::Arc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often an operation is tried again when a background write came in between.
const ATTEMPTS: u32 = 6;

/// What a [`Lifecycle`] stands on.
#[derive(Debug, Clone)]
pub struct LifecycleParts {
    /// Where entries, installations, tools and consumers are.
    pub catalog: Arc<dyn CatalogStore>,
    /// Where their secrets are.
    pub secrets: Arc<dyn SecretStore>,
    /// What runs self-hosted servers; without one they can be saved but not installed.
    pub runtime: Option<Arc<dyn Runtime>>,
    /// What lists the tools of a server.
    pub discover: Arc<dyn Discover>,
    /// Deadlines and the like.
    pub options: LifecycleOptions,
}

/// What makes entries into tools. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    catalog: Arc<dyn CatalogStore>,
    secrets: Arc<dyn SecretStore>,
    runtime: Option<Arc<dyn Runtime>>,
    discover: Arc<dyn Discover>,
    options: LifecycleOptions,
    tasks: TaskTracker,
    stop: CancellationToken,
    jobs: Arc<Jobs>,
    doubts: secrets::Doubts,
    retired: retire::Retired,
    owed: owed::Owed,
}

impl Lifecycle {
    /// A service on these parts. It must be made within a Tokio runtime to be used, and it starts nothing by itself.
    #[must_use]
    pub fn new(parts: LifecycleParts) -> Self {
        let LifecycleParts { catalog, secrets, runtime, discover, options } = parts;
        Self {
            inner: Arc::new(Inner {
                catalog,
                secrets,
                runtime,
                discover,
                options,
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
                jobs: Arc::default(),
                doubts: secrets::Doubts::default(),
                retired: retire::Retired::default(),
                owed: owed::Owed::default(),
            }),
        }
    }

    /// Ends what is under way in the background and waits for it. Workloads are left alone.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn catalog(&self) -> &dyn CatalogStore {
        &*self.inner.catalog
    }

    fn options(&self) -> &LifecycleOptions {
        &self.inner.options
    }

    fn runtime(&self) -> Option<&dyn Runtime> {
        self.inner.runtime.as_deref()
    }

    fn runtime_for(&self, entry: &Entry) -> Result<&dyn Runtime> {
        self.runtime().ok_or_else(|| {
            Error::conflict(
                "entry",
                &entry.spec.name,
                "this platform runs no servers; start it with a runtime, or use a remote server",
            )
        })
    }

    async fn commit(&self, changes: CatalogChanges) -> Result<StoreRevision> {
        let named = secrets::named_by(&changes);
        let done = self.catalog().commit(changes).await;
        if let Err(error) = &done {
            self.inner.doubts.note(error, named);
        }
        done
    }

    async fn entry(&self, id: EntryId) -> Result<Versioned<Entry>> {
        self.catalog().get_one::<Entry>(id).await
    }

    async fn installation(&self, id: InstallationId) -> Result<Versioned<Installation>> {
        self.catalog().get_one::<Installation>(id).await
    }

    async fn installations_of(&self, entry: EntryId) -> Result<Vec<Versioned<Installation>>> {
        self.catalog().list_all::<Installation>(Query::Installations { entry: Some(entry), owner: None }).await
    }

    /// Runs an operation as a task of its own, so that a caller who goes away leaves nothing half done.
    async fn owned<T, F>(&self, work: impl FnOnce(Self) -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let task = self.inner.tasks.spawn(work(self.clone()));
        task.await.unwrap_or_else(|error| Err(Error::backend("lifecycle", error)))
    }
}

/// What a workload of this installation is called, if the platform runs one for it.
fn workload_id(spec: &EntrySpec, entry: EntryId, installation: InstallationId) -> Option<WorkloadId> {
    match spec.server() {
        Some(Server::SelfHosted(_)) if spec.shared_deployment => Some(WorkloadId::of_entry(entry)),
        Some(Server::SelfHosted(_)) => Some(WorkloadId::of_installation(installation)),
        Some(Server::Remote(_)) | None => None,
    }
}

/// Refuses a change that was made for another version of a record than the present one.
fn check_expect<T: Document>(id: impl Display, present: Option<&Versioned<T>>, expect: FeedExpect) -> Result<()> {
    let kind = T::KIND.label();
    match (present, expect) {
        (None, Expect::Absent) | (Some(_) | None, Expect::Any) => Ok(()),
        (Some(found), Expect::Version(version)) if found.version == version => Ok(()),
        (Some(found), Expect::Version(version)) => Err(Error::conflict(
            kind,
            id,
            format!("it was changed: version {} is there, {version} was expected; read it again", found.version),
        )),
        (Some(_), Expect::Absent) => Err(Error::already_exists(kind, id)),
        (None, Expect::Version(_)) => Err(Error::not_found(kind, id)),
    }
}

/// The present time, as precise as every store keeps it, so that what is returned is what is read back.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}

/// Whether a commit may succeed when everything is read again.
fn raced(error: &Error) -> bool {
    matches!(error, Error::Conflict { .. } | Error::AlreadyExists { .. } | Error::NotFound { .. })
}

#[cfg(test)]
mod tests;
