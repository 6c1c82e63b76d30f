//! The quickstart: a gateway `demo` with the tools of a server `demo`, which is this binary itself.

#[cfg(test)]
mod tests;

use crate::{config::Quickstart, failure::Failure};
use archestra_core::{
    Result,
    catalog::{CatalogStore, CatalogStoreExt, Entry, EntrySpec, Lookup, Query, Scope},
    consumer::{Consumer, ConsumerKind, ConsumerSpec, CredentialChoice, ToolSelector},
    feed::PageRequest,
    id::{EntryId, InstallationId},
    installation::{Installation, InstallationState, Owner},
    secret::Expect,
    state::{StateKey, StateStore},
};
use archestra_gateway::lifecycle::{ConsumerDraft, EntryDraft, InstallRequest, Lifecycle};
use bytes::Bytes;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// The name of all that it makes.
pub(crate) const NAME: &str = "demo";
/// The command of this binary that serves the tools.
const COMMAND: &str = "demo-server";
/// How long the first tools are waited for before the start is announced.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);

/// For how long one that was begun and not finished is finished by a later start.
const UNFINISHED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Makes what is missing, if it is asked for, and says which installation to wait for. What was made once and deleted since
/// stays away unless it is asked for; what was begun by a start that ended before it had finished is finished.
///
/// # Errors
/// What the stores, the lifecycle or the runtime refused.
pub(crate) async fn run(
    mode: Quickstart,
    lifecycle: &Lifecycle,
    (catalog, state): (&dyn CatalogStore, &dyn StateStore),
    binary: &Path,
) -> Result<Option<InstallationId>, Failure> {
    let made = make_if_asked(mode, lifecycle, (catalog, state), binary).await;
    made.map_err(|error| Failure::because("the demo gateway cannot be made", &error))
}

async fn make_if_asked(
    mode: Quickstart,
    lifecycle: &Lifecycle,
    (catalog, state): (&dyn CatalogStore, &dyn StateStore),
    binary: &Path,
) -> Result<Option<InstallationId>> {
    let asked = match mode {
        Quickstart::No => false,
        Quickstart::IfEmpty => state.get(&begun()).await?.is_some() || is_empty(catalog).await?,
        Quickstart::Yes => true,
    };
    if !asked {
        return Ok(None);
    }
    state.put(&begun(), Bytes::new(), UNFINISHED).await?;
    let installation = make(lifecycle, catalog, binary).await?;
    state.take(&begun()).await?;
    Ok(Some(installation))
}

fn begun() -> StateKey {
    StateKey::new("quickstart", "begun")
}

/// Waits until the tools of an installation were listed; not for ever.
pub(crate) async fn settled(catalog: &dyn CatalogStore, installation: InstallationId) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match catalog.get_one::<Installation>(installation).await.map(|found| found.value.state) {
            Ok(InstallationState::Pending | InstallationState::Discovering) => sleep(PAUSE).await,
            Ok(InstallationState::Error { reason, .. }) => {
                return tracing::warn!(%reason, "the demo server does not work");
            }
            Ok(InstallationState::Ready) | Err(_) => return,
        }
    }
}

async fn is_empty(catalog: &dyn CatalogStore) -> Result<bool> {
    let one = PageRequest { limit: 1, cursor: None };
    let entries = catalog.list(&Query::Entries { search: None, labels: None }, &one).await?;
    let consumers = catalog.list(&Query::Consumers { kind: None }, &one).await?;
    Ok(entries.items.is_empty() && consumers.items.is_empty())
}

async fn make(lifecycle: &Lifecycle, catalog: &dyn CatalogStore, binary: &Path) -> Result<InstallationId> {
    let entry = match catalog.find_one::<Entry>(Lookup::EntryNamed(NAME.to_owned())).await? {
        Some(found) => found.value.id,
        None => lifecycle.save_entry(None, entry(binary), Expect::Absent).await?.value.id,
    };
    let installation =
        match catalog.find_one::<Installation>(Lookup::InstallationOf(entry, Owner::Organization)).await? {
            Some(found) => found.value.id,
            None => {
                let request = InstallRequest {
                    entry,
                    owner: Owner::Organization,
                    values: BTreeMap::new(),
                    author: None,
                    apply_set: None,
                };
                lifecycle.install(request).await?.value.id
            }
        };
    if catalog.find_one::<Consumer>(Lookup::ConsumerAt(NAME.to_owned())).await?.is_none() {
        lifecycle.save_consumer(None, gateway(entry), Expect::Absent).await?;
    }
    Ok(installation)
}

fn entry(binary: &Path) -> EntryDraft {
    let spec = json!({
        "name": NAME,
        "description": "Two tools to try this gateway with",
        "selfHosted": {"command": [binary], "args": [COMMAND], "transport": "stdio"},
    });
    let spec: EntrySpec = serde_json::from_value(spec).expect("these are fields of an entry");
    EntryDraft { spec, scope: Scope::Organization, author: None, apply_set: None, saved_by_admin: true }
}

fn gateway(entry: EntryId) -> ConsumerDraft {
    let spec = json!({"slug": NAME, "description": "A gateway to try"});
    let spec: ConsumerSpec = serde_json::from_value(spec).expect("these are fields of a consumer");
    ConsumerDraft {
        kind: ConsumerKind::Gateway,
        spec,
        scope: Scope::Organization,
        tools: vec![ToolSelector {
            entry,
            tool: ToolSelector::ALL.to_owned(),
            credential: CredentialChoice::ResolveAtCallTime,
        }],
        identity_provider: None,
        author: None,
        apply_set: None,
        user_teams: BTreeSet::new(),
    }
}
