//! Verdicts: who wins, whom and what a rule is about, and when its conditions hold.

use super::{CallFacts, Verdict, evaluate};
use crate::{
    id::{ClientId, ConsumerId, EntryId, PolicyId, TeamId, UserId},
    identity::{AuthMethod, Caller, Permissions, Principal},
    policy::{CallerSelector, Condition, Operator, Policy, PolicyAction, PolicySpec},
};
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

fn rule(n: u128, priority: i32, action: PolicyAction) -> Policy {
    let spec = PolicySpec {
        name: format!("rule {n}"),
        priority,
        entry: None,
        tool: None,
        consumer: None,
        callers: Vec::new(),
        conditions: Vec::new(),
        action,
        message: Some("no".to_owned()),
    };
    Policy { id: PolicyId::from_uuid(Uuid::from_u128(n)), spec, apply_set: None, created_at: DateTime::UNIX_EPOCH }
}

fn principal(caller: Caller, teams: &[TeamId]) -> Principal {
    Principal {
        caller,
        name: "caller".into(),
        teams: teams.into(),
        permissions: Arc::new(Permissions::default()),
        method: AuthMethod::Embedded,
        idp_token: None,
        consumer: None,
        scopes: None,
        expires_at: None,
    }
}

struct Call {
    principal: Principal,
    consumer: ConsumerId,
    entry: EntryId,
}

impl Call {
    fn new() -> Self {
        Self { principal: principal(Caller::Organization, &[]), consumer: ConsumerId::new(), entry: EntryId::new() }
    }

    fn facts<'a>(&'a self, tool: &'a str, arguments: Option<&'a Value>) -> CallFacts<'a> {
        CallFacts { principal: &self.principal, consumer: self.consumer, entry: self.entry, tool, arguments }
    }

    /// Whether a blocking rule that is made so blocks a call of this tool.
    fn is_blocked(&self, tool: &str, arguments: Option<&Value>, change: impl FnOnce(&mut PolicySpec)) -> bool {
        let mut rule = rule(1, 0, PolicyAction::Block);
        change(&mut rule.spec);
        matches!(evaluate([&rule], self.facts(tool, arguments)), Verdict::Block { .. })
    }
}

fn condition(path: &str, operator: Operator, value: Option<Value>) -> Condition {
    Condition { path: path.to_owned(), operator, value }
}

#[test]
fn without_a_rule_a_call_is_allowed() {
    assert_eq!(evaluate([], Call::new().facts("echo", None)), Verdict::Allow(None));
}

#[test]
fn the_verdict_says_which_rule_and_what_to_tell() {
    let (block, allow) = (rule(1, 0, PolicyAction::Block), rule(2, 1, PolicyAction::Allow));
    let call = Call::new();
    let blocked = Verdict::Block { policy: block.id, name: "rule 1".to_owned(), message: Some("no".to_owned()) };
    assert_eq!(evaluate([&block], call.facts("echo", None)), blocked);
    assert_eq!(evaluate([&block, &allow], call.facts("echo", None)), Verdict::Allow(Some(allow.id)));
}

#[test]
fn a_call_that_nobody_can_approve_is_refused() {
    let (mut ask, allow) = (rule(2, 0, PolicyAction::RequireApproval), rule(1, 0, PolicyAction::Allow));
    let call = Call::new();
    let Verdict::Block { policy, message, .. } = evaluate([&allow, &ask], call.facts("echo", None)) else {
        panic!("allowed")
    };
    assert_eq!((policy, message.as_deref()), (ask.id, Some("no")));
    ask.spec.message = None;
    let Verdict::Block { message: Some(message), .. } = evaluate([&ask], call.facts("echo", None)) else {
        panic!("nothing is said")
    };
    assert!(message.contains("\"rule 2\"") && message.contains("approve"), "{message}");
}

