//! The layers of settings: flags over variables over the configuration file over the defaults.

use super::{DEFAULTS, Settings, variable};
use crate::{environment::Environment, failure::Failure};
use clap::{Args, FromArgMatches, error::ErrorKind};
use serde_json::{Map, Value};
use std::{fs::File, io::Read, path::Path};

/// The largest configuration file.
const MAX_FILE: u64 = 1024 * 1024;

/// Puts the layers over each other. Every setting that has a default is there afterwards.
///
/// # Errors
/// A variable, or a line of the file, that cannot be used.
pub(crate) fn resolve(flags: Settings, environment: &Environment) -> Result<Settings, Failure> {
    if flags.database_url.as_deref().is_some_and(holds_password) {
        return Err(Failure::unusable(
            "--database-url: everybody on this machine sees a password that is given as a flag; set ARCHESTRA_DATABASE_URL, or write it into the file that --config names",
        ));
    }
    let variables =
        names().filter_map(|flag| environment.get(&variable(&flag)).map(|value| (flag.clone(), value.to_owned())));
    let mut set = flags.or(layer(variables, variable)?);
    if let Some(path) = &set.config {
        let shown = path.display().to_string();
        let file = layer(read_file(path)?, |flag| format!("{shown}: {flag}"))?;
        set = set.or(file);
    }
    let defaults = DEFAULTS.iter().map(|(flag, value)| ((*flag).to_owned(), (*value).to_owned()));
    Ok(set.or(layer(defaults, |flag| format!("the default of --{flag}"))?))
}

/// The names of all settings, as flags without the dashes in front.
fn names() -> impl Iterator<Item = String> {
    let command = Settings::augment_args(clap::Command::new("archestra"));
    command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect::<Vec<_>>().into_iter()
}

/// Reads values just as if they were flags; `source` names where one came from.
fn layer(
    pairs: impl IntoIterator<Item = (String, String)>,
    source: impl Fn(&str) -> String,
) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    for (flag, value) in pairs {
        let command =
            Settings::augment_args(clap::Command::new("archestra").no_binary_name(true).disable_help_flag(true));
        let read = command
            .try_get_matches_from([format!("--{flag}={value}")])
            .and_then(|matches| Settings::from_arg_matches(&matches));
        settings =
            settings.or(read.map_err(|error| Failure::unusable(format!("{}: {}", source(&flag), reason(&error))))?);
    }
    Ok(settings)
}

/// What clap says, without what it says around it.
fn reason(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::InvalidValue {
        return "it has no value".to_owned();
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    match first.split_once("' for '").and_then(|(value, rest)| Some((value, rest.split_once("': ")?.1))) {
        Some((value, why)) => format!("{value}': {why}"),
        None => first.to_owned(),
    }
}

fn read_file(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let unusable = |reason: String| Failure::unusable(format!("the configuration file {}: {reason}", path.display()));
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    read.map_err(|error| unusable(error.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(unusable(format!("it is larger than {MAX_FILE} bytes")));
    }
    let known: Vec<String> = names().filter(|name| name != "config").collect();
    let mut pairs = Vec::new();
    for (key, value) in parse(&text).map_err(unusable)? {
        let flag = kebab(&key);
        if !known.contains(&flag) {
            return Err(unusable(format!("there is no setting {key}; there are {}", known.join(", "))));
        }
        let value = scalar(&value)
            .ok_or_else(|| unusable(format!("{key}: use a text, a number, true or false, or a list of them")))?;
        pairs.push((flag, value));
    }
    Ok(pairs)
}

fn parse(text: &str) -> Result<Map<String, Value>, String> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Map::new());
    }
    match crate::yaml::parse(text)? {
        Value::Object(map) => Ok(map),
        _ => Err("it is not a map of settings; write `listen: 127.0.0.1:9000`".to_owned()),
    }
}

/// `dataDir` as `data-dir`.
fn kebab(key: &str) -> String {
    key.chars().fold(String::new(), |mut name, c| {
        if c.is_ascii_uppercase() {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
        name
    })
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(word) => Some(word.to_string()),
        Value::Array(items) => items
            .iter()
            .map(|item| if item.is_array() { None } else { scalar(item) })
            .collect::<Option<Vec<_>>>()
            .map(|items| items.join(",")),
        Value::Null | Value::Object(_) => None,
    }
}

/// Whether a URL holds a password, before its host or among its parameters.
fn holds_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (before, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let in_authority = before.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    in_authority || parameters.split('&').any(|parameter| parameter.split('=').next() == Some("password"))
}

impl Settings {
    /// These settings, and where one is not set that of `other`.
    fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            public_url: self.public_url.or(other.public_url),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            data_dir: self.data_dir.or(other.data_dir),
            database_url: self.database_url.or(other.database_url),
            key_file: self.key_file.or(other.key_file),
            runtime: self.runtime.or(other.runtime),
            kubernetes: self.kubernetes.or(other.kubernetes),
            secrets: self.secrets.or(other.secrets),
            vault: self.vault.or(other.vault),
            private_networks: self.private_networks.or(other.private_networks),
            allowed_hosts: self.allowed_hosts.or(other.allowed_hosts),
            allowed_origins: self.allowed_origins.or(other.allowed_origins),
            body_limit: self.body_limit.or(other.body_limit),
            call_timeout: self.call_timeout.or(other.call_timeout),
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            start_timeout: self.start_timeout.or(other.start_timeout),
            write_timeout: self.write_timeout.or(other.write_timeout),
            max_calls_per_caller: self.max_calls_per_caller.or(other.max_calls_per_caller),
            max_streams_per_caller: self.max_streams_per_caller.or(other.max_streams_per_caller),
            stale_grace: self.stale_grace.or(other.stale_grace),
            audit_retention: self.audit_retention.or(other.audit_retention),
            quickstart: self.quickstart.or(other.quickstart),
            log_format: self.log_format.or(other.log_format),
            log: self.log.or(other.log),
            config: self.config.or(other.config),
        }
    }
}
