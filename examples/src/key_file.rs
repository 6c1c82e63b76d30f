//! The key file: the key ring as a file that only its owner can read, made at the first start.

use crate::{
    config::{Database, KEY, KeyFile},
    failure::Failure,
};
use archestra_core::secret::{KeyRing, SecretValue};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use zeroize::Zeroizing;

/// Larger than any ring.
const MAX_FILE: u64 = 64 * 1024;

/// Reads the key ring, or makes one where there is nothing yet that could need another.
///
/// # Errors
/// The file cannot be read or written, others can read it, it holds no key ring, or it is gone while the database is there.
pub(crate) fn load(file: &KeyFile, database: &Database) -> Result<KeyRing, Failure> {
    let (path, may_be_made) = match file {
        KeyFile::Default(path) => (path, true),
        KeyFile::Named(path) => (path, false),
        KeyFile::Variable(text) => return variable(text),
    };
    match (read(path), may_be_made) {
        (Ok(ring), _) => Ok(ring),
        (Err(Problem::Absent), false) => {
            let path = path.display();
            Err(Failure::unusable(format!(
                "the key file {path} does not exist; make one with `(umask 077; echo \"k1 $(head -c 32 /dev/urandom | base64)\" > {path})`"
            )))
        }
        (Err(Problem::Absent), true) => match database {
            Database::Sqlite(stored) if stored.exists() => Err(Failure::unusable(format!(
                "the key file {} is gone, and the database {} holds secrets that nothing else opens; put the key file back, or remove both to begin anew",
                path.display(),
                stored.display()
            ))),
            Database::Sqlite(_) => make(path),
            // A key that this replica made for itself would keep all others out, and be gone with its container.
            Database::Postgres(_) => Err(Failure::unusable(format!(
                "there is no key file {}, and a database on a server needs one that lasts and that every process has; make it once with `(umask 077; echo \"k1 $(head -c 32 /dev/urandom | base64)\" > FILE)` and name it with --key-file",
                path.display()
            ))),
        },
        (Err(Problem::Unusable(failure)), _) => Err(failure),
    }
}

/// Reads the key ring out of a variable, in which a comma may stand for a line's end.
fn variable(text: &SecretValue) -> Result<KeyRing, Failure> {
    let lines = Zeroizing::new(text.expose().replace(',', "\n"));
    KeyRing::parse(&lines).map_err(|error| Failure::unusable(format!("{KEY}, read as a key file: {error}")))
}

enum Problem {
    Absent,
    Unusable(Failure),
}

fn read(path: &Path) -> Result<KeyRing, Problem> {
    let unusable =
        |reason: String| Problem::Unusable(Failure::unusable(format!("the key file {}: {reason}", path.display())));
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Problem::Absent,
        _ => unusable(error.to_string()),
    })?;
    let metadata = file.metadata().map_err(|error| unusable(error.to_string()))?;
    if !metadata.is_file() {
        return Err(unusable("it is not a file".to_owned()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(unusable(format!(
            "others than its owner may read or change it; run `chmod 600 {}`",
            path.display()
        )));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| unusable(error.to_string()))?;
    KeyRing::parse(&text).map_err(|error| unusable(error.to_string()))
}

fn make(path: &Path) -> Result<KeyRing, Failure> {
    let ring = KeyRing::generate().map_err(|error| Failure::because("a key cannot be made", &error))?;
    match write_new(path, ring.to_text().as_bytes()) {
        Ok(()) => {
            tracing::info!(path = %path.display(), "made the key file; without it nobody can read the stored secrets, so keep a copy elsewhere");
            Ok(ring)
        }
        // Another process was faster; its ring is the one.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read(path).map_err(|problem| match problem {
            Problem::Absent => Failure::failed(format!("the key file {} came and went", path.display())),
            Problem::Unusable(failure) => failure,
        }),
        Err(error) => Err(Failure::because(format!("the key file {} cannot be made", path.display()), &error)),
    }
}

/// Writes a file that only its owner can read, whole or not at all, and never over another one.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary(path, content)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked?;
    sync_directory(path)
}

/// Writes a file that only its owner can read, whole or not at all, over another one if there is one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::rename(temporary(path, content)?, path)?;
    sync_directory(path)
}

fn temporary(path: &Path, content: &[u8]) -> io::Result<std::path::PathBuf> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let name = format!(".{}.{}", path.file_name().unwrap_or_default().to_string_lossy(), std::process::id());
    let temporary = path.with_file_name(name);
    let _left_by_an_earlier_process = fs::remove_file(&temporary);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(temporary)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
