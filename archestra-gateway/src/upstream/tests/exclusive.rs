//! Processes that serve one session at a time: who has them, for how long, and who waits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::support::{Caller, legacy_call};
use super::workloads::{Connects, hosted, old, process, said, with_runtime};
use crate::upstream::{Target, UpstreamError, Upstreams};

/// For how long a session keeps a process, unless somebody sets it otherwise.
const IDLE: Duration = Duration::from_secs(15);

/// For how long a session that goes on calling keeps it while others wait.
const TENURE: Duration = Duration::from_secs(60);

struct Rig {
    runtime: Arc<Connects>,
    upstreams: Upstreams,
    target: Arc<Target>,
}

impl Rig {
    /// A process that answers all but `2`, on which it works for ever.
    fn new() -> Self {
        let (runtime, _) = process(|message| {
            old(message, |call| match call["params"]["arguments"]["a"].as_u64() {
                Some(2) => Vec::new(),
                _ => vec![said(call)],
            })
        });
        let target = hosted(&json!({ "toolConcurrency": "exclusive" }));
        Self { upstreams: with_runtime(&runtime), runtime, target }
    }

    fn caller(session: Option<u128>) -> Caller {
        Caller { session, within: Duration::from_secs(60), ..Caller::legacy(legacy_call("1", "")) }
    }

    fn patient(session: Option<u128>) -> Caller {
        Caller { within: Duration::from_secs(600), ..Self::caller(session) }
    }

    async fn call(&self, session: Option<u128>) -> Value {
        Self::caller(session).message(&self.upstreams, &self.target).await
    }

    /// How many channels were opened for calls.
    fn channels(&self) -> usize {
        // The first one tells the transport.
        self.runtime.count.load(Ordering::SeqCst) - 1
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_its_process_while_it_calls_and_others_wait() {
    let rig = Rig::new();
    for _ in 0..3 {
        rig.call(Some(1)).await;
        sleep(IDLE / 2).await;
    }
    assert_eq!(rig.channels(), 1);
    let began = Instant::now();
    let (other, ()) = tokio::join!(rig.call(Some(2)), async {
        sleep(IDLE / 4).await;
        rig.call(Some(1)).await;
        assert_eq!(rig.channels(), 1, "the session that has it comes first");
    });
    assert_eq!(other["result"]["said"], 1);
    assert!(began.elapsed() >= IDLE + IDLE / 4, "{:?}", began.elapsed());
    assert_eq!(rig.channels(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_gives_its_process_up() {
    let rig = Rig::new();
    rig.call(Some(1)).await;
    rig.upstreams.end_session(2);
    let began = Instant::now();
    let (_, ()) = tokio::join!(rig.call(Some(2)), async {
        sleep(Duration::from_secs(1)).await;
        rig.upstreams.end_session(1);
    });
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_during_its_call_keeps_nothing() {
    let rig = Rig::new();
    let body = legacy_call("1", "").replace(r#""a":1"#, r#""a":2"#);
    let under_way = Caller { session: Some(1), within: Duration::from_secs(5), ..Caller::legacy(body) };
    let (outcome, ()) = tokio::join!(under_way.messages(&rig.upstreams, &rig.target), async {
        sleep(Duration::from_secs(1)).await;
        rig.upstreams.end_session(1);
    });
    assert!(matches!(outcome, Err(UpstreamError::Timeout { .. })), "{outcome:?}");
    let began = Instant::now();
    rig.call(Some(2)).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_waits_no_longer_than_its_deadline() {
    let rig = Rig::new();
    rig.call(Some(1)).await;
    let impatient = Caller { within: IDLE / 3, ..Rig::caller(Some(2)) };
    let outcome = impatient.messages(&rig.upstreams, &rig.target).await;
    assert!(matches!(outcome, Err(UpstreamError::Timeout { .. })), "{outcome:?}");
    rig.call(Some(1)).await;
    assert_eq!(rig.channels(), 1, "who gave up has taken nothing");
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_session_at_once_have_their_turns_on_one_channel() {
    let rig = Rig::new();
    let calls = (0..10).map(|_| rig.call(Some(1)));
    assert!(futures::future::join_all(calls).await.iter().all(|answer| answer["result"]["said"] == 1));
    assert_eq!(rig.channels(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_nobody_uses_is_given_up_for_those_who_wait_elsewhere() {
    let rig = Rig::new();
    rig.call(Some(1)).await;
    let open = || rig.runtime.open.load(Ordering::SeqCst);
    assert_eq!(open(), 1);
    sleep(IDLE * 2).await;
    assert_eq!(open(), 0);
    rig.call(Some(1)).await;
    assert_eq!(rig.channels(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_goes_on_calling_gives_its_process_up_for_those_who_wait() {
    let rig = Rig::new();
    rig.call(Some(1)).await;
    let began = Instant::now();
    let busy = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            rig.call(Some(1)).await;
        }
    };
    let other = async {
        sleep(Duration::from_secs(10)).await;
        // The lifecycle asks for nobody; then another session, which comes after what the first one waits with already.
        Rig::patient(None).message(&rig.upstreams, &rig.target).await;
        let first = began.elapsed();
        Rig::patient(Some(2)).message(&rig.upstreams, &rig.target).await;
        first
    };
    let first = tokio::select! {
        first = other => first,
        () = busy => unreachable!(),
    };
    assert!(first >= TENURE && first <= TENURE + Duration::from_secs(1), "{first:?}");
    // The calls of one turn have one channel: that of the first session, the lifecycle's, and so on.
    assert_eq!(rig.channels(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_its_process_for_as_long_as_nobody_else_waits() {
    let rig = Rig::new();
    for _ in 0..20 {
        rig.call(Some(1)).await;
        sleep(IDLE / 2).await;
    }
    assert_eq!(rig.channels(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_came_first_has_the_next_turn() {
    let rig = Rig::new();
    rig.call(Some(1)).await;
    let order = Mutex::new(Vec::new());
    let call = async |session: u128| {
        Rig::patient(Some(session)).message(&rig.upstreams, &rig.target).await;
        order.lock().unwrap().push(session);
    };
    let newcomer = async {
        sleep(Duration::from_secs(1)).await;
        // The process is free, and those who wait do not know it yet.
        rig.upstreams.end_session(1);
        call(5).await;
    };
    let gives_up = async {
        let impatient = Caller { within: Duration::from_millis(500), ..Rig::caller(Some(9)) };
        impatient.messages(&rig.upstreams, &rig.target).await.unwrap_err();
    };
    tokio::join!(newcomer, gives_up, call(2), call(3), call(4));
    assert_eq!(*order.lock().unwrap(), [2, 3, 4, 5]);
}
