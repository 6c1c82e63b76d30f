//! The listeners: routes, the accept loop, limits and graceful drain.

mod accept;
mod pages;
mod routes;

pub(crate) use accept::serve;
pub(crate) use routes::{metrics_router, ready, router};
