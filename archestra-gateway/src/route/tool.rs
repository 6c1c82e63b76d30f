//! One tool of one consumer: where its calls go, what judges them, and who counts them.

use crate::{mcp::headers::HeaderParams, observe::ToolMeters, upstream::Target};
use archestra_core::{
    catalog::Entry, consumer::CredentialChoice, credential::Candidate, id::InstallationId, policy::Policy, tool::Tool,
};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Where the calls of one exposed tool go.
#[derive(Debug, Clone)]
pub(crate) struct ToolRoute {
    /// The tool.
    pub(crate) tool: Arc<Tool>,
    /// Its entry.
    pub(crate) entry: Arc<Entry>,
    /// Whose installation serves it.
    pub(crate) choice: CredentialChoice,
    /// The installations that are ready and have it, by id.
    pub(crate) candidates: Box<[Candidate]>,
    /// The same installations, as they are reached.
    pub(crate) targets: HashMap<InstallationId, Arc<Target>>,
    /// The rules that could be about it.
    pub(crate) rules: Box<[Arc<Policy>]>,
    /// Whether a rule asks for the arguments.
    pub(crate) judges_arguments: bool,
    /// Its arguments that are mirrored in headers (SEP-2243).
    pub(crate) header_params: Option<HeaderParams>,
    /// How long a call may take.
    pub(crate) timeout: Duration,
    /// Its counters.
    pub(crate) meters: Arc<ToolMeters>,
}

impl ToolRoute {
    /// The same under other rules, which change nothing of where calls go.
    pub(super) fn under(&self, rules: Box<[Arc<Policy>]>) -> Self {
        Self { judges_arguments: judge_arguments(&rules), rules, ..self.clone() }
    }
}

/// Whether a rule asks for the arguments of a call.
pub(super) fn judge_arguments(rules: &[Arc<Policy>]) -> bool {
    rules.iter().any(|rule| !rule.spec.conditions.is_empty())
}
