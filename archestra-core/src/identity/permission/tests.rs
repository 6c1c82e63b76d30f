//! Permissions are written and read back, and roles include each other.

use super::{Action, Permission, Permissions, Resource, Role, RoleName};
use crate::{Validate, id::RoleId};
use chrono::DateTime;
use serde_json::json;
use std::collections::BTreeSet;

const ACTIONS: [Action; 6] =
    [Action::Read, Action::Create, Action::Update, Action::Delete, Action::TeamAdmin, Action::Admin];

fn all() -> impl Iterator<Item = Permission> {
    Resource::ALL.iter().flat_map(|resource| ACTIONS.map(|action| Permission(*resource, action)))
}

fn role(name: &str) -> Permissions {
    RoleName(name.to_owned()).built_in().unwrap()
}

#[test]
fn every_permission_is_read_back_as_it_is_written() {
    let mut texts = BTreeSet::new();
    for permission in all() {
        let text = permission.to_string();
        assert_eq!(text.parse::<Permission>().unwrap(), permission);
        assert_eq!(serde_json::from_value::<Permission>(json!(text)).unwrap(), permission);
        assert_eq!(serde_json::to_value(permission).unwrap(), json!(text));
        assert!(texts.insert(text));
    }
    assert_eq!(Permission(Resource::McpServer, Action::Admin).to_string(), "mcpServer:admin");
    assert_eq!(Permission(Resource::IdentityProvider, Action::TeamAdmin).to_string(), "identityProvider:teamAdmin");
}

#[test]
fn what_is_no_permission_is_refused_with_the_remedy() {
    for text in [
        "",
        "entry",
        "entry:",
        ":read",
        "entry:fly",
        "entries:read",
        "Entry:read",
        "entry:read:all",
        "entry: read",
        "*:*",
    ] {
        let error = text.parse::<Permission>().unwrap_err().to_string();
        assert!(error.contains("resource:action"), "{error}");
    }
}

#[test]
fn admin_of_a_resource_includes_its_other_actions_and_no_other_resource() {
    for resource in Resource::ALL {
        let admin = Permissions::from_iter([Permission(*resource, Action::Admin)]);
        for Permission(other, action) in all() {
            assert_eq!(admin.allow(other, action), other == *resource, "{other:?} {action:?}");
        }
        let reader = Permissions::from_iter([Permission(*resource, Action::Read)]);
        assert!(admin.include(&reader) && !reader.include(&admin));
    }
}

#[test]
fn each_role_includes_the_lesser_ones() {
    let (admin, editor, member) = (role(RoleName::ADMIN), role(RoleName::EDITOR), role(RoleName::MEMBER));
    assert!(admin.include(&editor) && editor.include(&member) && member.include(&Permissions::default()));
    assert!(!member.include(&editor) && !editor.include(&admin));
    assert!(all().all(|Permission(resource, action)| admin.allow(resource, action)));
    assert!(RoleName("auditor".to_owned()).built_in().is_none());
}

#[test]
fn lesser_roles_manage_no_people() {
    for name in [RoleName::EDITOR, RoleName::MEMBER] {
        let role = role(name);
        for resource in [Resource::User, Resource::Team, Resource::Role, Resource::Client, Resource::IdentityProvider] {
            for action in [Action::Create, Action::Update, Action::Delete, Action::Admin] {
                assert!(!role.allow(resource, action), "{name} {resource:?} {action:?}");
            }
        }
        assert!(!role.iter().any(|Permission(_, action)| *action == Action::Admin));
    }
    let member = role(RoleName::MEMBER);
    assert!(!member.allow(Resource::Entry, Action::Create) && !member.allow(Resource::Installation, Action::TeamAdmin));
    assert!(!member.allow(Resource::AuditLog, Action::Read) && !member.allow(Resource::Policy, Action::Create));
}

#[test]
fn a_role_has_a_name_that_no_built_in_one_has() {
    let named = |name: &str| {
        let name = RoleName(name.to_owned());
        let permissions = Permissions::default();
        Role { id: RoleId::new(), name, permissions, created_at: DateTime::UNIX_EPOCH }.findings()
    };
    assert_eq!(named("auditor"), []);
    for name in ["", " auditor", "a\nb", "admin", "editor", "member"] {
        let findings = named(name);
        let [finding] = findings.as_slice() else { panic!("{name:?}: {findings:?}") };
        assert!(finding.field == "name" && !finding.remedy.is_empty(), "{finding:?}");
    }
}
