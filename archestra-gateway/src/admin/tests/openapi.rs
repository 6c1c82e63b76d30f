//! The OpenAPI document: complete, unique and resolvable.

use super::{super::openapi as openapi_document, *};
use std::collections::BTreeSet;

fn document() -> Value {
    serde_json::from_str(&openapi_document()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation.is_object() {
                all.push((path.clone(), method.clone(), operation.clone()));
            }
        }
    }
    all
}

#[test]
fn every_route_is_in_it() {
    let document = document();
    let present: BTreeSet<String> =
        operations(&document).into_iter().map(|(path, method, _)| format!("{method} {path}")).collect();
    let mut wanted: Vec<String> = [
        "get /me",
        "get post /entries",
        "get put delete /entries/{entry}",
        "get /entries/{entry}/tools",
        "get /entries/{entry}/fields",
        "post /preview",
        "get /pull-secrets",
        "get post /installations",
        "get delete /installations/{installation}",
        "get /installations/{installation}/status",
        "get /installations/{installation}/logs",
        "get /installations/{installation}/revisions",
        "get /installations/{installation}/manifest",
        "post /installations/{installation}/restart",
        "post /installations/{installation}/reinstall",
        "post /installations/{installation}/refresh-tools",
        "post /installations/{installation}/update",
        "post /installations/{installation}/rollback",
        "get /tools",
        "get /tools/{tool}",
        "get post /teams",
        "get put delete /teams/{team}",
        "get post /teams/{team}/members",
        "delete /teams/{team}/members/{user}",
        "get post /users",
        "get put delete /users/{user}",
        "get post /tokens",
        "get delete /tokens/{token}",
        "get post /policies",
        "get put delete /policies/{policy}",
        "get /audit",
        "get /audit/{record}",
        "post /apply",
    ]
    .map(str::to_owned)
    .into();
    for base in ["/gateways", "/agents"] {
        for line in [
            "get post {}",
            "get put delete {}/{consumer}",
            "get post {}/{consumer}/assignments",
            "get {}/{consumer}/tools",
        ] {
            wanted.push(line.replacen("{}", base, 1));
        }
        wanted.push(format!("delete {base}/{{consumer}}/assignments/{{assignment}}"));
    }
    let wanted: BTreeSet<String> = wanted
        .iter()
        .flat_map(|line| {
            let (methods, path) = line.rsplit_once(' ').unwrap();
            methods.split(' ').map(|method| format!("{method} {path}")).collect::<Vec<_>>()
        })
        .collect();
    let missing: Vec<_> = wanted.difference(&present).collect();
    let unknown: Vec<_> = present.difference(&wanted).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing {missing:?}, unknown {unknown:?}");
}

#[test]
fn operations_are_unique_described_and_tagged() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
        assert!(!id.is_empty() && ids.insert(id.clone()), "{method} {path}: {id:?}");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{method} {path}");
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{method} {path}");
        assert_eq!(
            operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"],
            "#/components/schemas/Problem"
        );
        for parameter in operation["parameters"].as_array().unwrap_or(&Vec::new()) {
            assert!(
                parameter["in"] != "path" || path.contains(&format!("{{{}}}", parameter["name"].as_str().unwrap())),
                "{method} {path}"
            );
        }
    }
    assert!(ids.contains("createEntry") && ids.contains("listGateways") && ids.contains("createAgent"), "{ids:?}");
}

/// What a schema says where it is used, whether it stands there or is referred to.
fn resolved<'a>(schema: &'a Value, document: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

#[test]
fn every_list_is_paged_by_cursor() {
    let document = document();
    let mut lists = BTreeSet::new();
    for (path, method, operation) in operations(&document).into_iter().filter(|(_, method, _)| method == "get") {
        let schema = resolved(&operation["responses"]["200"]["content"]["application/json"]["schema"], &document);
        assert_ne!(schema["type"], "array", "{method} {path} answers with a list that has no room for a cursor");
        let items = resolved(&schema["properties"]["items"], &document);
        if items["type"] != "array" {
            continue;
        }
        assert!(
            schema["properties"]["nextCursor"].is_object(),
            "{method} {path} does not say where its next page begins"
        );
        for name in ["limit", "cursor"] {
            let mut parameters = operation["parameters"].as_array().into_iter().flatten();
            let there = parameters.any(|parameter| parameter["name"] == name && parameter["in"] == "query");
            assert!(there, "{method} {path} does not take `{name}`");
        }
        lists.insert(path);
    }
    for path in ["/entries", "/audit", "/teams/{team}/members", "/installations/{installation}/revisions"] {
        assert!(lists.contains(path), "{path} is no list: {lists:?}");
    }
}

#[test]
fn every_reference_resolves() {
    fn visit(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                }
                map.values().for_each(|value| visit(value, document));
            }
            Value::Array(items) => items.iter().for_each(|value| visit(value, document)),
            _ => {}
        }
    }
    let document = document();
    visit(&document, &document);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in [
        "Entry",
        "EntryWrite",
        "Consumer",
        "ConsumerWrite",
        "Installation",
        "ApplyDocument",
        "ApplyReport",
        "Problem",
        "Finding",
    ] {
        assert!(schemas.contains_key(name), "{name}: {:?}", schemas.keys().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn it_is_served_to_everybody() {
    let rig = Rig::new().await;
    let answer = rig.send(Request::builder().uri("/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.expect(200)["servers"][0]["url"], "/api/v1");
}
