//! The ways to log in to a real server, arranged as its administrator arranges them for one mount.

use crate::{
    fake::{Fake, Told},
    support::{admin, config, mount, policy, unique},
};
use archestra_store::{VaultAuth, VaultStore};
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
use std::path::PathBuf;

/// The name of the role that stands for us, whatever the method.
const ROLE: &str = "archestra";
/// Any certificate: the fake cluster speaks no TLS, but the method wants one.
const CERTIFICATE: &str = include_str!("certificate.pem");

/// How a login may be made that lasts longer than any test.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Method {
    Token,
    TokenFile,
    AppRole,
    Jwt,
    Kubernetes,
}

/// A store on a new mount, logged in by this method under a policy for its prefix alone.
pub(crate) async fn store(method: Method, version: u8) -> VaultStore {
    let mount = mount(version).await;
    let auth = match method {
        Method::Token => VaultAuth::Token(token(&mount, json!({"ttl": "1h"})).await.into()),
        Method::TokenFile => VaultAuth::TokenFile(file(&token(&mount, json!({"ttl": "1h"})).await)),
        Method::AppRole => app_role(&mount, json!({"token_ttl": "1h"})).await.1,
        Method::Jwt => {
            let issuer = Issuer::start(&mount, json!({"token_ttl": "1h"})).await;
            issuer.auth(file(&issuer.signed(3600)))
        }
        Method::Kubernetes => {
            let cluster = Cluster::start(&mount).await;
            let auth = cluster.auth(file(&Cluster::service_account()));
            cluster.api.until_the_test_ends();
            auth
        }
    };
    VaultStore::connect(&config(&mount, auth)).await.unwrap()
}

/// A new mount of a method.
async fn method(kind: &str) -> String {
    let name = unique(kind);
    admin("POST", &format!("sys/auth/{name}"), json!({"type": kind})).await;
    name
}

/// A new token with the policy of a mount.
pub(crate) async fn token(mount: &str, mut options: Value) -> String {
    options["policies"] = json!([policy(mount).await]);
    let made = admin("POST", "auth/token/create", options).await.unwrap();
    text(&made["auth"]["client_token"])
}

/// The mount of a method `approle` with a role for us, and how to log in by it.
pub(crate) async fn app_role(mount: &str, mut role: Value) -> (String, VaultAuth) {
    let method = method("approle").await;
    let path = format!("auth/{method}/role/{ROLE}");
    role["token_policies"] = json!([policy(mount).await]);
    admin("POST", &path, role).await;
    let role_id = admin("GET", &format!("{path}/role-id"), Value::Null).await.unwrap();
    let secret_id = admin("POST", &format!("{path}/secret-id"), json!({})).await.unwrap();
    let auth = VaultAuth::AppRole {
        mount: method.clone(),
        role_id: text(&role_id["data"]["role_id"]),
        secret_id: text(&secret_id["data"]["secret_id"]).into(),
    };
    (method, auth)
}

/// An identity provider that a method `jwt` trusts.
pub(crate) struct Issuer {
    key: EcdsaKeyPair,
    method: String,
}

impl Issuer {
    pub(crate) async fn start(mount: &str, mut role: Value) -> Self {
        let method = method("jwt").await;
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(public.as_ref()));
        admin("POST", &format!("auth/{method}/config"), json!({"jwt_validation_pubkeys": [pem]})).await;
        for (field, value) in [
            ("role_type", json!("jwt")),
            ("user_claim", json!("sub")),
            ("bound_audiences", json!(["vault"])),
            ("token_policies", json!([policy(mount).await])),
        ] {
            role[field] = value;
        }
        admin("POST", &format!("auth/{method}/role/{ROLE}"), role).await;
        Self { key, method }
    }

    pub(crate) fn auth(&self, jwt_file: PathBuf) -> VaultAuth {
        VaultAuth::Jwt { mount: self.method.clone(), role: ROLE.to_owned(), jwt_file }
    }

    /// A token that ends so many seconds from now.
    pub(crate) fn signed(&self, seconds: i64) -> String {
        let now = chrono::Utc::now().timestamp();
        let claims = json!({"sub": ROLE, "aud": "vault", "iat": now - 10, "nbf": now - 10, "exp": now + seconds});
        let message = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT"})), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// A cluster that knows our service account, and a method `kubernetes` that asks it.
pub(crate) struct Cluster {
    pub(crate) api: Fake,
    method: String,
}

impl Cluster {
    pub(crate) async fn start(mount: &str) -> Self {
        let method = method("kubernetes").await;
        let api = Fake::start(|asked| {
            assert_eq!(asked.path, "/apis/authentication.k8s.io/v1/tokenreviews");
            assert!(asked.body.contains("vault"), "{}", asked.body);
            let user = json!({"username": "system:serviceaccount:mcp:archestra", "uid": "u-1",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:mcp"]});
            let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                "status": {"authenticated": true, "user": user, "audiences": ["vault"]}});
            Told::text(201, &review.to_string())
        })
        .await;
        let options = json!({"kubernetes_host": api.address, "disable_local_ca_jwt": true,
            "kubernetes_ca_cert": CERTIFICATE, "token_reviewer_jwt": "reviewer"});
        admin("POST", &format!("auth/{method}/config"), options).await;
        let role = json!({"bound_service_account_names": ["archestra"], "bound_service_account_namespaces": ["mcp"],
            "token_policies": [policy(mount).await], "audience": "vault", "token_ttl": "1h"});
        admin("POST", &format!("auth/{method}/role/{ROLE}"), role).await;
        Self { api, method }
    }

    pub(crate) fn auth(&self, jwt_file: PathBuf) -> VaultAuth {
        VaultAuth::Kubernetes { mount: self.method.clone(), role: ROLE.to_owned(), jwt_file }
    }

    /// The token of our service account. Only the cluster judges its signature.
    pub(crate) fn service_account() -> String {
        let now = chrono::Utc::now().timestamp();
        let claims = json!({"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:mcp:archestra",
            "aud": ["vault"], "iat": now - 10, "nbf": now - 10, "exp": now + 600,
            "kubernetes.io": {"namespace": "mcp", "serviceaccount": {"name": "archestra", "uid": "u-1"}}});
        format!("{}.{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&claims), "c2lnbmF0dXJl")
    }
}

/// A part of a JWT.
fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A file of its own with a credential.
pub(crate) fn file(content: &str) -> PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("token"));
    std::fs::write(&path, content).unwrap();
    path
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
