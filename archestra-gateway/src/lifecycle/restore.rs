//! Putting a removed installation back, as the one that it was.

use super::{ATTEMPTS, Lifecycle, apply::Renew, install::is_about_entry, now, secrets::INSTALLATIONS, workload_id};
use archestra_core::{
    Error, Result,
    catalog::{CatalogChanges, CatalogStoreExt, Entry, Query},
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
        let entry = self.entry(former.entry).await?;
        let secret = values.into_iter().filter(|(name, _)| former.secret_fields.contains(name));
        let bundle: SecretBundle = secret.collect();
        let claim = self
            .inner
            .jobs
            .claim(id)
            .ok_or_else(|| Error::conflict("installation", id, "it is being worked on; try again"))?;
        let secrets = self.keep(INSTALLATIONS, id, &bundle).await?;
        let former = Installation { secrets: secrets.clone(), updated_at: now(), ..former };
        match self.put_back(entry, &former).await {
            Ok(installation) => {
                self.bring_up_claimed(id, claim);
                Ok(Versioned { version: Version(1), value: installation })
            }
            Err(error) => {
                self.abandon(secrets.as_ref(), id.into()).await;
                Err(error)
            }
        }
    }

    /// Commits it as the entry has it, which may be edited meanwhile.
    async fn put_back(&self, mut entry: Versioned<Entry>, former: &Installation) -> Result<Installation> {
        let mut tries = 1;
        loop {
            match self.try_put_back(&entry, former).await {
                Err(error) if is_about_entry(&error) && tries < ATTEMPTS => tries += 1,
                outcome => return outcome,
            }
            entry = self.entry(former.entry).await?;
        }
    }

    async fn try_put_back(&self, as_read: &Versioned<Entry>, former: &Installation) -> Result<Installation> {
        let entry = &as_read.value;
        let rows = self.catalog().list_all::<Tool>(Query::Tools { entry: Some(entry.id) }).await?;
        let rows: BTreeSet<String> = rows.into_iter().map(|row| row.value.name).collect();
        let workload = workload_id(&entry.spec, entry.id, former.id);
        let serves = workload.is_none() && former.tools.keys().all(|name| rows.contains(name));
        let state = if serves { former.state.clone() } else { InstallationState::Pending };
        let installation = Installation { state, workload, ..former.clone() };
        let mut changes = CatalogChanges::new().create(installation.clone()).require(entry.id, as_read.expect());
        self.push_revision(&mut changes, entry, &installation, "restore", Renew::IfChanged).await?;
        self.commit(changes).await?;
        Ok(installation)
    }
}
