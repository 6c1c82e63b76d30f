//! The fast upstreams answer the calls the harness sends, in both eras, and refuse what real servers refuse.

use super::{Carrier, Eras, Outcome, answer};
use crate::{
    message::{CallTemplate, check},
    target::Era,
};

fn ask(message: &[u8], eras: Eras, carrier: Carrier<'_>) -> (Outcome, String) {
    let mut out = Vec::new();
    let outcome = answer(message, eras, carrier, &mut out);
    (outcome, String::from_utf8(out).unwrap())
}

#[test]
fn a_call_of_either_era_passes_the_harness_own_check() {
    for era in [Era::Modern, Era::Legacy] {
        let call = CallTemplate::new(era, "echo").with_id(1_000_000_042);
        let (outcome, text) = ask(&call, Eras::Both, Carrier::Pipe);
        assert_eq!(outcome, Outcome::Answered);
        assert_eq!(text.contains(r#""resultType":"complete""#), era == Era::Modern);
        check(1_000_000_042, text.as_bytes()).unwrap();
        check(1_000_000_043, text.as_bytes()).unwrap_err();
    }
}

#[test]
fn a_renamed_tool_without_its_header_is_refused() {
    let call = CallTemplate::new(Era::Modern, "echo").with_id(1_000_000_000);
    let carrier = Carrier::Modern { method: Some(b"tools/call"), name: Some(b"modern__echo") };
    let (outcome, text) = ask(&call, Eras::Modern, carrier);
    assert_eq!(outcome, Outcome::Refused);
    assert!(text.contains("-32020"), "{text}");
}

#[test]
fn a_legacy_server_answers_a_modern_probe_as_real_ones_do() {
    let probe = br#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}"#;
    let (outcome, text) = ask(probe, Eras::Legacy, Carrier::NoSession);
    assert_eq!(outcome, Outcome::Refused);
    assert!(text.contains("Server not initialized"), "{text}");
    let (outcome, _) = ask(probe, Eras::Legacy, Carrier::Pipe);
    assert_eq!(outcome, Outcome::Unknown);
}

#[test]
fn a_notification_gets_no_answer() {
    let (outcome, text) =
        ask(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, Eras::Both, Carrier::Session);
    assert_eq!(outcome, Outcome::Accepted);
    assert!(text.is_empty());
}
