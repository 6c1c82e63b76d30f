//! Where a PostgreSQL database is: its URL, and what to say when nobody answers there.

use super::{FIELD, Failure, conn, refused};
use crate::sql::SqlConfig;
use archestra_core::{Error, Result};
use sea_orm::sqlx::{
    self,
    postgres::{PgConnectOptions, PgSslMode},
};
use std::fmt;
use url::Url;

/// The parameters that a URL may have.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];
const EXAMPLE: &str = "use `postgres://USER@HOST/DATABASE`";

/// A database on a server.
pub(super) struct Target {
    pub(super) options: PgConnectOptions,
    /// The database and its server, for people.
    pub(super) name: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options hold the password.
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Target {
    /// Reads the URL. What it does not say is never taken from the environment, but for the certificates and options that
    /// the driver itself looks up there.
    pub(super) fn parse(config: &SqlConfig) -> Result<Self> {
        let invalid = |reason: &str, remedy: &str| Error::invalid(FIELD, reason, remedy);
        // The parser's own words would repeat parts of what may be a password.
        let url = Url::parse(config.url()).map_err(|_| {
            invalid(
                "this is not a URL",
                "use `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with `%` and two hex digits for special characters",
            )
        })?;
        let mut named = Named::of(&url);
        for (key, value) in url.query_pairs() {
            let known = PARAMETERS.contains(&&*key) || key.starts_with("options[") && key.ends_with(']');
            if !known {
                return Err(invalid(&format!("the parameter {key:?} of the URL is not supported"), "remove it"));
            }
            if matches!(&*key, "sslmode" | "ssl-mode") && value.parse::<PgSslMode>().is_err() {
                let modes = "use disable, allow, prefer, require, verify-ca or verify-full";
                return Err(invalid("the URL has an sslmode that there is not", modes));
            }
            named.add(&key);
        }
        if !named.user {
            return Err(invalid("the URL names no user", EXAMPLE));
        }
        if !named.host {
            return Err(invalid("the URL names no host", EXAMPLE));
        }
        if !named.database {
            return Err(invalid("the URL names no database", EXAMPLE));
        }
        let options: PgConnectOptions =
            url.as_str().parse().map_err(|_| invalid("the URL has a parameter that cannot be used", EXAMPLE))?;
        let mut options = options.extra_float_digits(None);
        if !named.password {
            options = options.password("");
        }
        if !named.application {
            options = options.application_name(&config.application_name);
        }
        if !named.sslmode {
            options = options.ssl_mode(PgSslMode::Prefer);
        }
        let at = match options.get_socket() {
            Some(folder) => folder.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let name = format!("{} at {at}", options.get_database().unwrap_or_default());
        Ok(Self { options, name })
    }

    /// Says why there is no connection, and what to do.
    pub(super) fn refusal(&self, failure: Failure) -> Error {
        let (name, user) = (&self.name, self.options.get_username());
        let unavailable = |reason: String, source: Option<sqlx::Error>| Error::Unavailable {
            backend: "database",
            reason,
            source: source.map(Into::into),
        };
        let code = failure.code().map(str::to_owned);
        match (code.as_deref(), failure) {
            (Some("28P01" | "28000"), Failure::Error(error)) => Error::PermissionDenied {
                backend: "database",
                reason: format!(
                    "{name} does not let the user {user:?} in ({}); check the user and the password of the URL, and pg_hba.conf",
                    said(&error)
                ),
            },
            (Some("3D000"), _) => Error::invalid(
                FIELD,
                format!("the database {name} does not exist"),
                format!(
                    "create it with `CREATE DATABASE \"{}\" OWNER \"{user}\"`, or correct the URL",
                    self.options.get_database().unwrap_or_default()
                ),
            ),
            (_, Failure::Silent(after)) => unavailable(
                format!(
                    "{name} did not answer within {after:?}; check the host and the port of the URL, and that nothing keeps us from reaching it"
                ),
                None,
            ),
            (_, Failure::Error(sqlx::Error::Io(error))) => unavailable(
                format!(
                    "{name} cannot be reached: {error}; check the host and the port of the URL, and that the server runs"
                ),
                Some(sqlx::Error::Io(error)),
            ),
            (_, Failure::Error(sqlx::Error::Tls(error))) => Error::invalid(
                FIELD,
                format!("there is no encrypted connection to {name}: {error}"),
                "check sslmode and sslrootcert of the URL; only sslmode=disable and sslmode=prefer do without encryption",
            ),
            (_, Failure::Error(error)) => refused(conn(error)),
        }
    }
}

/// What the server said.
fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        _ => "no reason given".to_owned(),
    }
}

