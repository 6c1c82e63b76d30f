//! The Kubernetes runtime on a real cluster, as an account that has the Roles this crate ships and nothing else.
//!
//! `ARCHESTRA_TEST_KUBECONFIG` names a kubeconfig of an administrator; the cluster needs the images that `.ci/k8s-images` makes,
//! under these names or those in `ARCHESTRA_TEST_ECHO_IMAGE` and `ARCHESTRA_TEST_BRIDGE_IMAGE`.

#[cfg(test)]
mod real_cluster {
    mod access;
    mod adoption;
    mod drift;
    mod env_from;
    mod leftovers;
    mod objects;
    mod peers;
    mod permissions;
    mod reach;
    mod refusals;
    pub(crate) mod space;
}

#[cfg(test)]
use archestra_core::testing::conformance::runtime::RuntimeFixture;
#[cfg(test)]
use real_cluster::space::{LIMIT, Space};
#[cfg(test)]
use std::sync::Arc;

archestra_core::runtime_conformance!(
    #[ignore = "needs a Kubernetes cluster"]
    bridge,
    over_the_bridge()
);
archestra_core::runtime_conformance!(
    #[ignore = "needs a Kubernetes cluster"]
    attach,
    attached()
);

/// Servers whose command is known.
#[cfg(test)]
async fn over_the_bridge() -> RuntimeFixture {
    let space = Space::new().await;
    let runtime = Arc::new(space.runtime().await);
    RuntimeFixture::new(runtime, space.spec(&["/mcp-echo"], &[]))
        .started_line("mcp-echo is up")
        .exits(space.spec(&["/mcp-echo"], &["exit", "3"]))
        .missing(space.spec(&["/no-such-command"], &[]))
        .silent(space.spec(&["/mcp-echo"], &["silent"]))
        .limit(LIMIT)
        .keeping(space)
}

/// Servers that their image starts by itself.
#[cfg(test)]
async fn attached() -> RuntimeFixture {
    let space = Space::new().await;
    let runtime = Arc::new(space.runtime().await);
    let mut missing = space.spec(&[], &[]);
    missing.image = Some("localhost/no-such-image:1".to_owned());
    RuntimeFixture::new(runtime, space.spec(&[], &[]))
        .started_line("mcp-echo is up")
        .exits(space.spec(&[], &["exit", "3"]))
        .missing(missing)
        .limit(LIMIT)
        .keeping(space)
}
