//! How answers of the API server become errors.

use super::*;
use archestra_core::ErrorKind;
use serde_json::json;

fn error(status: serde_json::Value) -> Error {
    let status: Status = serde_json::from_value(status).unwrap();
    from_status("applying a Deployment", &status)
}

#[test]
fn a_missing_permission_is_told_from_a_refusal() {
    let rbac = error(json!({"code": 403, "reason": "Forbidden", "message":
        "secrets is forbidden: User \"system:serviceaccount:a:b\" cannot create resource \"secrets\" in API group \"\" in the namespace \"a\""}));
    assert_eq!(rbac.kind(), ErrorKind::PermissionDenied);
    assert!(rbac.to_string().contains("cannot create resource \"secrets\""));

    let quota = error(json!({"code": 403, "reason": "Forbidden", "message":
        "deployments.apps \"x\" is forbidden: exceeded quota: small, requested: count/deployments.apps=1, used: 1, limited: 1"}));
    assert_eq!(quota.kind(), ErrorKind::Invalid);
    assert!(quota.to_string().contains("exceeded quota: small"));
}

#[test]
fn whatever_status_a_webhook_denies_with_it_is_a_refusal() {
    for code in [400, 401, 403, 404, 409, 422, 429, 500, 503] {
        let message = "admission webhook \"rules.example.com\" denied the request: you cannot use this resource here";
        let denied = error(json!({"code": code, "reason": "Whatever", "message": message}));
        let Error::Invalid(findings) = &denied else { panic!("{code}: {denied:?}") };
        assert_eq!((findings[0].field.as_str(), findings[0].reason.as_str()), ("workload", message), "{code}");
        assert_eq!(unjudged(&denied), None);
    }
    let message = "deployments.apps \"x\" is forbidden: ValidatingAdmissionPolicy 'owners' with binding 'all' denied request: no owner";
    let policy = error(json!({"code": 422, "reason": "Invalid", "message": message,
        "details": {"kind": "deployments", "name": "x", "causes": [{"message": "no owner"}]}}));
    let Error::Invalid(findings) = policy else { panic!("{policy:?}") };
    assert_eq!((findings[0].field.as_str(), findings[0].reason.as_str()), ("workload", message), "its name is told");
}

#[test]
fn a_webhook_that_is_away_is_told_from_a_server_that_is() {
    let message = "Internal error occurred: failed calling webhook \"rules.example.com\": connection refused";
    let away = error(json!({"code": 500, "reason": "InternalError", "message": message}));
    assert!(away.is_retryable() && away.to_string().contains(message), "{away:?}");
    assert_eq!(unjudged(&away).unwrap(), "failed calling webhook \"rules.example.com\"");
    let nameless = error(json!({"code": 500, "message": "failed calling the webhook: dial tcp 10.0.0.1:443"}));
    assert_eq!(unjudged(&nameless).unwrap(), "failed calling a webhook");
    assert_eq!(unjudged(&error(json!({"code": 500, "message": "etcdserver: request timed out"}))), None);
    let dry = "admission webhook \"rules.example.com\" does not support dry run";
    assert_eq!(error(json!({"code": 400, "reason": "BadRequest", "message": dry})).kind(), ErrorKind::Unsupported);
}

#[test]
fn what_is_quoted_does_not_pass_for_a_webhook_that_takes_no_dry_runs() {
    let phrase = "admission webhook \"a\" does not support dry run";
    for (code, message) in [
        (
            422,
            format!(
                "Deployment.apps \"x\" is invalid: spec.template.spec.nodeName: Invalid value: {phrase:?}: no name"
            ),
        ),
        (400, format!("Deployment in version \"v1\" cannot be handled as a Deployment: unknown field {phrase:?}")),
        (400, format!("strict decoding error: unknown field {phrase}")),
        (422, phrase.to_owned()),
    ] {
        let refused = error(json!({"code": code, "message": message}));
        assert!(is_refusal(&refused), "{refused:?}");
    }
}

#[test]
fn where_a_workload_is_put_is_told_from_what_it_says() {
    for message in [
        "deployments.apps \"x\" is forbidden: exceeded quota: small, requested: count/deployments.apps=1, used: 1, limited: 1",
        "deployments.apps \"x\" is forbidden: unable to create new content in namespace a because it is being terminated",
    ] {
        let Error::Invalid(findings) = error(json!({"code": 403, "reason": "Forbidden", "message": message})) else {
            panic!("{message}")
        };
        assert_eq!((findings[0].field.as_str(), findings[0].reason.as_str()), (NAMESPACE, message));
    }
}

#[test]
fn every_cause_is_a_finding_with_its_field() {
    let invalid = error(json!({"code": 422, "reason": "Invalid", "message": "Deployment.apps \"x\" is invalid: [...]",
    "details": {"kind": "Deployment", "name": "x", "causes": [
        {"reason": "FieldValueInvalid", "message": "Invalid value: \"a b\": must not contain spaces",
         "field": "spec.template.spec.containers[0].image"},
        {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.template.spec.containers[0].name"}]}}));
    let Error::Invalid(findings) = invalid else { panic!("not a refusal: {invalid:?}") };
    assert_eq!(findings.len(), 2);
    assert_eq!(findings[0].field, "spec.template.spec.containers[0].image");
    assert!(findings[0].reason.contains("must not contain spaces"));
}

#[test]
fn a_cause_without_a_field_is_told_beside_one_with_a_field() {
    let invalid = error(json!({"code": 422, "reason": "Invalid", "message": "Deployment.apps \"x\" is invalid: [...]",
        "details": {"causes": [{"message": "Required value", "field": "spec.selector"}, {"message": "no owner"}]}}));
    let Error::Invalid(findings) = invalid else { panic!("not a refusal: {invalid:?}") };
    let told: Vec<_> = findings.iter().map(|one| (one.field.as_str(), one.reason.as_str())).collect();
    assert_eq!(told, [("spec.selector", "Required value"), ("workload", "no owner")]);
}

#[test]
fn no_cause_of_a_webhook_is_about_where_a_workload_is_put() {
    for code in [403, 422] {
        let message = "admission webhook \"rules.example.com\" denied the request: not here";
        let denied = error(json!({"code": code, "message": message,
            "details": {"causes": [{"message": "not here", "field": "namespace"}]}}));
        let Error::Invalid(findings) = denied else { panic!("not a refusal: {denied:?}") };
        assert_eq!((findings[0].field.as_str(), findings[0].reason.as_str()), ("workload", "not here"));
    }
}

#[test]
fn a_namespace_that_does_not_exist_says_what_to_do() {
    let missing = error(json!({"code": 404, "reason": "NotFound", "message": "namespaces \"gone\" not found",
        "details": {"name": "gone", "kind": "namespaces"}}));
    assert_eq!(missing.kind(), ErrorKind::Invalid);
    assert!(missing.to_string().contains("ARCHESTRA_ORCHESTRATOR_K8S_NAMESPACE"), "{missing}");
}

#[test]
fn trouble_of_the_server_is_worth_another_try() {
    for code in [429, 500, 503, 504] {
        assert!(error(json!({"code": code, "message": "later"})).is_retryable(), "{code}");
    }
    let gone = error(json!({"code": 404, "message": "no", "details": {"name": "x", "kind": "deployments"}}));
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let taken = error(json!({"code": 409, "reason": "AlreadyExists", "details": {"name": "x", "kind": "secrets"}}));
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn an_unreadable_answer_is_not_quoted() {
    let parse = serde_json::from_str::<u8>("\"s3cret\"").unwrap_err();
    let error = from_kube("reading a Secret", kube::Error::SerdeError(parse));
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
