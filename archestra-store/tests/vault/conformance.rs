//! The conformance suite on both versions of the KV secrets engine, and as each way to log in may use them.

use crate::{
    methods::{self, Method},
    support::{mount, root, store},
};
use archestra_core::{
    secret::{Expect, SecretStore},
    testing::{conformance::secret_store, fixtures},
};
use archestra_store::{KvVersion, VaultStore};
use std::{sync::Arc, time::Duration};

archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_2,
    async { Arc::new(store(2).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_1,
    async { Arc::new(store(1).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_2_cached,
    async {
        let mut config = root(&mount(2).await);
        config.cache_for = Duration::from_secs(60);
        Arc::new(VaultStore::connect(&config).await.unwrap())
    }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_2_by_token,
    async { Arc::new(methods::store(Method::Token, 2).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_1_by_token,
    async { Arc::new(methods::store(Method::Token, 1).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_2_by_token_file,
    async { Arc::new(methods::store(Method::TokenFile, 2).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_1_by_token_file,
    async { Arc::new(methods::store(Method::TokenFile, 1).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_2_by_app_role,
    async { Arc::new(methods::store(Method::AppRole, 2).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_1_by_app_role,
    async { Arc::new(methods::store(Method::AppRole, 1).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_2_by_jwt,
    async { Arc::new(methods::store(Method::Jwt, 2).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_1_by_jwt,
    async { Arc::new(methods::store(Method::Jwt, 1).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_2_by_kubernetes,
    async { Arc::new(methods::store(Method::Kubernetes, 2).await) }
);
archestra_core::secret_store_conformance!(
    #[ignore = "needs OpenBao"]
    version_1_by_kubernetes,
    async { Arc::new(methods::store(Method::Kubernetes, 1).await) }
);
archestra_core::secret_store_pair_conformance!(
    #[ignore = "needs OpenBao"]
    version_2_pair,
    async {
        let config = root(&mount(2).await);
        let first = VaultStore::connect(&config).await.unwrap();
        (Arc::new(first) as _, Arc::new(VaultStore::connect(&config).await.unwrap()) as _)
    }
);

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn what_one_handle_writes_another_one_reads_on_version_1() {
    let config = root(&mount(1).await);
    let first: Arc<dyn SecretStore> = Arc::new(VaultStore::connect(&config).await.unwrap());
    let second: Arc<dyn SecretStore> = Arc::new(VaultStore::connect(&config).await.unwrap());
    secret_store::another_handle_reads_what_was_written(&first, &second).await;
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_mount_that_wants_expectations_gets_them() {
    let mount = mount(2).await;
    crate::support::admin("POST", &format!("{mount}/config"), serde_json::json!({"cas_required": true})).await;
    let store = VaultStore::connect(&root(&mount)).await.unwrap();
    assert_eq!(store.kv_version(), KvVersion::V2);
    let reference = fixtures::secret_ref("entry/a/1");
    for n in ["1", "2"] {
        let version = store.put(&reference, &fixtures::bundle(&[("n", n)]), Expect::Any).await.unwrap();
        assert_eq!(version.0.to_string(), n);
    }
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn removal_leaves_no_version() {
    let mount = mount(2).await;
    let store = VaultStore::connect(&root(&mount)).await.unwrap();
    let reference = fixtures::secret_ref("entry/a/1");
    for n in ["1", "2"] {
        store.put(&reference, &fixtures::bundle(&[("n", n)]), Expect::Any).await.unwrap();
    }
    store.remove(&reference).await.unwrap();
    for path in ["metadata/archestra/entry/a/1", "data/archestra/entry/a/1?version=1"] {
        let path = format!("{mount}/{path}");
        let token = crate::support::root_token();
        let (status, _) =
            crate::support::request(&crate::support::address(), &token, "GET", &path, serde_json::Value::Null).await;
        assert_eq!(status, 404, "{path}");
    }
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_wrong_mount_is_refused_with_the_remedy() {
    let mount = mount(2).await;
    for (named, expected, told) in [
        ("nothing-here", None, "mount a KV secrets engine"),
        ("cubbyhole", None, "of type cubbyhole"),
        (&*format!("{mount}/below"), None, "belongs to the prefix"),
        (&*mount, Some(KvVersion::V1), "set the version that it is"),
    ] {
        let mut config = root(named);
        config.kv = expected;
        let error = VaultStore::connect(&config).await.unwrap_err().to_string();
        assert!(error.contains(told), "{named}: {error}");
    }
}
