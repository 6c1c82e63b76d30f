//! Snapshots, and what becomes of one after each change, with all that it does not touch as it was.

use super::{
    ConsumerRoute, Snapshot,
    mirror::{Affected, Mirror, RouteParts},
};
use std::sync::Arc;

impl Snapshot {
    /// All that the mirror holds.
    #[cfg(test)]
    pub(super) fn whole(mirror: &mut Mirror, parts: &RouteParts) -> Self {
        let ids: Vec<_> = mirror.consumer_ids().collect();
        let mut whole = Self::default();
        for id in ids {
            whole.put(mirror.build(id, parts));
        }
        whole
    }

    /// The snapshot after changes that the mirror has taken in, with all that they do not touch as it is; `None` when they
    /// touch nothing.
    pub(super) fn after(&self, mirror: &mut Mirror, affected: Affected, parts: &RouteParts) -> Option<Self> {
        let Affected { consumers, rules, .. } = affected;
        let concerned = mirror.concerned(&rules).into_iter().filter(|id| !consumers.contains(id));
        let present = concerned.filter_map(|id| self.by_id.get(&id));
        let judged: Vec<_> = present.filter_map(|route| mirror.judged_anew(route, &rules)).collect();
        if consumers.is_empty() && judged.is_empty() {
            return None;
        }
        let mut next = Self { by_slug: self.by_slug.clone(), by_id: self.by_id.clone() };
        // First all that goes: one commit may give the slug of a removed consumer to a new one.
        for id in &consumers {
            if let Some(before) = next.by_id.remove(id) {
                next.by_slug.remove(before.consumer.spec.slug.as_str());
            }
        }
        for id in consumers {
            next.put(mirror.build(id, parts));
        }
        for route in judged {
            next.put(Some(route));
        }
        Some(next)
    }

    /// Takes a route in, if there is one.
    pub(super) fn put(&mut self, route: Option<Arc<ConsumerRoute>>) {
        if let Some(route) = route {
            self.by_slug.insert(route.consumer.spec.slug.as_str().into(), Arc::clone(&route));
            self.by_id.insert(route.consumer.id, route);
        }
    }
}
