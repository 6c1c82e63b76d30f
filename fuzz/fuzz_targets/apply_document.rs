//! Documents for `apply`, in JSON and YAML: read or refused, never more than that, and the same again when sent on.
#![no_main]

use archestra_gateway::admin::{
    Format,
    apply::{API_VERSION, ApplyDocument, RawDocument},
};
use libfuzzer_sys::fuzz_target;

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
        assert_eq!(read.to_json(), sent);
        if raw.resolve(|_| Ok("resolved".to_owned())).is_ok() {
            assert!(ApplyDocument::parse(&raw.to_json(), Format::Json).map_or_else(
                |problem| !problem.findings().iter().any(|one| one.reason.contains("valueFrom")),
                |_| true
            ));
        }
    }
});
