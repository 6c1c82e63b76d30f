//! The key file: the key ring as a file that only its owner can read, made at the first start, its keys in clear or wrapped.

use crate::{
    config::{Database, KEY, KeyFile},
    failure::Failure,
    vault::Transit,
};
use archestra_core::secret::{KeyRing, KeyRingError};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use zeroize::Zeroizing;

/// Larger than any ring.
const MAX_FILE: u64 = 64 * 1024;
/// Room for it, and for the look at whether there is more.
const ROOM: usize = 65 * 1024;

/// Reads the key ring, or makes one where there is nothing yet that could need another. What is wrapped is unwrapped by `transit`.
///
/// # Errors
/// The file cannot be read or written, others can read it, it holds no key ring, or it is gone while the database is there; or
/// Vault does not unwrap what is in it.
pub(crate) async fn load(file: &KeyFile, transit: Option<&Transit>, database: &Database) -> Result<KeyRing, Failure> {
    let (path, may_be_made) = match file {
        KeyFile::Default(path) => (path, true),
        KeyFile::Named(path) => (path, false),
        KeyFile::Variable(text) => {
            // A comma may stand for a line's end.
            let lines = Zeroizing::new(text.expose().replace(',', "\n"));
            return open(&lines, &format!("{KEY}, read as a key file"), transit).await;
        }
    };
    match (read(path), may_be_made) {
        (Ok(text), _) => open(&text, &shown(path), transit).await,
        (Err(Problem::Absent), false) => {
            let path = path.display();
            Err(Failure::unusable(format!(
                "the key file {path} does not exist; make one with {}",
                command(&path.to_string(), transit)
            )))
        }
        (Err(Problem::Absent), true) => match database {
            Database::Sqlite(stored) if stored.exists() => Err(Failure::unusable(format!(
                "the key file {} is gone, and the database {} holds secrets that nothing else opens; put the key file back, or remove both to begin anew",
                path.display(),
                stored.display()
            ))),
            Database::Sqlite(_) => make(path, transit).await,
            // A key that this replica made for itself would keep all others out, and be gone with its container.
            Database::Postgres(_) => Err(Failure::unusable(format!(
                "there is no key file {}, and a database on a server needs one that lasts and that every process has; make it once with {} and name it with --key-file",
                path.display(),
                command("FILE", transit)
            ))),
        },
        (Err(Problem::Unusable(failure)), _) => Err(failure),
    }
}

/// The command that makes a key file.
fn command(path: &str, transit: Option<&Transit>) -> String {
    let key = transit.map_or_else(|| "head -c 32 /dev/urandom | base64".to_owned(), Transit::command);
    format!("`(umask 077; echo \"k1 $({key})\" > {path})`")
}

fn shown(path: &Path) -> String {
    format!("the key file {}", path.display())
}

/// The ring that a text holds; `source` names where it is from.
async fn open(text: &str, source: &str, transit: Option<&Transit>) -> Result<KeyRing, Failure> {
    match transit {
        None => KeyRing::parse(text).map_err(|error| match error {
            KeyRingError::Wrapped { .. } => Failure::unusable(format!("{source}: {error} with --key-transit")),
            error => Failure::unusable(format!("{source}: {error}")),
        }),
        Some(transit) => {
            let vault = transit.connect().await?;
            let opened = vault.open(text).await;
            vault.close().await;
            let ring = opened.map_err(|error| transit.failed(&error))?;
            tracing::info!(newest = %ring.newest(), "the keys of the key file were unwrapped by Vault");
            Ok(ring)
        }
    }
}

enum Problem {
    Absent,
    Unusable(Failure),
}

fn read(path: &Path) -> Result<Zeroizing<String>, Problem> {
    let unusable = |reason: String| Problem::Unusable(Failure::unusable(format!("{}: {reason}", shown(path))));
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
    // Of one length from the start: what grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(ROOM));
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| unusable(error.to_string()))?;
    Ok(text)
}

async fn make(path: &Path, transit: Option<&Transit>) -> Result<KeyRing, Failure> {
    let text = match transit {
        None => KeyRing::generate().map_err(|error| Failure::because("a key cannot be made", &error))?.to_text(),
        Some(transit) => {
            let vault = transit.connect().await?;
            let made = vault.new_ring().await;
            vault.close().await;
            Zeroizing::new(made.map_err(|error| transit.failed(&error))?)
        }
    };
    // Before it is written, so that no file is left that cannot be read.
    let ring = open(&text, &shown(path), transit).await?;
    match write_new(path, text.as_bytes()) {
        Ok(()) => {
            tracing::info!(path = %path.display(), "made the key file; without it nobody can read the stored secrets, so keep a copy elsewhere");
            Ok(ring)
        }
        // Another process was faster; its ring is the one.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match read(path) {
            Ok(text) => open(&text, &shown(path), transit).await,
            Err(Problem::Absent) => Err(Failure::failed(format!("{} came and went", shown(path)))),
            Err(Problem::Unusable(failure)) => Err(failure),
        },
        Err(error) => Err(Failure::because(format!("{} cannot be made", shown(path)), &error)),
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
