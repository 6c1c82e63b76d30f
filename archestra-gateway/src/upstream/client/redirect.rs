//! Which redirects may be followed: those that stay within the origin.

use http::header::LOCATION;
use http::{HeaderMap, StatusCode, Uri};
use url::Url;

use super::error::{HttpError, RedirectFault, authority_text};
use crate::upstream::dial::parse_url;

pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    )
}

/// Where a redirect from `from` leads, if that is within its origin.
pub(super) fn next(from: &Uri, headers: &HeaderMap) -> Result<Uri, HttpError> {
    let fault = |to, fault| HttpError::Redirect { from: authority_text(from.authority()), to, fault };
    let bad = |_| fault(None, RedirectFault::BadLocation);
    let base = Url::parse(&from.to_string()).map_err(|_| bad(()))?;
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(|| bad(()))?;
    let mut target = base.join(location).map_err(|_| bad(()))?;
    target.set_fragment(None);
    if target.origin() != base.origin() {
        return Err(fault(host_and_port(&target), RedirectFault::CrossOrigin));
    }
    parse_url(target.as_str()).map_err(|_| bad(()))
}

pub(super) fn too_many(last: &Uri) -> HttpError {
    HttpError::Redirect { from: authority_text(last.authority()), to: None, fault: RedirectFault::TooMany }
}

fn host_and_port(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}
