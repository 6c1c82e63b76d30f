//! A steady load of callers of both eras on tools named `wait`, and what became of their calls.

use crate::{
    Answer, Mcp,
    mcp::{messages, text},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};

/// How long a caller rests between two calls, so that the machine has room for what is tested.
const REST: Duration = Duration::from_millis(10);

/// What callers do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many call at the same time; every other one in a legacy session.
    pub callers: usize,
    /// The exposed names of the tools that they call in turn.
    pub tools: Vec<String>,
    /// How long a call may take until it counts as hanging.
    pub deadline: Duration,
}

/// What became of the calls of a load.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many got their own answer.
    pub answered: u64,
    /// How often which error was told, digits left out.
    pub refused: BTreeMap<String, u64>,
    /// How long the slowest call took.
    pub slowest: Duration,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.slowest = self.slowest.max(other.slowest);
        for (reason, count) in other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
    }
}

/// Callers at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<Tally>,
}

impl Load {
    /// Lets callers begin.
    pub fn start(gateway: &Mcp, plan: &Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for caller in 0..plan.callers {
            callers.spawn(call_on(gateway.clone(), plan.clone(), caller, Arc::clone(&stop)));
        }
        Self { stop, callers }
    }

    /// Lets callers end the call that they are at. Panics where a call hung, got another one's answer or an error that says
    /// nothing.
    pub async fn end(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        while let Some(caller) = self.callers.join_next().await {
            tally.add(caller.unwrap());
        }
        tally
    }

    /// Lets callers call for so long.
    pub async fn run(gateway: &Mcp, plan: &Plan, time: Duration) -> Tally {
        let load = Self::start(gateway, plan);
        tokio::time::sleep(time).await;
        load.end().await
    }
}

async fn call_on(gateway: Mcp, plan: Plan, caller: usize, stop: Arc<AtomicBool>) -> Tally {
    let session = if caller % 2 == 1 { Some(gateway.session().await) } else { None };
    let mut tally = Tally::default();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let said = format!("caller {caller} call {count}");
        let tool = &plan.tools[(caller + count) % plan.tools.len()];
        let params = json!({ "name": tool, "arguments": { "ms": count % 17, "say": said } });
        let begun = Instant::now();
        let call = async {
            match &session {
                Some(session) => session.request(count as u64, "tools/call", params).await,
                None => gateway.modern("tools/call", params).await,
            }
        };
        let answer = tokio::time::timeout(plan.deadline, call).await;
        let answer = answer.unwrap_or_else(|_| panic!("a call of {tool} hangs beyond {:?}", plan.deadline));
        tally.slowest = tally.slowest.max(begun.elapsed());
        match verdict(&answer, &said) {
            Ok(()) => tally.answered += 1,
            Err(reason) => *tally.refused.entry(reason).or_default() += 1,
        }
        count += 1;
        tokio::time::sleep(REST).await;
    }
    tally
}

/// Whether a call got its own answer; if not, the error it was told.
fn verdict(answer: &Answer, said: &str) -> Result<(), String> {
    let Some(message) = messages(answer).pop() else {
        panic!("an answer without a response: {} {:?} {}", answer.status, answer.headers, answer.text())
    };
    let reason = if message["error"].is_object() {
        message["error"]["message"].as_str().unwrap_or_default()
    } else if message["result"]["isError"] == true {
        text(&message["result"])
    } else {
        assert_eq!(text(&message["result"]), format!("waited for {said}"), "the answer of another call");
        return Ok(());
    };
    let is_clear = reason.len() >= 15 && !reason.contains("panicked") && !reason.contains("Error(");
    assert!(is_clear, "an error that says nothing: {message}");
    Err(reason.replace(|c: char| c.is_ascii_digit(), "#"))
}

/// Numbers that look random and are the same in each run.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Numbers that `seed` leads to.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number, smaller than `limit`.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
