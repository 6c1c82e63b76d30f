//! The image pull secrets that may be chosen, with the registries they are for and never what is in them.

use crate::{cluster::Cluster, error::within, names};
use archestra_core::{Result, catalog::Scope, runtime::PullSecret};
use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt as _, api::ListParams};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

const TYPE: &str = "kubernetes.io/dockerconfigjson";
const KEY: &str = ".dockerconfigjson";

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, IgnoredAny>,
}

/// Those that this scope may use: all of them for the organization, else those of its teams and those an operator gave to
/// everybody.
pub(crate) async fn pull_secrets(cluster: &Cluster, who: &Scope) -> Result<Vec<PullSecret>> {
    let params =
        ListParams::default().labels(&format!("{}={}", names::PULL_SECRET, names::YES)).fields(&format!("type={TYPE}"));
    let secrets = cluster.api::<Secret>(&cluster.config.namespace);
    let listed = within(cluster.config.call_timeout, "listing pull secrets", secrets.list(&params)).await?;
    let instance = cluster.config.instance.as_deref();
    let mut visible = listed.items;
    visible.retain(|secret| {
        secret.type_.as_deref() == Some(TYPE) && !is_another_platforms(secret, instance) && may_use(who, secret)
    });
    Ok(visible.iter().map(|secret| PullSecret { name: secret.name_any(), servers: servers(secret) }).collect())
}

fn may_use(who: &Scope, secret: &Secret) -> bool {
    let labels = secret.labels();
    let team = labels.get(names::TEAM);
    // One that we made for a personal installation has no team and is nobody else's.
    let everybodys = team.is_none() && !is_made(secret);
    match who {
        Scope::Organization => true,
        Scope::Teams(teams) => everybodys || team.is_some_and(|team| teams.iter().any(|own| own.to_string() == *team)),
        Scope::User(_) => everybodys,
    }
}

/// Whether a platform made it, and not an operator.
fn is_made(secret: &Secret) -> bool {
    secret.labels().get(names::MANAGED_BY_KEY).is_some_and(|by| by == names::MANAGED_BY)
}

fn is_another_platforms(secret: &Secret, instance: Option<&str>) -> bool {
    is_made(secret) && !names::is_of_instance(&secret.metadata, instance)
}

fn servers(secret: &Secret) -> Vec<String> {
    let config = secret.data.as_ref().and_then(|data| data.get(KEY));
    let parsed = config.and_then(|config| serde_json::from_slice::<DockerConfig>(&config.0).ok());
    parsed.map(|config| config.auths.into_keys().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_core::id::{TeamId, UserId};
    use k8s_openapi::ByteString;

    fn secret(labels: &[(&str, &str)]) -> Secret {
        let mut secret = Secret::default();
        for (key, value) in labels {
            secret.labels_mut().insert((*key).to_owned(), (*value).to_owned());
        }
        secret
    }

    #[test]
    fn a_team_uses_its_own_and_everybodys() {
        let (mine, other) = (TeamId::new(), TeamId::new());
        let everybodys = secret(&[(names::PULL_SECRET, "true")]);
        let ours = secret(&[(names::TEAM, &mine.to_string()), (names::MANAGED_BY_KEY, names::MANAGED_BY)]);
        let personal = secret(&[(names::MANAGED_BY_KEY, names::MANAGED_BY)]);
        let uses = |who: &Scope| [&everybodys, &ours, &personal].map(|secret| may_use(who, secret));
        assert_eq!(uses(&Scope::Organization), [true, true, true]);
        assert_eq!(uses(&Scope::Teams([mine].into())), [true, true, false]);
        assert_eq!(uses(&Scope::Teams([other].into())), [true, false, false]);
        assert_eq!(uses(&Scope::User(UserId::new())), [true, false, false]);
    }

    #[test]
    fn what_another_platform_made_is_not_offered() {
        let operators = secret(&[(names::PULL_SECRET, "true")]);
        let made = |instance| secret(&[(names::MANAGED_BY_KEY, names::MANAGED_BY), (names::INSTANCE, instance)]);
        let theirs = [operators, made("one"), made("two")].map(|secret| is_another_platforms(&secret, Some("one")));
        assert_eq!(theirs, [false, false, true]);
        assert!(!is_another_platforms(&made("two"), None));
    }

    #[test]
    fn only_the_names_of_registries_are_read() {
        let config = br#"{"auths": {"registry.example.com": {"auth": "czNjcmV0"}, "b.example.com": {}}}"#;
        let mut secret = secret(&[]);
        secret.data = Some([(KEY.to_owned(), ByteString(config.to_vec()))].into());
        assert_eq!(servers(&secret), ["b.example.com", "registry.example.com"]);
        secret.data = Some([(KEY.to_owned(), ByteString(b"nonsense".to_vec()))].into());
        assert!(servers(&secret).is_empty());
    }
}
