//! Saving and deleting consumers.

use super::*;
use archestra_core::{
    ErrorKind,
    consumer::{CredentialChoice, ToolSelector},
    id::TeamId,
};

fn selector(entry: &Versioned<Entry>, tool: &str, credential: CredentialChoice) -> ToolSelector {
    ToolSelector { entry: entry.value.id, tool: tool.to_owned(), credential }
}

#[tokio::test(start_paused = true)]
async fn selectors_give_tools_that_are_there_and_those_to_come() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let mut gateway = fixtures::gateway("all");
    gateway.tools = vec![selector(&entry, "*", CredentialChoice::ResolveAtCallTime)];
    let gateway = rig.save_consumer(gateway).await.unwrap().value;
    assert!(rig.names(gateway.id).await.is_empty());
    let id = rig.install(&entry, owner(), &[("token", "t")]).await.unwrap().value.id;
    assert_eq!(rig.names(gateway.id).await, ["tracker__add", "tracker__echo"]);
    rig.discover.serve(&["echo", "new"]);
    rig.lifecycle.refresh_tools(id).await.unwrap();
    assert_eq!(rig.names(gateway.id).await, ["tracker__add", "tracker__echo", "tracker__new"]);

    let again =
        rig.lifecycle.save_consumer(Some(gateway.id), consumer_draft(gateway.clone()), Expect::Any).await.unwrap();
    assert_eq!((again.version.0, again.value), (1, gateway.clone()), "what is saved as it is already is not written");
    rig.lifecycle.delete_consumer(gateway.id, Expect::Any).await.unwrap();
    assert!(rig.all::<Assignment>().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_named() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let other = rig.save(remote("other")).await;
    let installation = rig.install(&entry, Owner::Organization, &[("token", "t")]).await.unwrap().value.id;
    let fields = async |consumer: Consumer| match rig.save_consumer(consumer).await.unwrap_err() {
        Error::Invalid(findings) => findings.into_iter().map(|finding| finding.field).collect::<Vec<_>>(),
        other => panic!("{other}"),
    };
    let resolve = CredentialChoice::ResolveAtCallTime;
    let mut both = automatic("both", "a", "b");
    both.tools = vec![selector(&entry, "*", resolve)];
    assert_eq!(fields(both).await, ["tools"]);
    let mut wrong = fixtures::gateway("wrong");
    wrong.tools = vec![
        selector(&entry, "echo", resolve),
        selector(&entry, "echo", CredentialChoice::Pinned(installation)),
        selector(&other, "echo", CredentialChoice::Pinned(installation)),
        selector(&entry, "*", CredentialChoice::Pinned(InstallationId::new())),
        ToolSelector { entry: EntryId::new(), tool: "*".to_owned(), credential: resolve },
        selector(&other, " ", resolve),
    ];
    assert_eq!(
        fields(wrong).await,
        ["tools[1].tool", "tools[2].credential", "tools[3].credential", "tools[4].entry", "tools[5].tool"]
    );
    let mut nobody = fixtures::gateway("nobody");
    nobody.scope = Scope::Teams([].into());
    assert_eq!(fields(nobody).await, ["scope.teams"]);

    let saved = rig.save_consumer(fixtures::gateway("fine")).await.unwrap();
    let mut moved = saved.value.clone();
    moved.spec.slug = "elsewhere".to_owned();
    let error =
        rig.lifecycle.save_consumer(Some(saved.value.id), consumer_draft(moved), Expect::Any).await.unwrap_err();
    assert!(error.to_string().contains("slug"), "{error}");
    assert_eq!(rig.save_consumer(fixtures::agent("fine")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[tokio::test(start_paused = true)]
async fn pins_obey_scopes() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let (user, stranger, team, foreign) = (UserId::new(), UserId::new(), TeamId::new(), TeamId::new());
    let install = async |owner| rig.install(&entry, owner, &[("token", "t")]).await.unwrap().value.id;
    let personal = install(Owner::User(user)).await;
    let of_team = install(Owner::Team(team)).await;
    let everybodys = install(Owner::Organization).await;
    let teams = |ids: &[TeamId]| Scope::Teams(ids.iter().copied().collect());
    let cases = [
        (personal, Scope::User(user), true),
        (personal, Scope::User(stranger), false),
        (personal, Scope::Organization, false),
        (personal, teams(&[team]), false),
        (of_team, teams(&[team, foreign]), true),
        (of_team, teams(&[foreign]), false),
        (of_team, Scope::Organization, true),
        (of_team, Scope::User(user), true),
        (everybodys, Scope::User(stranger), true),
        (everybodys, teams(&[foreign]), true),
        (everybodys, Scope::Organization, true),
    ];
    for (n, (pin, scope, allowed)) in cases.into_iter().enumerate() {
        let mut consumer = fixtures::gateway(&format!("g{n}"));
        consumer.scope = scope.clone();
        consumer.tools = vec![selector(&entry, "echo", CredentialChoice::Pinned(pin))];
        let mut draft = consumer_draft(consumer);
        draft.user_teams = [team].into();
        let outcome = rig.lifecycle.save_consumer(None, draft, Expect::Any).await;
        assert_eq!(outcome.is_ok(), allowed, "case {n}: {scope:?}: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn labels_of_a_consumer_select_in_the_same_commit() {
    let rig = Rig::new();
    let mut spec = remote("tracker");
    spec.labels.insert("department", "finance");
    let entry = rig.save(spec).await;
    rig.install(&entry, owner(), &[("token", "t")]).await.unwrap();
    let mut consumer = rig.save_consumer(automatic("g", "department", "sales")).await.unwrap().value;
    assert!(rig.names(consumer.id).await.is_empty());
    consumer.spec.labels.insert("department", "finance");
    rig.lifecycle.save_consumer(Some(consumer.id), consumer_draft(consumer.clone()), Expect::Any).await.unwrap();
    assert_eq!(rig.names(consumer.id).await, ["tracker__add", "tracker__echo"]);
}

#[tokio::test(start_paused = true)]
async fn tools_that_no_server_lists_any_more_are_forgotten_when_there_are_many() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let many: Vec<_> = (0..tools::MAX_UNLISTED + 2).map(|n| format!("t{n}")).collect();
    rig.discover.serve(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let id = rig.install(&entry, Owner::Organization, &[("token", "t")]).await.unwrap().value.id;
    let resolve = CredentialChoice::ResolveAtCallTime;
    let mut all = fixtures::gateway("all");
    all.tools = vec![selector(&entry, "*", resolve)];
    let mut one = fixtures::gateway("one");
    one.tools = vec![selector(&entry, "t5", resolve)];
    let all = rig.save_consumer(all).await.unwrap().value.id;
    let one = rig.save_consumer(one).await.unwrap().value.id;

    rig.discover.serve(&["t0", "t1"]);
    rig.lifecycle.refresh_tools(id).await.unwrap();
    assert_eq!(rig.all::<Tool>().await.len(), many.len(), "so many may stay");
    rig.discover.serve(&["t0", "new"]);
    rig.lifecycle.refresh_tools(id).await.unwrap();
    let mut left: Vec<_> = rig.all::<Tool>().await.into_iter().map(|tool| tool.name).collect();
    left.sort();
    assert_eq!(left, ["new", "t0", "t5"]);
    assert_eq!(rig.names(all).await, ["tracker__new", "tracker__t0", "tracker__t5"]);
    assert_eq!(rig.names(one).await, ["tracker__t5"]);
}
