//! Who a user is at an identity provider.

use crate::{
    Finding, Validate,
    catalog::visible_finding,
    id::{IdentityProviderId, LinkedIdentityId, UserId},
    secret::SecretRef,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// That somebody at an identity provider is a user here. Unique for provider and subject; it outlives changes of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LinkedIdentity {
    /// The identifier.
    pub id: LinkedIdentityId,
    /// The user here.
    pub user: UserId,
    /// The provider.
    pub provider: IdentityProviderId,
    /// `sub` of the provider's tokens, byte for byte.
    pub subject: String,
    /// Where the tokens of the user's last login there are kept, for exchanges on the user's behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SecretRef>,
    /// When it was linked.
    pub created_at: DateTime<Utc>,
}

impl Validate for LinkedIdentity {
    fn findings(&self) -> Vec<Finding> {
        visible_finding("subject", &self.subject, "a subject").into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_subject_is_something_and_all_survives_json() {
        let id = "0190a000-0000-7000-8000-000000000001";
        let stored = json!({
            "id": id, "user": id, "provider": id, "subject": "00u1|a", "session": "links/x",
            "createdAt": "2026-11-20T00:00:00Z",
        });
        let linked: LinkedIdentity = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!((linked.findings(), serde_json::to_value(&linked).unwrap()), (Vec::new(), stored));
        for subject in ["", " ", "a\nb", "ä"] {
            let fields: Vec<_> = LinkedIdentity { subject: subject.to_owned(), ..linked.clone() }
                .findings()
                .into_iter()
                .map(|finding| finding.field)
                .collect();
            assert_eq!(fields, ["subject"], "{subject:?}");
        }
    }
}
