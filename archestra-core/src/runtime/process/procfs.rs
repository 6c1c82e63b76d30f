//! Which processes there are, from `/proc`: descendants, members of a group, bearers of an environment mark.
//!
//! Where there is no `/proc` every answer is empty, and only process groups are ended.

use std::{collections::BTreeSet, fs, net::IpAddr};

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

/// To whom a port belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listener {
    /// Nobody listens there.
    Nobody,
    /// To these processes and to nobody else.
    Them,
    /// To somebody else, or to somebody else too.
    Other,
    /// The system does not tell.
    Unknown,
}

/// Who listens where a connection to this port of a loopback address arrives, in the eyes of the descendants of a process. It
/// blocks.
pub(super) fn listener(address: IpAddr, port: u16, root: i32) -> Listener {
    let Ok(table) = fs::read_to_string("/proc/net/tcp") else { return Listener::Unknown };
    // A system without IPv6 has no such table.
    let table6 = fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let mut sockets: BTreeSet<u64> =
        table.lines().chain(table6.lines()).filter_map(|line| listening(line, address, port)).collect();
    if sockets.is_empty() {
        return Listener::Nobody;
    }
    for pid in descendants(&all(), [root]) {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for target in entries.filter_map(Result::ok).filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let socket =
                target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(socket) = socket {
                sockets.remove(&socket);
            }
        }
    }
    if sockets.is_empty() { Listener::Them } else { Listener::Other }
}

/// The inode of the socket in a line of `/proc/net/tcp` or `tcp6`, if it takes connections to this port of this address.
fn listening(line: &str, wanted: IpAddr, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (address, found) = fields.nth(1)?.split_once(':')?;
    if u16::from_str_radix(found, 16) != Ok(port) || fields.nth(1)? != LISTEN {
        return None;
    }
    // Addresses are written as words in the machine's own order.
    let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
    let any = address.bytes().all(|digit| digit == b'0');
    let takes = match wanted {
        IpAddr::V4(wanted) => {
            let own = word(wanted.octets());
            any || address == own || address == format!("{:016}{}{own}", 0, word([0, 0, 0xFF, 0xFF]))
        }
        IpAddr::V6(wanted) => {
            let own: String =
                wanted.octets().chunks_exact(4).map(|part| word([part[0], part[1], part[2], part[3]])).collect();
            address.len() == own.len() && (any || address == own)
        }
    };
    takes.then(|| fields.nth(5)?.parse().ok()).flatten()
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
    use super::{Listener, Process, descendants, listener, listening, parse};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    #[test]
    fn only_what_listens_for_the_port_counts() {
        let line = |address: &str, state: &str| {
            format!(
                "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 77 1 0"
            )
        };
        let words = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let (localhost, other) = (words([127, 0, 0, 1]), words([10, 0, 0, 1]));
        let (localhost6, any6) = (format!("{}{}", "0".repeat(24), words([0, 0, 0, 1])), "0".repeat(32));
        let mapped = format!("{:016}{}{localhost}", 0, words([0, 0, 0xFF, 0xFF]));
        let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        let found = |address: &str, wanted| listening(&line(&format!("{address}:1F90"), "0A"), wanted, 8080);
        for taken in [&localhost, "00000000", &any6, &mapped] {
            assert_eq!(found(taken, v4), Some(77), "{taken}");
        }
        for taken in [&localhost6, &any6] {
            assert_eq!(found(taken, v6), Some(77), "{taken}");
        }
        assert_eq!((found(&localhost6, v4), found(&other, v4)), (None, None));
        assert_eq!((found(&localhost, v6), found("00000000", v6), found(&mapped, v6)), (None, None, None));
        assert_eq!(listening(&line(&format!("{localhost}:1F90"), "01"), v4, 8080), None);
        assert_eq!(listening(&line(&format!("{localhost}:1F91"), "0A"), v4, 8080), None);
        assert_eq!(listening("  sl  local_address rem_address   st", v4, 8080), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_port_of_our_own_is_not_one_of_our_descendants() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = ours.local_addr().unwrap().port();
        let localhost = Ipv4Addr::LOCALHOST.into();
        assert_eq!(listener(localhost, port, own), Listener::Other);
        assert_eq!(listener(localhost, port, parent), Listener::Them);
        drop(ours);
        assert_eq!(listener(localhost, port, own), Listener::Nobody);
    }

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
