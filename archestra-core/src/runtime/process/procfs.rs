//! Which processes there are, from `/proc`: descendants, members of a group, bearers of an environment mark.
//!
//! Where there is no `/proc` every answer is empty, and only process groups are ended.

use std::{collections::BTreeSet, fs};

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// Clock ticks from the start of the machine to the start of the process: with the pid it names a process for ever.
    pub(super) started: u64,
    /// Ended, and not yet waited for.
    pub(super) zombie: bool,
}

/// Every process that can be seen.
pub(super) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(one)
        .collect()
}

/// The process with this id.
pub(super) fn one(pid: i32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The living descendants of these processes, without them.
pub(super) fn descendants(all: &[Process], roots: impl IntoIterator<Item = i32>) -> BTreeSet<i32> {
    let mut found: BTreeSet<i32> = BTreeSet::new();
    let mut next: Vec<i32> = roots.into_iter().collect();
    while let Some(parent) = next.pop() {
        for child in all.iter().filter(|process| process.parent == parent) {
            if found.insert(child.pid) {
                next.push(child.pid);
            }
        }
    }
    found.retain(|pid| all.iter().any(|process| process.pid == *pid && !process.zombie));
    found
}

/// Whether a process was started with exactly this variable in its environment.
pub(super) fn carries(pid: i32, name: &str, value: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    environment
        .split(|byte| *byte == 0)
        .filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .any(|found| found == value.as_bytes())
}

/// The second field is the program's name in parentheses and may itself hold blanks and parentheses.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let started = fields.nth(16)?.parse().ok()?;
    Some(Process { pid, parent, group, started, zombie: matches!(state, "Z" | "X") })
}

#[cfg(test)]
mod tests {
    use super::{Process, descendants, parse};

    #[test]
    fn a_name_with_parentheses_is_no_trouble() {
        let stat = "42 (a) b (c) S 7 42 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10";
        assert_eq!(parse(42, stat), Some(Process { pid: 42, parent: 7, group: 42, started: 98765, zombie: false }));
        assert_eq!(parse(42, "nonsense"), None);
    }

    #[test]
    fn descendants_are_found_over_dead_parents() {
        let process = |pid, parent, zombie| Process { pid, parent, group: pid, started: 1, zombie };
        let all = [process(2, 1, false), process(3, 2, true), process(4, 3, false), process(5, 1, false)];
        assert_eq!(descendants(&all, [2]).into_iter().collect::<Vec<_>>(), [4]);
    }
}