/// Which parts a URL names.
#[derive(Debug, Default)]
struct Named {
    user: bool,
    host: bool,
    database: bool,
    password: bool,
    application: bool,
    sslmode: bool,
}

impl Named {
    fn of(url: &Url) -> Self {
        Self {
            user: !url.username().is_empty(),
            host: url.host_str().is_some_and(|host| !host.is_empty()),
            database: !url.path().trim_matches('/').is_empty(),
            password: url.password().is_some(),
            ..Self::default()
        }
    }

    fn add(&mut self, parameter: &str) {
        match parameter {
            "user" => self.user = true,
            "host" | "hostaddr" => self.host = true,
            "dbname" => self.database = true,
            "password" => self.password = true,
            "application_name" => self.application = true,
            "sslmode" | "ssl-mode" => self.sslmode = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target> {
        Target::parse(&SqlConfig::new(url))
    }

    #[test]
    fn urls_are_read_as_people_write_them() {
        for (url, name) in [
            ("postgres://u:p@db.example.com/archestra", "archestra at db.example.com:5432"),
            ("postgresql://u@db:6432/archestra?sslmode=verify-full&sslrootcert=/ca.pem", "archestra at db:6432"),
            ("postgres:///archestra?host=/run/postgresql&user=u", "archestra at /run/postgresql"),
            ("postgres://u@%2Frun%2Fpostgresql/archestra", "archestra at /run/postgresql"),
        ] {
            assert_eq!(parse(url).unwrap().name, name, "{url}");
        }
        let target = parse("postgres://u@db/archestra").unwrap();
        assert_eq!(target.options.get_application_name(), Some("archestra"));
        assert!(matches!(target.options.get_ssl_mode(), PgSslMode::Prefer));
        let target = parse("postgres://u@db/archestra?application_name=mine&sslmode=require").unwrap();
        assert_eq!(target.options.get_application_name(), Some("mine"));
        assert!(matches!(target.options.get_ssl_mode(), PgSslMode::Require));
    }

    #[test]
    fn urls_that_lead_nowhere_are_refused_with_a_remedy_and_without_their_password() {
        for (url, expected) in [
            ("postgres://", "names no user"),
            ("postgres://u:canary@/db", "this is not a URL"),
            ("postgres:///db?user=u", "names no host"),
            ("postgres://db.example.com/archestra?password=canary", "names no user"),
            ("postgres://u:canary@db.example.com", "names no database"),
            ("postgres://u:can/ary@db/archestra", "this is not a URL"),
            ("postgres://u:canary@db:port/archestra", "this is not a URL"),
            ("postgres://u:canary@db/a?sslmode=canary", "use disable, allow"),
            ("postgres://u:canary@db/a?connect_timeout=5", "\"connect_timeout\" of the URL is not supported"),
            ("postgres://u:canary@db/a?statement-cache-capacity=canary", "cannot be used"),
        ] {
            let error = parse(url).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(matches!(error, Error::Invalid(_)) && shown.contains(expected), "{url}: {shown}");
            assert!(!shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn a_target_does_not_show_its_password() {
        let target = parse("postgres://u:canary@db/archestra").unwrap();
        assert!(!format!("{target:?}").contains("canary"));
    }
}
