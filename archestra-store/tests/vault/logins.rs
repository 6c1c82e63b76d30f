//! Each way to log in to a real server, and what happens when a login ends.

use crate::{
    fake::{Fake, Told},
    support::{address, admin, config, mount, policy, request, root_token, unique},
};
use archestra_core::{
    ErrorKind,
    secret::{Expect, SecretStore},
    testing::fixtures::{bundle, secret_ref},
};
use archestra_store::{VaultAuth, VaultConfig, VaultStore};
use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

async fn works(config: &VaultConfig) -> VaultStore {
    let store = VaultStore::connect(config).await.unwrap();
    round_trip(&store).await;
    store
}

async fn round_trip(store: &VaultStore) {
    let reference = secret_ref(&unique("entry/a"));
    store.put(&reference, &bundle(&[("k", "v")]), Expect::Absent).await.unwrap();
    assert_eq!(store.get(&reference).await.unwrap().bundle, bundle(&[("k", "v")]));
    assert_eq!(store.list(reference.as_str()).await.unwrap(), std::slice::from_ref(&reference));
    store.remove(&reference).await.unwrap();
    store.check().await.unwrap();
}

async fn method(kind: &str) -> String {
    let name = unique(kind);
    admin("POST", &format!("sys/auth/{name}"), json!({"type": kind})).await;
    name
}

async fn made_token(options: Value) -> String {
    let made = admin("POST", "auth/token/create", options).await.unwrap();
    made["auth"]["client_token"].as_str().unwrap().to_owned()
}

