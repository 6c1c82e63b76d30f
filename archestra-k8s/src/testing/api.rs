//! The paths of the API, and what is done at each.

use super::{
    cluster::Inner,
    exec,
    kinds::{self, KINDS, Kind, named},
    managed::Writer,
    query::Query,
    refusal::Refusal,
    selector::Selector,
    socket,
    store::{Key, text},
    time,
    watch::{self, Scope, WatchOptions, partial},
    write::{Deletion, Options, PatchType},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use std::{io, sync::Arc, time::Duration};

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a request is answered with.
pub(super) enum Answer {
    Json(StatusCode, Value),
    Stream(Response<Body>),
}

/// An answer that is one document.
pub(super) fn json(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response =
        Response::new(Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn streamed(content_type: &'static str, chunks: BoxStream<'static, io::Result<Bytes>>) -> Answer {
    let frames = chunks.map(|chunk| chunk.map(Frame::data));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Answer::Stream(response)
}

fn ok(value: Value) -> Result<Answer, Refusal> {
    Ok(Answer::Json(StatusCode::OK, value))
}

/// What a path leads to.
struct Place {
    kind: &'static Kind,
    namespace: Option<String>,
    name: Option<String>,
    subresource: String,
}

fn place(path: &str) -> Option<Place> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, plural, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] | ["namespaces"] | ["namespaces", _] => {
            (None, "namespaces", &rest[1..])
        }
        ["namespaces", namespace, plural, rest @ ..] => (Some((*namespace).to_owned()), *plural, rest),
        [plural, rest @ ..] => (None, *plural, rest),
        [] => return None,
    };
    let kind = kinds::at(group, version, plural)?;
    let (name, subresource) = match rest {
        [] => (None, String::new()),
        [name] => (Some((*name).to_owned()), String::new()),
        [name, subresource] => (Some((*name).to_owned()), (*subresource).to_owned()),
        _ => return None,
    };
    let fits = kind.namespaced == namespace.is_some() || (kind.namespaced && name.is_none());
    fits.then_some(Place { kind, namespace, name, subresource })
}

/// Does what a request asks for.
pub(super) async fn handle(inner: &Arc<Inner>, parts: Parts, body: &Bytes) -> Result<Answer, Refusal> {
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let path = parts.uri.path().to_owned();
    if let Some(answer) = about(&path, &parts.method, body) {
        return answer;
    }
    let place = place(&path).ok_or_else(Refusal::no_such_path)?;
    let metadata_only = parts
        .headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("as=PartialObjectMetadata"));
    let Some(name) = &place.name else {
        return collection(inner, place, &parts, &query, body, metadata_only);
    };
    let key = Key::new(place.kind.name, place.namespace.as_deref().unwrap_or_default(), name);
    match (place.kind.name, place.subresource.as_str()) {
        ("Pod", "log") => return log(inner, &key, &query),
        ("Pod", "attach") => return socket::attach(inner, parts, &key, &query),
        ("Pod", "portforward") => return socket::port_forward(inner, parts, &key, &query),
        ("Pod", "exec") => return exec::exec(inner, parts, &key, &query),
        ("Pod", "eviction") => return evict(inner, &key, body),
        (_, "") => {}
        (_, "status") if place.kind.has_status => {}
        _ => return Err(Refusal::no_such_path()),
    }
    let answer = one(inner, &place, &key, &parts, &query, body)?;
    Ok(match answer {
        Answer::Json(code, object) if metadata_only && object["kind"] != "Status" => {
            Answer::Json(code, partial(&object))
        }
        answer => answer,
    })
}

