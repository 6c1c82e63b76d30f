//! Exposed tool names: `slug(server)__slug(tool)`, at most 64 characters, unique within a consumer, fixed once given.

use crate::{Error, Result};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// The most characters an exposed name has: what every client accepts.
pub const MAX_NAME: usize = 64;

const SEPARATOR: &str = "__";
const HASH_LEN: usize = 8;

/// The name a consumer's clients call a tool by: 1 to 64 of `[A-Za-z0-9_.-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String", into = "String")]
pub struct ExposedName(String);

impl ExposedName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExposedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ExposedName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for ExposedName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        if is_name(&text) {
            return Ok(Self(text));
        }
        let remedy = format!("use 1 to {MAX_NAME} letters, digits, '_', '-' and '.'");
        Err(Error::invalid("exposedName", format!("{text:?} cannot be the name of a tool"), remedy))
    }
}

impl From<ExposedName> for String {
    fn from(name: ExposedName) -> Self {
        name.0
    }
}

impl std::borrow::Borrow<str> for ExposedName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Lower-case letters, digits, `_` and `-`. Blanks, `.`, `/` and `:` become `_`, everything else is dropped; there is no
/// `__`, which separates, and no `_` at an end.
#[must_use]
pub fn slug(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.trim().chars() {
        let c = match c {
            c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
            '-' => '-',
            '_' | '.' | '/' | ':' => '_',
            c if c.is_whitespace() => '_',
            _ => continue,
        };
        if c == '_' && out.ends_with('_') {
            continue;
        }
        out.push(c);
    }
    out.trim_matches('_').to_owned()
}

/// The name under which a consumer exposes a tool.
///
/// `server` is the entry's name; `None` exposes the bare tool name as the server wrote it, where that is a valid name.
/// A name in `taken`, one that had to be shortened, and one of which nothing was left get `-` and eight hexadecimal digits of
/// a hash over entry and tool, so that the suffix does not depend on what came first.
#[must_use]
pub fn expose(server: Option<&str>, tool: &str, taken: &BTreeSet<ExposedName>) -> ExposedName {
    let plain = match server {
        None => is_name(tool).then(|| tool.to_owned()),
        Some(server) => prefixed(server, tool),
    };
    if let Some(name) = plain.map(ExposedName)
        && !taken.contains(&name)
    {
        return name;
    }
    let body = match server {
        None => slug_or(tool, "tool"),
        Some(server) => format!("{}{SEPARATOR}{}", slug_or(server, "server"), slug_or(tool, "tool")),
    };
    let room = MAX_NAME - HASH_LEN - 1;
    let body = body.get(..room).unwrap_or(&body);
    let seed = format!("{}\0{tool}", server.unwrap_or_default());
    let mut round = 0_u32;
    loop {
        let name = ExposedName(format!("{body}-{}", short_hash(&format!("{seed}\0{round}"))));
        if !taken.contains(&name) {
            return name;
        }
        round += 1;
    }
}

fn is_name(text: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(valid)
}

fn prefixed(server: &str, tool: &str) -> Option<String> {
    let (server, tool) = (slug(server), slug(tool));
    let fits = !server.is_empty() && !tool.is_empty() && server.len() + SEPARATOR.len() + tool.len() <= MAX_NAME;
    fits.then(|| format!("{server}{SEPARATOR}{tool}"))
}

/// What stands for a name that holds nothing of the alphabet: the hash that follows tells it apart.
fn slug_or(text: &str, otherwise: &str) -> String {
    let slug = slug(text);
    if slug.is_empty() { otherwise.to_owned() } else { slug }
}

fn short_hash(seed: &str) -> String {
    digest::digest(&digest::SHA256, seed.as_bytes())
        .as_ref()
        .iter()
        .take(HASH_LEN / 2)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
