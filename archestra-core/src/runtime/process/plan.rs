//! A workload made ready to be started: the program found, secrets filled in, and a digest that tells whether anything changed.

use super::config::ProcessConfig;
use crate::{
    Error, Result,
    runtime::{EnvValue, Workload, WorkloadTransport},
    secret::SecretValue,
};
use aws_lc_rs::digest;
use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Stands for the port in arguments and plain values.
pub(super) const PORT_PLACEHOLDER: &str = "${archestra.http_port}";

/// What to start, whenever it is to be started.
pub(super) struct Plan {
    pub(super) transport: WorkloadTransport,
    pub(super) exclusive: bool,
    program: String,
    args: Vec<String>,
    env: Vec<(String, Value)>,
    digest: digest::Digest,
}

enum Value {
    Plain(String),
    Secret(SecretValue),
}

/// A plan with everything in it that is decided anew for every start. It holds secrets, so it has no `Debug`.
pub(super) struct Launch {
    pub(super) program: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, SecretValue)>,
    pub(super) directory: PathBuf,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("program", &self.program)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// Looks for the program and the secrets. Reads directories of `PATH`, and nothing else.
    pub(super) fn new(config: &ProcessConfig, workload: &Workload) -> Result<Self> {
        let spec = &workload.spec;
        let mut env = Vec::with_capacity(spec.env.len());
        for (n, variable) in spec.env.iter().enumerate() {
            let value = match &variable.value {
                EnvValue::Plain(text) => Value::Plain(text.clone()),
                EnvValue::Secret(key) | EnvValue::Mounted(key) => {
                    let value = workload.secrets.get(key).ok_or_else(|| {
                        Error::invalid(
                            format!("selfHosted.env[{n}]"),
                            format!("the secret {} has no value", variable.name),
                            "install again and supply it",
                        )
                    })?;
                    if value.expose().contains('\0') {
                        let reason =
                            format!("the value of {} holds a NUL character, which no environment can", variable.name);
                        return Err(Error::invalid(format!("selfHosted.env[{n}]"), reason, "remove it"));
                    }
                    Value::Secret(value.clone())
                }
            };
            env.push((variable.name.clone(), value));
        }
        let own_path = env.iter().rev().find_map(|(name, value)| match value {
            Value::Plain(text) if name == "PATH" => Some(text.as_str()),
            _ => None,
        });
        let path = own_path.or_else(|| config.inherit.get("PATH").map(String::as_str)).unwrap_or(DEFAULT_PATH);
        let (name, before_args) = spec
            .command
            .split_first()
            .ok_or_else(|| Error::invalid("selfHosted.command", "there is none", "give one"))?;
        Ok(Self {
            transport: spec.transport.clone(),
            exclusive: spec.exclusive,
            program: find_program(name, path)?,
            args: before_args.iter().chain(&spec.args).cloned().collect(),
            digest: digest_of(workload),
            env,
        })
    }

    /// Whether both start the same thing.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.digest.as_ref() == other.digest.as_ref()
    }

    /// The workload's secret values, for keeping them out of texts.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretValue> {
        self.env.iter().filter_map(|(_, value)| match value {
            Value::Secret(secret) => Some(secret),
            Value::Plain(_) => None,
        })
    }

    /// Everything for one start, in the workload's own directories and, if it listens, on this port.
    ///
    /// What comes later wins: what is inherited, our directories, what the workload says, the port, our mark.
    pub(super) fn launch(&self, config: &ProcessConfig, directories: &Directories, port: Option<u16>) -> Launch {
        let fill = |text: &str| match port {
            Some(port) => text.replace(PORT_PLACEHOLDER, &port.to_string()),
            None => text.to_owned(),
        };
        let mut env: Vec<(String, SecretValue)> = Vec::new();
        let mut set = |name: &str, value: SecretValue| {
            env.retain(|(earlier, _)| earlier != name);
            env.push((name.to_owned(), value));
        };
        set("PATH", DEFAULT_PATH.into());
        for (name, value) in &config.inherit {
            set(name, value.as_str().into());
        }
        set("HOME", text_of(&directories.home).into());
        set("TMPDIR", text_of(&directories.tmp).into());
        for (name, value) in &self.env {
            let value = match value {
                Value::Plain(text) => fill(text).into(),
                Value::Secret(secret) => secret.clone(),
            };
            set(name, value);
        }
        if let Some(port) = port {
            set("PORT", port.to_string().into());
        }
        set(MARK, text_of(&directories.root).into());
        Launch {
            program: self.program.clone(),
            args: self.args.iter().map(|arg| fill(arg)).collect(),
            env,
            directory: directories.home.clone(),
        }
    }
}

/// The variable by which a process of a workload is known, wherever it went. Its value is the workload's directory.
pub(super) const MARK: &str = "ARCHESTRA_WORKLOAD";

/// The directories of one workload.
#[derive(Debug, Clone)]
pub(super) struct Directories {
    pub(super) root: PathBuf,
    pub(super) home: PathBuf,
    pub(super) tmp: PathBuf,
}

impl Directories {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { home: root.join("home"), tmp: root.join("tmp"), root }
    }
}

/// A path of ours as text. The state directory is known to be UTF-8, and so is everything below it.
pub(super) fn text_of(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn find_program(name: &str, path: &str) -> Result<String> {
    let refuse = |reason: String, remedy: &str| Err(Error::invalid("selfHosted.command", reason, remedy));
    if name.contains('/') {
        return match (Path::new(name).is_absolute(), executable(Path::new(name))) {
            (false, _) => refuse(
                format!("`{name}` is a relative path"),
                "give an absolute path, or the name of a program on PATH",
            ),
            (true, Executable::Yes) => Ok(name.to_owned()),
            (true, Executable::NotPermitted) => {
                refuse(format!("`{name}` may not be executed"), "make it executable for the user the platform runs as")
            }
            (true, Executable::No) => {
                refuse(format!("`{name}` does not exist or is no file"), "install it, or correct the path")
            }
        };
    }
    for directory in path.split(':').filter(|directory| directory.starts_with('/')) {
        let candidate = Path::new(directory).join(name);
        if executable(&candidate) == Executable::Yes {
            return Ok(text_of(&candidate).to_owned());
        }
    }
    refuse(format!("command `{name}` was not found on PATH={path}"), "install it, or give an absolute path")
}

#[derive(PartialEq, Eq)]
enum Executable {
    Yes,
    NotPermitted,
    No,
}

fn executable(path: &Path) -> Executable {
    match fs::metadata(path) {
        Ok(file) if file.is_file() && file.permissions().mode() & 0o111 == 0 => Executable::NotPermitted,
        Ok(file) if file.is_file() => match rustix::fs::access(path, rustix::fs::Access::EXEC_OK) {
            Ok(()) => Executable::Yes,
            Err(_) => Executable::NotPermitted,
        },
        Ok(_) | Err(_) => Executable::No,
    }
}

/// Over what decides how the process runs; a name, a label or a revision number does not.
fn digest_of(workload: &Workload) -> digest::Digest {
    let spec = &workload.spec;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    let plain = (&spec.command, &spec.args, &spec.env, &spec.transport, spec.exclusive);
    add(&serde_json::to_vec(&plain).expect("strings, numbers and lists of them are always JSON"));
    for variable in &spec.env {
        if let EnvValue::Secret(key) = &variable.value
            && let Some(value) = workload.secrets.get(key)
        {
            add(key.as_bytes());
            add(value.expose().as_bytes());
        }
    }
    context.finish()
}
