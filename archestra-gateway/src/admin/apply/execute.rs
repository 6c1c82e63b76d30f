//! Carrying a plan out: one step after the other, and back again when one fails.

use super::{
    super::{
        AdminState, Problem,
        caller::{Who, note},
        consumers::draft,
        policies,
        problem::Undone,
        resolve::Directory,
    },
    ApplyAction, ApplyChange,
    plan::{Plan, Step},
    undo::{Undo, consumers_naming, dropped_values, entry_bundle, installation_values, written_over},
};
use crate::lifecycle::{Cascade, ConsumerDraft, InstallRequest};
use archestra_core::{
    catalog::{CatalogChanges, CatalogStoreExt as _},
    consumer::CredentialChoice,
    id::PolicyId,
    installation::Installation,
    policy::Policy,
    secret::Expect,
};
use chrono::Utc;

/// What was done to what, as the audit log says it.
type Notes = Vec<(String, String)>;

/// Does everything, or nothing. Each part of it is in the audit log once all of it has worked; of what is undone there is the
/// record of the whole.
///
/// # Errors
/// What failed, and whether everything before it was undone.
pub(super) async fn execute(state: &AdminState, who: &Who, plan: Plan) -> Result<(), Problem> {
    let mut undo = Undo::default();
    let problem = match run(state, who, plan, &mut undo).await {
        Ok(notes) => {
            notes.into_iter().for_each(|(action, subject)| note(state, who, action, subject));
            return Ok(());
        }
        Err(problem) => problem,
    };
    let left = undo.all(state).await;
    let (undone, outcome) = match left.as_slice() {
        [] => (Undone::Complete, "everything that was done before it has been undone".to_owned()),
        left => {
            (Undone::Incomplete, format!("what was done before it has been undone, but for this: {}", left.join("; ")))
        }
    };
    Err(problem.and(&outcome).undone(undone))
}

async fn run(state: &AdminState, who: &Who, plan: Plan, undo: &mut Undo) -> Result<Notes, Problem> {
    let Plan { people, steps, leavers, set } = plan;
    let done =
        |line: &ApplyChange| (format!("{}.{}", line.kind, line.action.label()), format!("{} {}", line.kind, line.name));
    let mut notes = Notes::new();
    if !people.changes.is_empty() {
        state.identity.commit(people.changes).await?;
        undo.people(people.undo);
    }
    notes.extend(people.lines.iter().filter(|line| line.action != ApplyAction::Unchanged).map(done));
    for planned in steps {
        let Some(step) = planned.step else { continue };
        let line = planned.line;
        one(state, who, step, set.as_deref(), undo).await.map_err(|problem| problem.after(&line.to_string()))?;
        notes.push(done(&line));
    }
    if !leavers.changes.is_empty() {
        state.identity.commit(leavers.changes).await?;
    }
    notes.extend(leavers.lines.iter().map(done));
    Ok(notes)
}

async fn one(state: &AdminState, who: &Who, step: Step, set: Option<&str>, undo: &mut Undo) -> Result<(), Problem> {
    let directory = Directory::new(state);
    match step {
        Step::SaveEntry { before: None, draft } => {
            let entry = state.lifecycle.save_entry(None, *draft, Expect::Absent).await?;
            undo.entry_made(&entry);
        }
        Step::SaveEntry { before: Some(before), draft } => {
            let bundle = entry_bundle(state, &before.value).await?;
            let dropped = dropped_values(state, &before.value, &draft.spec).await?;
            let saved = state.lifecycle.save_entry(Some(before.value.id), *draft, before.expect()).await?;
            // Before the entry among what was done, so that they are given back after it.
            dropped.into_iter().for_each(|(installation, values)| undo.reinstalled(installation, values));
            undo.entry_changed(before.value, bundle, saved.expect());
        }
        Step::Install { entry, owner, values, author } => {
            let entry = directory.known_entry(who, "entry", &entry).await?.value.id;
            let request = InstallRequest { entry, owner, values, author, apply_set: set.map(str::to_owned) };
            let installation = state.lifecycle.install(request).await?;
            undo.installed(installation.value.id);
        }
        Step::Reinstall { before, values } => {
            // An entry that was saved before may have taken values from it.
            let before = state.catalog.get_one::<Installation>(before.id).await?.value;
            let former = installation_values(state, &before).await?;
            state.lifecycle.reinstall(before.id, values, who.author()).await?;
            undo.reinstalled(before, former);
        }
        Step::SaveConsumer { kind, before, item } => {
            let present = before.as_ref().map(|before| &before.value);
            let draft = draft(state, who, kind, *item, present).await?;
            match before {
                None => {
                    let draft = ConsumerDraft { apply_set: set.map(str::to_owned), ..draft };
                    let consumer = state.lifecycle.save_consumer(None, draft, Expect::Absent).await?;
                    undo.consumer_made(&consumer);
                }
                Some(before) => {
                    let saved = state.lifecycle.save_consumer(Some(before.value.id), draft, before.expect()).await?;
                    undo.consumer_changed(before.value, saved.expect());
                }
            }
        }
        Step::SavePolicy { before, item } => {
            let spec = policies::resolve(&directory, who, *item).await?;
            match before {
                None => {
                    let policy =
                        Policy { id: PolicyId::new(), spec, apply_set: set.map(str::to_owned), created_at: Utc::now() };
                    let id = policy.id;
                    state.catalog.commit(CatalogChanges::new().create(policy)).await?;
                    undo.policy_made(id);
                }
                Some(before) => {
                    let after = Policy { spec, ..before.value.clone() };
                    state.catalog.commit(CatalogChanges::new().put(after, before.expect())).await?;
                    undo.policy_was(before.value, written_over(before.version));
                }
            }
        }
        Step::DeleteConsumer(consumer) => {
            state.lifecycle.delete_consumer(consumer.value.id, consumer.expect()).await?;
            undo.consumer_deleted(consumer.value);
        }
        Step::DeletePolicy(policy) => {
            state.catalog.commit(CatalogChanges::new().delete(policy.value.id, policy.expect())).await?;
            undo.policy_was(policy.value, Expect::Absent);
        }
        Step::DeleteInstallation(installation) => {
            let before = state.catalog.get_one::<Installation>(installation.value.id).await?.value;
            let former = installation_values(state, &before).await?;
            let naming = consumers_naming(state, |selector| selector.credential == CredentialChoice::Pinned(before.id));
            let naming = naming.await?;
            state.lifecycle.remove(before.id).await?;
            undo.removed(before, former, naming);
        }
        Step::DeleteEntry(entry) => {
            let bundle = entry_bundle(state, &entry.value).await?;
            let naming = consumers_naming(state, |selector| selector.entry == entry.value.id).await?;
            state.lifecycle.delete_entry(entry.value.id, entry.expect(), Cascade::Refuse).await?;
            undo.entry_deleted(entry.value, bundle, naming);
        }
    }
    Ok(())
}
