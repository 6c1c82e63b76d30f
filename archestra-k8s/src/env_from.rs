//! Secrets and ConfigMaps that variables come from: whether an operator has opted them in, and for whom. What is in them is not
//! read here.

use crate::{
    cluster::{Cluster, Kind},
    error::within_opt,
    names::{self, ENV_FROM, MANAGED_BY, MANAGED_BY_KEY, TEAM, YES},
    validate::is_subdomain,
};
use archestra_core::{
    Finding, Result,
    catalog::{EnvFrom, EnvFromKind, Scope},
    runtime::WorkloadSpec,
};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use std::collections::BTreeMap;

/// Who a workload is for: what is one team's is read by that team's workloads only.
pub(crate) fn scope_of(spec: &WorkloadSpec) -> Scope {
    Scope::Teams(spec.team.into_iter().collect())
}

/// The places of the sources that this scope may not name in the namespace, and a finding for each. What is not there and what is
/// somebody else's are told alike.
pub(crate) async fn unknown(
    cluster: &Cluster,
    namespace: &str,
    who: &Scope,
    sources: &[EnvFrom],
) -> Result<Vec<(usize, Finding)>> {
    let mut known = BTreeMap::new();
    let mut unknown = Vec::new();
    for (n, EnvFrom { kind, name, .. }) in sources.iter().enumerate() {
        let key = (*kind, name.as_str());
        let may = match known.get(&key) {
            Some(may) => *may,
            None => may_read(cluster, namespace, who, key).await?,
        };
        known.insert(key, may);
        if !may {
            let reason =
                format!("there is no {} {name:?} in the namespace {namespace} that may be read here", kind.label());
            let remedy = format!(
                "name another; an operator opts one in by the label `{ENV_FROM}: \"{YES}\"`, for one team's workloads only with \
                 `{TEAM}: <id of the team>` beside it, or for all by `--workload-secrets`"
            );
            unknown.push((n, Finding::new("name", reason, remedy)));
        }
    }
    Ok(unknown)
}

async fn may_read(cluster: &Cluster, namespace: &str, who: &Scope, (kind, name): (EnvFromKind, &str)) -> Result<bool> {
    // What is no name would be a path, and lead elsewhere.
    if !is_subdomain(name) || names::is_of_workload(name) {
        return Ok(false);
    }
    if cluster.config.policy.may_read(kind, name) {
        return Ok(true);
    }
    let found = match kind {
        EnvFromKind::Secret => {
            metadata::<Secret>(cluster, "reading whether a Secret may be read", namespace, name).await
        }
        EnvFromKind::ConfigMap => {
            metadata::<ConfigMap>(cluster, "reading whether a ConfigMap may be read", namespace, name).await
        }
    };
    Ok(found?.is_some_and(|meta| is_opted_in(who, &meta)))
}

async fn metadata<K: Kind>(
    cluster: &Cluster,
    operation: &'static str,
    namespace: &str,
    name: &str,
) -> Result<Option<ObjectMeta>> {
    let api = cluster.api::<K>(namespace);
    let found = within_opt(cluster.config.call_timeout, operation, api.get_metadata(name)).await?;
    Ok(found.map(|found| found.metadata))
}

fn is_opted_in(who: &Scope, meta: &ObjectMeta) -> bool {
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    if label(ENV_FROM) != Some(YES) || label(MANAGED_BY_KEY) == Some(MANAGED_BY) || label(names::WORKLOAD).is_some() {
        return false;
    }
    match (who, label(TEAM)) {
        (_, None) | (Scope::Organization, Some(_)) => true,
        (Scope::Teams(teams), Some(team)) => teams.iter().any(|own| own.to_string() == team),
        (Scope::User(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_core::id::{TeamId, UserId};

    fn meta(labels: &[(&str, &str)]) -> ObjectMeta {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        ObjectMeta { labels: Some(labels.collect()), ..ObjectMeta::default() }
    }

    #[test]
    fn only_what_an_operator_opted_in_is_read_and_one_teams_by_that_team() {
        let (mine, other) = (TeamId::new(), TeamId::new());
        let unmarked = meta(&[]);
        let refused = meta(&[(ENV_FROM, "false")]);
        let everybodys = meta(&[(ENV_FROM, YES)]);
        let ours = meta(&[(ENV_FROM, YES), (TEAM, &mine.to_string())]);
        let reads = |who: &Scope| [&unmarked, &refused, &everybodys, &ours].map(|meta| is_opted_in(who, meta));
        assert_eq!(reads(&Scope::Organization), [false, false, true, true]);
        assert_eq!(reads(&Scope::Teams([other, mine].into())), [false, false, true, true]);
        assert_eq!(reads(&Scope::Teams([other].into())), [false, false, true, false]);
        assert_eq!(reads(&Scope::Teams([].into())), [false, false, true, false]);
        assert_eq!(reads(&Scope::User(UserId::new())), [false, false, true, false]);
    }

    #[test]
    fn what_was_made_for_a_workload_is_nobodys_whatever_its_label_says() {
        for own in [(MANAGED_BY_KEY, MANAGED_BY), (names::WORKLOAD, "mcp-a")] {
            assert!(!is_opted_in(&Scope::Organization, &meta(&[(ENV_FROM, YES), own])), "{own:?}");
        }
    }
}
