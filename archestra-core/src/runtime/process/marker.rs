//! The mark that a directory was made for a workload: without it nothing is taken over and nothing is removed.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

const FILE: &str = ".archestra-workload";
const TEXT: &str =
    "This directory was made for a workload of the platform, which removes it together with the workload.\n";

/// Makes the directory and marks it before anything else is in it. One that others filled is refused.
pub(super) fn claim(root: &Path) -> io::Result<()> {
    if is_ours(root) {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    if !fs::symlink_metadata(root)?.is_dir() || fs::read_dir(root)?.next().is_some() {
        let reason = "it exists and the platform did not make it; move it away, or use another state directory";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
    fs::write(root.join(FILE), TEXT)
}

/// Whether it was made for a workload.
pub(super) fn is_ours(root: &Path) -> bool {
    let (directory, mark) = (fs::symlink_metadata(root), fs::symlink_metadata(root.join(FILE)));
    directory.is_ok_and(|directory| directory.is_dir()) && mark.is_ok_and(|mark| mark.is_file())
}

/// Removes it with all that is in it, if it was made for a workload. That it is not there is fine. It blocks.
pub(super) fn remove(root: &Path) -> io::Result<()> {
    match fs::symlink_metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) if is_ours(root) => {}
        Ok(_) => {
            return Err(io::Error::other(format!("it is not removed, for it bears no mark ({FILE}) of a workload")));
        }
    }
    // The mark goes last: what could not be removed in one go must still be known as ours.
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name() == FILE {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir_all(root)
}
