//! Exposed tool names: `slug(server)__slug(tool)`, at most 64 characters, unique within a consumer, fixed once given.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// The most characters an exposed name has: what every client accepts.
pub const MAX_NAME: usize = 64;

const SEPARATOR: &str = "__";
const HASH_LEN: usize = 8;

/// The name a consumer's clients call a tool by: 1 to 64 of `[A-Za-z0-9_.-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
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

impl std::borrow::Borrow<str> for ExposedName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Lower-case letters, digits, `_` and `-`: blanks become `_`, everything else is dropped; no `__`, which separates.
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
/// A name in `taken`, or one that had to be shortened, gets `-` and eight hexadecimal digits of a hash over entry and tool,
/// so that the same tool gets the same name whatever came first.
#[must_use]
pub fn expose(server: Option<&str>, tool: &str, taken: &BTreeSet<ExposedName>) -> ExposedName {
    let plain = match server {
        None => bare(tool),
        Some(server) => prefixed(server, tool),
    };
    let seed = format!("{}\0{tool}", server.unwrap_or_default());
    if let Some(name) = plain.map(ExposedName)
        && !taken.contains(&name)
    {
        return name;
    }
    let body = match server {
        None => slug(tool),
        Some(server) => format!("{}{SEPARATOR}{}", slug(server), slug(tool)),
    };
    let mut round = 0_u32;
    loop {
        let hash = short_hash(&format!("{seed}\0{round}"));
        let room = MAX_NAME - HASH_LEN - 1;
        let name = ExposedName(format!("{}-{hash}", body.get(..room).unwrap_or(&body)));
        if !taken.contains(&name) {
            return name;
        }
        round += 1;
    }
}

fn bare(tool: &str) -> Option<String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    ((1..=MAX_NAME).contains(&tool.len()) && tool.bytes().all(valid)).then(|| tool.to_owned())
}

fn prefixed(server: &str, tool: &str) -> Option<String> {
    let (server, tool) = (slug(server), slug(tool));
    let room = MAX_NAME.checked_sub(SEPARATOR.len() + tool.len())?;
    if server.is_empty() || tool.is_empty() || server.len() > room {
        return None;
    }
    Some(format!("{server}{SEPARATOR}{tool}"))
}

fn short_hash(seed: &str) -> String {
    digest::digest(&digest::SHA256, seed.as_bytes()).as_ref().iter().take(HASH_LEN / 2).map(|byte| format!("{byte:02x}")).collect()
}
