//! The document: read from a file or standard input, with `{valueFrom: …}` replaced by the variables and files it names.

use crate::{environment::Environment, failure::Failure};
use archestra_gateway::admin::{
    Format, MAX_BODY, Problem,
    apply::{RawDocument, ValueSource},
};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The largest file that a `valueFrom` may name.
const MAX_VALUE: usize = 1024 * 1024;

/// Reads a document and replaces what it takes from elsewhere.
///
/// # Errors
/// It cannot be read, is not YAML (with line and column), or names a variable or file that is not there.
pub(super) fn load(path: &Path, environment: &Environment) -> Result<RawDocument, Failure> {
    let (name, bytes, directory) = if path == Path::new("-") {
        ("standard input".to_owned(), read(io::stdin().lock(), MAX_BODY), PathBuf::from("."))
    } else {
        let read = File::open(path).and_then(|file| read(file, MAX_BODY));
        (path.display().to_string(), read, path.parent().map(Path::to_owned).unwrap_or_default())
    };
    let unusable = |problem: Problem| match problem.findings() {
        [] => Failure::unusable(format!("{name}: {}", problem.detail())),
        findings => Failure::unusable(
            findings.iter().map(|finding| format!("{name}: {finding}")).collect::<Vec<_>>().join("\n  "),
        ),
    };
    let bytes = bytes.map_err(|error| Failure::unusable(format!("{name}: {error}")))?;
    let mut document = RawDocument::parse(&bytes, Format::Yaml).map_err(unusable)?;
    let lookup = |source: &ValueSource| match source {
        ValueSource::Env(name) => environment
            .get(name)
            .map(str::to_owned)
            .ok_or_else(|| format!("the environment variable {name} is not set")),
        ValueSource::File(name) => {
            value(&directory.join(name)).map_err(|error| format!("the file {name}, beside the document: {error}"))
        }
    };
    document.resolve(lookup).map_err(unusable)?;
    Ok(document)
}

fn read(from: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn value(path: &Path) -> io::Result<String> {
    let mut text =
        String::from_utf8(read(File::open(path)?, MAX_VALUE)?).map_err(|_| io::Error::other("it is not UTF-8"))?;
    // Editors end the last line; a key or password does not end so.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
