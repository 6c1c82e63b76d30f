//! The environment, read once: nothing below this reads it again.

use std::collections::BTreeMap;

/// What every variable of ours begins with.
pub(crate) const PREFIX: &str = "ARCHESTRA_";

/// The variables of the process whose names and values are text.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// As it is now.
    pub(crate) fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// The value of a variable. An empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether any variable begins with this and has a value.
    pub(crate) fn has_any(&self, prefix: &str) -> Option<&str> {
        self.0.iter().find(|(name, value)| name.starts_with(prefix) && !value.is_empty()).map(|(name, _)| name.as_str())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// Values are not shown: some are secret.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
