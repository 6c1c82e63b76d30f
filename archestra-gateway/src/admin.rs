//! The control plane's REST API, mounted at `/api/v1`: one resource per file, OpenAPI from the code, and `apply`.
//!
//! Who calls is established before a request comes here: an `Arc<Principal>` among the request's extensions. A thing that
//! the caller may not see does not exist for them (404); what they may see and not change is a 403 that names the missing
//! permission. Every change leaves an audit record.
//!
//! Resources are written as in the documents of [`apply`]; answers carry `id`, `resourceVersion` (also as `ETag`) and the
//! names of what they refer to, and can be edited and sent back as they are.

mod access;
pub mod apply;
mod audit;
mod body;
mod caller;
mod consumers;
mod entries;
mod hosting;
mod installations;
mod me;
mod named;
mod openapi;
mod page;
mod policies;
mod problem;
mod refs;
mod resolve;
mod teams;
mod tokens;
mod tools;
mod users;

pub use body::{Format, MAX_BODY};
pub(crate) use caller::Recheck;
pub use problem::{Problem, ProblemBody, Undone};

use crate::lifecycle::Lifecycle;
use archestra_core::{
    catalog::CatalogStore, consumer::ConsumerKind, event::AuditRecord, identity::IdentityStore, runtime::Runtime,
    secret::SecretStore, state::AuditSink,
};
use axum::{Router, extract::DefaultBodyLimit, middleware::from_fn_with_state, response::IntoResponse, routing::get};
use http::header;
use std::{fmt, sync::Arc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa_axum::router::OpenApiRouter;

/// Takes audit records without ever waiting.
pub type AuditRecorder = Arc<dyn Fn(AuditRecord) + Send + Sync>;

/// What the control plane stands on.
#[derive(Clone)]
pub struct AdminState {
    /// Where entries, installations, tools, consumers and policies are.
    pub catalog: Arc<dyn CatalogStore>,
    /// Where users, teams and tokens are.
    pub identity: Arc<dyn IdentityStore>,
    /// Where secrets are: `apply` reads what it may have to restore.
    pub secrets: Arc<dyn SecretStore>,
    /// Where audit records are read from.
    pub audit: Arc<dyn AuditSink>,
    /// Where the records of changes go.
    pub record: AuditRecorder,
    /// What makes entries into tools.
    pub lifecycle: Lifecycle,
    /// What runs self-hosted servers, if anything does.
    pub runtime: Option<Arc<dyn Runtime>>,
    /// The URL that clients know the platform by, without `/` at its end.
    pub public_url: String,
    /// The changes under way: each runs to its end, even when its caller goes away. Whoever shuts the platform down closes
    /// it and waits.
    pub tasks: TaskTracker,
    /// Ends answers that would go on for ever.
    pub shutdown: CancellationToken,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").field("public_url", &self.public_url).finish_non_exhaustive()
    }
}

/// The API, with paths relative to `/api/v1`.
pub fn router(state: AdminState) -> Router {
    let (router, api) = routes().split_for_parts();
    let document: Arc<str> = openapi::finish(api).into();
    let answer = move || {
        let document = Arc::clone(&document);
        async move { ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response() }
    };
    router
        .route("/openapi.json", get(answer))
        .fallback(async || Problem::no_route())
        .method_not_allowed_fallback(async || Problem::no_method())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(state.clone(), caller::record_refusals))
        .with_state(state)
}

/// The OpenAPI document of the API, as JSON.
#[must_use]
pub fn openapi() -> String {
    openapi::finish(routes().into_openapi())
}

fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .merge(me::routes())
        .merge(entries::routes())
        .merge(installations::routes())
        .merge(hosting::routes())
        .merge(tools::routes())
        .nest("/gateways", consumers::routes(ConsumerKind::Gateway))
        .nest("/agents", consumers::routes(ConsumerKind::Agent))
        .merge(teams::routes())
        .merge(users::routes())
        .merge(tokens::routes())
        .merge(policies::routes())
        .merge(audit::routes())
        .merge(apply::routes())
}

#[cfg(test)]
mod tests;
