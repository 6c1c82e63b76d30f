//! Names of workloads are DNS labels.

use super::WorkloadId;
use crate::id::{EntryId, InstallationId};
use proptest::prelude::*;
use uuid::Uuid;

fn is_dns_label(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(|c| ends(c) || c == '-')
        && text.chars().next().is_some_and(ends)
        && text.chars().last().is_some_and(ends)
}

proptest! {
    #[test]
    fn a_minted_name_is_a_label_that_begins_with_a_letter_and_parses(id in any::<u128>()) {
        let uuid = Uuid::from_u128(id);
        let names = [WorkloadId::of_installation(InstallationId::from_uuid(uuid)), WorkloadId::of_entry(EntryId::from_uuid(uuid))];
        prop_assert_ne!(&names[0], &names[1]);
        for name in names {
            // Names of Services begin with a letter; room stays for what a runtime appends.
            prop_assert!(is_dns_label(name.as_str()) && name.as_str().starts_with("mcp-") && name.as_str().len() <= 50);
            prop_assert_eq!(&name.as_str().parse::<WorkloadId>().unwrap(), &name);
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(&serde_json::from_str::<WorkloadId>(&json).unwrap(), &name);
        }
    }

    #[test]
    fn a_text_is_a_name_exactly_when_it_is_a_label(text in prop_oneof!["[a-z0-9-]{0,65}", "[a-zA-Z0-9._-]{0,10}", any::<String>()]) {
        prop_assert_eq!(text.parse::<WorkloadId>().is_ok(), is_dns_label(&text));
    }
}
