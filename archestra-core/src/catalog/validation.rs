//! What is wrong with an entry that a person filled in: each finding names the field and the remedy.

mod credential;
mod entry;
mod oauth;
mod self_hosted;
mod text;

pub(crate) use text::{
    client_id_finding, header_name_finding, header_text_finding, scope_findings, url_finding, visible_finding,
};

#[cfg(test)]
mod tests;
