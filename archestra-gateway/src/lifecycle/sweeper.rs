//! Sweeps secrets that no row names, from time to time and beside the reconciler: a store may take long to list what it has.

use super::Lifecycle;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

const EVERY: Duration = Duration::from_secs(3600);
/// The pause after a sweep that failed.
const AGAIN: Duration = Duration::from_secs(300);

impl Lifecycle {
    /// Sweeps until the lifecycle is shut down, one sweep at a time.
    pub(super) fn sweeping(&self) -> AbortOnDropHandle<()> {
        let (this, stop) = (self.clone(), self.inner.stop.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            stop.run_until_cancelled(this.sweep_forever()).await;
        }))
    }

    async fn sweep_forever(&self) {
        loop {
            let pause = match self.sweep().await {
                Ok(0) => EVERY,
                Ok(removed) => {
                    tracing::info!(removed, "secrets that no row names were removed");
                    EVERY
                }
                Err(error) => {
                    tracing::warn!(%error, "secrets could not be swept; it is tried again later");
                    AGAIN
                }
            };
            sleep(pause).await;
        }
    }
}
