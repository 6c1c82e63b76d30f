//! What the platform adds to a workload by itself: resolved when a revision is made, stored with it, and read back from there.

use crate::config::{ImagePullPolicy, KubernetesConfig};
use archestra_core::{Error, Result, runtime::scheduling::Scheduling};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

const BASE_IMAGE: &str = "baseImage";
const BRIDGE_IMAGE: &str = "bridgeImage";
const IMAGE_PULL_POLICY: &str = "imagePullPolicy";
const REQUESTS: &str = "requests";
const LIMITS: &str = "limits";
const RUN_AS_USER: &str = "runAsUser";
const SCHEDULING: &str = "scheduling";
const TEMPLATE: &str = "template";

/// What we generate by ourselves, apart from what the configuration says: changed with a new one only, so that an upgrade rolls
/// nothing that was made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Template {
    /// A pod behind a bridge has 10 s to end, and the bridge does not drain. Revisions that do not say have it.
    One,
    /// A pod behind a bridge has 30 s, in which calls under way finish; every container has requests and limits.
    Two,
    /// What is generated is that of `Two`; whose ConfigMaps deployment YAML reads is looked at.
    Three,
}

impl Template {
    /// That of revisions that are made now.
    pub(crate) const TODAY: Self = Self::Three;

    const fn label(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
            Self::Three => "3",
        }
    }

    fn stored(stored: &BTreeMap<String, String>) -> Result<Self> {
        match stored.get(TEMPLATE) {
            // Nothing has been made of it earlier.
            None if stored.is_empty() => Ok(Self::TODAY),
            None => Ok(Self::One),
            Some(label) => {
                let known = [Self::One, Self::Two, Self::Three].into_iter().find(|one| one.label() == label);
                known.ok_or_else(|| unreadable(TEMPLATE))
            }
        }
    }
}

/// What a pod template takes from the platform and not from its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    pub(crate) base_image: String,
    pub(crate) bridge_image: String,
    pub(crate) image_pull_policy: Option<ImagePullPolicy>,
    pub(crate) requests: BTreeMap<String, String>,
    pub(crate) limits: BTreeMap<String, String>,
    pub(crate) run_as_user: i64,
    pub(crate) scheduling: Scheduling,
    pub(crate) template: Template,
}

impl Platform {
    /// What a revision that is made now stores. Scheduling that is not known yet is left out.
    pub(crate) fn today<'a>(
        config: &KubernetesConfig,
        scheduling: impl Into<Option<&'a Scheduling>>,
    ) -> BTreeMap<String, String> {
        let policy = config.image_pull_policy.map_or("", ImagePullPolicy::label);
        let scheduling = scheduling.into().map(|scheduling| (SCHEDULING, json(scheduling)));
        let rest = [
            (BASE_IMAGE, config.base_image.clone()),
            (BRIDGE_IMAGE, config.bridge_image.clone()),
            (IMAGE_PULL_POLICY, policy.to_owned()),
            (REQUESTS, json(&config.requests)),
            (LIMITS, json(&config.limits)),
            (RUN_AS_USER, config.run_as_user.to_string()),
            (TEMPLATE, Template::TODAY.label().to_owned()),
        ];
        rest.into_iter().chain(scheduling).map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// What a revision has stored, and what the platform would add now for keys that it has not.
    pub(crate) fn stored(stored: &BTreeMap<String, String>, config: &KubernetesConfig) -> Result<Self> {
        let text = |key: &str, now: &str| stored.get(key).map_or(now, String::as_str).to_owned();
        let image_pull_policy = match stored.get(IMAGE_PULL_POLICY).map(String::as_str) {
            None => config.image_pull_policy,
            Some("") => None,
            Some(word) => Some(word.parse().map_err(|_| unreadable(IMAGE_PULL_POLICY))?),
        };
        let run_as_user = match stored.get(RUN_AS_USER) {
            None => config.run_as_user,
            Some(text) => text.parse().map_err(|_| unreadable(RUN_AS_USER))?,
        };
        Ok(Self {
            base_image: text(BASE_IMAGE, &config.base_image),
            bridge_image: text(BRIDGE_IMAGE, &config.bridge_image),
            image_pull_policy,
            requests: read(stored, REQUESTS)?.unwrap_or_else(|| config.requests.clone()),
            limits: read(stored, LIMITS)?.unwrap_or_else(|| config.limits.clone()),
            run_as_user,
            scheduling: read(stored, SCHEDULING)?.unwrap_or_default(),
            template: Template::stored(stored)?,
        })
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and maps of them are always JSON")
}

fn read<T: DeserializeOwned>(stored: &BTreeMap<String, String>, key: &'static str) -> Result<Option<T>> {
    stored.get(key).map(|text| serde_json::from_str(text).map_err(|_| unreadable(key))).transpose()
}

fn unreadable(key: &'static str) -> Error {
    Error::invalid(
        format!("platform.{key}"),
        "what the platform stored with this revision cannot be read",
        "update the installation, so that a new revision is made",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_whatever_the_configuration_says_later() {
        let scheduling = Scheduling {
            node_selector: Some(BTreeMap::from([("disk".to_owned(), "ssd".to_owned())])),
            tolerations: Some(Vec::new()),
        };
        let config = KubernetesConfig::default();
        let stored = Platform::today(&config, &scheduling);
        let then = Platform::stored(&stored, &config).unwrap();
        assert_eq!(then.scheduling, scheduling);
        let changed = KubernetesConfig {
            base_image: "other:2".to_owned(),
            bridge_image: "other-bridge:2".to_owned(),
            image_pull_policy: Some(ImagePullPolicy::Always),
            requests: BTreeMap::new(),
            limits: BTreeMap::new(),
            run_as_user: 1000,
            ..KubernetesConfig::default()
        };
        assert_eq!(Platform::stored(&stored, &changed).unwrap(), then);
    }

    #[test]
    fn what_is_not_stored_comes_from_the_configuration() {
        let config = KubernetesConfig { run_as_user: 1000, ..KubernetesConfig::default() };
        let platform = Platform::stored(&BTreeMap::new(), &config).unwrap();
        assert_eq!(platform.base_image, config.base_image);
        assert_eq!((platform.run_as_user, platform.scheduling), (1000, Scheduling::default()));
    }

    #[test]
    fn revisions_that_do_not_say_were_made_with_the_first_template() {
        let config = KubernetesConfig::default();
        let mut stored = Platform::today(&config, &Scheduling::default());
        let template = |stored: &BTreeMap<String, String>| Platform::stored(stored, &config).unwrap().template;
        assert_eq!(template(&stored), Template::TODAY);
        stored.insert(TEMPLATE.to_owned(), "2".to_owned());
        assert_eq!(template(&stored), Template::Two);
        stored.remove(TEMPLATE);
        assert_eq!(template(&stored), Template::One);
        assert_eq!(template(&BTreeMap::new()), Template::TODAY, "what was not made yet is made as of today");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for key in [REQUESTS, LIMITS, SCHEDULING, RUN_AS_USER, IMAGE_PULL_POLICY, TEMPLATE] {
            let stored = BTreeMap::from([(key.to_owned(), "{".to_owned())]);
            let error = Platform::stored(&stored, &KubernetesConfig::default()).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
