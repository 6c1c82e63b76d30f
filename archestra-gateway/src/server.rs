//! The listeners: routes, the accept loop, limits and graceful drain.

mod accept;
mod held;
mod pace;
mod pages;
mod routes;
mod stall;
mod workers;

pub(crate) use accept::serve;
pub(crate) use routes::{metrics_router, ready, router};
pub(crate) use workers::{Workers, number as worker};
