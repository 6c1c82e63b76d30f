//! Routes from a catalog: what is listed, what serves, and what a change makes anew.

mod incremental;

use super::{
    ConsumerRoute, RouteParts,
    mirror::{Affected, Mirror},
};
use crate::{mcp::version::Era, observe::Meters};
use archestra_core::{
    catalog::{Entry, Record, RecordKey},
    consumer::{Assignment, Consumer, CredentialChoice},
    installation::{Installation, InstallationState, Owner},
    testing::fixtures,
    tool::{DefinitionHash, Tool},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

struct World {
    mirror: Mirror,
    entry: Entry,
    tool: Tool,
    consumer: Consumer,
    assignment: Assignment,
}

fn parts() -> RouteParts {
    RouteParts {
        meters: Meters::new(),
        server_info: "{\"name\":\"archestra\"}".into(),
        call_timeout: Duration::from_secs(60),
    }
}

fn world() -> World {
    let entry = fixtures::remote_entry("tracker");
    let tool = fixtures::tool(&entry, "Search Issues");
    let consumer = fixtures::gateway("main");
    let mut assignment = fixtures::assignment(&consumer, &entry, &tool);
    assignment.credential = CredentialChoice::ResolveAtCallTime;
    let mut world = World { mirror: Mirror::default(), entry, tool, consumer, assignment };
    for record in [
        Record::Entry(world.entry.clone()),
        Record::Tool(world.tool.clone()),
        Record::Consumer(world.consumer.clone()),
        Record::Assignment(world.assignment.clone()),
    ] {
        world.put(record);
    }
    world
}

impl World {
    fn put(&mut self, record: Record) -> Affected {
        let mut affected = Affected::default();
        self.mirror.apply(record.key(), Some(record), &mut affected);
        affected
    }

    fn remove(&mut self, key: impl Into<RecordKey>) -> Affected {
        let mut affected = Affected::default();
        self.mirror.apply(key.into(), None, &mut affected);
        affected
    }

    fn installation(&self, owner: Owner) -> Installation {
        let mut installation = fixtures::installation(&self.entry, owner);
        installation.state = InstallationState::Ready;
        installation.tools = [(self.tool.name.clone(), self.tool.hash)].into();
        installation
    }

    fn route(&mut self) -> Arc<ConsumerRoute> {
        self.mirror.build(self.consumer.id, &parts()).unwrap()
    }
}

fn listed(route: &ConsumerRoute, era: Era) -> Value {
    serde_json::from_slice(&route.list.page(None, era).unwrap()).unwrap()
}

#[test]
fn a_tool_is_listed_under_its_exposed_name_with_everything_else_untouched() {
    let mut world = world();
    world.tool.definition =
        r#"{"title":"S","name":"Search Issues","x-new":{"name":"inner"},"inputSchema":{"type":"object"}}"#.into();
    world.tool.hash = DefinitionHash::of(&serde_json::from_str(&world.tool.definition).unwrap());
    world.put(Record::Tool(world.tool.clone()));
    let route = world.route();
    let modern = listed(&route, Era::Modern);
    assert_eq!(modern["tools"][0]["name"], world.assignment.exposed_name.as_str());
    assert_eq!(modern["tools"][0]["x-new"]["name"], "inner");
    assert_eq!((&modern["resultType"], &modern["cacheScope"]), (&"complete".into(), &"private".into()));
    let legacy = listed(&route, Era::Legacy);
    assert_eq!(legacy["tools"], modern["tools"]);
    assert!(legacy.get("ttlMs").is_none());
}

#[test]
fn only_ready_installations_that_have_the_tool_serve_it() {
    let mut world = world();
    let ready = world.installation(Owner::Organization);
    let mut pending = world.installation(Owner::Team(archestra_core::id::TeamId::new()));
    pending.state = InstallationState::Pending;
    let mut without = world.installation(Owner::User(archestra_core::id::UserId::new()));
    without.tools.clear();
    for installation in [&ready, &pending, &without] {
        let affected = world.put(Record::Installation(installation.clone()));
        assert!(affected.consumers.contains(&world.consumer.id));
    }
    let route = world.route();
    let tool = &route.tools[world.assignment.exposed_name.as_str()];
    assert_eq!(tool.candidates.iter().map(|found| found.installation).collect::<Vec<_>>(), [ready.id]);
    let affected = world.remove(ready.id);
    assert_eq!(affected.gone, [ready.id]);
    assert!(world.route().tools[world.assignment.exposed_name.as_str()].candidates.is_empty());
}

#[test]
fn subscribers_hear_of_a_changed_list_and_of_nothing_else() {
    let mut world = world();
    let mut changes = world.route().changed.subscribe();
    changes.mark_unchanged();
    world.put(Record::Consumer(world.consumer.clone()));
    drop(world.route());
    assert!(!changes.has_changed().unwrap());
    world.remove(world.assignment.id);
    let route = world.route();
    assert!(changes.has_changed().unwrap());
    assert!(route.tools.is_empty());
}

#[test]
fn long_lists_are_paged_and_a_cursor_of_another_list_is_refused() {
    let mut world = world();
    for n in 0..600 {
        let tool = fixtures::tool(&world.entry, &format!("tool {n:04}"));
        let mut assignment = fixtures::assignment(&world.consumer, &world.entry, &tool);
        assignment.credential = CredentialChoice::ResolveAtCallTime;
        world.put(Record::Tool(tool));
        world.put(Record::Assignment(assignment));
    }
    let route = world.route();
    let first = listed(&route, Era::Legacy);
    let cursor = first["nextCursor"].as_str().unwrap();
    let second: Value = serde_json::from_slice(&route.list.page(Some(cursor), Era::Legacy).unwrap()).unwrap();
    assert_eq!(first["tools"].as_array().unwrap().len() + second["tools"].as_array().unwrap().len(), 601);
    assert!(second.get("nextCursor").is_none());
    world.remove(world.assignment.id);
    assert!(world.route().list.page(Some(cursor), Era::Legacy).is_none());
    assert!(route.list.page(Some("nonsense"), Era::Legacy).is_none());
}

#[test]
fn a_smaller_scope_shuts_the_door() {
    let mut world = world();
    let user = fixtures::user("a@example.com");
    let team = fixtures::team("finance", [&user]);
    let member = fixtures::user_principal(&user, &[team.id]);
    let stranger = fixtures::user_principal(&fixtures::user("b@example.com"), &[]);
    world.consumer.scope = archestra_core::catalog::Scope::Teams([team.id].into());
    world.put(Record::Consumer(world.consumer.clone()));
    let route = world.route();
    assert!(route.admits(&member) && route.admits(&fixtures::team_principal(&team)));
    assert!(!route.admits(&stranger) && !route.admits(&fixtures::organization_principal()));
    let bound = |consumer| archestra_core::identity::Principal { consumer: Some(consumer), ..member.clone() };
    assert!(route.admits(&bound(world.consumer.id)));
    assert!(!route.admits(&bound(archestra_core::id::ConsumerId::new())), "its credential is for another one");
    let machine = fixtures::client_principal(&fixtures::machine_client("ci", [world.consumer.id]));
    assert!(!route.admits(&machine), "nothing says that it may");
    let named = archestra_core::identity::Principal { consumer: Some(world.consumer.id), ..machine };
    assert!(route.admits(&named));
    world.consumer.scope = archestra_core::catalog::Scope::User(user.id);
    world.put(Record::Consumer(world.consumer.clone()));
    assert!(!world.route().admits(&named), "what is somebody's own is nobody else's");
}
