//! The verdict of all rules on one call, as a pure function.

use super::{CallerSelector, Condition, Operator, Policy, PolicyAction};
use crate::{
    id::{ConsumerId, EntryId, PolicyId},
    identity::{Caller, Principal},
};
use serde_json::Value;

/// What a call is judged by.
#[derive(Debug, Clone, Copy)]
pub struct CallFacts<'a> {
    /// Who calls.
    pub principal: &'a Principal,
    /// Through what.
    pub consumer: ConsumerId,
    /// The tool's entry.
    pub entry: EntryId,
    /// The tool's raw name.
    pub tool: &'a str,
    /// The arguments, decoded only where a rule about this tool has conditions; `None` otherwise.
    pub arguments: Option<&'a Value>,
}

/// What the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go ahead; `None` when no rule matched.
    Allow(Option<PolicyId>),
    /// Refuse.
    Block {
        /// Which rule.
        policy: PolicyId,
        /// Its name.
        name: String,
        /// What to tell the caller.
        message: Option<String>,
    },
}

/// The verdict: of the rules that match, the highest priority decides; among equals one that blocks, then the oldest. When
/// none matches the call is allowed. A condition on arguments that were not decoded does not hold.
#[must_use]
pub fn evaluate<'a>(rules: impl IntoIterator<Item = &'a Policy>, call: CallFacts<'_>) -> Verdict {
    let matching = rules.into_iter().filter(|rule| rule.applies_to(&call));
    let rank = |rule: &Policy| (std::cmp::Reverse(rule.spec.priority), rule.spec.action == PolicyAction::Allow, rule.id);
    match matching.min_by_key(|rule| rank(rule)) {
        None => Verdict::Allow(None),
        Some(rule) => match rule.spec.action {
            PolicyAction::Allow => Verdict::Allow(Some(rule.id)),
            PolicyAction::Block => Verdict::Block { policy: rule.id, name: rule.spec.name.clone(), message: rule.spec.message.clone() },
        },
    }
}

impl Policy {
    /// Whether the rule could be about this tool of this entry, whoever calls: what a route keeps it by.
    #[must_use]
    pub fn concerns(&self, consumer: ConsumerId, entry: EntryId, tool: &str) -> bool {
        let spec = &self.spec;
        spec.entry.is_none_or(|id| id == entry)
            && spec.consumer.is_none_or(|id| id == consumer)
            && spec.tool.as_deref().is_none_or(|pattern| match pattern.strip_suffix('*') {
                Some(start) => tool.starts_with(start),
                None => tool == pattern,
            })
    }

    fn applies_to(&self, call: &CallFacts<'_>) -> bool {
        self.concerns(call.consumer, call.entry, call.tool)
            && (self.spec.callers.is_empty() || self.spec.callers.iter().any(|selector| selector.selects(call.principal)))
            && self.spec.conditions.iter().all(|condition| call.arguments.is_some_and(|arguments| condition.holds(arguments)))
    }
}

impl CallerSelector {
    fn selects(&self, principal: &Principal) -> bool {
        match self {
            Self::User(id) => principal.user() == Some(*id),
            Self::Team(id) => principal.is_in(*id),
            Self::Organization => principal.caller == Caller::Organization,
            Self::Clients => matches!(principal.caller, Caller::Client(_)),
        }
    }
}

impl Condition {
    /// Whether it holds for these arguments.
    #[must_use]
    pub fn holds(&self, arguments: &Value) -> bool {
        let found = arguments.pointer(&self.path);
        let wanted = self.value.as_ref();
        let text = |test: fn(&str, &str) -> bool| found.and_then(Value::as_str).zip(wanted.and_then(Value::as_str)).is_some_and(|(a, b)| test(a, b));
        let number = |test: fn(f64, f64) -> bool| found.and_then(Value::as_f64).zip(wanted.and_then(Value::as_f64)).is_some_and(|(a, b)| test(a, b));
        let contains = || match (found, wanted) {
            (Some(Value::String(text)), Some(Value::String(part))) => text.contains(part.as_str()),
            (Some(Value::Array(items)), Some(value)) => items.contains(value),
            _ => false,
        };
        match self.operator {
            Operator::Equals => found.is_some() && found == wanted,
            Operator::NotEquals => found != wanted,
            Operator::Contains => contains(),
            Operator::NotContains => !contains(),
            Operator::StartsWith => text(|a, b| a.starts_with(b)),
            Operator::EndsWith => text(|a, b| a.ends_with(b)),
            Operator::GreaterThan => number(|a, b| a > b),
            Operator::LessThan => number(|a, b| a < b),
            Operator::Exists => found.is_some(),
            Operator::Absent => found.is_none(),
        }
    }
}
