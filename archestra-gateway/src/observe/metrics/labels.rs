//! The labels of a call: who was called, what, how it ended, and the labels that people gave the gateway or agent.

use super::CallStatus;
use archestra_core::{
    catalog::Labels,
    consumer::{Consumer, ConsumerKind},
};
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use std::{collections::BTreeMap, fmt, sync::Arc};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CallLabels {
    agent_id: String,
    agent_name: String,
    agent_type: &'static str,
    mcp_server_name: String,
    tool_name: String,
    status: &'static str,
    #[prometheus(flatten)]
    given: Given,
}

impl CallLabels {
    /// Those of a success, and those of anything else.
    pub(super) fn of(consumer: &Consumer, server: &str, tool: &str) -> (Self, Self) {
        let success = Self {
            agent_id: consumer.id.to_string(),
            agent_name: consumer.display_name().to_owned(),
            agent_type: match consumer.kind {
                ConsumerKind::Gateway => "mcp_gateway",
                ConsumerKind::Agent => "agent",
            },
            mcp_server_name: server.to_owned(),
            tool_name: tool.to_owned(),
            status: CallStatus::Success.label(),
            given: Given::of(&consumer.spec.labels),
        };
        let error = Self { status: CallStatus::Error.label(), ..success.clone() };
        (success, error)
    }
}

/// What people gave a consumer, by names that Prometheus takes: `agent_label_<key>`, so that none is another label's, with `_`
/// for what no name may hold. Several values stand in one, with commas between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Given(Arc<[(String, String)]>);

impl Given {
    fn of(labels: &Labels) -> Self {
        // Two keys can come to the same name, which must not be there twice.
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in labels.iter() {
            let fits = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
            let name = format!("agent_label_{}", key.chars().map(fits).collect::<String>());
            let values = given.entry(name).or_default();
            if !values.is_empty() {
                values.push(',');
            }
            values.push_str(value);
        }
        Self(given.into_iter().collect())
    }
}

impl EncodeLabelSet for Given {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.as_ref().encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::Given;
    use archestra_core::catalog::Labels;

    #[test]
    fn keys_become_names_and_none_is_there_twice() {
        let mut labels = Labels::new();
        for (key, value) in
            [("cost center", "12"), ("cost-center", "13"), ("ort", "Köln"), ("team", "a"), ("team", "b")]
        {
            labels.insert(key, value);
        }
        let given: Vec<_> = Given::of(&labels).0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(given, ["agent_label_cost_center=12,13", "agent_label_ort=Köln", "agent_label_team=a,b"]);
    }
}
