//! Session ids and calls under way; whole conversations are in the suites of the `tests` package.

use super::{in_flight::InFlight, session::Sessions};
use crate::mcp::version::ProtocolVersion;
use archestra_core::{id::ConsumerId, secret::KeyRing, testing::fixtures};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

fn sessions() -> Sessions {
    Sessions::new(&KeyRing::generate().unwrap())
}

#[test]
fn a_session_resumes_for_its_caller_and_consumer_only() {
    let sessions = sessions();
    let (alice, bob) = (fixtures::user("alice@example.com"), fixtures::user("bob@example.com"));
    let (alice, bob) = (fixtures::user_principal(&alice, &[]), fixtures::user_principal(&bob, &[]));
    let (consumer, other) = (ConsumerId::new(), ConsumerId::new());
    let id = sessions.open(&alice, consumer, ProtocolVersion::V2025_06_18).unwrap();
    let session = sessions.resume(&id, &alice, consumer).unwrap();
    assert_eq!(session.version, ProtocolVersion::V2025_06_18);
    assert_eq!(sessions.resume(&id, &bob, consumer), None);
    assert_eq!(sessions.resume(&id, &alice, other), None);
    sessions.ended(session.id);
    assert_eq!(sessions.resume(&id, &alice, consumer), None);
}

#[test]
fn another_replica_with_the_same_ring_resumes_it() {
    let ring = KeyRing::generate().unwrap();
    let who = fixtures::organization_principal();
    let consumer = ConsumerId::new();
    let id = Sessions::new(&ring).open(&who, consumer, ProtocolVersion::LATEST_LEGACY).unwrap();
    assert!(Sessions::new(&ring).resume(&id, &who, consumer).is_some());
    assert!(sessions().resume(&id, &who, consumer).is_none());
}

proptest! {
    #[test]
    fn no_text_is_taken_for_a_session(id in "\\PC{0,200}") {
        prop_assert!(sessions().resume(&id, &fixtures::organization_principal(), ConsumerId::new()).is_none());
    }
}

#[test]
fn a_cancellation_finds_its_own_session_and_request_only() {
    let calls = InFlight::default();
    let (mine, other) = (CancellationToken::new(), CancellationToken::new());
    let entry = calls.begin(1, "7", mine.clone()).unwrap();
    let _other = calls.begin(17, "7", other.clone()).unwrap();
    assert!(calls.begin(1, "7", CancellationToken::new()).is_none(), "the id is taken");
    calls.cancel(1, "\"7\"");
    assert!(!mine.is_cancelled());
    calls.cancel(1, "7");
    assert!(mine.is_cancelled() && !other.is_cancelled());
    drop(entry);
    assert!(calls.begin(1, "7", CancellationToken::new()).is_some());
}
