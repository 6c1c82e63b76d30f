//! Opening a database: what is refused and how, and many processes that open a new one at once.

use crate::support::{config, fresh_path, open};
use archestra_core::{
    Error, ErrorKind,
    catalog::{CatalogStore, CatalogStoreExt as _, Entry, Kind, Query},
    feed::ChangeSet,
    testing::fixtures,
};
use archestra_store::{SqlConfig, SqlStore};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

async fn refusal(url: &str) -> Error {
    let error = SqlStore::connect(SqlConfig::new(url)).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    error
}

#[tokio::test]
async fn urls_that_lead_nowhere_are_refused_with_a_remedy() {
    let missing = fresh_path().with_file_name("no-such-folder").join("x.db");
    let folder = fresh_path();
    fs::create_dir(&folder).unwrap();
    for (url, expected) in [
        ("mysql://root:canary@localhost/archestra".to_owned(), "use `sqlite://PATH`"),
        ("postgres://root:canary@localhost".to_owned(), "names no database"),
        ("no url canary".to_owned(), "not the URL of a database"),
        (String::new(), "not the URL of a database"),
        ("sqlite://".to_owned(), "names no file"),
        ("sqlite://a.db?mode=ro".to_owned(), "remove `mode=ro`"),
        (format!("sqlite://{}", missing.display()), "create it, or choose another path"),
        (format!("sqlite://{}", folder.display()), "is a folder"),
    ] {
        let error = refusal(&url).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {error}");
        assert!(
            error.to_string().contains(expected) && error.to_string().starts_with("databaseUrl: "),
            "{url}: {error}"
        );
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let path = fresh_path();
    let text = "this is certainly not a database, and somebody wants to keep it\n".repeat(100);
    fs::write(&path, &text).unwrap();
    let error = SqlStore::connect(config(&path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("choose another path, or restore a backup"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_refused() {
    let path = fresh_path();
    open(&path).await.close().await;
    // Bytes 18 and 19 are the versions that writing and reading need. Permissions would not stop a test that runs as root.
    let mut bytes = fs::read(&path).unwrap();
    bytes[18] = 3;
    fs::write(&path, bytes).unwrap();
    let error = SqlStore::connect(config(&path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("make the file and its folder writable"), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let path = fresh_path();
    open(&path).await.close().await;
    let raw = sea_orm::Database::connect(format!("sqlite://{}", path.display())).await.unwrap();
    sea_orm::ConnectionTrait::execute_unprepared(
        &raw,
        "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000001_later', 0)",
    )
    .await
    .unwrap();
    raw.close().await.unwrap();
    let error = SqlStore::connect(config(&path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(
        error.to_string().contains("m20990101_000001_later") && error.to_string().contains("start the newer version"),
        "{error}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_a_new_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let path = fresh_path();
    let store = open(&path).await;
    for suffix in ["", "-wal", "-shm"] {
        let mode = fs::metadata(format!("{}{suffix}", path.display())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{suffix:?}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_open_a_new_file_at_once() {
    for _ in 0..5 {
        let path = fresh_path();
        let opening: Vec<_> = (0..8).map(|_| tokio::spawn(SqlStore::connect(config(&path)))).collect();
        for (n, opened) in opening.into_iter().enumerate() {
            let store = opened.await.unwrap().unwrap();
            store.commit(ChangeSet::new().create(fixtures::remote_entry(&format!("entry {n}")))).await.unwrap();
        }
        assert_eq!(open(&path).await.list_all::<Entry>(Query::all(Kind::Entry)).await.unwrap().len(), 8);
    }
}

/// What a process that a test started finds in its working directory.
const TASK: &str = "task.txt";

/// Starts one of the tests here as a process, in a folder of its own with what it is to do.
fn start(test: &str, path: &Path, name: &str) -> Child {
    let folder = fresh_path();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(TASK), format!("{}\n{name}", path.display())).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).current_dir(folder);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// The database and the name that a started process is given; `None` when nobody started it.
fn task() -> Option<(PathBuf, String)> {
    let task = fs::read_to_string(TASK).ok()?;
    let (path, name) = task.split_once('\n')?;
    Some((path.into(), name.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_processes_may_open_a_new_file_at_once() {
    let path = fresh_path();
    let children: Vec<_> =
        (0..6).map(|n| start("connect::one_of_many_processes", &path, &format!("process-{n}"))).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(open(&path).await.list_all::<Entry>(Query::all(Kind::Entry)).await.unwrap().len(), 6 * 20);
}

#[tokio::test]
#[ignore = "started by many_processes_may_open_a_new_file_at_once"]
async fn one_of_many_processes() {
    let Some((path, name)) = task() else { return };
    let store = open(&path).await;
    for n in 0..20 {
        store.commit(ChangeSet::new().create(fixtures::remote_entry(&format!("{name} {n}")))).await.unwrap();
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_survives_a_killed_process() {
    let path = fresh_path();
    let mut acknowledged = BTreeSet::new();
    for round in 0..5 {
        let mut child = start("connect::one_that_is_killed", &path, &format!("round-{round}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let names = lines.by_ref().map(Result::unwrap).filter(|line| line.starts_with("round-"));
        acknowledged.extend(names.take(10 + 7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged
            .extend(lines.map_while(Result::ok).filter(|line| line.starts_with("round-") && line.ends_with('.')));
    }
    let stored = open(&path).await.list_all::<Entry>(Query::all(Kind::Entry)).await.unwrap();
    let stored: BTreeSet<String> = stored.into_iter().map(|entry| entry.value.spec.name).collect();
    assert!(acknowledged.len() >= 120 && acknowledged.is_subset(&stored), "{} of {}", acknowledged.len(), stored.len());
}

#[tokio::test]
#[ignore = "started by what_was_acknowledged_survives_a_killed_process"]
async fn one_that_is_killed() {
    let Some((path, name)) = task() else { return };
    let store = open(&path).await;
    for n in 0.. {
        let name = format!("{name} {n}.");
        store.commit(ChangeSet::new().create(fixtures::remote_entry(&name))).await.unwrap();
        writeln!(std::io::stdout().lock(), "\n{name}").unwrap();
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let path = fresh_path();
    let entry = fixtures::remote_entry("kept");
    let store = open(&path).await;
    store.commit(ChangeSet::new().create(entry.clone())).await.unwrap();
    store.close().await;
    assert!(matches!(
        store.commit(ChangeSet::new().create(fixtures::remote_entry("late"))).await,
        Err(Error::Unavailable { .. })
    ));
    assert_eq!(open(&path).await.get_one::<Entry>(entry.id).await.unwrap().value, entry);
}
