//! The log: what is written to standard error, as text or as one JSON object in each line.

use crate::{failure::Failure, flags::LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What says little to an operator at its usual level. A filter may ask for it.
const QUIET: &str = "sea_orm_migration=warn,sqlx=warn,vaultrs=off,rustify=off";

/// Installs the log of the process.
pub(crate) fn install(format: LogFormat, filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(format!("{QUIET},{filter}")).map_err(|error| {
        Failure::unusable(format!("--log: {error}; use a level, or as in `info,archestra_gateway=debug`"))
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(colours)).try_init()
        }
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
        }
    };
    installed.map_err(|error| Failure::because("the log cannot be set up", &error))
}
