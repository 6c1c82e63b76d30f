//! The OpenAPI document: what all operations have in common is added to what their handlers say.

use super::ProblemBody;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Components, ContentBuilder, Info, OpenApi, Ref, RefOr, Required, ResponseBuilder, SecurityRequirement, Server,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

const SCHEME: &str = "bearer";

/// Completes the document, as JSON.
pub(super) fn finish(mut api: OpenApi) -> String {
    let mut info = Info::new("Archestra control plane", env!("CARGO_PKG_VERSION"));
    info.description =
        Some("A private MCP registry, orchestrator and gateway. Errors are RFC 9457 problems.".to_owned());
    api.info = info;
    api.servers = Some(vec![Server::new("/api/v1")]);
    api.security = Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())]);
    let components = api.components.get_or_insert_with(Components::new);
    let scheme =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("a static token, `arch_…`")).build();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
    let mut nested = Vec::new();
    ProblemBody::schemas(&mut nested);
    components.schemas.extend(nested);
    components.schemas.insert("Problem".to_owned(), ProblemBody::schema());

    for (path, item) in &mut api.paths.paths {
        let base = path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
        let noun = singular(&base);
        for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten() {
            complete(operation, &base, &noun);
        }
        let versioned = path.matches('{').count() == 1 && VERSIONED.contains(&base.as_str());
        for operation in [&mut item.put, &mut item.delete].into_iter().flatten().filter(|_| versioned) {
            operation.parameters.get_or_insert_with(Vec::new).push(RefOr::T(if_match()));
        }
    }
    // A document that is made of strings, numbers and lists can always be written.
    api.to_json().expect("an OpenAPI document is always JSON")
}

/// The resources whose writes can name the version they were made for.
const VERSIONED: &[&str] = &["entries", "gateways", "agents", "teams", "users", "policies"];

fn if_match() -> Parameter {
    let text = "The `resourceVersion` that was read, in quotes; when it is no longer the present one the answer is 412. A body, or the query, may name it too.";
    ParameterBuilder::new()
        .name("If-Match")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(text))
        .schema(Some(String::schema()))
        .build()
}

/// Makes the id unique over all resources, and says what an error looks like.
fn complete(operation: &mut Operation, base: &str, noun: &str) {
    operation.tags.get_or_insert_with(|| vec![base.to_owned()]);
    let name = operation.operation_id.take().unwrap_or_default();
    operation.operation_id = Some(match name.as_str() {
        "list" => camel(&["list", base]),
        "readMe" | "apply" => name,
        verb => camel(&verb.split('_').chain([noun]).collect::<Vec<_>>()),
    });
    let content = ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Problem")))).build();
    let problem = ResponseBuilder::new()
        .description("what went wrong, and what to do")
        .content(super::problem::CONTENT_TYPE, content)
        .build();
    operation.responses.responses.entry("default".to_owned()).or_insert(RefOr::T(problem));
}

fn singular(base: &str) -> String {
    match base {
        "entries" => "entry".to_owned(),
        "policies" => "policy".to_owned(),
        "audit" => "auditRecord".to_owned(),
        other => other.trim_end_matches('s').to_owned(),
    }
}

fn camel(words: &[&str]) -> String {
    let mut out = String::new();
    for word in words {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if !out.is_empty() => out.extend(first.to_uppercase().chain(letters)),
            Some(first) => out.extend(std::iter::once(first).chain(letters)),
            None => {}
        }
    }
    out
}
