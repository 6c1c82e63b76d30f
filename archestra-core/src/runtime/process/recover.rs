//! Taking over a state directory: one runtime at a time, and nothing of an earlier one left running.

use super::{BACKEND, config::ProcessConfig, record::Record};
use crate::{Error, Result, runtime::WorkloadId};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
};

/// Checks and completes the configuration, locks the directory, and ends what still runs. The workloads that have directories
/// there are returned. It blocks.
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
    let lock = File::create(config.state_dir.join("lock")).map_err(|error| unusable(error, &config))?;
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
    let left_over = left_over(&config).map_err(|error| unusable(error, &config))?;
    for id in &left_over {
        let root = config.state_dir.join(id.as_str());
        let Some(record) = Record::read(&root) else { continue };
        if !record.end_all(&root) {
            let reason = format!("processes that an earlier run left of workload {id} cannot be ended");
            return Err(Error::Backend { backend: BACKEND, reason, source: None });
        }
        Record::remove(&root);
    }
    Ok((config, lock, left_over))
}

fn left_over(config: &ProcessConfig) -> io::Result<Vec<WorkloadId>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(&config.state_dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok())
        {
            found.push(id);
        }
    }
    found.sort();
    Ok(found)
}