/// What the API says about itself.
fn about(path: &str, method: &Method, body: &Bytes) -> Option<Result<Answer, Refusal>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let resources = |group: &str, version: &str| {
        let all: Vec<_> = KINDS
            .iter()
            .filter(|kind| kind.group == group && kind.version == version)
            .map(|kind| {
                json!({
                    "name": kind.plural, "singularName": kind.name.to_lowercase(), "namespaced": kind.namespaced,
                    "kind": kind.name, "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                })
            })
            .collect();
        let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        (!all.is_empty())
            .then(|| json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": all}))
    };
    let answer = match parts.as_slice() {
        ["healthz" | "livez" | "readyz"] => json!("ok"),
        ["version"] => json!({
            "major": "1", "minor": "33", "gitVersion": "v1.33.0+fake", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2026-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "fake",
        }),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["apis"] => {
            let mut groups: Vec<&str> = KINDS.iter().map(|kind| kind.group).filter(|group| !group.is_empty()).collect();
            groups.dedup();
            let groups: Vec<_> = groups
                .iter()
                .map(|group| {
                    let version = json!({"groupVersion": format!("{group}/v1"), "version": "v1"});
                    json!({"name": group, "versions": [version], "preferredVersion": version})
                })
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["api", version] => return Some(resources("", version).ok_or_else(Refusal::no_such_path).and_then(ok)),
        ["apis", group, version] => {
            return Some(resources(group, version).ok_or_else(Refusal::no_such_path).and_then(ok));
        }
        ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] if *method == Method::POST => {
            let Ok(mut review) = serde_json::from_slice::<Value>(body) else {
                return Some(Err(Refusal::bad_request("the body is not JSON")));
            };
            if !review.is_object() {
                return Some(Err(Refusal::bad_request("the body is no object")));
            }
            review["status"] = json!({"allowed": true});
            return Some(Ok(Answer::Json(StatusCode::CREATED, review)));
        }
        _ => return None,
    };
    Some(ok(answer))
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let text = std::str::from_utf8(body).map_err(|_| Refusal::bad_request("the body is not UTF-8"))?;
    serde_saphyr::from_str(text).map_err(|error| {
        Refusal::bad_request(format!(
            "error decoding the body: {}",
            error.to_string().lines().next().unwrap_or_default()
        ))
    })
}

fn options(parts: &Parts, query: &Query, subresource: &str) -> Options {
    let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let name = match query.text("fieldManager") {
        "" => agent.and_then(|agent| agent.split('/').next()).unwrap_or("unknown"),
        given => given,
    };
    Options {
        dry_run: query.text("dryRun") == "All",
        force: query.is_true("force"),
        strict: query.text("fieldValidation") == "Strict",
        writer: Writer { name: name.to_owned(), subresource: subresource.to_owned(), time: time::now() },
    }
}

fn collection(
    inner: &Arc<Inner>,
    place: Place,
    parts: &Parts,
    query: &Query,
    body: &Bytes,
    metadata_only: bool,
) -> Result<Answer, Refusal> {
    let selector = Selector::parse(query.text("labelSelector"), query.text("fieldSelector"))?;
    let (kind, namespace) = (place.kind, place.namespace.clone());
    let scope = Scope { kind, namespace: place.namespace, selector: selector.clone(), metadata_only };
    match parts.method {
        Method::GET if query.is_true("watch") => {
            let version = watch::version_of(query.text("resourceVersion"))?;
            let options = WatchOptions {
                version,
                bookmarks: query.is_true("allowWatchBookmarks"),
                initial: query.is_true("sendInitialEvents"),
                timeout: query.number("timeoutSeconds").map(Duration::from_secs),
            };
            Ok(streamed("application/json", watch::watch(inner, scope, &options)))
        }
        Method::GET => ok(watch::list(inner, &scope, query.number("limit").unwrap_or(0), query.text("continue"))?),
        Method::POST => {
            let object = parse(body)?;
            let options = options(parts, query, "");
            let namespace = namespace.unwrap_or_default();
            let created = inner.write(|store| store.create(kind, &namespace, object, &options))?;
            Ok(Answer::Json(StatusCode::CREATED, scope.view(&created)))
        }
        Method::DELETE => {
            let how = deletion(query, body)?;
            let deleted = inner.write(|store| {
                let found: Vec<_> = store
                    .all(kind.name, namespace.as_deref())
                    .filter(|(_, object)| selector.matches(object))
                    .map(|(key, object)| (key.clone(), Arc::clone(object)))
                    .collect();
                for (key, _) in &found {
                    // It was there a moment ago, under the same lock.
                    drop(store.delete(kind, key, &how));
                }
                found
            });
            let items: Vec<_> = deleted.iter().map(|(_, object)| scope.view(object)).collect();
            let version = inner.read(|store| store.version().to_string());
            ok(json!({
                "kind": format!("{}List", kind.name), "apiVersion": kind.api_version(),
                "metadata": {"resourceVersion": version}, "items": items,
            }))
        }
        _ => Err(Refusal::new(405, "the server does not allow this method on the requested resource")),
    }
}

fn deletion(query: &Query, body: &Bytes) -> Result<Deletion, Refusal> {
    let given = if body.is_empty() { Value::Null } else { parse(body)? };
    let or = |field: &str, name: &str| match text(&given, field) {
        "" => query.text(name).to_owned(),
        text => text.to_owned(),
    };
    Ok(Deletion {
        propagation: or("/propagationPolicy", "propagationPolicy"),
        grace: given["gracePeriodSeconds"].as_i64().or_else(|| query.number("gracePeriodSeconds")),
        uid: text(&given, "/preconditions/uid").to_owned(),
        version: text(&given, "/preconditions/resourceVersion").to_owned(),
        dry_run: query.text("dryRun") == "All" || given["dryRun"] == json!(["All"]),
    })
}

fn one(
    inner: &Arc<Inner>,
    place: &Place,
    key: &Key,
    parts: &Parts,
    query: &Query,
    body: &Bytes,
) -> Result<Answer, Refusal> {
    let kind = place.kind;
    let options = options(parts, query, &place.subresource);
    match parts.method {
        Method::GET => {
            let found = inner.read(|store| store.get(key).map(Arc::clone));
            ok((*found.ok_or_else(|| Refusal::not_found(kind, &key.name))?).clone())
        }
        Method::PUT => {
            let object = parse(body)?;
            ok((*inner.write(|store| store.replace(kind, key, object, &options))?).clone())
        }
        Method::PATCH => {
            let content = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let form = match content.and_then(|content| content.split(';').next()).unwrap_or_default() {
                "application/json-patch+json" => PatchType::Json,
                "application/merge-patch+json" => PatchType::Merge,
                "application/strategic-merge-patch+json" => PatchType::Strategic,
                "application/apply-patch+yaml" => PatchType::Apply,
                other => return Err(Refusal::new(415, format!("{other:?} is no kind of patch"))),
            };
            if form == PatchType::Apply && query.text("fieldManager").is_empty() {
                let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
                return Err(Refusal::new(422, message));
            }
            if form != PatchType::Apply && options.force {
                return Err(Refusal::new(
                    422,
                    "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
                ));
            }
            let patch = parse(body)?;
            let (there, patched) = inner.write(|store| {
                let there = store.get(key).is_some();
                (there, store.patch(kind, key, form, &patch, &options))
            });
            let code = if there { StatusCode::OK } else { StatusCode::CREATED };
            Ok(Answer::Json(code, (*patched?).clone()))
        }
        Method::DELETE => {
            let how = deletion(query, body)?;
            ok(inner.write(|store| store.delete(kind, key, &how))?)
        }
        _ => Err(Refusal::new(405, "the server does not allow this method on the requested resource")),
    }
}

fn evict(inner: &Arc<Inner>, key: &Key, body: &Bytes) -> Result<Answer, Refusal> {
    let eviction = parse(body)?;
    let pods = named("Pod").ok_or_else(Refusal::no_such_path)?;
    let grace = eviction["deleteOptions"]["gracePeriodSeconds"].as_i64();
    inner.write(|store| store.delete(pods, key, &Deletion { grace, ..Deletion::default() }))?;
    Ok(Answer::Json(
        StatusCode::CREATED,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
    ))
}

fn log(inner: &Arc<Inner>, key: &Key, query: &Query) -> Result<Answer, Refusal> {
    let socket::Target { pod, name, container } = socket::container(inner, key, query.text("container"))?;
    let since = query.text("sinceTime");
    let ago =
        query.number::<i64>("sinceSeconds").map(|seconds| chrono::Utc::now() - chrono::TimeDelta::seconds(seconds));
    let since = if since.is_empty() {
        ago
    } else {
        let bad = |_| Refusal::bad_request(format!("invalid sinceTime: {since:?}"));
        Some(since.parse().map_err(bad)?)
    };
    let wanted = super::log::LogQuery {
        follow: query.is_true("follow"),
        previous: query.is_true("previous"),
        timestamps: query.is_true("timestamps"),
        tail: query.number("tailLines"),
        since,
        limit_bytes: query.number("limitBytes"),
    };
    let lines = container.and_then(|container| container.log.read(&wanted));
    if let Some(lines) = lines {
        let mut interrupted = inner.faults.interruptions();
        let until = async move {
            // An error says that the cluster is gone, which ends the stream as well.
            drop(interrupted.changed().await);
        };
        return Ok(streamed("text/plain", lines.take_until(Box::pin(until)).boxed()));
    }
    if wanted.previous {
        let message = format!("previous terminated container \"{name}\" in pod \"{}\" not found", key.name);
        return Err(Refusal::bad_request(message));
    }
    let waiting = socket::waiting_reason(&pod, &name);
    Err(Refusal::bad_request(format!("container \"{name}\" in pod \"{}\" is waiting to start: {waiting}", key.name)))
}
