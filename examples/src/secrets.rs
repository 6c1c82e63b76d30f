//! `archestra secrets migrate`: copies secrets between the database and Vault.

use crate::{
    config,
    environment::Environment,
    failure::Failure,
    flags::{self, MigrateFlags, SecretsChoice},
    key_file,
    serve::backends::{instance_id, open_store},
    vault::{Secrets, Transit},
};
use archestra_core::secret::{Copied, SecretStore, copy_secrets};
use archestra_store::{SqlSecrets, SqlStore};
use std::{io::Write, sync::Arc};

/// Copies, and says what was copied.
///
/// # Errors
/// With exit code 2 when nothing was tried, with 1 when a store does not work or something did not arrive.
pub(crate) async fn migrate(flags: MigrateFlags, environment: &Environment) -> Result<(), Failure> {
    let MigrateFlags { from, to, settings } = flags;
    if from == to {
        return Err(Failure::unusable("--from and --to are the same store"));
    }
    if [from, to].contains(&SecretsChoice::VaultReadOnly) {
        return Err(Failure::unusable(
            "with vault-readonly there is nothing to copy: people put secrets into Vault, and installations name where; start the server with the other --secrets and enter the values",
        ));
    }
    let settings = flags::resolve(settings, environment)?;
    let data_dir = settings.data_dir.clone().unwrap_or_default();
    let database = config::database(settings.database_url.as_deref(), &data_dir)?;
    let vault = Secrets::decide(SecretsChoice::Vault, &settings.vault, environment)?;
    let transit = Transit::decide(&settings.vault, environment)?;
    let key_file = config::key_file(settings.key_file.clone(), environment, &data_dir)?;
    let ring = Arc::new(key_file::load(&key_file, transit.as_ref(), &database).await?);
    let store = open_store(&database).await?;
    let copied = copy(&store, Arc::new(SqlSecrets::new(&store, ring)), &vault, from).await;
    store.close().await;
    let Copied { written, present, gone, references, .. } = copied?;
    let _closed = writeln!(
        std::io::stdout().lock(),
        "copied {written} secrets and verified them; {present} were there already, {gone} were removed meanwhile; nothing was removed"
    );
    if references == 0 {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{references} secrets only say where in Vault their values are, from a time with --secrets vault-readonly, and there was nothing to copy: start the server with the other --secrets and enter the values"
    )))
}

async fn copy(
    store: &SqlStore,
    database: Arc<SqlSecrets>,
    vault: &Secrets,
    from: SecretsChoice,
) -> Result<Copied, Failure> {
    let unfit = |error: archestra_core::Error| Failure::because("the key file does not fit the database", &error);
    database.verify_ring().await.map_err(unfit)?;
    // What a server stored meanwhile would stay behind, and what it removed would come back.
    let claim = database
        .claim_alone(&format!("`secrets migrate` (process {})", std::process::id()))
        .await
        .map_err(|error| Failure::because("nothing was copied", &error))?;
    let copied = async {
        let opened = vault.open(&database, instance_id(store).await?).await?;
        let (database, vault): (Arc<dyn SecretStore>, _) = (database, opened.store());
        let (source, target) = if from == SecretsChoice::Database { (&database, &vault) } else { (&vault, &database) };
        let copied = copy_secrets(&**source, &**target).await;
        opened.close().await;
        copied
            .map_err(|error| Failure::because("not all secrets were copied; run it again once this is mended", &error))
    };
    let copied = tokio::select! {
        copied = copied => copied,
        () = claim.lost() => Err(Failure::failed(
            "a server was started on this database while the copy was cut off from it; stop the server, and run this again",
        )),
    };
    if let Err(error) = claim.release().await {
        tracing::debug!(%error, store = ?store, "the claim of the key ring was not released; it expires by itself");
    }
    copied
}
