//! Each way to log in to a real server, and what happens when a login ends.

use crate::{
    methods::{Cluster, Issuer, app_role, file, token},
    support::{address, admin, config, mount, request, root_token, unique},
};
use archestra_core::{
    ErrorKind,
    secret::{Expect, SecretStore},
    testing::fixtures::{bundle, secret_ref},
};
use archestra_store::{VaultAuth, VaultConfig, VaultStore};
use serde_json::json;
use std::time::Duration;

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

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_token_is_renewed_before_it_ends() {
    let mount = mount(2).await;
    let token = token(&mount, json!({"ttl": "10s", "renewable": true})).await;
    let store = works(&config(&mount, VaultAuth::Token(token.into()))).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    round_trip(&store).await;
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_token_that_ended_is_an_error_with_the_remedy() {
    let mount = mount(2).await;
    let token = token(&mount, json!({"ttl": "10s", "renewable": false})).await;
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
    let first = token(&mount, json!({"ttl": "1h"})).await;
    let path = file(&format!("{first}\n"));
    let store = works(&config(&mount, VaultAuth::TokenFile(path.clone()))).await;
    admin("POST", "auth/token/revoke", json!({"token": first})).await;
    std::fs::write(&path, token(&mount, json!({"ttl": "1h"})).await).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    round_trip(&store).await;
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn approle_logs_in_again_when_its_login_ends() {
    let mount = mount(2).await;
    let (_, auth) = app_role(&mount, json!({"token_ttl": "2s", "token_max_ttl": "3s"})).await;
    let store = works(&config(&mount, auth)).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        round_trip(&store).await;
    }
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_login_that_was_revoked_is_made_anew() {
    let mount = mount(2).await;
    let (approle, auth) = app_role(&mount, json!({"token_ttl": "1h"})).await;
    let store = works(&config(&mount, auth)).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    admin("POST", &format!("sys/leases/revoke-prefix/auth/{approle}"), json!({})).await;
    round_trip(&store).await;
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn jwt_logs_in_with_the_token_that_is_in_the_file_then() {
    let mount = mount(2).await;
    let issuer = Issuer::start(&mount, json!({"token_ttl": "2s", "token_max_ttl": "2s"})).await;
    let path = file(&issuer.signed(600));
    let store = works(&config(&mount, issuer.auth(path.clone()))).await;
    // The file is written anew while nobody asks; the next login takes what is there then.
    std::fs::write(&path, issuer.signed(900)).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    round_trip(&store).await;
    std::fs::write(&path, issuer.signed(-900)).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let error = store.get(&secret_ref("entry/a/1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("login by jwt"), "{error}");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn kubernetes_logs_in_with_the_service_account() {
    let mount = mount(2).await;
    let cluster = Cluster::start(&mount).await;
    works(&config(&mount, cluster.auth(file(&Cluster::service_account())))).await;
    let error = VaultStore::connect(&config(&mount, cluster.auth("/does/not/exist".into()))).await.unwrap_err();
    assert!(error.to_string().contains("/does/not/exist cannot be read"), "{error}");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_policy_that_does_not_grant_a_path_is_told_from_a_login_that_ended() {
    let mount = mount(2).await;
    let token = token(&mount, json!({"ttl": "1h"})).await;
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
    use crate::fake::{Fake, Told};
    use archestra_store::AwsCredentialsFile;
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde_json::Value;
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
