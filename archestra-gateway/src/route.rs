//! What a call is routed by: an immutable snapshot of the catalog, built once per change and read without a lock.

mod committed;
mod follow;
mod freshness;
mod gaps;
mod list;
mod mirror;
mod names;
mod snapshot;
#[cfg(test)]
mod tests;
mod tool;

pub(crate) use committed::Committed;
pub(crate) use follow::{Follower, Routes};
pub(crate) use freshness::{Freshness, Source, Told};
pub(crate) use list::ToolList;
pub(crate) use mirror::RouteParts;
pub(crate) use names::Names;
pub(crate) use tool::ToolRoute;

use crate::observe::ToolMeters;
use archestra_core::{
    catalog::Scope,
    consumer::Consumer,
    id::ConsumerId,
    identity::{Action, Caller, Principal, Resource},
};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::watch;

/// Everything that routes calls, as it was after one commit.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    by_slug: HashMap<Box<str>, Arc<ConsumerRoute>>,
    by_id: HashMap<ConsumerId, Arc<ConsumerRoute>>,
}

impl Snapshot {
    /// The consumer at this place of the endpoint's URL: its slug, or its id.
    pub(crate) fn consumer(&self, place: &str) -> Option<&Arc<ConsumerRoute>> {
        self.by_slug.get(place).or_else(|| self.by_id.get(&place.parse().ok()?))
    }

    /// The consumer with this id.
    pub(crate) fn consumer_by_id(&self, id: ConsumerId) -> Option<&Arc<ConsumerRoute>> {
        self.by_id.get(&id)
    }
}

/// One consumer and its tools.
#[derive(Debug)]
pub(crate) struct ConsumerRoute {
    /// The consumer.
    pub(crate) consumer: Arc<Consumer>,
    /// Its tools, by exposed name.
    pub(crate) tools: HashMap<Box<str>, Arc<ToolRoute>>,
    /// What `tools/list` answers.
    pub(crate) list: ToolList,
    /// Counts calls to tools that it does not have.
    pub(crate) unknown: Arc<ToolMeters>,
    /// Counts the changes of its tool list; it outlives this route.
    pub(crate) changed: Arc<watch::Sender<u64>>,
}

impl ConsumerRoute {
    /// Whether this caller may use the consumer at all.
    pub(crate) fn admits(&self, principal: &Principal) -> bool {
        if !principal.opens(self.consumer.id) {
            return false;
        }
        let resource = match self.consumer.kind {
            archestra_core::consumer::ConsumerKind::Gateway => Resource::Gateway,
            archestra_core::consumer::ConsumerKind::Agent => Resource::Agent,
        };
        match &self.consumer.scope {
            Scope::Organization => true,
            Scope::Teams(teams) => {
                principal.teams.iter().any(|team| teams.contains(team))
                    || principal.permissions.allow(resource, Action::Admin)
                    // Who registered a machine client has named this consumer for it, by which its token was let in.
                    || (matches!(principal.caller, Caller::Client(_)) && principal.consumer == Some(self.consumer.id))
            }
            Scope::User(user) => principal.user() == Some(*user),
        }
    }
}
