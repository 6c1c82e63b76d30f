//! The conformance suites on one handle and on two.

use crate::support::{pair, store};

archestra_core::catalog_store_conformance!(
    #[ignore = "needs a PostgreSQL server"]
    catalog,
    async { store().await }
);
archestra_core::catalog_store_pair_conformance!(
    #[ignore = "needs a PostgreSQL server"]
    catalog_pair,
    async {
        let (first, second) = pair().await;
        (first as _, second as _)
    }
);

archestra_core::identity_store_conformance!(
    #[ignore = "needs a PostgreSQL server"]
    identity,
    async { store().await }
);
archestra_core::identity_store_pair_conformance!(
    #[ignore = "needs a PostgreSQL server"]
    identity_pair,
    async {
        let (first, second) = pair().await;
        (first as _, second as _)
    }
);

archestra_core::state_store_conformance!(
    #[ignore = "needs a PostgreSQL server"]
    state,
    async { store().await }
);
archestra_core::state_store_pair_conformance!(
    #[ignore = "needs a PostgreSQL server"]
    state_pair,
    async {
        let (first, second) = pair().await;
        (first as _, second as _)
    }
);

archestra_core::audit_sink_conformance!(
    #[ignore = "needs a PostgreSQL server"]
    audit,
    async { store().await }
);

archestra_core::secret_store_conformance!(
    #[ignore = "needs a PostgreSQL server"]
    secrets,
    async { crate::support::secrets().await }
);
archestra_core::secret_store_pair_conformance!(
    #[ignore = "needs a PostgreSQL server"]
    secrets_pair,
    async {
        let (first, second) = crate::support::secrets_pair().await;
        (first as _, second as _)
    }
);
