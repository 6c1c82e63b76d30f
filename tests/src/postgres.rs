//! Databases on the PostgreSQL server that `ARCHESTRA_TEST_POSTGRES_URL` names, one for each test.

use std::process::{Command, Output};

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

fn psql(url: &str, sql: &str) -> Output {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--command", sql]);
    // A password in the arguments would be seen by everybody; this one is of a throwaway server on loopback.
    command.arg(url).output().unwrap_or_else(|error| panic!("psql does not start: {error}; install postgresql-client"))
}
