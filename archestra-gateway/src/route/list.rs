//! What `tools/list` answers: every page of either era, serialized once, so that only the request's id is added.

use crate::mcp::{
    json::{Cursor, write_quoted},
    version::{Era, meta},
};
use archestra_core::tool::{DefinitionHash, ExposedName, Tool};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};

/// How many tools a page has.
const PAGE: usize = 500;

/// How long a client may keep a list, in milliseconds. It is told of changes if it asks to be.
const TTL_MS: u32 = 60_000;

/// The pages of a consumer's tool list.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToolList {
    pages: Vec<Page>,
    version: u64,
}

#[derive(Debug, Clone)]
struct Page {
    modern: Bytes,
    legacy: Bytes,
}

impl ToolList {
    /// The list of these tools, in the order given.
    pub(crate) fn new<'a>(tools: impl Iterator<Item = (&'a ExposedName, &'a Tool)>, server_info: &str) -> Self {
        let tools: Vec<_> = tools.collect();
        let version = version_of(&tools);
        let chunks: Vec<&[(&ExposedName, &Tool)]> =
            if tools.is_empty() { vec![&[]] } else { tools.chunks(PAGE).collect() };
        let last = chunks.len() - 1;
        let pages = chunks.into_iter().enumerate().map(|(n, chunk)| {
            let next = (n < last).then(|| cursor(version, n + 1));
            Page {
                modern: render(chunk, next.as_deref(), Era::Modern, server_info),
                legacy: render(chunk, next.as_deref(), Era::Legacy, server_info),
            }
        });
        Self { pages: pages.collect(), version }
    }

    /// Differs from that of every other list of tools.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// The result for a request with this cursor; `None` when the cursor is not one of this list.
    pub(crate) fn page(&self, cursor: Option<&str>, era: Era) -> Option<Bytes> {
        let index = match cursor {
            None => 0,
            Some(text) => parse_cursor(text, self.version)?,
        };
        let page = self.pages.get(index)?;
        Some(match era {
            Era::Modern => page.modern.clone(),
            Era::Legacy => page.legacy.clone(),
        })
    }
}

fn version_of(tools: &[(&ExposedName, &Tool)]) -> u64 {
    let names = tools.iter().map(|(name, tool)| format!("{name}\0{}\n", tool.hash)).collect::<String>();
    let hash = DefinitionHash::of(&serde_json::Value::String(names));
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
}

fn cursor(version: u64, page: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("{version:016x}.{page}"))
}

fn parse_cursor(text: &str, version: u64) -> Option<usize> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (of, page) = text.split_once('.')?;
    (of == format!("{version:016x}")).then(|| page.parse().ok()).flatten()
}

fn render(tools: &[(&ExposedName, &Tool)], next: Option<&str>, era: Era, server_info: &str) -> Bytes {
    let size: usize = tools.iter().map(|(name, tool)| name.as_str().len() + tool.definition.len() + 8).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    out.put_slice(b"{\"tools\":[");
    let mut first = true;
    for (name, tool) in tools {
        if !first {
            out.put_u8(b',');
        }
        let before = out.len();
        if put_renamed(&mut out, name, &tool.definition).is_some() {
            first = false;
        } else {
            // A definition that is not an object was never stored by us; leaving it out keeps the list valid.
            out.truncate(before.saturating_sub(usize::from(!first)));
        }
    }
    out.put_u8(b']');
    if let Some(next) = next {
        out.put_slice(b",\"nextCursor\":");
        write_quoted(&mut out, next);
    }
    if era == Era::Modern {
        out.put_slice(b",\"resultType\":\"complete\",\"cacheScope\":\"private\",\"ttlMs\":");
        out.put_slice(TTL_MS.to_string().as_bytes());
        out.put_slice(b",\"_meta\":{");
        write_quoted(&mut out, meta::SERVER_INFO);
        out.put_u8(b':');
        out.put_slice(server_info.as_bytes());
        out.put_u8(b'}');
    }
    out.put_u8(b'}');
    out.freeze()
}

/// Appends a definition with another name; everything else stays byte for byte.
fn put_renamed(out: &mut BytesMut, name: &ExposedName, definition: &str) -> Option<()> {
    let mut cursor = Cursor::new(definition);
    let mut members = cursor.open_object().ok()?;
    let mut at = None;
    while let Some(key) = cursor.next_key(&mut members).ok()? {
        let value = cursor.skip().ok()?;
        if key.value == "name" {
            at = Some(value.span());
        }
    }
    cursor.finish().ok()?;
    let at = at?;
    out.put_slice(definition.get(..at.start)?.as_bytes());
    write_quoted(out, name.as_str());
    out.put_slice(definition.get(at.end..)?.as_bytes());
    Some(())
}
