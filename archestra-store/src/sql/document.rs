//! Reading the documents of records: whole, or not at all.
//!
//! Types that people fill in refuse fields that they do not know, but most of what is stored would be read without them. A newer
//! version may say in a new field what restricts a record, as a condition of a rule or that a token is suspended: an older replica
//! that went by the rest would allow more, and one that wrote the record back would drop what it did not read. So a document is
//! read only if nothing of it is left over. Whoever adds a field leaves it out where it says nothing
//! (`skip_serializing_if`): then all documents stay readable that do not use it, while replicas of both versions run.

use serde::{Serialize, de::DeserializeOwned, de::Error as _};
use serde_json::{Error, Result, Value, error::Category};

/// The longest name of a field that a reason repeats.
const LONGEST_NAME: usize = 64;

/// Reads a document of which nothing is left over.
pub(super) fn read<T: Serialize + DeserializeOwned>(doc: &str) -> Result<T> {
    let value: T = serde_json::from_str(doc)?;
    // What this version wrote it writes again, letter for letter.
    if serde_json::to_string(&value)? == doc {
        return Ok(value);
    }
    // An older one wrote what is a default by now, or wrote it in another order.
    let (stored, known): (Value, Value) = (serde_json::from_str(doc)?, serde_json::to_value(&value)?);
    match left_over(&stored, &known) {
        None => Ok(value),
        Some(field) => Err(Error::custom(format_args!("unknown field `{field}`"))),
    }
}

/// A field that is stored and says something, and is not known.
fn left_over<'a>(stored: &'a Value, known: &Value) -> Option<&'a str> {
    match (stored, known) {
        (Value::Object(stored), Value::Object(known)) => {
            stored.iter().find_map(|(name, stored)| match known.get(name) {
                _ if stored.is_null() => None,
                Some(known) => left_over(stored, known),
                None => Some(name.as_str()),
            })
        }
        (Value::Array(stored), Value::Array(known)) => {
            stored.iter().zip(known).find_map(|(stored, known)| left_over(stored, known))
        }
        _ => None,
    }
}

/// Why a document cannot be read, for the log: what is in it may be nobody's business, so that only names of fields are repeated.
pub(super) fn why(error: &Error) -> String {
    let text = error.to_string();
    for what in ["unknown field `", "missing field `", "duplicate field `"] {
        if let Some((name, _)) = text.strip_prefix(what).and_then(|rest| rest.split_once('`')) {
            let name: String = name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
            return format!("{what}{name}`");
        }
    }
    let what = match error.classify() {
        Category::Data => "a value in it is not one that this version knows",
        Category::Syntax | Category::Eof | Category::Io => "it is no JSON",
    };
    match error.column() {
        0 => what.to_owned(),
        column => format!("{what} (column {column})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_core::{
        catalog::Entry,
        identity::{Team, User},
        policy::{Condition, Operator, Policy},
        testing::fixtures,
    };
    use serde_json::json;

    fn changed<T: Serialize>(value: &T, change: impl FnOnce(&mut Value)) -> String {
        let mut doc = serde_json::to_value(value).unwrap();
        change(&mut doc);
        doc.to_string()
    }

    fn refused<T: Serialize + DeserializeOwned>(doc: &str) -> String {
        read::<T>(doc).map(drop).map_err(|error| why(&error)).unwrap_err()
    }

    #[test]
    fn what_a_newer_version_says_is_not_left_out() {
        let mut policy = fixtures::policy("rule");
        policy.spec.conditions = vec![Condition {
            path: "/a".to_owned(),
            operator: Operator::Equals,
            value: Some(json!({"b": null, "c": [1]})),
        }];
        assert_eq!(read::<Policy>(&serde_json::to_string(&policy).unwrap()).unwrap(), policy);
        let unknown = "unknown field `newer`";
        assert_eq!(refused::<Policy>(&changed(&policy, |doc| doc["newer"] = json!(["x"]))), unknown);
        assert_eq!(refused::<Policy>(&changed(&policy, |doc| doc["conditions"][0]["newer"] = json!(1))), unknown);
        let entry = fixtures::self_hosted_entry("files", &["x"]);
        assert_eq!(refused::<Entry>(&changed(&entry, |doc| doc["newer"] = json!(false))), unknown);
        assert_eq!(refused::<Entry>(&changed(&entry, |doc| doc["selfHosted"]["newer"] = json!({}))), unknown);
        assert_eq!(refused::<User>(&changed(&fixtures::user("a@b"), |doc| doc["newer"] = json!(true))), unknown);
    }

    #[test]
    fn what_an_older_version_left_out_or_wrote_down_is_read() {
        let user = fixtures::user("a@b");
        let team = fixtures::team("finance", [&user]);
        let older = changed(&team, |doc| {
            doc.as_object_mut().unwrap().remove("priority");
            doc["applySet"] = Value::Null;
        });
        assert_eq!(read::<Team>(&older).unwrap().members, team.members);
    }

    #[test]
    fn a_reason_repeats_no_value() {
        let policy = fixtures::policy("rule");
        for doc in [
            changed(&policy, |doc| doc["action"] = json!("canary")),
            changed(&policy, |doc| doc["priority"] = json!("canary")),
            changed(&policy, |doc| doc["id"] = json!("canary")),
            "{\"name\": \"canary\"".to_owned(),
            "canary".to_owned(),
        ] {
            let reason = refused::<Policy>(&doc);
            assert!(!reason.contains("canary"), "{reason}");
        }
        let missing = changed(&policy, |doc| drop(doc.as_object_mut().unwrap().remove("action")));
        assert_eq!(refused::<Policy>(&missing), "missing field `action`");
    }
}
