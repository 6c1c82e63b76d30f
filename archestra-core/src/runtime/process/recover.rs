//! Taking over a state directory: one runtime at a time, and nothing of an earlier one left running.

use super::{BACKEND, config::ProcessConfig, marker, record::Record};
use crate::{Error, Result, runtime::WorkloadId};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
};

/// Checks and completes the configuration, locks the directory, and ends what still runs. The platform's workloads that have
/// directories there are returned. It blocks.
pub(super) fn take_over(mut config: ProcessConfig) -> Result<(ProcessConfig, File, Vec<WorkloadId>)> {
    if !config.supervisor.program.is_absolute() || !config.supervisor.program.is_file() {
        let reason = format!("{} is not the absolute path of a program", config.supervisor.program.display());
        return Err(Error::invalid(
            "supervisor.program",
            reason,
            "give the path of the embedding binary, or of archestra-supervisor",
        ));
    }
    let unusable = |error: io::Error, at: &ProcessConfig| {
        let reason = format!("{} cannot be used: {error}", at.state_dir.display());
        Error::invalid("stateDir", reason, "give a directory that the platform's user may write to")
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.state_dir)
        .map_err(|error| unusable(error, &config))?;
    config.state_dir = config.state_dir.canonicalize().map_err(|error| unusable(error, &config))?;
    if config.state_dir.to_str().is_none() {
        return Err(Error::invalid("stateDir", "its path is not UTF-8", "give another directory"));
    }
    let lock = File::options().write(true).create(true).truncate(false).open(config.state_dir.join("lock"));
    let lock = lock.map_err(|error| unusable(error, &config))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let id = config.state_dir.display();
            return Err(Error::conflict(
                "state directory",
                id,
                "another process uses it; stop that one, or give another directory",
            ));
        }
        Err(TryLockError::Error(error)) => return Err(unusable(error, &config)),
    }
    let mut left_over = left_over(&config).map_err(|error| unusable(error, &config))?;
    for id in &left_over {
        let root = config.state_dir.join(id.as_str());
        let Some(record) = Record::read(&root) else { continue };
        if !record.end_all(&root) {
            let reason = format!("processes that an earlier run left of workload {id} cannot be ended");
            return Err(Error::Backend { backend: BACKEND, reason, source: None });
        }
        Record::remove(&root);
    }
    left_over.retain(|id| is_made_from_uuid(id.as_str()));
    Ok((config, lock, left_over))
}

/// The workloads whose directories we made. Whatever else is there belongs to somebody else and is left alone.
fn left_over(config: &ProcessConfig) -> io::Result<Vec<WorkloadId>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(&config.state_dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && marker::is_ours(&entry.path())
        {
            found.push(id);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a name is one that the platform gives: an embedder that runs workloads of other names removes them itself.
fn is_made_from_uuid(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("mcp-") else { return false };
    let digits = rest.strip_prefix("shared-").unwrap_or(rest);
    digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::is_made_from_uuid;
    use crate::{
        id::{EntryId, InstallationId},
        runtime::WorkloadId,
    };
    use uuid::Uuid;

    #[test]
    fn only_names_that_the_platform_gives_are_taken_over() {
        let uuid = Uuid::from_u128(0x1234);
        assert!(is_made_from_uuid(WorkloadId::of_installation(InstallationId::from_uuid(uuid)).as_str()));
        assert!(is_made_from_uuid(WorkloadId::of_entry(EntryId::from_uuid(uuid)).as_str()));
        let short = "mcp-0123456789abcdef0123456789abcde";
        for name in
            ["src", "mcp", "mcp-", "mcp-work", "mcp-shared-", short, &format!("{short}g"), &format!("{short}00")]
        {
            assert!(!is_made_from_uuid(name), "{name}");
        }
    }
}
