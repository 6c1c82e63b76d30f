//! References to values that are kept elsewhere and read when they are used: `path#key`.

use crate::{Error, Result};
use std::{fmt, str::FromStr};

/// The longest reference.
const LONGEST: usize = 512;

/// Names one value in a store that people fill themselves: `team/tickets#api_key`.
///
/// The path is segments of `[A-Za-z0-9._-]` joined by `/`, none of them `.` or `..`, so that it cannot lead out of where it
/// seems to be; the key is whatever the store has, without control characters and `#`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalRef {
    text: String,
    hash: usize,
}

impl ExternalRef {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.hash]
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.text[self.hash + 1..]
    }
}

impl fmt::Display for ExternalRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ExternalRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let segment = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let fits = |path: &str, key: &str| {
            text.len() <= LONGEST
                && path.split('/').all(segment)
                && !key.is_empty()
                && !key.contains(|c: char| c.is_control() || c == '#')
        };
        match text.split_once('#') {
            Some((path, key)) if fits(path, key) => Ok(Self { text: text.to_owned(), hash: path.len() }),
            // What was given could be a secret that somebody took for a reference.
            _ => Err(Error::invalid(
                "vault",
                "this is not a reference to a value",
                "write `path#key`, the path as segments of letters, digits, '.', '_' and '-' joined by '/'",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_key_are_told_apart() {
        let reference: ExternalRef = "mcp/tickets#API key:1".parse().unwrap();
        assert_eq!((reference.path(), reference.key()), ("mcp/tickets", "API key:1"));
        assert_eq!(reference.to_string(), "mcp/tickets#API key:1");
    }

    #[test]
    fn whatever_could_lead_elsewhere_is_refused_and_not_repeated() {
        let long = format!("{}#k", "a".repeat(600));
        for wrong in [
            "",
            "#",
            "a#",
            "#k",
            "a",
            "a/../b#k",
            "../a#k",
            "a/./b#k",
            "/a#k",
            "a/#k",
            "a//b#k",
            "a%2fb#k",
            "a%2e%2e/b#k",
            "a\\b#k",
            "a?x#k",
            "a b#k",
            "a#k#l",
            "a#k\n",
            "\u{e4}#k",
            &long,
        ] {
            let error = wrong.parse::<ExternalRef>().unwrap_err().to_string();
            assert!(wrong.len() < 4 || !error.contains(wrong), "{error}");
        }
    }
}
