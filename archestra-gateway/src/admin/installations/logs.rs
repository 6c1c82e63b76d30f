//! `GET /installations/{id}/logs`: what a workload wrote, as text or newline-delimited JSON, also as it comes.

use super::{
    super::{
        AdminState, Problem,
        caller::{Recheck, Who},
        page::Params,
    },
    readable,
};
use crate::auth::{Place, Usage};
use archestra_core::runtime::{LogLine, LogOptions, LogSource};
use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, future::Either, stream::BoxStream};
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::json;
use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};
use utoipa_axum::{router::OpenApiRouter, routes};

const NDJSON: &str = "application/x-ndjson";
/// How often it is asked again whether who follows a log may still see it, and how long the answer may take.
const RECHECK: Duration = Duration::from_secs(2);
const WHAT: &str = "reading the logs of a shared deployment";

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LogParams {
    /// The last so many lines, or `all`; 100 if absent.
    tail: Option<String>,
    /// Whether to go on with new lines as they come.
    #[serde(default)]
    follow: bool,
    /// Not before.
    since: Option<DateTime<Utc>>,
    /// Those of the run before the present one.
    #[serde(default)]
    previous: bool,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Text,
    Ndjson,
}

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(read_logs))
}

/// Reads what the workload wrote. Send `Accept: application/x-ndjson` for lines with time and source.
#[utoipa::path(
    get,
    path = "/installations/{installation}/logs",
    tag = "installations",
    params(("installation" = String, Path), LogParams),
    responses((status = 200, content((LogLine = "application/x-ndjson"), (String = "text/plain"))))
)]
async fn read_logs(
    State(state): State<AdminState>,
    who: Who,
    (recheck, usage): (Option<Extension<Recheck>>, Option<Extension<Arc<Usage>>>),
    Path(key): Path<String>,
    Params(params): Params<LogParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let installation = readable(&state, &who, &key, WHAT).await?;
    let tail = match params.tail.as_deref() {
        None => LogOptions::default().tail,
        Some("all") => None,
        Some(number) => {
            Some(number.parse().map_err(|_| Problem::malformed("tail is not understood; send a number, or `all`"))?)
        }
    };
    let place = match usage {
        Some(Extension(usage)) if params.follow => Some(usage.stream().map_err(too_many)?),
        _ => None,
    };
    let options = LogOptions { tail, follow: params.follow, since: params.since, previous: params.previous };
    let lines = state.lifecycle.logs(installation.value.id, options).await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = if accept.contains(NDJSON) || accept.contains("application/json") { Form::Ndjson } else { Form::Text };
    let revoked = if params.follow {
        Either::Left(revoked(state.clone(), who, recheck.map(|Extension(recheck)| recheck), key))
    } else {
        Either::Right(pending())
    };
    Ok(respond(&state, lines.take_until(Box::pin(revoked)).boxed(), form, place))
}

fn too_many(bound: usize) -> Problem {
    Problem::too_many(format!("you hold {bound} streams open, which is as many as a caller may; close one first"))
}

/// Completes when the caller may no longer see the installation, or when that cannot be found out.
async fn revoked(state: AdminState, mut who: Who, recheck: Option<Recheck>, key: String) {
    loop {
        tokio::time::sleep(RECHECK).await;
        let asked = async {
            let now = match &recheck {
                Some(recheck) => recheck.ask(&who).await?,
                None => who.clone(),
            };
            readable(&state, &now, &key, WHAT).await.ok()?;
            Some(now)
        };
        match tokio::time::timeout(RECHECK, asked).await {
            Ok(Some(now)) => who = now,
            Ok(None) | Err(_) => return,
        }
    }
}

/// The lines as they come. `place` is the stream's among those of its caller.
fn respond(
    state: &AdminState,
    lines: BoxStream<'static, archestra_core::Result<LogLine>>,
    form: Form,
    place: Option<Place>,
) -> Response {
    // A stream that follows would outlive a shutdown of the platform.
    let ended = state.shutdown.clone().cancelled_owned();
    let bytes = lines.take_until(ended).map(move |line| {
        // It is given back when the stream is dropped.
        let _held = &place;
        Ok::<_, Infallible>(Bytes::from(render(line, form)))
    });
    let media_type = match form {
        Form::Text => "text/plain; charset=utf-8",
        Form::Ndjson => NDJSON,
    };
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::from_stream(bytes)).into_response()
}

fn render(line: archestra_core::Result<LogLine>, form: Form) -> String {
    match (line, form) {
        (Ok(line), Form::Ndjson) => format!("{}\n", json!(line)),
        (Ok(LogLine { source: LogSource::Platform, text, .. }), Form::Text) => format!("[archestra] {text}\n"),
        (Ok(line), Form::Text) => format!("{}\n", line.text),
        (Err(error), Form::Ndjson) => format!("{}\n", json!({ "error": Problem::from(error).body() })),
        (Err(error), Form::Text) => format!("[archestra] the log cannot be read on: {}\n", Problem::from(error)),
    }
}
