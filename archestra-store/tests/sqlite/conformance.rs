//! The conformance suites on a file, in memory, and on two handles of one file.

use crate::support::{file, memory, pair, ring};
use archestra_store::SqlSecrets;
use std::sync::Arc;

archestra_core::catalog_store_conformance!(catalog_file, async { Arc::new(file().await) });
archestra_core::catalog_store_conformance!(catalog_memory, async { Arc::new(memory().await) });
archestra_core::catalog_store_pair_conformance!(catalog_pair, async {
    let (first, second) = pair().await;
    (Arc::new(first) as _, Arc::new(second) as _)
});

archestra_core::identity_store_conformance!(identity_file, async { Arc::new(file().await) });
archestra_core::identity_store_conformance!(identity_memory, async { Arc::new(memory().await) });

archestra_core::state_store_conformance!(state_file, async { Arc::new(file().await) });
archestra_core::state_store_conformance!(state_memory, async { Arc::new(memory().await) });

archestra_core::audit_sink_conformance!(audit_file, async { Arc::new(file().await) });
archestra_core::audit_sink_conformance!(audit_memory, async { Arc::new(memory().await) });

archestra_core::secret_store_conformance!(secrets_file, async { Arc::new(SqlSecrets::new(&file().await, ring())) });
archestra_core::secret_store_conformance!(secrets_memory, async { Arc::new(SqlSecrets::new(&memory().await, ring())) });

archestra_core::identity_store_pair_conformance!(identity_pair, async {
    let (first, second) = pair().await;
    (Arc::new(first) as _, Arc::new(second) as _)
});
archestra_core::state_store_pair_conformance!(state_pair, async {
    let (first, second) = pair().await;
    (Arc::new(first) as _, Arc::new(second) as _)
});
archestra_core::secret_store_pair_conformance!(secrets_pair, async {
    let ((first, second), ring) = (pair().await, ring());
    (Arc::new(SqlSecrets::new(&first, Arc::clone(&ring))) as _, Arc::new(SqlSecrets::new(&second, ring)) as _)
});
