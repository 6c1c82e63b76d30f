//! One operation at a time for each workload, within this process.

use archestra_core::runtime::WorkloadId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// So many forgotten turns are kept before they are cleared away.
const KEPT: usize = 256;

/// The turns of all workloads that somebody operates on.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<WorkloadId, Weak<AsyncMutex<()>>>>);

impl Turns {
    /// Waits for the workload's turn and has it until the guard is dropped. Whoever has it awaits calls with a deadline only.
    pub(crate) async fn take(&self, id: &WorkloadId) -> OwnedMutexGuard<()> {
        let turn = self.turn(id);
        turn.lock_owned().await
    }

    fn turn(&self, id: &WorkloadId) -> Arc<AsyncMutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= KEPT {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(AsyncMutex::new(()));
        turns.insert(id.clone(), Arc::downgrade(&turn));
        turn
    }
}
