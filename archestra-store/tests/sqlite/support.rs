//! Databases for tests: each in a file of its own below the target folder, removed by a later run.

use archestra_core::secret::KeyRing;
use archestra_store::{SqlConfig, SqlStore};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("archestra-store");
    fs::create_dir_all(&all).unwrap();
    for old in fs::read_dir(&all).unwrap().flatten() {
        let age = old
            .metadata()
            .and_then(|data| data.modified())
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age > Duration::from_secs(900)) {
            fs::remove_dir_all(old.path()).ok();
        }
    }
    let mine = all.join(uuid::Uuid::now_v7().to_string());
    fs::create_dir(&mine).unwrap();
    mine
});

/// The path of a database that is not there yet.
pub(crate) fn fresh_path() -> PathBuf {
    FOLDER.join(format!("{}.db", uuid::Uuid::now_v7()))
}

/// The settings for a database file.
pub(crate) fn config(path: &Path) -> SqlConfig {
    SqlConfig::new(format!("sqlite://{}", path.display()))
}

/// A handle on a database file.
pub(crate) async fn open(path: &Path) -> SqlStore {
    SqlStore::connect(config(path)).await.unwrap()
}

/// A database in a new file.
pub(crate) async fn file() -> SqlStore {
    open(&fresh_path()).await
}

/// Two handles on a database in a new file, as two processes have them.
pub(crate) async fn pair() -> (SqlStore, SqlStore) {
    let path = fresh_path();
    (open(&path).await, open(&path).await)
}

/// A database in memory.
pub(crate) async fn memory() -> SqlStore {
    SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap()
}

/// A new key ring.
pub(crate) fn ring() -> Arc<KeyRing> {
    Arc::new(KeyRing::generate().unwrap())
}

/// Everything that a database has on disk.
pub(crate) fn dump(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        bytes.extend(fs::read(PathBuf::from(name)).unwrap_or_default());
    }
    bytes
}

/// Whether `bytes` hold `text`.
pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
