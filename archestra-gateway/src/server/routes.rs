//! What is where: the MCP endpoints, the REST API, health, metadata and the install page.

use super::pages;
use crate::{
    admin::{self, AdminState, Recheck},
    auth::{AuthError, challenge},
    lifecycle::Lifecycle,
    mcp::front::Front,
    observe::Meters,
    platform::Shared,
};
use archestra_core::Error;
use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderValue, StatusCode, header};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// How long a store may take to say that it is there.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything on the public listener.
pub(crate) fn router(shared: &Arc<Shared>, lifecycle: &Lifecycle) -> Router {
    let audit = shared.audit.clone();
    let state = AdminState {
        catalog: Arc::clone(&shared.catalog),
        identity: Arc::clone(&shared.identity),
        audit: Arc::clone(&shared.sink),
        lifecycle: lifecycle.clone(),
        runtime: shared.runtime.clone(),
        public_url: shared.public_base().to_owned(),
        secrets: Arc::clone(&shared.secrets),
        tasks: shared.tasks.clone(),
        shutdown: shared.stop.clone(),
        record: Arc::new(move |record| audit.offer(record)),
    };
    let api = admin::router(state).layer(middleware::from_fn_with_state(Arc::clone(shared), enter));
    Router::new()
        .route("/v1/mcp/{consumer}", any(mcp))
        .route("/.well-known/oauth-protected-resource/{*resource}", get(pages::resource_metadata))
        .route("/install/{entry}", get(pages::install))
        .route("/health/live", get(|| async { "ok" }))
        .route("/health/ready", get(readiness))
        .with_state(Arc::clone(shared))
        .nest("/api/v1", api)
}

/// `/metrics`, in the OpenMetrics text format.
pub(crate) fn metrics_router(meters: Meters) -> Router {
    let render = move || async move {
        let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        ([(header::CONTENT_TYPE, kind)], meters.render())
    };
    Router::new().route("/metrics", get(render))
}

/// Whether the stores answer and are being followed.
pub(crate) async fn ready(shared: &Shared) -> Result<(), Error> {
    if shared.freshness.check().is_err() {
        let reason = "the change feeds have not been confirmed for too long".to_owned();
        return Err(Error::Unavailable { backend: "store", reason, source: None });
    }
    let checks = async {
        shared.catalog.check().await?;
        shared.identity.check().await?;
        shared.state.check().await
    };
    let late = Error::Timeout { operation: "checking the stores", after: CHECK_TIMEOUT };
    tokio::time::timeout(CHECK_TIMEOUT, checks).await.unwrap_or(Err(late))
}

async fn mcp(State(shared): State<Arc<Shared>>, Path(consumer): Path<String>, request: Request) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    Front::new(shared).handle(&consumer, address, request).await.map(Body::new)
}

async fn readiness(State(shared): State<Arc<Shared>>) -> Response {
    match ready(&shared).await {
        Ok(()) => "ready".into_response(),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: see the log").into_response()
        }
    }
}

/// Lets callers of the REST API in. Requests without a credential go on: what needs a caller refuses them.
async fn enter(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if let Err(refusal) = shared.hosts.check(&parts) {
        return problem(StatusCode::FORBIDDEN, &refusal.to_string());
    }
    let entered = shared.authenticator.authenticate(&parts.headers).await;
    request = Request::from_parts(parts, body);
    let error = match entered {
        Ok(who) => {
            request.extensions_mut().insert(who.principal);
            request.extensions_mut().insert(who.usage);
            let (authenticator, credential) = (Arc::clone(&shared.authenticator), who.credential);
            request.extensions_mut().insert(Recheck::new(move || {
                let authenticator = Arc::clone(&authenticator);
                Box::pin(async move { authenticator.principal(credential).await.ok() })
            }));
            let changes = !request.method().is_safe();
            let response = next.run(request).await;
            if changes {
                shared.settled().await;
            }
            return response;
        }
        Err(AuthError::Missing) => {
            let mut response = next.run(request).await;
            if response.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge(&AuthError::Missing, None));
            }
            return response;
        }
        Err(error) => error,
    };
    if error == AuthError::Unavailable {
        let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    }
    let mut response = problem(StatusCode::UNAUTHORIZED, &error.to_string());
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge(&error, None));
    response
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("error");
    let body =
        serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let kind = HeaderValue::from_static("application/problem+json");
    (status, [(header::CONTENT_TYPE, kind)], Json(body).into_response().into_body()).into_response()
}
