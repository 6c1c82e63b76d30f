//! The private registry: entries, their fields and labels, what a change to one asks of its installations, and where they are kept.

mod credential;
mod entry;
mod env;
mod fixed;
mod label;
mod reinstall;
mod self_hosted;
mod store;
mod validation;
mod value;

pub use credential::{
    AdditionalHeader, ClientCredentialsConfig, CredentialModel, EnterpriseConfig, ExchangeStrategy, Injection,
    OAuthConfig, ResourceClient, StaticField, TokenEndpointAuth, TokenType,
};
pub use entry::{Entry, EntrySpec, RemoteServer, Scope, Server, ToolConcurrency};
pub use env::{EnvVar, FieldType};
pub use label::Labels;
pub use reinstall::{FixedSecrets, Reinstall, ReinstallReason, reinstall};
pub use self_hosted::{EnvFrom, EnvFromKind, PullSecret, SelfHosted, Transport};
pub use store::{CatalogChanges, CatalogStore, CatalogStoreExt, Document, Kind, Lookup, Query, Record, RecordKey};
pub use value::{FixedValue, Given, Scalar};

pub(crate) use validation::{
    client_id_finding, header_name_finding, header_text_finding, scope_findings, url_finding, visible_finding,
};

#[cfg(test)]
mod tests;
