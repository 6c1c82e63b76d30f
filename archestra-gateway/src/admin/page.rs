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
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fmt::Display, future::Future, str::FromStr};

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
    /// The items, in an order that does not change from page to page.
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
    let limit = at_most(limit)?;
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

/// One page of what one record or one backend answers whole, in the order of its keys. A cursor is the key that a page ended
/// with, so that what comes and goes meanwhile moves nothing else.
pub(crate) fn cut<K, T>(params: PageParams, items: impl IntoIterator<Item = (K, T)>) -> Result<Page<T>, Problem>
where
    K: Ord + Display + FromStr,
{
    let limit = at_most(params.limit)?;
    let after = params.cursor.map(|cursor| key_of(&cursor).ok_or_else(bad_cursor)).transpose()?;
    let behind = |key: &K| after.as_ref().is_none_or(|after| key > after);
    let mut items: Vec<(K, T)> = items.into_iter().filter(|(key, _)| behind(key)).collect();
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next = last.map(|(key, _)| Cursor(URL_SAFE_NO_PAD.encode(key.to_string())));
    Ok(Page { items: items.into_iter().map(|(_, item)| item).collect(), next })
}

fn key_of<K: FromStr>(cursor: &str) -> Option<K> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?.parse().ok()
}

fn bad_cursor() -> Problem {
    Problem::finding("cursor", "not a cursor of this list", "use the one that came with the page before")
}

/// How many items an answer has at most.
///
/// # Errors
/// A 400 when none is asked for.
pub(crate) fn at_most(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(100) {
        0 => Err(Problem::malformed("limit must be at least 1")),
        limit => Ok(limit.min(MAX_PAGE)),
    }
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
