//! What ends a command early: a text for the person who started it, and an exit code for their script.

use std::{error::Error, fmt, io::Write, process::ExitCode};

/// Nothing was done, because the command line, a variable or a file cannot be used.
const UNUSABLE: u8 = 2;
/// It was tried and did not work.
const FAILED: u8 = 1;

/// Why a command ended.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// Something that a person must change before anything is tried. Exit code 2.
    pub(crate) fn unusable(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: UNUSABLE }
    }

    /// Something that was tried. Exit code 1.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: FAILED }
    }

    /// What was tried, and the error with its causes.
    pub(crate) fn because(what: impl fmt::Display, error: &(dyn Error + 'static)) -> Self {
        Self::failed(format!("{what}: {}", Chain(error)))
    }

    /// What it says.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Tells the person, and ends with the code.
    pub(crate) fn report(&self) -> ExitCode {
        let _closed = writeln!(std::io::stderr().lock(), "archestra: {}", self.text);
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An error with its causes; a cause that its effect already told is left out.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !told.contains(&text) {
                write!(f, ": {text}")?;
                told = text;
            }
            next = cause.source();
        }
        Ok(())
    }
}
