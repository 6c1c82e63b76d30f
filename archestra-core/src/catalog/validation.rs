//! What is wrong with an entry that a person filled in: each finding names the field and the remedy.

mod credential;
mod entry;
mod self_hosted;
mod text;

pub(crate) use text::{header_name_finding, header_text_finding};

#[cfg(test)]
mod tests;