fn file(content: &str) -> PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("token"));
    std::fs::write(&path, content).unwrap();
    path
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_token_is_renewed_before_it_ends() {
    let mount = mount(2).await;
    let token = made_token(json!({"policies": [policy(&mount).await], "ttl": "10s", "renewable": true})).await;
    let store = works(&config(&mount, VaultAuth::Token(token.into()))).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    round_trip(&store).await;
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_token_that_ended_is_an_error_with_the_remedy() {
    let mount = mount(2).await;
    let token = made_token(json!({"policies": [policy(&mount).await], "ttl": "10s", "renewable": false})).await;
    let store = works(&config(&mount, VaultAuth::Token(token.into()))).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let error = store.get(&secret_ref("entry/a/1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("has not expired"), "{error}");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_token_file_is_read_again() {
    let mount = mount(2).await;
    let policies = json!({"policies": [policy(&mount).await], "ttl": "1h"});
    let first = made_token(policies.clone()).await;
    let path = file(&format!("{first}\n"));
    let store = works(&config(&mount, VaultAuth::TokenFile(path.clone()))).await;
    admin("POST", "auth/token/revoke", json!({"token": first})).await;
    std::fs::write(&path, made_token(policies).await).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    round_trip(&store).await;
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn approle_logs_in_again_when_its_login_ends() {
    let (mount, approle) = (mount(2).await, method("approle").await);
    let role = format!("auth/{approle}/role/archestra");
    let options = json!({"token_policies": [policy(&mount).await], "token_ttl": "2s", "token_max_ttl": "3s"});
    admin("POST", &role, options).await;
    let role_id = admin("GET", &format!("{role}/role-id"), Value::Null).await.unwrap();
    let secret_id = admin("POST", &format!("{role}/secret-id"), json!({})).await.unwrap();
    let auth = VaultAuth::AppRole {
        mount: approle,
        role_id: text(&role_id["data"]["role_id"]),
        secret_id: text(&secret_id["data"]["secret_id"]).into(),
    };
    let store = works(&config(&mount, auth)).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        round_trip(&store).await;
    }
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_login_that_was_revoked_is_made_anew() {
    let (mount, approle) = (mount(2).await, method("approle").await);
    let role = format!("auth/{approle}/role/archestra");
    admin("POST", &role, json!({"token_policies": [policy(&mount).await], "token_ttl": "1h"})).await;
    let role_id = admin("GET", &format!("{role}/role-id"), Value::Null).await.unwrap();
    let secret_id = admin("POST", &format!("{role}/secret-id"), json!({})).await.unwrap();
    let auth = VaultAuth::AppRole {
        mount: approle.clone(),
        role_id: text(&role_id["data"]["role_id"]),
        secret_id: text(&secret_id["data"]["secret_id"]).into(),
    };
    let store = works(&config(&mount, auth)).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    admin("POST", &format!("sys/leases/revoke-prefix/auth/{approle}"), json!({})).await;
    round_trip(&store).await;
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn jwt_logs_in_with_the_token_that_is_in_the_file_then() {
    let (mount, jwt) = (mount(2).await, method("jwt").await);
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(public.as_ref()));
    admin("POST", &format!("auth/{jwt}/config"), json!({"jwt_validation_pubkeys": [pem]})).await;
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"],
        "token_policies": [policy(&mount).await], "token_ttl": "2s", "token_max_ttl": "2s",
    });
    admin("POST", &format!("auth/{jwt}/role/archestra"), role).await;
    let signed = |claims: Value| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT"})), part(&claims));
        let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    };
    let now = chrono::Utc::now().timestamp();
    let claims =
        |until: i64| json!({"sub": "archestra", "aud": "vault", "iat": now - 10, "nbf": now - 10, "exp": until});
    let path = file(&signed(claims(now + 600)));
    let auth = VaultAuth::Jwt { mount: jwt, role: "archestra".to_owned(), jwt_file: path.clone() };
    let store = works(&config(&mount, auth)).await;
    // The file is written anew while nobody asks; the next login takes what is there then.
    std::fs::write(&path, signed(claims(now + 900))).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    round_trip(&store).await;
    std::fs::write(&path, signed(claims(now - 900))).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let error = store.get(&secret_ref("entry/a/1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("login by jwt"), "{error}");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn kubernetes_logs_in_with_the_service_account() {
    let (mount, kubernetes) = (mount(2).await, method("kubernetes").await);
    let cluster = Fake::start(|asked| {
        assert_eq!(asked.path, "/apis/authentication.k8s.io/v1/tokenreviews");
        assert!(asked.body.contains("vault"), "{}", asked.body);
        let user = json!({"username": "system:serviceaccount:mcp:archestra", "uid": "u-1",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:mcp"]});
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "status": {"authenticated": true, "user": user, "audiences": ["vault"]}});
        Told::text(201, &review.to_string())
    })
    .await;
    let options = json!({"kubernetes_host": cluster.address, "disable_local_ca_jwt": true,
        "kubernetes_ca_cert": CERTIFICATE, "token_reviewer_jwt": "reviewer"});
    admin("POST", &format!("auth/{kubernetes}/config"), options).await;
    let role = json!({"bound_service_account_names": ["archestra"], "bound_service_account_namespaces": ["mcp"],
        "token_policies": [policy(&mount).await], "audience": "vault", "token_ttl": "1h"});
    admin("POST", &format!("auth/{kubernetes}/role/archestra"), role).await;
    let now = chrono::Utc::now().timestamp();
    let claims = json!({"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:mcp:archestra",
        "aud": ["vault"], "iat": now - 10, "nbf": now - 10, "exp": now + 600,
        "kubernetes.io": {"namespace": "mcp", "serviceaccount": {"name": "archestra", "uid": "u-1"}}});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    // Only the cluster judges the signature.
    let jwt = format!("{}.{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&claims), "c2lnbmF0dXJl");
    let auth = |path| VaultAuth::Kubernetes { mount: kubernetes.clone(), role: "archestra".to_owned(), jwt_file: path };
    works(&config(&mount, auth(file(&jwt)))).await;
    let error = VaultStore::connect(&config(&mount, auth("/does/not/exist".into()))).await.unwrap_err();
    assert!(error.to_string().contains("/does/not/exist cannot be read"), "{error}");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_policy_that_does_not_grant_a_path_is_told_from_a_login_that_ended() {
    let mount = mount(2).await;
    let token = made_token(json!({"policies": [policy(&mount).await], "ttl": "1h"})).await;
    let mut config = config(&mount, VaultAuth::Token(token.into()));
    config.prefix = "elsewhere".to_owned();
    let store = VaultStore::connect(&config).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = store.get(&secret_ref("entry/a/1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("give the policy"), "{error}");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_namespace_is_sent() {
    let name = unique("ns");
    let (status, _) = request(&address(), &root_token(), "POST", &format!("sys/namespaces/{name}"), json!({})).await;
    assert_eq!(status, 200, "the server has namespaces");
    let kv = json!({"type": "kv", "options": {"version": "2"}});
    admin("POST", &format!("{name}/sys/mounts/inside"), kv).await;
    let mut config = config("inside", VaultAuth::Token(root_token().into()));
    config.namespace = Some(name);
    tokio::time::sleep(Duration::from_millis(500)).await;
    works(&config).await;
    config.namespace = None;
    assert!(VaultStore::connect(&config).await.is_err());
}

/// OpenBao has no such method: what Vault would be asked is looked at instead.
#[cfg(feature = "vault-aws")]
#[tokio::test]
async fn aws_logs_in_with_the_credentials_that_are_in_the_file_then() {
    use archestra_store::AwsCredentialsFile;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let fake = Fake::start({
        let seen = std::sync::Arc::clone(&seen);
        move |asked| match asked.path.as_str() {
            "/v1/auth/aws/login" => {
                let body: Value = serde_json::from_str(&asked.body).unwrap();
                let headers = STANDARD.decode(body["iam_request_headers"].as_str().unwrap()).unwrap();
                let headers: Value = serde_json::from_slice(&headers).unwrap();
                let authorization = headers["authorization"][0].as_str().unwrap().to_owned();
                assert_eq!(
                    (body["role"].as_str(), headers["host"][0].as_str()),
                    (Some("archestra"), Some("sts.amazonaws.com"))
                );
                let refused = authorization.contains("Credential=GONE/");
                seen.lock().unwrap().push(authorization);
                if refused {
                    return Told::error(400, "error making upstream request: received error code 403");
                }
                let auth = json!({"client_token": "t", "lease_duration": 1, "renewable": false});
                Told::text(200, &json!({"auth": auth}).to_string())
            }
            path if path.starts_with("/v1/secret/") => Told::text(404, r#"{"errors":[]}"#),
            _ => crate::fake::healthy(asked).unwrap_or_else(|| Told::error(400, "unexpected")),
        }
    })
    .await;
    let credentials = |id: &str| format!("[default]\naws_access_key_id={id}\naws_secret_access_key=canary-k3y\n");
    let path = file(&credentials("FIRST"));
    let mut config = fake.config();
    config.auth = VaultAuth::Aws {
        mount: "aws".to_owned(),
        role: "archestra".to_owned(),
        region: None,
        server_id: None,
        credentials: std::sync::Arc::new(AwsCredentialsFile { path: path.clone(), profile: "default".to_owned() }),
    };
    let store = VaultStore::connect(&config).await.unwrap();
    std::fs::write(&path, credentials("SECOND")).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(store.get(&secret_ref("entry/a/1")).await.unwrap_err().kind(), ErrorKind::NotFound);
    let seen = seen.lock().unwrap().clone();
    assert!(seen.first().unwrap().contains("Credential=FIRST/") && seen.last().unwrap().contains("Credential=SECOND/"));
    for (content, told) in [
        (credentials("GONE"), "the login by aws failed"),
        ("[default]\naws_access_key_id=A\n".to_owned(), "under [default]"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = VaultStore::connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let text = format!("{error} {error:?} {config:?}");
        assert!(text.contains(told) && !text.contains("canary"), "{text}");
    }
}

/// Any certificate: the fake cluster speaks no TLS, but the method wants one.
const CERTIFICATE: &str = include_str!("certificate.pem");
