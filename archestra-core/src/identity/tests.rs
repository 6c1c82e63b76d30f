//! Findings about users and teams.

use super::{RoleName, Team, User};
use crate::{
    Finding, Validate,
    id::{TeamId, UserId},
};
use chrono::DateTime;
use std::collections::BTreeSet;

fn user(email: &str) -> User {
    User {
        id: UserId::new(),
        email: email.to_owned(),
        name: None,
        role: RoleName(RoleName::MEMBER.to_owned()),
        apply_set: None,
        created_at: DateTime::UNIX_EPOCH,
    }
}

fn team(name: &str) -> Team {
    Team {
        id: TeamId::new(),
        name: name.to_owned(),
        priority: 0,
        members: BTreeSet::new(),
        apply_set: None,
        created_at: DateTime::UNIX_EPOCH,
    }
}

#[track_caller]
fn refused(findings: &[Finding], field: &str) {
    let [finding] = findings else { panic!("{findings:?}") };
    assert!(finding.field == field && !finding.reason.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
}

#[test]
fn a_user_has_an_address_in_lower_case() {
    for email in ["alice@example.com", "a+b@x", "ü@example.com"] {
        assert_eq!(user(email).findings(), []);
    }
    for email in [
        "",
        "alice",
        "@example.com",
        "alice@",
        "a@b@c",
        "Alice@example.com",
        "a b@example.com",
        "a@example.com\n",
        &format!("{}@x", "a".repeat(254)),
    ] {
        refused(&user(email).findings(), "email");
    }
}

#[test]
fn a_team_has_a_name() {
    for name in ["finance", "Legal & Tax", &"t".repeat(128)] {
        assert_eq!(team(name).findings(), []);
    }
    for name in ["", " ", " a", "a ", "a\tb", &"t".repeat(129)] {
        refused(&team(name).findings(), "name");
    }
}
