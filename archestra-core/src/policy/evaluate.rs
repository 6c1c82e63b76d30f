//! The verdict of all rules on one call, as a pure function.

use super::{CallerSelector, Condition, Operator, Policy, PolicyAction};
use crate::{
    id::{ConsumerId, EntryId, PolicyId},
    identity::{Caller, Principal},
};
use serde_json::{Number, Value};
use std::cmp::{Ordering, Reverse};

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

/// The verdict: of the rules that match, the highest priority decides; among equals one that does not allow, then the oldest. When
/// none matches the call is allowed. A condition on arguments that were not decoded does not hold.
#[must_use]
pub fn evaluate<'a>(rules: impl IntoIterator<Item = &'a Policy>, call: CallFacts<'_>) -> Verdict {
    let matching = rules.into_iter().filter(|rule| rule.applies_to(&call));
    let rank = |rule: &Policy| (Reverse(rule.spec.priority), rule.spec.action == PolicyAction::Allow, rule.id);
    match matching.min_by_key(|rule| rank(rule)) {
        None => Verdict::Allow(None),
        Some(rule) => match rule.spec.action {
            PolicyAction::Allow => Verdict::Allow(Some(rule.id)),
            PolicyAction::Block => {
                Verdict::Block { policy: rule.id, name: rule.spec.name.clone(), message: rule.spec.message.clone() }
            }
            PolicyAction::RequireApproval => {
                let unasked = || {
                    format!(
                        "the rule {:?} wants a person to approve this call, who cannot be asked here",
                        rule.spec.name
                    )
                };
                let message = rule.spec.message.clone().unwrap_or_else(unasked);
                Verdict::Block { policy: rule.id, name: rule.spec.name.clone(), message: Some(message) }
            }
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
            && (self.spec.callers.is_empty()
                || self.spec.callers.iter().any(|selector| selector.selects(call.principal)))
            && self
                .spec
                .conditions
                .iter()
                .all(|condition| call.arguments.is_some_and(|arguments| condition.holds(arguments)))
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
        let both = found.zip(self.value.as_ref());
        let text = |test: fn(&str, &str) -> bool| {
            both.and_then(|(found, wanted)| found.as_str().zip(wanted.as_str())).is_some_and(|(a, b)| test(a, b))
        };
        let order = || both.and_then(|(found, wanted)| compare(found.as_number()?, wanted.as_number()?));
        let equal = || both.is_some_and(|(found, wanted)| same(found, wanted));
        let contains = || match both {
            Some((Value::String(text), Value::String(part))) => text.contains(part.as_str()),
            Some((Value::Array(items), value)) => items.iter().any(|item| same(item, value)),
            _ => false,
        };
        match self.operator {
            Operator::Equals => equal(),
            Operator::NotEquals => !equal(),
            Operator::Contains => contains(),
            Operator::NotContains => !contains(),
            Operator::StartsWith => text(|a, b| a.starts_with(b)),
            Operator::EndsWith => text(|a, b| a.ends_with(b)),
            Operator::GreaterThan => order() == Some(Ordering::Greater),
            Operator::LessThan => order() == Some(Ordering::Less),
            Operator::Exists => found.is_some(),
            Operator::Absent => found.is_none(),
        }
    }
}

/// Whether two values are the same, where a server that reads them could not tell them apart: `5` is `5.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b) == Some(Ordering::Equal),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Whole numbers are compared as such, since as floating-point numbers neighbours beyond 2^53 would be alike.
fn compare(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

#[cfg(test)]
mod tests;
