//! Documents for `apply`, in JSON and YAML: read or refused, never more than that, and the same again when sent on.
#![no_main]

use archestra_gateway::admin::{
    Format,
    apply::{API_VERSION, ApplyDocument, RawDocument},
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    for format in [Format::Json, Format::Yaml] {
        match ApplyDocument::parse(data, format) {
            Ok(document) => assert_eq!(document.api_version, API_VERSION),
            Err(problem) => assert!(!problem.detail().is_empty() || !problem.findings().is_empty()),
        }
        let Ok(mut raw) = RawDocument::parse(data, format) else { continue };
        // What a client sends on is what the server reads.
        let sent = raw.to_json();
        let read = RawDocument::parse(&sent, Format::Json).expect("what we write we read");
        // Decimal fractions of many digits may change in their last one.
        let value = serde_json::from_slice(&sent).expect("JSON");
        assert!(read.to_json() == sent || has_fraction(&value));
        if raw.resolve(|_| Ok("resolved".to_owned())).is_ok()
            && let Err(problem) = ApplyDocument::parse(&raw.to_json(), Format::Json)
        {
            let unresolved = problem.findings().iter().find(|one| one.reason.starts_with("`valueFrom`"));
            assert!(unresolved.is_none(), "resolved, and still there: {unresolved:?}");
        }
    }
});

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}
