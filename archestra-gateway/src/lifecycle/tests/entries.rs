//! Saving entries: findings, secrets, idempotence, and labels that move assignments in the same commit.

use super::*;
use archestra_core::{ErrorKind, catalog::FixedValue, feed::FeedEvent};
use futures::StreamExt as _;

#[tokio::test(start_paused = true)]
async fn secrets_leave_the_row_and_what_is_saved_again_is_not_written() {
    let rig = Rig::new();
    let saved = rig.save(hosted("files")).await;
    assert!(!serde_json::to_string(&saved.value).unwrap().contains("l1cense"));
    assert_eq!(rig.references().await, 1);
    let before = (saved.clone(), rig.secrets.list("").await.unwrap());

    // The same text again, and the mark that stands for it: both are what is there.
    let again = rig.lifecycle.save_entry(Some(saved.value.id), draft(hosted("files")), Expect::Any).await.unwrap();
    let marked =
        rig.lifecycle.save_entry(Some(saved.value.id), draft(saved.value.spec.clone()), Expect::Any).await.unwrap();
    assert_eq!((again, rig.secrets.list("").await.unwrap()), before);
    assert_eq!(marked, saved);
    assert_eq!(
        rig.lifecycle.preview_entry(Some(saved.value.id), draft(hosted("files"))).await.unwrap(),
        Preview::Unchanged
    );

    let renamed = rig.resave(&saved, |spec| spec.description = Some("files".to_owned())).await;
    assert_eq!(
        (renamed.version.0, renamed.value.secrets.clone()),
        (2, saved.value.secrets.clone()),
        "what is stored is kept"
    );
    assert_eq!(rig.lifecycle.entry(saved.value.id).await.unwrap(), renamed);
}

