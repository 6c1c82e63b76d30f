//! What is written down about running processes, and the end of those that outlived us and their supervisor.

use super::{
    plan::{MARK, text_of},
    procfs::{self, Process},
};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fs, io, path::Path, thread, time::Duration};

const FILE: &str = "run.json";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How often what does not want to end is killed again.
const ROUNDS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pid: i32,
    started: u64,
}

/// The processes of one run of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Process ids and start times mean nothing after the machine was started again.
    boot: String,
    supervisor: Option<Identity>,
    group: Option<Identity>,
}

impl Identity {
    fn of(pid: i32) -> Option<Self> {
        procfs::one(pid).map(|process| Self { pid, started: process.started })
    }
}

impl Record {
    /// The record of processes that live.
    pub(super) fn of(supervisor: Option<i32>, group: Option<i32>) -> Self {
        Self {
            boot: fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned(),
            supervisor: supervisor.and_then(Identity::of),
            group: group.and_then(Identity::of),
        }
    }

    /// Writes it into the workload's directory, whole or not at all.
    pub(super) fn write(&self, root: &Path) -> io::Result<()> {
        let new = root.join("run.json.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, root.join(FILE))
    }

    /// Reads it; `None` when nothing was running, or when the machine has been started since.
    pub(super) fn read(root: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&fs::read(root.join(FILE)).ok()?).ok()?;
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        (record.boot == boot.trim()).then_some(record)
    }

    /// Removes the file. That it is not there is fine.
    pub(super) fn remove(root: &Path) {
        let _absent = fs::remove_file(root.join(FILE));
    }

    /// Kills what this record names, everything that descends from it, and everything that bears the workload's mark, until
    /// nothing of it is left. Whether that came to be. It blocks.
    pub(super) fn end_all(&self, root: &Path) -> bool {
        for _ in 0..ROUNDS {
            let victims = self.victims(&procfs::all(), root);
            if victims.is_empty() {
                return true;
            }
            for pid in victims.into_iter().filter_map(Pid::from_raw) {
                let _gone_already = rustix::process::kill_process(pid, Signal::KILL);
            }
            thread::sleep(PAUSE);
        }
        false
    }

    fn victims(&self, all: &[Process], root: &Path) -> BTreeSet<i32> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let is = |process: &Process, identity: Option<Identity>| {
            identity.is_some_and(|identity| process.pid == identity.pid && process.started == identity.started)
        };
        // A group has its leader's number as long as anybody is in it, so nobody younger than the leader can have taken it.
        let in_group = |process: &Process| {
            self.group.is_some_and(|group| process.group == group.pid && process.started >= group.started)
        };
        let mut victims: BTreeSet<i32> = all
            .iter()
            .filter(|process| !process.zombie && process.pid != own)
            .filter(|process| {
                is(process, self.supervisor) || in_group(process) || procfs::carries(process.pid, MARK, text_of(root))
            })
            .map(|process| process.pid)
            .collect();
        let descendants = procfs::descendants(all, victims.iter().copied());
        victims.extend(descendants);
        victims.remove(&own);
        victims
    }
}
