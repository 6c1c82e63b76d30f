//! How the values of flags, variables and the configuration file are written.

use std::{net::SocketAddr, str::FromStr, time::Duration};

/// What runs self-hosted servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuntimeChoice {
    /// Whatever fits the surroundings.
    Auto,
    /// Deployments in a cluster.
    Kubernetes,
    /// Local child processes.
    Process,
    /// Nothing: remote servers only.
    None,
}

impl FromStr for RuntimeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "process" => Ok(Self::Process),
            "none" => Ok(Self::None),
            "kubernetes" => Ok(Self::Kubernetes),
            _ => Err("use `auto`, `kubernetes`, `process` or `none`".to_owned()),
        }
    }
}

/// Where secrets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretsChoice {
    /// In the database, encrypted under the key file.
    Database,
    /// In Vault.
    Vault,
    /// In Vault, where people put them themselves.
    VaultReadOnly,
}

impl FromStr for SecretsChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "database" => Ok(Self::Database),
            "vault" => Ok(Self::Vault),
            "vault-readonly" => Ok(Self::VaultReadOnly),
            _ => Err("use `database`, `vault` or `vault-readonly`".to_owned()),
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("use `text` or `json`".to_owned()),
        }
    }
}

/// Where metrics are served, if they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MetricsListen(pub(crate) Option<SocketAddr>);

impl FromStr for MetricsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| "use an address with a port, as in `127.0.0.1:9050`, or `none`".to_owned())
    }
}

/// How long audit records are kept, if not for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AuditRetention(pub(crate) Option<Duration>);

impl FromStr for AuditRetention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('d').unwrap_or(text).parse::<u32>() {
            Ok(0) => Ok(Self(None)),
            Ok(days) if days <= MOST_DAYS => Ok(Self(Some(DAY * days))),
            Ok(_) => Err(format!("at most {MOST_DAYS} days, or 0 for ever")),
            Err(_) => Err("use a number of days, as in `90` or `90d`, or 0 for ever".to_owned()),
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const MOST_DAYS: u32 = 36_500;

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "use an IP address with a port, as in `127.0.0.1:9000` or `[::]:9000`".to_owned())
}

/// A length of time: `500ms`, `30s`, `5m`, `1h`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let length = number.parse::<u64>().ok().zip(milliseconds).and_then(|(number, unit)| number.checked_mul(unit));
    match length.map(Duration::from_millis) {
        Some(length) if length <= LONGEST => Ok(length),
        Some(_) => Err("at most 24h".to_owned()),
        None => Err("use a number and a unit, as in `500ms`, `30s` or `5m`".to_owned()),
    }
}

/// A length of time that is not nothing.
pub(super) fn deadline(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("nothing can be done in no time; use 1s or more".to_owned()),
        length => Ok(length),
    }
}

const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A number of bytes: `4MiB`, `512KiB`, or a bare number.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "B" => Some(1_usize),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    match number.parse::<usize>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor)) {
        Some(size) if (1024..=1 << 30).contains(&size) => Ok(size),
        Some(_) => Err("use 1KiB to 1GiB".to_owned()),
        None => Err("use a number of bytes, or as in `512KiB` or `4MiB`".to_owned()),
    }
}
