//! The command line of the bridge.

use crate::runtime::stdio::Mode;
use std::{ffi::OsString, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

const HELP: &str = "\
Serves the MCP server of a command over TCP, a private channel for each connection.

Usage: archestra-bridge --listen ADDR --health ADDR --token-file PATH [OPTIONS] -- COMMAND [ARG]...
       archestra-bridge --install DIRECTORY

      --listen ADDR            where channels are served, as IP:PORT
      --health ADDR            where GET /ready and GET /live are answered, as IP:PORT
      --token-file PATH        a file with the token that clients must send
      --exclusive              give the server to one channel at a time
      --init-timeout SECONDS   how long the server may take to be initialized (120)
      --drain SECONDS          how long calls under way may take after SIGTERM (20)
      --linger SECONDS         how much of it those are still let in who have not heard yet (1)
      --max-connections COUNT  how many connections may be open (1024)
      --install DIRECTORY      copy this program there, and end
      --help, --version
";

/// What the bridge is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Serve(Options),
    Install(PathBuf),
    Print(String),
}

/// How it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) listen: SocketAddr,
    pub(super) health: SocketAddr,
    pub(super) token_file: PathBuf,
    pub(super) mode: Mode,
    pub(super) init_timeout: Duration,
    pub(super) drain: Duration,
    /// How long whoever has not heard yet that we are told to end is served: those who choose a pod hear of it within that time.
    pub(super) linger: Duration,
    pub(super) max_connections: usize,
    /// Never empty.
    pub(super) command: Vec<OsString>,
}

pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut args = args.into_iter();
    let (mut listen, mut health, mut token_file) = (None, None, None);
    let mut mode = Mode::Shared;
    let (mut init_timeout, mut drain) = (Duration::from_secs(120), Duration::from_secs(20));
    let mut linger = Duration::from_secs(1);
    let mut max_connections = 1024;
    while let Some(arg) = args.next() {
        let text = arg.to_str().ok_or_else(|| format!("{} is not an option", arg.display()))?;
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text, None),
        };
        let mut value = || inline.clone().or_else(|| args.next()).ok_or_else(|| format!("{name} needs a value"));
        match name {
            "--listen" => listen = Some(number(name, &value()?)?),
            "--health" => health = Some(number(name, &value()?)?),
            "--token-file" => token_file = Some(PathBuf::from(value()?)),
            "--init-timeout" => init_timeout = seconds(name, &value()?)?,
            "--drain" => drain = seconds(name, &value()?)?,
            "--linger" => linger = seconds(name, &value()?)?,
            "--max-connections" => max_connections = number::<usize>(name, &value()?)?.clamp(1, 1 << 20),
            "--install" => return Ok(Command::Install(PathBuf::from(value()?))),
            "--exclusive" if inline.is_none() => mode = Mode::Exclusive,
            "--help" => return Ok(Command::Print(HELP.to_owned())),
            "--version" => return Ok(Command::Print(format!("archestra-bridge {}\n", env!("CARGO_PKG_VERSION")))),
            "--" if inline.is_none() => break,
            _ => return Err(format!("there is no option {text}")),
        }
    }
    let command: Vec<OsString> = args.collect();
    if command.is_empty() {
        return Err("the server's command is missing: it stands behind `--`".to_owned());
    }
    let missing = |name: &str| format!("{name} is missing");
    Ok(Command::Serve(Options {
        listen: listen.ok_or_else(|| missing("--listen"))?,
        health: health.ok_or_else(|| missing("--health"))?,
        token_file: token_file.ok_or_else(|| missing("--token-file"))?,
        mode,
        init_timeout,
        drain,
        linger,
        max_connections,
        command,
    }))
}

fn number<T: FromStr>(name: &str, value: &OsString) -> Result<T, String> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| format!("{} is no value for {name}", value.display()))
}

fn seconds(name: &str, value: &OsString) -> Result<Duration, String> {
    number::<u32>(name, value).map(|seconds| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::{Command, Mode, parse};
    use std::time::Duration;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(Into::into))
    }

    #[test]
    fn all_options_are_understood() {
        let line = "--listen 0.0.0.0:7420 --health=[::]:7421 --token-file /t --exclusive --init-timeout 7 --drain=3 --max-connections 5 -- npx --yes -- x";
        let Ok(Command::Serve(options)) = parsed(line) else { panic!("{:?}", parsed(line)) };
        assert_eq!(options.listen, "0.0.0.0:7420".parse().unwrap());
        assert_eq!(options.health, "[::]:7421".parse().unwrap());
        assert_eq!((options.mode, options.max_connections), (Mode::Exclusive, 5));
        assert_eq!((options.init_timeout, options.drain), (Duration::from_secs(7), Duration::from_secs(3)));
        assert_eq!(options.command, ["npx", "--yes", "--", "x"]);
        assert_eq!(parsed("--install /archestra"), Ok(Command::Install("/archestra".into())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, names) in [
            ("", "behind `--`"),
            ("--listen 127.0.0.1:1 --health 127.0.0.1:2 --token-file t --", "behind `--`"),
            ("--listen 127.0.0.1:1 --token-file t -- x", "--health"),
            ("--listen localhost --health 127.0.0.1:2 -- x", "localhost"),
            ("--listen", "--listen"),
            ("--drain soon -- x", "soon"),
            ("--exclusive=yes -- x", "--exclusive=yes"),
            ("server", "server"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(names), "{line}: {error}");
        }
    }
}
