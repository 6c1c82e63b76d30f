//! Callers of the tool `echo` of one server that go on whatever happens to it, and what became of their calls.

use crate::{Mcp, hosted::is_clear, mcp};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};

/// How long a caller rests between two calls.
const REST: Duration = Duration::from_millis(20);

/// What became of the calls so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many got their own answer.
    pub answered: u64,
    /// How often which error was told, digits left out.
    pub failed: BTreeMap<String, u64>,
    /// How long the slowest call took.
    pub slowest: Duration,
}

impl Tally {
    /// How many were not answered.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered, {} not, the slowest took {:?}", self.answered, self.failures(), self.slowest)?;
        self.failed.iter().try_for_each(|(reason, count)| write!(f, "; {count} times: {reason}"))
    }
}

/// Callers at work.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    callers: JoinSet<()>,
}

impl Steady {
    /// Lets so many callers begin. A call that has not ended after `deadline` hangs, which makes [`end`](Self::end) panic.
    pub fn start(gateway: &Mcp, server: &str, callers: usize, deadline: Duration) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let mut working = JoinSet::new();
        for caller in 0..callers {
            let (gateway, tool) = (gateway.clone(), format!("{server}__echo"));
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            working.spawn(async move {
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    call(&gateway, &tool, &format!("caller {caller} call {n}"), deadline, &tally).await;
                    tokio::time::sleep(REST).await;
                }
            });
        }
        Self { stop, tally, callers: working }
    }

    /// What became of the calls so far.
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Lets callers end the call that they are at. Panics where a call hung, got another one's answer or an error that says
    /// nothing.
    pub async fn end(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(caller) = self.callers.join_next().await {
            caller.unwrap();
        }
        self.tally()
    }
}

async fn call(gateway: &Mcp, tool: &str, said: &str, deadline: Duration, tally: &Mutex<Tally>) {
    let begun = Instant::now();
    let params = json!({ "name": tool, "arguments": { "text": said } });
    let answer = tokio::time::timeout(deadline, gateway.modern("tools/call", params)).await;
    let answer = answer.unwrap_or_else(|_| panic!("a call of {tool} hangs beyond {deadline:?}"));
    let message = mcp::response(&answer);
    let reason = match message["error"]["message"].as_str() {
        Some(reason) => Some(reason),
        None if message["result"]["isError"] == true => Some(mcp::text(&message["result"])),
        None => None,
    };
    let mut tally = lock(tally);
    tally.slowest = tally.slowest.max(begun.elapsed());
    let Some(reason) = reason else {
        assert_eq!(mcp::text(&message["result"]), said, "the answer of another call");
        tally.answered += 1;
        return;
    };
    assert!(is_clear(reason), "an error that says nothing: {message}");
    *tally.failed.entry(reason.replace(|c: char| c.is_ascii_digit(), "#")).or_default() += 1;
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
