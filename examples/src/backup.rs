//! `archestra backup` and `archestra restore`: all records and sealed secrets of a database, to a file and back.

use crate::{
    config::{self, Database},
    environment::Environment,
    failure::Failure,
    flags::{self, BackupFlags, RestoreFlags, Settings},
    serve::{backends::open_store, data_directory},
};
use archestra_store::{SqlConfig, SqlStore};
use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Writes a backup to a file that is not there yet and that only its owner can read.
///
/// # Errors
/// With exit code 2 when nothing was tried, with 1 when the database or the file does not work; then there is no file.
pub(crate) async fn backup(flags: BackupFlags, environment: &Environment) -> Result<(), Failure> {
    let BackupFlags { to, settings } = flags;
    let database = database(settings, environment, Directory::IsThere)?;
    if let Database::Sqlite(path) = &database
        && !path.exists()
    {
        return Err(Failure::unusable(format!("there is no database {}", path.display())));
    }
    let shown = to.display();
    let file = File::options().write(true).create_new(true).mode(0o600).open(&to);
    let file = file.map_err(|error| Failure::because(format!("the backup {shown}"), &error))?;
    let written = write(&database, file).await;
    match written {
        Ok(rows) => {
            tell(&format!(
                "wrote {rows} rows to {shown}; keep the key file too, without which nobody reads the secrets in it"
            ));
            Ok(())
        }
        Err(failure) => {
            let _half = fs::remove_file(&to);
            Err(failure)
        }
    }
}

async fn write(database: &Database, file: File) -> Result<u64, Failure> {
    let store = open_as_it_is(database).await?;
    let mut out = BufWriter::new(file);
    let written = store.backup(&mut out).await;
    store.close().await;
    let counts = written.map_err(|error| Failure::because("the backup was not made", &error))?;
    let file = out.into_inner().map_err(|error| Failure::because("the backup was not written", &error.into_error()))?;
    file.sync_all().map_err(|error| Failure::because("the backup was not written", &error))?;
    Ok(counts.rows())
}

/// Opens a database to read it: a backup changes nothing, and upgrades nothing.
async fn open_as_it_is(database: &Database) -> Result<SqlStore, Failure> {
    let (url, what) = match database {
        Database::Sqlite(path) => (format!("sqlite://{}", path.display()), format!("the database {}", path.display())),
        Database::Postgres(url) => (url.clone(), "the database".to_owned()),
    };
    SqlStore::open_read_only(SqlConfig::new(url)).await.map_err(|error| Failure::because(what, &error))
}

/// Restores a backup into an empty database.
///
/// # Errors
/// With exit code 2 when nothing was tried, with 1 when the backup cannot be restored; then nothing of it is there.
pub(crate) async fn restore(flags: RestoreFlags, environment: &Environment) -> Result<(), Failure> {
    let RestoreFlags { from, settings } = flags;
    let file = open(&from)?;
    let database = database(settings, environment, Directory::IsMade)?;
    let store = open_store(&database).await?;
    let restored = restore_alone(&store, file).await;
    store.close().await;
    let rows = restored?;
    tell(&format!(
        "restored {rows} rows from {}; start the server with the key file that it was made with",
        from.display()
    ));
    Ok(())
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::because(format!("the backup {}", path.display()), &error))
}

/// A server that started on the empty database meanwhile would write into what is restored, or into what is then refused.
async fn restore_alone(store: &SqlStore, file: File) -> Result<u64, Failure> {
    let claim = store
        .claim_alone(&format!("`restore` (process {})", std::process::id()))
        .await
        .map_err(|error| Failure::because("nothing was restored", &error))?;
    let restored = tokio::select! {
        restored = read(store, file) => restored,
        () = claim.lost() => Err(Failure::failed(
            "nothing was restored: a server was started on this database while we were cut off from it; stop the server, and use an empty database",
        )),
    };
    if let Err(error) = claim.release().await {
        tracing::debug!(%error, "the claim of the database was not released; it expires by itself");
    }
    restored
}

async fn read(store: &SqlStore, file: File) -> Result<u64, Failure> {
    let counts = store.restore(&mut BufReader::new(file)).await;
    counts.map(|counts| counts.rows()).map_err(|error| Failure::because("nothing was restored", &error))
}

/// Whether the data directory must be there.
#[derive(Clone, Copy)]
enum Directory {
    IsThere,
    IsMade,
}

fn database(settings: Settings, environment: &Environment, directory: Directory) -> Result<Database, Failure> {
    let settings = flags::resolve(settings, environment)?;
    let data_dir = settings.data_dir.unwrap_or_default();
    let database = config::database(settings.database_url.as_deref(), &data_dir)?;
    if let Directory::IsMade = directory {
        data_directory(&data_dir)?;
    }
    Ok(database)
}

fn tell(text: &str) {
    let _closed = writeln!(std::io::stdout().lock(), "{text}");
}
