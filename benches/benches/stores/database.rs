//! The databases that are measured, each removed when it is dropped.

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

use super::Failure;

/// One database.
#[derive(Debug)]
pub(super) enum Database {
    Sqlite { _folder: TempDir, url: String },
    Postgres { server: String, name: String, url: String },
}

impl Database {
    /// A file.
    pub(super) fn sqlite() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let file: PathBuf = folder.path().join("bench.db");
        Ok(Self::Sqlite { url: format!("sqlite://{}", file.display()), _folder: folder })
    }

    /// A new one on a server.
    pub(super) fn postgres(server: &str) -> Result<Self, Failure> {
        let name = format!("archestra_bench_{}", std::process::id());
        psql(server, &format!("CREATE DATABASE {name}"))?;
        let (at, _) = server.rsplit_once('/').ok_or("ARCHESTRA_TEST_POSTGRES_URL names no database")?;
        Ok(Self::Postgres { server: server.to_owned(), url: format!("{at}/{name}"), name })
    }

    pub(super) fn url(&self) -> &str {
        match self {
            Self::Sqlite { url, .. } | Self::Postgres { url, .. } => url,
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "SQLite",
            Self::Postgres { .. } => "PostgreSQL",
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::Postgres { server, name, .. } = self {
            psql(server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).ok();
        }
    }
}

fn psql(url: &str, sql: &str) -> Result<(), Failure> {
    let status = Command::new("psql").args(["--no-psqlrc", "--quiet", "--command", sql]).arg(url).status()?;
    if status.success() { Ok(()) } else { Err(format!("psql ended with {status}").into()) }
}
