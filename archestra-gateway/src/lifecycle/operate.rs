//! Operating an installation: its status, logs and revisions, starting it anew, and listing its tools again.

use super::{Lifecycle, listing::Amended, reinstall::remote};
use archestra_core::{
    Error, Result,
    feed::Versioned,
    id::InstallationId,
    installation::{Installation, InstallationState},
    runtime::{LogLine, LogOptions, Phase, Revision, RevisionNumber, WorkloadId, WorkloadStatus},
};
use futures::stream::BoxStream;
use serde::Serialize;

/// How an installation is, and how what runs for it is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallationStatusView {
    /// The installation.
    pub installation: Versioned<Installation>,
    /// What runs for it; `None` for a remote server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadStatus>,
    /// The revision that is to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<RevisionNumber>,
    /// Whether the platform would add something else to a revision that is made today.
    pub outdated: bool,
    /// Why the runtime does not accept the desired revision; what ran before goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Lifecycle {
    /// How an installation is.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the installation, and what the store or the runtime answered.
    pub async fn status(&self, id: InstallationId) -> Result<InstallationStatusView> {
        let installation = self.installation(id).await?;
        let Some(workload) = installation.value.workload.clone() else {
            return Ok(InstallationStatusView {
                installation,
                workload: None,
                desired: None,
                outdated: false,
                refused: None,
            });
        };
        let newest = self.history(&workload).await?.pop();
        let status = match self.runtime() {
            None => WorkloadStatus::new(Phase::Stopped)
                .because("this platform runs no servers", Some("start it with a runtime".to_owned())),
            Some(runtime) => match self.within("reading a status", runtime.status(&workload)).await {
                Ok(status) => status,
                Err(Error::NotFound { .. }) => {
                    WorkloadStatus::new(Phase::Pending).because("it has not been applied yet", None)
                }
                Err(error) => return Err(error),
            },
        };
        Ok(InstallationStatusView {
            installation,
            workload: Some(status),
            desired: newest.as_ref().map(|newest| newest.value.number),
            outdated: newest.is_some_and(|newest| newest.value.spec.platform != self.platform(Some(&newest.value))),
            refused: self.inner.jobs.refusal(&workload),
        })
    }

    /// What its workload wrote to its log.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the installation; [`Conflict`](Error::Conflict) when its server is remote; and
    /// what the store or the runtime answered.
    pub async fn logs(&self, id: InstallationId, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        let (_, workload) = self.hosted(id).await?;
        let runtime = self.runtime().ok_or_else(|| no_runtime(id))?;
        self.within("reading logs", runtime.logs(&workload, options)).await
    }

    /// The revisions of its workload, oldest first; the last is the desired one. A remote server has none.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the installation, and what the store answered.
    pub async fn revisions(&self, id: InstallationId) -> Result<Vec<Revision>> {
        let Some(workload) = self.installation(id).await?.value.workload else { return Ok(Vec::new()) };
        Ok(self.history(&workload).await?.into_iter().map(|revision| revision.value).collect())
    }

    /// Starts its workload anew; one that failed or was never applied is brought up.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the installation; [`Conflict`](Error::Conflict) when its server is remote or
    /// there is no runtime; and what the store or the runtime answered.
    pub async fn restart(&self, id: InstallationId) -> Result<()> {
        self.owned(move |this| async move {
            let (installation, workload) = this.hosted(id).await?;
            let runtime = this.runtime().ok_or_else(|| no_runtime(id))?;
            match this.within("restarting a workload", runtime.restart(&workload)).await {
                Ok(()) => {}
                Err(Error::NotFound { .. }) => {
                    this.apply_newest(&workload).await?;
                }
                Err(error) => return Err(error),
            }
            if installation.state != InstallationState::Ready {
                let again = |installation: &mut Installation| match installation.state {
                    InstallationState::Error { .. } => {
                        installation.state = InstallationState::Pending;
                        Amended::Yes
                    }
                    _ => Amended::No,
                };
                this.amend(id, again).await?;
                this.bring_up(id);
            }
            Ok(())
        })
        .await
    }

    /// Lists the tools of its server now, and makes it ready with them.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without the installation; [`Invalid`](Error::Invalid) when the server refuses the
    /// credential; [`Unavailable`](Error::Unavailable), [`Timeout`](Error::Timeout) and [`Backend`](Error::Backend) when it
    /// does not answer as it should; and what the store answered. What was known of its tools then stays.
    pub async fn refresh_tools(&self, id: InstallationId) -> Result<Versioned<Installation>> {
        self.owned(move |this| async move {
            let installation = this.installation(id).await?.value;
            let entry = this.entry(installation.entry).await?.value;
            let deadline = this.options().discover_timeout;
            let definitions =
                this.list_once(&entry, &installation).await.map_err(|error| error.into_error(&entry, deadline))?;
            let stored = this.store_tools(id, definitions).await?;
            this.inner.owed.settle(id);
            stored.ok_or_else(|| Error::not_found("installation", id))
        })
        .await
    }

    /// As [`refresh_tools`](Self::refresh_tools), because its server said that they changed: what fails is tried again later.
    pub(crate) async fn list_announced(&self, id: InstallationId) -> Result<()> {
        match self.refresh_tools(id).await {
            Ok(_) => Ok(()),
            Err(Error::NotFound { .. }) => {
                self.inner.owed.settle(id);
                Ok(())
            }
            Err(error) => {
                self.inner.owed.add(id);
                Err(error)
            }
        }
    }

    async fn hosted(&self, id: InstallationId) -> Result<(Installation, WorkloadId)> {
        let installation = self.installation(id).await?.value;
        let workload = installation.workload.clone().ok_or_else(|| remote(id))?;
        Ok((installation, workload))
    }
}

fn no_runtime(id: InstallationId) -> Error {
    Error::conflict("installation", id, "this platform runs no servers; start it with a runtime")
}
