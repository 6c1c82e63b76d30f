//! Putting a removed installation back, as the one that it was.

use super::{Lifecycle, apply::Renew, now, secrets::INSTALLATIONS, workload_id};
use archestra_core::{
    Error, Result,
    catalog::{CatalogChanges, CatalogStoreExt, Query},
    feed::{Version, Versioned},
    installation::{Installation, InstallationState},
    secret::{SecretBundle, SecretValue},
    tool::Tool,
};
use std::collections::{BTreeMap, BTreeSet};

impl Lifecycle {
    /// Puts an installation back that was removed, under its own id, so that it can be pinned as before. `values` are all that
    /// it had, secrets included. No server is asked first: it served before, and it is started and listed in the background.
    ///
    /// # Errors
    /// [`NotFound`](Error::NotFound) without its entry; [`AlreadyExists`](Error::AlreadyExists) when it is there, or its owner
    /// has installed the entry again; and what a store answered. After an error nothing is left.
    pub(crate) async fn restore(
        &self,
        former: Installation,
        values: BTreeMap<String, SecretValue>,
    ) -> Result<Versioned<Installation>> {
        self.owned(|this| async move { this.restore_owned(former, values).await }).await
    }

    async fn restore_owned(
        &self,
        former: Installation,
        values: BTreeMap<String, SecretValue>,
    ) -> Result<Versioned<Installation>> {
        let id = former.id;
        let entry = self.entry(former.entry).await?.value;
        let secret = values.into_iter().filter(|(name, _)| former.secret_fields.contains(name));
        let bundle: SecretBundle = secret.collect();
        let claim = self
            .inner
            .jobs
            .claim(id)
            .ok_or_else(|| Error::conflict("installation", id, "it is being worked on; try again"))?;
        let rows = self.catalog().list_all::<Tool>(Query::Tools { entry: Some(entry.id) }).await?;
        let rows: BTreeSet<String> = rows.into_iter().map(|row| row.value.name).collect();
        let workload = workload_id(&entry.spec, entry.id, id);
        let serves = workload.is_none() && former.tools.keys().all(|name| rows.contains(name));
        let secrets = self.keep(INSTALLATIONS, id, &bundle).await?;
        let installation = Installation {
            state: if serves { former.state.clone() } else { InstallationState::Pending },
            workload,
            secrets: secrets.clone(),
            updated_at: now(),
            ..former
        };
        let mut changes = CatalogChanges::new().create(installation.clone());
        let committed = async {
            self.push_revision(&mut changes, &entry, &installation, "restore", Renew::IfChanged).await?;
            self.commit(changes).await
        };
        if let Err(error) = committed.await {
            self.abandon(secrets.as_ref(), id.into()).await;
            return Err(error);
        }
        self.bring_up_claimed(id, claim);
        Ok(Versioned { version: Version(1), value: installation })
    }
}
