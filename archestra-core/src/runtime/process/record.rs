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

    /// Removes the file of a supervisor that has nothing left to end. Another run's file stays.
    pub(super) fn remove_own(root: &Path) {
        let own = Identity::of(rustix::process::getpid().as_raw_nonzero().get());
        if own.is_some() && Self::read(root).is_some_and(|record| record.supervisor == own) {
            Self::remove(root);
        }
    }

    /// Ends what a run left that could not be ended then. Whether nothing of it lives any more; if so, the file is gone. It
    /// blocks.
    pub(super) fn end_left(root: &Path) -> bool {
        let Some(record) = Self::read(root) else { return true };
        let ended = record.end_all(root);
        if ended {
            Self::remove(root);
        }
        ended
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
        // Only as long as its leader is there, if but as a zombie, the number of the group cannot belong to somebody else.
        // Without it those that are left are known by the mark.
        let group = self.group.filter(|_| all.iter().any(|process| is(process, self.group)));
        let in_group = |process: &Process| group.is_some_and(|group| process.group == group.pid);
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

#[cfg(test)]
mod tests {
    use super::{Identity, Record};
    use crate::runtime::process::procfs::Process;
    use std::path::Path;

    /// No process of any machine has such a number, so none has a mark.
    const LEADER: i32 = 2_000_000_000;

    fn process(pid: i32, parent: i32, group: i32, started: u64) -> Process {
        Process { pid, parent, group, started, zombie: false }
    }

    fn victims(all: &[Process]) -> Vec<i32> {
        let record =
            Record { boot: String::new(), supervisor: None, group: Some(Identity { pid: LEADER, started: 100 }) };
        record.victims(all, Path::new("/state/mcp-1")).into_iter().collect()
    }

    #[test]
    fn a_group_is_ended_while_its_leader_is_there() {
        let (leader, member, outside) = (
            process(LEADER, 1, LEADER, 100),
            process(LEADER + 1, 1, LEADER, 101),
            process(LEADER + 2, LEADER + 1, LEADER + 2, 102),
        );
        assert_eq!(victims(&[leader, member, outside]), [LEADER, LEADER + 1, LEADER + 2]);
        let zombie = Process { zombie: true, ..leader };
        assert_eq!(victims(&[zombie, member]), [LEADER + 1]);
    }

    #[test]
    fn a_number_that_somebody_else_has_now_is_left_alone() {
        let (stranger, friend) = (process(LEADER, 1, LEADER, 200), process(LEADER + 1, LEADER, LEADER, 201));
        assert_eq!(victims(&[stranger, friend]), [0_i32; 0]);
        assert_eq!(victims(&[friend]), [0_i32; 0]);
    }
}