proptest! {
    #[test]
    fn priority_decides_then_blocking_then_age(rules in prop::collection::vec((-2..3_i32, any::<bool>()), 1..6).prop_shuffle()) {
        let rules: Vec<_> = rules
            .into_iter()
            .enumerate()
            .map(|(n, (priority, allow))| rule(n as u128, priority, if allow { PolicyAction::Allow } else { PolicyAction::Block }))
            .collect();
        let highest = rules.iter().map(|rule| rule.spec.priority).max().unwrap();
        let top: Vec<_> = rules.iter().filter(|rule| rule.spec.priority == highest).collect();
        let blocking = top.iter().filter(|rule| rule.spec.action == PolicyAction::Block).map(|rule| rule.id).min();
        let oldest = top.iter().map(|rule| rule.id).min();
        let call = Call::new();
        for rules in [rules.iter().collect::<Vec<_>>(), rules.iter().rev().collect()] {
            match evaluate(rules, call.facts("echo", None)) {
                Verdict::Block { policy, .. } => prop_assert_eq!(Some(policy), blocking),
                Verdict::Allow(id) => {
                    prop_assert_eq!(blocking, None);
                    prop_assert_eq!(id, oldest);
                }
            }
        }
    }

    #[test]
    fn an_operator_and_its_opposite_never_agree(arguments in argument(), value in argument()) {
        let holds = |operator, value: Option<&Value>| condition("/a", operator, value.cloned()).holds(&arguments);
        prop_assert_ne!(holds(Operator::Equals, Some(&value)), holds(Operator::NotEquals, Some(&value)));
        prop_assert_ne!(holds(Operator::Contains, Some(&value)), holds(Operator::NotContains, Some(&value)));
        prop_assert_ne!(holds(Operator::Exists, None), holds(Operator::Absent, None));
        let order = [Operator::GreaterThan, Operator::LessThan, Operator::Equals].map(|operator| holds(operator, Some(&value)));
        prop_assert!(order.iter().filter(|holds| **holds).count() <= 1);
    }

    #[test]
    fn whole_numbers_are_compared_exactly(a in any::<i64>(), b in any::<u64>()) {
        let holds = |operator| condition("/a", operator, Some(json!(b))).holds(&json!({"a": a}));
        prop_assert_eq!(holds(Operator::GreaterThan), i128::from(a) > i128::from(b));
        prop_assert_eq!(holds(Operator::LessThan), i128::from(a) < i128::from(b));
        prop_assert_eq!(holds(Operator::Equals), i128::from(a) == i128::from(b));
    }
}

fn argument() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        (0..3_u8).prop_map(|n| json!(f64::from(n))),
        "[ab]{0,2}".prop_map(Value::from)
    ];
    let list = prop::collection::vec(leaf.clone(), 0..3).prop_map(Value::from);
    let object = prop::collection::btree_map("[ab]", leaf.clone(), 0..3)
        .prop_map(|map| Value::Object(map.into_iter().collect()));
    prop_oneof![leaf, list, object]
}

#[test]
fn a_pattern_is_a_name_or_a_beginning() {
    let call = Call::new();
    let blocked = |pattern: &str, tool: &str| call.is_blocked(tool, None, |spec| spec.tool = Some(pattern.to_owned()));
    assert!(blocked("delete", "delete") && !blocked("delete", "delete_all") && !blocked("delete", "Delete"));
    assert!(blocked("delete*", "delete") && blocked("delete*", "delete_all") && !blocked("delete*", "undelete"));
    assert!(blocked("*", "anything") && blocked("*", ""));
}

#[test]
fn a_rule_is_about_its_entry_and_its_consumer() {
    let call = Call::new();
    let (entry, consumer) = (call.entry, call.consumer);
    assert!(call.is_blocked("echo", None, |spec| spec.entry = Some(entry)));
    assert!(!call.is_blocked("echo", None, |spec| spec.entry = Some(EntryId::new())));
    assert!(call.is_blocked("echo", None, |spec| spec.consumer = Some(consumer)));
    assert!(!call.is_blocked("echo", None, |spec| spec.consumer = Some(ConsumerId::new())));
}

