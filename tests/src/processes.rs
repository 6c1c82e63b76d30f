//! Processes of this machine, by what Linux says of them in `/proc`.

use rustix::process::{Pid, Signal, kill_process};
use std::{collections::HashMap, fs, time::Duration};
use tokio::time::Instant;

/// A process that was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub id: u32,
    /// When it was started, so that an id that is used again is not taken for it.
    pub started: u64,
    /// Its command line.
    pub command: String,
}

impl Process {
    /// Whether it still runs.
    pub fn lives(&self) -> bool {
        stat(self.id).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }

    /// Kills it.
    pub fn kill(&self) {
        kill(self.id);
    }
}

struct Stat {
    parent: u32,
    state: char,
    started: u64,
}

fn stat(id: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// Everything that descends from a process, itself not included.
pub fn descendants(of: u32) -> Vec<Process> {
    let mut children: HashMap<u32, Vec<(u32, u64)>> = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            && let Some(stat) = stat(id)
        {
            children.entry(stat.parent).or_default().push((id, stat.started));
        }
    }
    let mut found = Vec::new();
    let mut next = vec![of];
    while let Some(parent) = next.pop() {
        for (id, started) in children.remove(&parent).unwrap_or_default() {
            let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(Process { id, started, command });
            next.push(id);
        }
    }
    found
}

/// Every process whose command line names this.
pub fn naming(text: &str) -> Vec<Process> {
    // Whatever has no parent in this session descends from the first process.
    descendants(0).into_iter().filter(|process| process.command.contains(text)).collect()
}

/// How many bytes of memory a process has resident.
pub fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
}

/// Waits until none of these runs any more, and panics with those that do.
pub async fn all_gone(processes: &[Process], within: Duration) {
    let until = Instant::now() + within;
    loop {
        let alive: Vec<_> = processes.iter().filter(|process| process.lives()).collect();
        if alive.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "still there after {within:?}: {alive:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Tells a process to end.
pub fn terminate(id: u32) {
    signal(id, Signal::TERM);
}

/// Lets a process stand still.
pub fn pause(id: u32) {
    signal(id, Signal::STOP);
}

/// Lets it go on.
pub fn resume(id: u32) {
    signal(id, Signal::CONT);
}

/// Kills a process.
pub fn kill(id: u32) {
    signal(id, Signal::KILL);
}

fn signal(id: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(id.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}
