//! The secret values that an entry fixes: taken out of it before it is stored, and the keys they are stored under.

use super::{CredentialModel, EntrySpec, FixedValue, PullSecret, value::Secrecy};
use crate::secret::SecretBundle;
use std::collections::BTreeSet;

impl EntrySpec {
    /// Takes every fixed secret value out, so that it can be stored elsewhere; each is replaced by [`FixedValue::Stored`].
    ///
    /// The keys are `env.<NAME>`, `field.<name>`, those of [`PullSecret::password_key`], `oauth.clientSecret`,
    /// `clientCredentials.clientSecret` and `enterprise.resourceClient.clientSecret`.
    pub fn take_secrets(&mut self) -> SecretBundle {
        let mut bundle = SecretBundle::new();
        for Fixed { key, secrecy, value } in self.fixed_values() {
            let taken = match value {
                Some(FixedValue::Secret(secret)) => secret.clone(),
                // A program may have set it as if it could be seen.
                Some(FixedValue::Plain(text)) if secrecy == Secrecy::Secret => std::mem::take(text).into(),
                Some(FixedValue::Plain(_) | FixedValue::Stored) | None => continue,
            };
            *value = Some(FixedValue::Stored);
            bundle.insert(key, taken);
        }
        bundle
    }

    /// The keys of all secrets that are marked [`FixedValue::Stored`]; the entry's bundle must hold each.
    #[must_use]
    pub fn stored_secret_keys(&self) -> BTreeSet<String> {
        let mut copy = self.clone();
        let stored = copy.fixed_values().into_iter().filter(|fixed| matches!(fixed.value, Some(FixedValue::Stored)));
        stored.map(|fixed| fixed.key).collect()
    }

    fn fixed_values(&mut self) -> Vec<Fixed<'_>> {
        let mut all = Vec::new();
        match &mut self.credential {
            CredentialModel::Static(fields) => all.extend(fields.iter_mut().map(|field| Fixed {
                key: format!("field.{}", field.name),
                secrecy: Secrecy::of(field.secret),
                value: &mut field.value,
            })),
            CredentialModel::OAuth(config) => {
                all.push(Fixed::secret("oauth.clientSecret".to_owned(), &mut config.client_secret));
            }
            CredentialModel::ClientCredentials(config) => {
                all.push(Fixed::secret("clientCredentials.clientSecret".to_owned(), &mut config.client_secret));
            }
            CredentialModel::Enterprise(config) => {
                all.extend(config.resource_client.iter_mut().map(|client| {
                    let key = "enterprise.resourceClient.clientSecret".to_owned();
                    Fixed::secret(key, &mut client.client_secret)
                }));
            }
            CredentialModel::None | CredentialModel::JwtPassthrough => {}
        }
        let Some(hosted) = &mut self.self_hosted else { return all };
        all.extend(hosted.env.iter_mut().map(|var| Fixed {
            key: format!("env.{}", var.name),
            secrecy: Secrecy::of(var.secret),
            value: &mut var.value,
        }));
        for pull in &mut hosted.image_pull_secrets {
            if let Some(key) = pull.password_key()
                && let PullSecret::Credentials { password, .. } = pull
            {
                all.push(Fixed::secret(key, password));
            }
        }
        all
    }
}

/// A place in an entry that may hold a fixed value.
struct Fixed<'a> {
    key: String,
    secrecy: Secrecy,
    value: &'a mut Option<FixedValue>,
}

impl<'a> Fixed<'a> {
    fn secret(key: String, value: &'a mut Option<FixedValue>) -> Self {
        Self { key, secrecy: Secrecy::Secret, value }
    }
}
