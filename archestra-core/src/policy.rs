//! What governs a tool call before it is made: allow and block rules, and limits.

mod evaluate;

pub use evaluate::{CallFacts, Verdict, evaluate};

use crate::{
    Finding, Validate,
    id::{ConsumerId, EntryId, LimitId, PolicyId, TeamId, UserId},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A rule about tool calls. It refers to entry and raw tool name, never to an exposed name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// The identifier.
    pub id: PolicyId,
    /// What a person filled in.
    #[serde(flatten)]
    pub spec: PolicySpec,
    /// The `apply` set that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_set: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// What a person fills in for a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySpec {
    /// For people.
    pub name: String,
    /// Of several rules that match, the one with the highest priority decides; among equals, one that blocks.
    #[serde(default)]
    pub priority: i32,
    /// Only tools of this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryId>,
    /// Only tools with this raw name; a `*` at the end stands for any rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Only through this consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<ConsumerId>,
    /// Only these callers; empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<CallerSelector>,
    /// Only calls whose arguments meet all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What happens.
    pub action: PolicyAction,
    /// What a blocked caller is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Callers that a rule or a limit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum CallerSelector {
    /// This user.
    User(UserId),
    /// Members of this team, and its tokens.
    Team(TeamId),
    /// Organization tokens.
    Organization,
    /// Machine clients.
    Clients,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum PolicyAction {
    /// The call is made.
    Allow,
    /// The call is refused.
    Block,
    /// The call is made only after a person has approved it. No caller of the gateway can be asked, so there it is refused.
    RequireApproval,
}

/// A condition on one argument.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Where the argument is, as a JSON Pointer (RFC 6901).
    pub path: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what; not for `exists` and `absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub value: Option<serde_json::Value>,
}

impl Eq for Condition {}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Operator {
    /// The same JSON value.
    Equals,
    /// Another JSON value, or absent.
    NotEquals,
    /// A text that holds this text, or a list that holds this value.
    Contains,
    /// Not `contains`.
    NotContains,
    /// A text that begins so.
    StartsWith,
    /// A text that ends so.
    EndsWith,
    /// A greater number.
    GreaterThan,
    /// A lesser number.
    LessThan,
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
}

/// A limit on calls in a window of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// The identifier.
    pub id: LimitId,
    /// What a person filled in.
    #[serde(flatten)]
    pub spec: LimitSpec,
    /// The `apply` set that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_set: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// What a person fills in for a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitSpec {
    /// For people.
    pub name: String,
    /// Only calls to this entry's tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryId>,
    /// Only calls to the tool with this raw name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Only through this consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<ConsumerId>,
    /// Only calls of these callers; empty: everybody's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<CallerSelector>,
    /// Whose calls are counted together.
    #[serde(default)]
    pub per: LimitPer,
    /// How many calls.
    pub calls: u64,
    /// In how many seconds.
    pub window: u32,
}

/// Whose calls are counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum LimitPer {
    /// Everybody's.
    #[default]
    Organization,
    /// Each team's.
    Team,
    /// Each user's, and each other caller's.
    Caller,
    /// Each consumer's.
    Consumer,
}

impl Validate for PolicySpec {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(name_finding(&self.name));
        if let Some(tool) = &self.tool
            && (tool.is_empty() || tool.strip_suffix('*').unwrap_or(tool).contains('*'))
        {
            findings.push(Finding::new(
                "tool",
                format!("{tool:?} is not a tool pattern"),
                "use a raw tool name, with at most one '*', at its end",
            ));
        }
        if self.tool.is_some() && self.entry.is_none() {
            findings.push(Finding::new(
                "entry",
                "a tool without its entry",
                "add `entry`, since servers may have tools of the same name",
            ));
        }
        for (n, condition) in self.conditions.iter().enumerate() {
            let at = |field: &str| format!("conditions[{n}].{field}");
            if !is_pointer(&condition.path) {
                findings.push(Finding::new(
                    at("path"),
                    format!("{:?} is not a JSON Pointer", condition.path),
                    "write `/key/0/name`, with `~1` for a '/' and `~0` for a '~' within a key",
                ));
            }
            let wants_value = !matches!(condition.operator, Operator::Exists | Operator::Absent);
            if wants_value != condition.value.is_some() {
                let (reason, remedy) = if wants_value {
                    ("there is nothing to compare with", "add `value`")
                } else {
                    ("this operator compares with nothing", "remove `value`")
                };
                findings.push(Finding::new(at("value"), reason, remedy));
            }
            let textual = matches!(condition.operator, Operator::StartsWith | Operator::EndsWith);
            let numeric = matches!(condition.operator, Operator::GreaterThan | Operator::LessThan);
            if let Some(value) = &condition.value
                && ((textual && !value.is_string()) || (numeric && !value.is_number()))
            {
                findings.push(Finding::new(
                    at("value"),
                    "the value does not fit the operator",
                    if numeric { "use a number" } else { "use a text" },
                ));
            }
        }
        findings
    }
}

impl Validate for LimitSpec {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(name_finding(&self.name));
        if self.window == 0 || self.window > 31 * 24 * 3600 {
            findings.push(Finding::new("window", "a window has 1 second to 31 days", "use 1 to 2678400"));
        }
        if self.tool.as_ref().is_some_and(String::is_empty) {
            findings.push(Finding::new("tool", "a tool has a name", "use its raw name, or leave `tool` out"));
        }
        if self.tool.is_some() && self.entry.is_none() {
            findings.push(Finding::new(
                "entry",
                "a tool without its entry",
                "add `entry`, since servers may have tools of the same name",
            ));
        }
        findings
    }
}

fn name_finding(name: &str) -> Option<Finding> {
    let bad = name.trim().is_empty() || name.len() > 256 || name.chars().any(char::is_control);
    bad.then(|| Finding::new("name", "a name has 1 to 256 printable bytes", "choose another"))
}

/// Whether this is a JSON Pointer (RFC 6901): empty, or keys that each begin with `/`, with `~` only in `~0` and `~1`.
fn is_pointer(path: &str) -> bool {
    (path.is_empty() || path.starts_with('/')) && path.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

#[cfg(test)]
mod tests;
