//! The API server as the operations on workloads use it: every call with a deadline, every write in our name.

use crate::{
    config::KubernetesConfig,
    error::{within, within_opt},
    names,
};
use archestra_core::Result;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, Preconditions, PropagationPolicy},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, sync::Arc};

/// A client with our limits.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) config: Arc<KubernetesConfig>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.config.namespace).finish_non_exhaustive()
    }
}

/// A kind of object that lives in a namespace.
pub(crate) trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + fmt::Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + fmt::Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
{
}

/// Whether a write is only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    DryRun,
    ForGood,
}

impl Cluster {
    pub(crate) fn api<K: Kind>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn find<K: Kind>(
        &self,
        operation: &'static str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<K>> {
        within_opt(self.config.call_timeout, operation, self.api::<K>(namespace).get(name)).await
    }

    /// Server-side apply. `None` is nothing to apply.
    pub(crate) async fn put<K: Kind>(
        &self,
        operation: &'static str,
        namespace: &str,
        object: &K,
        write: Write,
    ) -> Result<K> {
        let mut params = PatchParams::apply(names::FIELD_MANAGER).force().validation_strict();
        params.dry_run = write == Write::DryRun;
        let (api, name) = (self.api::<K>(namespace), object.name_any());
        within(self.config.call_timeout, operation, api.patch(&name, &params, &Patch::Apply(object))).await
    }

    /// The metadata of all objects that the selector finds.
    pub(crate) async fn list<K: Kind>(
        &self,
        operation: &'static str,
        namespace: &str,
        params: &ListParams,
    ) -> Result<Vec<PartialObjectMeta<K>>> {
        let listed =
            within(self.config.call_timeout, operation, self.api::<K>(namespace).list_metadata(params)).await?;
        Ok(listed.items)
    }

    /// Deletes exactly this object, not a later one of its name. What is gone already is fine.
    pub(crate) async fn delete<K: Kind>(
        &self,
        operation: &'static str,
        namespace: &str,
        found: &PartialObjectMeta<K>,
    ) -> Result<()> {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: found.uid().map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
            ..DeleteParams::default()
        };
        let (api, name) = (self.api::<K>(namespace), found.name_any());
        match within_opt(self.config.call_timeout, operation, api.delete(&name, &params)).await {
            // Another one has its name by now.
            Ok(_) | Err(archestra_core::Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes what the selector finds and `unwanted` picks.
    pub(crate) async fn delete_all<K: Kind>(
        &self,
        operation: &'static str,
        namespace: &str,
        params: &ListParams,
        unwanted: impl Fn(&PartialObjectMeta<K>) -> bool + Send,
    ) -> Result<()> {
        let mut found = self.list::<K>(operation, namespace, params).await?;
        found.retain(unwanted);
        for found in &found {
            self.delete(operation, namespace, found).await?;
        }
        Ok(())
    }
}