#[test]
fn a_rule_is_about_its_callers() {
    let (alice, finance, machine) = (UserId::new(), TeamId::new(), ClientId::new());
    let callers = [
        principal(Caller::User(alice), &[finance]),
        principal(Caller::User(UserId::new()), &[]),
        principal(Caller::Team(finance), &[finance]),
        principal(Caller::Organization, &[]),
        principal(Caller::Client(machine), &[]),
    ];
    let selectors = [
        (vec![], [true; 5]),
        (vec![CallerSelector::User(alice)], [true, false, false, false, false]),
        (vec![CallerSelector::Team(finance)], [true, false, true, false, false]),
        (vec![CallerSelector::Organization], [false, false, false, true, false]),
        (vec![CallerSelector::Clients], [false, false, false, false, true]),
        (vec![CallerSelector::Clients, CallerSelector::User(alice)], [true, false, false, false, true]),
    ];
    for (selectors, expected) in selectors {
        let blocked = callers.clone().map(|principal| {
            Call { principal, ..Call::new() }.is_blocked("echo", None, |spec| spec.callers.clone_from(&selectors))
        });
        assert_eq!(blocked, expected, "{selectors:?}");
    }
}

#[test]
fn all_conditions_must_hold_and_none_does_on_what_was_not_decoded() {
    let call = Call::new();
    let conditions = [condition("/a", Operator::Exists, None), condition("/b", Operator::Absent, None)];
    let blocked =
        |arguments: Option<&Value>| call.is_blocked("echo", arguments, |spec| spec.conditions = conditions.to_vec());
    assert!(blocked(Some(&json!({"a": 1}))));
    assert!(!blocked(Some(&json!({"a": 1, "b": 1}))) && !blocked(Some(&json!({}))));
    assert!(!blocked(None));
    for operator in [Operator::Absent, Operator::NotEquals, Operator::NotContains] {
        let one = condition("/a", operator, Some(json!(1)));
        assert!(!call.is_blocked("echo", None, |spec| spec.conditions = vec![one.clone()]));
        assert!(call.is_blocked("echo", Some(&json!({})), |spec| spec.conditions = vec![one]));
    }
}

#[test]
fn pointers_reach_everywhere_and_know_their_escapes() {
    let arguments = json!({"a": {"b": [10, {"c": true}]}, "x/y": 1, "m~n": 2, "~1": 3, "": 4, "0": 5});
    for (path, value) in [
        ("/a/b/0", json!(10)),
        ("/a/b/1/c", json!(true)),
        ("/x~1y", json!(1)),
        ("/m~0n", json!(2)),
        ("/~01", json!(3)),
        ("/", json!(4)),
        ("/0", json!(5)),
    ] {
        assert!(condition(path, Operator::Equals, Some(value)).holds(&arguments), "{path}");
    }
    for path in ["/a/b/2", "/a/b/-", "/a/b/01", "/x/y", "/A", "a", "/~1"] {
        assert!(condition(path, Operator::Absent, None).holds(&arguments), "{path}");
    }
    assert!(condition("", Operator::Equals, Some(arguments.clone())).holds(&arguments));
}

#[test]
fn operators_compare_what_they_can() {
    use Operator::{Contains, EndsWith, Equals, Exists, GreaterThan, LessThan, NotContains, NotEquals, StartsWith};
    let cases = [
        (Equals, json!("x"), json!("x"), true),
        (Equals, json!("5"), json!(5), false),
        (Equals, json!(5.0), json!(5), true),
        (Equals, json!([1, {"a": 2.0}]), json!([1.0, {"a": 2}]), true),
        (Equals, json!(null), json!(null), true),
        (NotEquals, json!(5.0), json!(5), false),
        (Contains, json!("rm -rf /"), json!("-rf"), true),
        (Contains, json!(["a", 5.0]), json!(5), true),
        (Contains, json!(15), json!(5), false),
        (Contains, json!({"a": 1}), json!("a"), false),
        (NotContains, json!(15), json!(5), true),
        (StartsWith, json!("/etc/passwd"), json!("/etc"), true),
        (StartsWith, json!(["/etc"]), json!("/etc"), false),
        (EndsWith, json!("a.sql"), json!(".sql"), true),
        (GreaterThan, json!(10.5), json!(10), true),
        (GreaterThan, json!(10), json!(10), false),
        (GreaterThan, json!("11"), json!(10), false),
        (GreaterThan, json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64), true),
        (LessThan, json!(-1), json!(0), true),
        (Exists, json!(null), json!(null), true),
    ];
    for (operator, found, wanted, holds) in cases {
        assert_eq!(
            condition("/a", operator, Some(wanted.clone())).holds(&json!({"a": found})),
            holds,
            "{found} {operator:?} {wanted}"
        );
    }
}