#[tokio::test(start_paused = true)]
async fn a_new_secret_replaces_the_old_one() {
    let rig = Rig::new();
    let saved = rig.save(hosted("files")).await;
    let rotated = rig
        .resave(&saved, |spec| spec.self_hosted.as_mut().unwrap().env[2].value = Some(FixedValue::Secret("n3w".into())))
        .await;
    assert_ne!(rotated.value.secrets, saved.value.secrets);
    assert_eq!(rig.secrets.list("").await.unwrap().len(), 2, "who routes by the old row still needs the old one");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(rig.secrets.list("").await.unwrap(), [rotated.value.secrets.clone().unwrap()]);
    let bundle = rig.lifecycle.bundle(rotated.value.secrets.as_ref()).await.unwrap();
    assert_eq!(bundle.get("env.LICENSE").unwrap().expose(), "n3w");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_named_and_nothing_is_kept() {
    let rig = Rig::new();
    let findings =
        async |spec: EntrySpec| match rig.lifecycle.save_entry(None, draft(spec), Expect::Any).await.unwrap_err() {
            Error::Invalid(findings) => findings.into_iter().map(|finding| finding.field).collect::<Vec<_>>(),
            other => panic!("{other}"),
        };
    let mut image = hosted("files");
    image.self_hosted.as_mut().unwrap().image = Some("node:22".to_owned());
    assert_eq!(findings(image).await, ["selfHosted.image"], "what the runtime cannot honour is refused on save");
    let mut stored = hosted("files");
    stored.self_hosted.as_mut().unwrap().env[2].value = Some(FixedValue::Stored);
    assert_eq!(findings(stored).await, ["selfHosted.env[2].value"]);
    let mut nameless = hosted("files");
    nameless.name = String::new();
    assert_eq!(findings(nameless).await, ["name"]);
    assert!(rig.all::<Entry>().await.is_empty());
    assert_eq!(rig.references().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_taken_once_and_the_loser_leaves_no_secret() {
    let rig = Rig::new();
    let first = rig.save(hosted("files")).await;
    let error = rig.lifecycle.save_entry(None, draft(hosted("files")), Expect::Any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(rig.references().await, 1);

    let stale = rig
        .lifecycle
        .save_entry(Some(first.value.id), draft(hosted("other")), Expect::Version(archestra_core::feed::Version(7)))
        .await;
    assert_eq!(stale.unwrap_err().kind(), ErrorKind::Conflict);
    let unknown = rig.lifecycle.save_entry(Some(EntryId::new()), draft(hosted("other")), Expect::Any).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn labels_move_assignments_in_the_same_commit() {
    let rig = Rig::new();
    let finance = rig.save_consumer(automatic("finance", "department", "finance")).await.unwrap().value.id;
    let sales = rig.save_consumer(automatic("sales", "department", "sales")).await.unwrap().value.id;
    let mut spec = remote("tracker");
    spec.labels.insert("department", "finance");
    let entry = rig.save(spec).await;
    rig.install(&entry, owner(), &[("token", "t")]).await.unwrap();
    assert_eq!(rig.names(finance).await.len(), 2);

    let since = rig.lifecycle.commit(CatalogChanges::new()).await.unwrap();
    rig.resave(&entry, |spec| spec.labels = [("department", "sales")].into_iter().collect()).await;
    assert_eq!((rig.names(finance).await.len(), rig.names(sales).await.len()), (0, 2));
    let mut feed = rig.catalog.changes(Some(since));
    let keys = loop {
        match feed.next().await.unwrap().unwrap() {
            FeedEvent::Changed { keys, .. } => break keys,
            other => assert!(matches!(other, FeedEvent::Confirmed { .. }), "{other:?}"),
        }
    };
    let count = |kind| keys.iter().filter(|key| key.kind() == kind).count();
    assert_eq!(
        (count(Kind::Entry), count(Kind::Assignment)),
        (1, 4),
        "one commit holds the label and all four assignments"
    );
}

#[tokio::test(start_paused = true)]
async fn renaming_an_entry_rolls_and_renames_nothing() {
    let rig = Rig::new();
    let mut spec = hosted("files");
    spec.labels.insert("a", "b");
    let gateway = rig.save_consumer(automatic("g", "a", "b")).await.unwrap().value.id;
    let entry = rig.save(spec).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    rig.ready(id).await;
    rig.resave(&entry, |spec| spec.name = "documents".to_owned()).await;
    rig.quiet().await;
    assert_eq!(rig.runtime.applies(), 1);
    assert_eq!(rig.names(gateway).await, ["files__add", "files__echo"]);
}

#[tokio::test(start_paused = true)]
async fn a_narrower_scope_takes_tools_from_consumers_beyond_it_in_the_same_commit() {
    let rig = Rig::new();
    let mut spec = remote("tracker");
    spec.labels.insert("department", "finance");
    let entry = rig.save(spec.clone()).await;
    rig.install(&entry, Owner::Organization, &[("token", "t")]).await.unwrap();
    let team = archestra_core::id::TeamId::new();
    let everybody = rig.save_consumer(automatic("everybody", "department", "finance")).await.unwrap().value;
    let mut narrow = automatic("narrow", "department", "finance");
    narrow.scope = Scope::Teams([team].into());
    let narrow = rig.save_consumer(narrow).await.unwrap().value;
    for id in [everybody.id, narrow.id] {
        assert_eq!(rig.names(id).await.len(), 2);
    }
    let draft = EntryDraft { scope: Scope::Teams([team].into()), ..draft(spec) };
    rig.lifecycle.save_entry(Some(entry.value.id), draft, Expect::Any).await.unwrap();
    assert!(rig.names(everybody.id).await.is_empty());
    assert_eq!(rig.names(narrow.id).await.len(), 2);
}

/// Deployment YAML that says something of two variables.
const YAML: &str = "env:\n- {name: REGION, value: debug}\n- {name: OWN, value: x}\n";

#[tokio::test(start_paused = true)]
async fn deployment_yaml_is_kept_in_step_with_the_variables_and_an_apply_of_the_same_changes_nothing() {
    let rig = Rig::new();
    let spec = |level: &str, yaml: &str| {
        let mut spec = hosted("files");
        let hosted = spec.self_hosted.as_mut().unwrap();
        hosted.deployment_yaml = Some(yaml.to_owned());
        let variable = hosted.env.iter_mut().find(|variable| variable.name == "REGION").unwrap();
        variable.default = Some(level.to_owned());
        spec
    };
    let yaml = |entry: &Versioned<Entry>| entry.value.spec.self_hosted.clone().unwrap().deployment_yaml.unwrap();
    let first = rig.save(spec("info", YAML)).await;
    assert_eq!(yaml(&first), YAML, "what is given first is taken as it is");
    let save = async |spec| rig.lifecycle.save_entry(Some(first.value.id), draft(spec), Expect::Any).await.unwrap();

    let changed = save(spec("warn", YAML)).await;
    let synced = "env:\n- {name: OWN, value: x}\n";
    assert_eq!((yaml(&changed).as_str(), changed.value.given_yaml.as_deref()), (synced, Some(YAML)));
    assert_eq!(save(spec("warn", YAML)).await, changed, "the same document again");
    assert_eq!(save(changed.value.spec.clone()).await, changed, "what is stored");
    let preview = rig.lifecycle.preview_entry(Some(first.value.id), draft(spec("warn", YAML))).await.unwrap();
    assert_eq!(preview, Preview::Unchanged);
    assert_eq!(yaml(&save(spec("error", YAML)).await), synced, "another change of the same document");

    let edited = YAML.replace("debug", "trace");
    let wanted = save(spec("info", &edited)).await;
    assert_eq!((yaml(&wanted), wanted.value.given_yaml.clone()), (edited.clone(), None), "somebody wrote it just now");
    let dropped = save(spec("warn", &edited)).await;
    let draft = draft(first.value.spec.clone());
    let back = rig.lifecycle.restore_entry(first.value.id, draft, None, Expect::Any).await.unwrap();
    assert_eq!((yaml(&dropped).as_str(), yaml(&back).as_str()), (synced, YAML), "an undone change leaves nothing");

    let error = save_fixed(&rig, &first).await;
    assert!(error.to_string().contains("it cannot be taken out"), "{error}");
}

/// YAML from which nothing can be taken, and a variable that changes.
async fn save_fixed(rig: &Rig, entry: &Versioned<Entry>) -> Error {
    let mut spec = entry.value.spec.clone();
    spec.self_hosted.as_mut().unwrap().deployment_yaml = Some("fixed: true\n".to_owned());
    let saved = rig.lifecycle.save_entry(Some(entry.value.id), draft(spec.clone()), Expect::Any).await.unwrap();
    assert_eq!(saved.value.spec, spec);
    spec.self_hosted.as_mut().unwrap().env.clear();
    rig.lifecycle.save_entry(Some(entry.value.id), draft(spec), Expect::Any).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn deployment_yaml_is_tried_before_it_is_saved() {
    let rig = Rig::new();
    let with = |yaml: &str| {
        let mut spec = hosted("files");
        spec.self_hosted.as_mut().unwrap().deployment_yaml = Some(format!("note: {yaml}\n"));
        spec
    };
    let refused = rig.lifecycle.save_entry(None, draft(with("refused")), Expect::Any).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let refused = rig.lifecycle.preview_workload(&with("refused")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(rig.references().await, 0, "nothing is kept");

    let preview = async |yaml| rig.lifecycle.preview_workload(&with(yaml)).await.unwrap();
    let fine = preview("fine").await;
    assert_eq!((fine.hindrances, fine.not_asked), (vec![], None));
    let silent = preview("unreachable").await;
    assert_eq!(silent.hindrances, []);
    assert!(silent.not_asked.unwrap().contains("did not answer"));
    let forbidden = preview("denied").await.not_asked.unwrap();
    assert!(forbidden.contains("does not let this platform ask") && !forbidden.contains("account x"), "{forbidden}");
    let hindered = preview("quota").await;
    assert_eq!(hindered.not_asked, None, "it was asked");
    assert_eq!(hindered.hindrances[0].reason, "exceeded quota: small");
    rig.save(EntrySpec { name: "hindered".to_owned(), ..with("quota") }).await;
    let saved = rig.save(with("unreachable")).await;
    let renamed = rig.resave(&saved, |spec| spec.description = Some("files".to_owned())).await;
    assert_eq!(renamed.version.0, 2, "what does not answer holds nothing up");
}
