//! CPU time and memory of processes, read from `/proc`.

use std::{collections::HashSet, fs, process::Command, sync::LazyLock, time::Duration};

/// `sysconf(_SC_CLK_TCK)`; 100 on every Linux one meets.
static TICKS_PER_SECOND: LazyLock<u64> = LazyLock::new(|| {
    let output = Command::new("getconf").arg("CLK_TCK").output().ok();
    output.and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok()).unwrap_or(100)
});

/// The processes a target's CPU time is charged to: one process and all its descendants, except the upstream itself.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    /// The process at the root of the tree.
    pub(crate) root: u32,
    /// A program (`comm`) that is not charged: the stdio upstream, which is a descendant of the gateway.
    pub(crate) except: Option<&'static str>,
}

impl Charge {
    pub(crate) fn process(root: u32) -> Self {
        Self { root, except: None }
    }

    /// CPU time used so far by the whole tree.
    pub(crate) fn used(&self) -> Duration {
        let stats = all_stats();
        let mut tree = HashSet::from([self.root]);
        // Children may be listed before their parents, so repeat until nothing joins.
        loop {
            let before = tree.len();
            tree.extend(
                stats.iter().filter(|stat| tree.contains(&stat.parent)).map(|stat| stat.pid).collect::<Vec<_>>(),
            );
            if tree.len() == before {
                break;
            }
        }
        let counted = stats.iter().filter(|stat| tree.contains(&stat.pid) && Some(stat.name.as_str()) != self.except);
        ticks(counted.map(|stat| stat.ticks).sum())
    }
}

/// CPU time used so far by this process alone.
pub(crate) fn own_used() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    stat.and_then(|text| parse_stat(&text)).map_or(Duration::ZERO, |stat| ticks(stat.ticks))
}

/// Resident memory of one process in MiB.
pub(crate) fn resident_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    name: String,
    parent: u32,
    ticks: u64,
}

fn all_stats() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// The name stands in parentheses and may itself hold spaces and parentheses; proc(5) numbers the fields from 1.
fn parse_stat(text: &str) -> Option<Stat> {
    let (pid, rest) = text.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        pid: pid.parse().ok()?,
        name: name.to_owned(),
        parent: u32::try_from(field(4)?).ok()?,
        ticks: field(14)? + field(15)?,
    })
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / *TICKS_PER_SECOND as f64)
}

#[cfg(test)]
mod tests {
    use super::{Stat, parse_stat};

    #[test]
    fn a_stat_line_with_an_awkward_name() {
        let line = "42 (a b) c) S 7 42 42 0 -1 4194560 100 0 0 0 13 29 0 0 20 0 4 0 12345 0 0\n";
        let expected = Stat { pid: 42, name: "a b) c".to_owned(), parent: 7, ticks: 42 };
        assert_eq!(parse_stat(line), Some(expected));
    }
}
