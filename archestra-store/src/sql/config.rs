//! `SqlConfig`: which database, and how it is used.

use std::{fmt, time::Duration};

/// How to reach a database, and how to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct SqlConfig {
    url: String,
    pub(crate) readers: u32,
    pub(crate) writers: u32,
    pub(crate) connect_timeout: Duration,
    pub(crate) application_name: String,
    pub(crate) lock_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) upgrade_timeout: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) kept_revisions: u64,
    pub(crate) access: Access,
}

/// What a database is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadWrite,
    /// Nothing is changed, not even its schema.
    ReadOnly,
}

impl SqlConfig {
    /// The database at `url`, `sqlite://PATH`, `sqlite::memory:` or `postgres://USER@HOST/DATABASE`, with the usual settings.
    ///
    /// **SQLite.** A path is absolute (`sqlite:///var/lib/archestra.db`) or relative to the working directory
    /// (`sqlite://archestra.db`); its folder must exist. A database in memory is gone with its store.
    ///
    /// **PostgreSQL.** The URL names user, host and database, and a password if one is needed. Its parameters are those of
    /// libpq, as far as there are any here: `sslmode` (`prefer`, unless it is said otherwise), `sslrootcert`, `sslcert`,
    /// `sslkey`, `host` (a folder with a socket, too), `hostaddr`, `port`, `dbname`, `user`, `password`, `application_name`,
    /// `options`. A pooler may be in front of it, also one that hands out connections by the transaction: what it takes away is
    /// found out when the database is opened, and done without.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            readers: 4,
            writers: 4,
            connect_timeout: Duration::from_secs(10),
            application_name: "archestra".to_owned(),
            lock_timeout: Duration::from_secs(20),
            deadline: Duration::from_secs(30),
            upgrade_timeout: Duration::from_secs(600),
            poll_interval: Duration::from_millis(200),
            kept_revisions: 10_000,
            access: Access::ReadWrite,
        }
    }

    /// How many queries run at once; 4 by default, at least 1.
    #[must_use]
    pub fn readers(mut self, readers: u32) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// How many writes are under way at once, each on its connection; 4 by default, at least 1. On SQLite it is always one.
    #[must_use]
    pub fn writers(mut self, writers: u32) -> Self {
        self.writers = writers.max(1);
        self
    }

    /// How long it may take until there is a connection, be it that one is made or that one is free; 10 s by default. On SQLite
    /// the deadline says so.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// What the server of the database calls us, unless the URL says so; `archestra` by default.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
    }

    /// How long a write waits for that of another process; 20 s by default.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// How long any one operation may take; 30 s by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long it may take to bring the schema up to date when the database is opened, be it by us or by the process that we wait
    /// for; 10 minutes by default.
    #[must_use]
    pub fn upgrade_timeout(mut self, timeout: Duration) -> Self {
        self.upgrade_timeout = timeout;
        self
    }

    /// How often changes by other processes are looked for; 200 ms by default, at most 400 ms, so that feeds are confirmed in
    /// time.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.clamp(Duration::from_millis(10), Duration::from_millis(400));
        self
    }

    /// How many of the latest commits a feed can be resumed from; 10,000 by default.
    #[must_use]
    pub fn kept_revisions(mut self, revisions: u64) -> Self {
        self.kept_revisions = revisions.max(1);
        self
    }

    /// The URL, which may hold a password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// As much of the URL as cannot be secret: all of a path, and of anything else what kind of database it is.
    pub(crate) fn shown_url(&self) -> String {
        let bare = self.url.split('?').next().unwrap_or_default();
        match bare.split_once(':') {
            Some(("sqlite", _)) => bare.to_owned(),
            Some((scheme, _)) => format!("{scheme}:..."),
            None => "...".to_owned(),
        }
    }
}

impl fmt::Debug for SqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlConfig")
            .field("url", &self.shown_url())
            .field("readers", &self.readers)
            .field("writers", &self.writers)
            .field("connect_timeout", &self.connect_timeout)
            .field("application_name", &self.application_name)
            .field("lock_timeout", &self.lock_timeout)
            .field("deadline", &self.deadline)
            .field("upgrade_timeout", &self.upgrade_timeout)
            .field("poll_interval", &self.poll_interval)
            .field("kept_revisions", &self.kept_revisions)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://user:canary@host/db",
            "postgres://user:can?ary@canary/db?password=canary",
            "postgres:user:canary@host",
            "canary",
        ] {
            let shown = format!("{:?}", SqlConfig::new(url));
            assert!(!shown.contains("canary") && !shown.contains("ary@"), "{shown}");
        }
        assert!(format!("{:?}", SqlConfig::new("sqlite:///a/b.db")).contains("sqlite:///a/b.db"));
    }
}
