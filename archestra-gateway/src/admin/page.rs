//! Lists: query parameters, pages with cursors, and filtering by what a caller may see.

use super::Problem;
use archestra_core::{
    Result as CoreResult,
    feed::{Cursor, MAX_PAGE, Page, PageRequest},
};
use axum::{
    Json,
    extract::{FromRequestParts, Query, rejection::QueryRejection},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::future::Future;

/// Query parameters, refused as a problem.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(value) =
            Query::<T>::from_request_parts(parts, state).await.map_err(|rejection: QueryRejection| {
                let text = rejection.body_text();
                Problem::malformed(format!(
                    "the query string is not understood: {}",
                    text.trim_start_matches("Failed to deserialize query string: ")
                ))
            })?;
        Ok(Self(value))
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed<T> {
    /// The items, ordered by id.
    pub items: Vec<T>,
    /// Send it as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PageParams {
    /// At most this many items; 100 if absent, at most 1000.
    pub(crate) limit: Option<usize>,
    /// Where the page before ended.
    pub(crate) cursor: Option<String>,
}

/// How many store pages one answer is made from, so that a caller who sees little of a long list waits for no more.
const MAX_READS: usize = 16;

/// Reads pages until there are enough items that `keep` lets through.
pub(crate) async fn collect<T, F>(
    limit: Option<usize>,
    cursor: Option<String>,
    mut keep: impl FnMut(&T) -> bool,
    mut read: impl FnMut(PageRequest) -> F,
) -> Result<Page<T>, Problem>
where
    F: Future<Output = CoreResult<Page<T>>>,
{
    let limit = match limit.unwrap_or(100) {
        0 => return Err(Problem::malformed("limit must be at least 1")),
        limit => limit.min(MAX_PAGE),
    };
    let mut found = Page { items: Vec::new(), next: cursor.map(Cursor) };
    for _ in 0..MAX_READS {
        let page = read(PageRequest { limit: limit - found.items.len(), cursor: found.next.take() }).await?;
        found.items.extend(page.items.into_iter().filter(&mut keep));
        found.next = page.next;
        if found.next.is_none() || found.items.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// An answer with one resource: its version goes into `ETag` as well.
#[derive(Debug)]
pub(crate) struct Resource<T> {
    status: StatusCode,
    version: u64,
    body: T,
    location: Option<String>,
}

impl<T> Resource<T> {
    pub(crate) const fn new(version: u64, body: T) -> Self {
        Self { status: StatusCode::OK, version, body, location: None }
    }

    /// Answers 201, and says where the resource is from now on.
    pub(crate) fn created(mut self, location: String) -> Self {
        self.status = StatusCode::CREATED;
        self.location = Some(location);
        self
    }
}

impl<T: Serialize> IntoResponse for Resource<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", self.version)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        if let Some(location) = self.location.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}
