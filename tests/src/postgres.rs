//! Databases on the PostgreSQL server that `ARCHESTRA_TEST_POSTGRES_URL` names, one for each test; and servers of a test's own.

use std::{
    net::TcpStream,
    path::PathBuf,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// A database of this test's own. Dropped, it is removed, whoever is connected to it.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
}

impl Default for Database {
    fn default() -> Self {
        Self::new()
    }
}

impl Database {
    /// An empty one.
    pub fn new() -> Self {
        let server = std::env::var("ARCHESTRA_TEST_POSTGRES_URL")
            .expect("ARCHESTRA_TEST_POSTGRES_URL is not set: run `eval \"$(.ci/postgres)\"`");
        Self::on(server)
    }

    /// An empty one on another server.
    pub fn on(server: String) -> Self {
        let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let name = format!("archestra_test_{}", random.trim().replace('-', ""));
        let made = psql(&server, &format!("CREATE DATABASE {name}"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { server, name }
    }

    /// Its URL, with the password.
    pub fn url(&self) -> String {
        let (at, _) = self.server.rsplit_once('/').unwrap();
        format!("{at}/{}", self.name)
    }

    /// The password in it.
    pub fn password(&self) -> &str {
        let (credentials, _) = self.server.rsplit_once('@').unwrap();
        credentials.rsplit_once(':').unwrap().1
    }

    /// Its URL through the PgBouncer that `ARCHESTRA_TEST_PGBOUNCER_URL` names.
    pub fn pooled_url(&self) -> String {
        let pooler = std::env::var("ARCHESTRA_TEST_PGBOUNCER_URL")
            .expect("ARCHESTRA_TEST_PGBOUNCER_URL is not set: run `eval \"$(.ci/pgbouncer)\"`");
        let (at, _) = pooler.rsplit_once('/').unwrap();
        format!("{at}/{}", self.name)
    }

    /// Everything that is in it, as SQL.
    pub fn dump(&self) -> String {
        let mut command = Command::new("pg_dump");
        command.args(["--inserts", "--no-owner", "--dbname"]).arg(self.url());
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("pg_dump does not start: {error}; install postgresql-client"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs SQL in it, and returns what it printed.
    pub fn run(&self, sql: &str) -> String {
        let output = psql(&self.url(), sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        psql(&self.server, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

/// A server that a test may break. Dropped, it is gone.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    url: String,
    _directory: TempDir,
}

impl Default for Server {
    fn default() -> Self {
        Self::start()
    }
}

impl Server {
    /// Starts one.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // It does not run as root, and must reach what is its own.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), readable).unwrap();
        let folder = directory.path().join("postgres");
        let printed = script(&folder, &[]);
        let (_, url) = printed.trim().rsplit_once("ARCHESTRA_TEST_POSTGRES_URL=").unwrap();
        Self { url: url.to_owned(), folder, _directory: directory }
    }

    /// Its URL, which ends in one of its databases.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Breaks it off, and starts it again after so many seconds.
    pub async fn restart(&self, how: &'static str, after: u64) {
        let folder = self.folder.clone();
        let restarted = move || script(&folder, &["restart", how, &after.to_string()]);
        tokio::task::spawn_blocking(restarted).await.unwrap();
    }

    /// Whether it takes connections.
    pub fn is_up(&self) -> bool {
        let (_, at) = self.url.rsplit_once('@').unwrap();
        TcpStream::connect(at.split_once('/').unwrap().0).is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        script(&self.folder, &["stop"]);
    }
}

fn script(folder: &PathBuf, args: &[&str]) -> String {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/postgres"));
    let output = command.args(args).env("ARCHESTRA_POSTGRES_DIR", folder).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn psql(url: &str, sql: &str) -> Output {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--command", sql]);
    // A password in the arguments would be seen by everybody; this one is of a throwaway server on loopback.
    command.arg(url).output().unwrap_or_else(|error| panic!("psql does not start: {error}; install postgresql-client"))
}
