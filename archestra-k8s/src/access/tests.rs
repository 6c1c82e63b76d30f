//! What is said of kubeconfigs and clusters that cannot be used.

use super::*;
use crate::testing::FakeCluster;
use archestra_core::{id::InstallationId, secret::SecretValue};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const KUBECONFIG: &str = r"
apiVersion: v1
kind: Config
clusters:
- {name: here, cluster: {server: SERVER, insecure-skip-tls-verify: true}}
users:
- {name: me, user: {token: s3cret}}
contexts:
- {name: it, context: {cluster: here, user: me}}
current-context: it
";

fn config(access: ClusterAccess) -> KubernetesConfig {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    KubernetesConfig { access, call_timeout: Duration::from_secs(2), ..KubernetesConfig::default() }
}

fn text(kubeconfig: impl Into<String>) -> KubernetesConfig {
    config(ClusterAccess::KubeconfigText { text: SecretValue::new(kubeconfig), context: None })
}

async fn refused(config: &KubernetesConfig) -> AccessError {
    match open(config).await {
        Ok(access) => check(&access.client, &access.server, config).await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let path = PathBuf::from("/no/such/kubeconfig");
    let error = refused(&config(ClusterAccess::Kubeconfig { path, context: None })).await;
    assert!(matches!(error, AccessError::Missing { .. }), "{error:?}");
    assert!(error.to_string().contains("/no/such/kubeconfig does not exist"), "{error}");
    let error = refused(&config(ClusterAccess::Kubeconfig { path: "/".into(), context: None })).await;
    assert!(matches!(error, AccessError::Unreadable { .. }), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_parsed_says_where_and_quotes_nothing() {
    let error = refused(&text("clusters:\n- name: here\n  cluster: [s3cret")).await;
    assert!(matches!(error, AccessError::Unparsable { line: Some(_), .. }), "{error:?}");
    assert!(error.to_string().contains(" at line "), "{error}");
    let error = refused(&text("clusters: s3cret")).await;
    assert!(matches!(error, AccessError::Unparsable { line: Some(1), .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn what_lacks_something_says_what() {
    for (kubeconfig, expected) in [
        ("", "set `current-context`"),
        ("current-context: gone", "gone"),
        (&KUBECONFIG.replace("cluster: here,", "cluster: gone,"), "clusters"),
        (&KUBECONFIG.replace("server: SERVER,", ""), "`server`"),
        (&KUBECONFIG.replace("SERVER", "\"not a url\""), "https://10.0.0.1:6443"),
        (
            &KUBECONFIG.replace("insecure-skip-tls-verify: true", "certificate-authority: /no/ca.crt"),
            "certificate-authority",
        ),
    ] {
        let error = refused(&text(kubeconfig)).await;
        assert!(matches!(error, AccessError::Incomplete { .. }), "{kubeconfig}: {error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = refused(&text(KUBECONFIG.replace("SERVER", &format!("https://user:s3cret@{address}")))).await;
    assert!(matches!(error, AccessError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("at https://{address}: ")), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_cluster_that_never_answers_is_waited_for_within_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = text(KUBECONFIG.replace("SERVER", &format!("https://{address}")));
    config.call_timeout = Duration::from_millis(200);
    let error = refused(&config).await;
    assert!(matches!(error, AccessError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_namespace_must_be_one() {
    for namespace in ["", "Upper", "../default", "a/b", "-a", &"x".repeat(64)] {
        let config = KubernetesConfig { namespace: namespace.to_owned(), ..text(KUBECONFIG) };
        assert!(matches!(refused(&config).await, AccessError::Namespace { .. }), "{namespace}");
    }
}

#[tokio::test]
async fn the_name_of_a_platform_must_be_the_value_of_a_label() {
    for instance in ["", "a b", "-a", "a.", "a,b=c", &"x".repeat(64)] {
        let config = KubernetesConfig { instance: Some(instance.to_owned()), ..text(KUBECONFIG) };
        assert!(matches!(refused(&config).await, AccessError::Instance { .. }), "{instance}");
    }
}

#[tokio::test]
async fn outside_a_cluster_there_is_no_service_account() {
    if Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists() {
        return;
    }
    let error = refused(&config(ClusterAccess::InCluster { server: None })).await;
    assert!(matches!(error, AccessError::NotInCluster { .. }), "{error:?}");
    assert!(error.to_string().contains("ARCHESTRA_ORCHESTRATOR_KUBECONFIG"), "{error}");
}

/// Nobody's.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUW9DIhsrbidCMVWQu0BOegyM9QJowCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJYSBjbHVzdGVyMCAXDTI2MTIwMTA2MjQ1N1oYDzIxMjYxMTA3
MDYyNDU3WjAUMRIwEAYDVQQDDAlhIGNsdXN0ZXIwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAR8H6uifGcqcDbfE3aB4R8pDB/7ZyyTu0zN2E5P8llziHQ9tIkuTxcd
bz8wSCHyjnNPlTF6IN66qXymYPi5QoRgo1MwUTAdBgNVHQ4EFgQUTKilhkkzBsHH
+Pd33ebikSAoP5QwHwYDVR0jBBgwFoAUTKilhkkzBsHH+Pd33ebikSAoP5QwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBx8eYsa2mVaZBcP2cbJSuU
d6VatdbivzJBKn2euvH5rAIhAJe7RMkNwXArxyRY4GWiCuCskOWQyWVh34s0/+OK
Z8ZV
-----END CERTIFICATE-----
";

/// What the kubelet mounts into a pod. It is removed at the end.
struct Mounted(PathBuf);

impl Mounted {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = std::env::temp_dir().join(format!("service-account-{}", InstallationId::new()));
        fs::create_dir(&directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        Self(directory)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone_already = fs::remove_dir_all(&self.0);
    }
}

const WHOLE: [(&str, &str); 3] = [("namespace", "platform"), ("token", "t0ken"), ("ca.crt", CERTIFICATE)];

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_leads_to_the_cluster() {
    let config = config(ClusterAccess::InCluster { server: None });
    let mounted = Mounted::new(&WHOLE);
    let cluster = FakeCluster::new();
    let server = cluster.serve().await.unwrap();
    let client = transport::client(in_cluster(&mounted.0, &server.url()).await.unwrap()).unwrap();
    assert_eq!(client.default_namespace(), "platform");
    check(&client, &server.url(), &config).await.unwrap();
}

#[tokio::test]
async fn the_token_of_the_service_account_is_shown() {
    let config = config(ClusterAccess::InCluster { server: None });
    let mounted = Mounted::new(&WHOLE);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = transport::client(in_cluster(&mounted.0, &url).await.unwrap()).unwrap();
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            assert!(stream.read_buf(&mut head).await.unwrap() > 0, "the request ended early");
        }
        let refusal = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(refusal.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap().to_lowercase()
    };
    let both = async { tokio::join!(answering, check(&client, &url, &config)) };
    let (head, checked) = timeout(Duration::from_secs(20), both).await.expect("it asks");
    assert!(head.contains("authorization: bearer t0ken\r\n"), "{head}");
    let error = checked.unwrap_err();
    assert!(matches!(error, AccessError::Refused { .. }) && !error.to_string().contains("t0ken"), "{error:?}");
}

#[tokio::test]
async fn what_a_service_account_lacks_is_named() {
    for (missing, at) in [("namespace", "open"), ("ca.crt", "open"), ("token", "client")] {
        let files: Vec<_> = WHOLE.into_iter().filter(|(name, _)| *name != missing).collect();
        let mounted = Mounted::new(&files);
        match in_cluster(&mounted.0, SERVER).await {
            Ok(config) => assert!(at == "client" && transport::client(config).is_err(), "{missing}"),
            Err(error) => {
                let path = mounted.0.join(missing);
                assert!(at == "open" && error.to_string().contains(&path.display().to_string()), "{error}");
            }
        }
    }
    let mounted = Mounted::new(&[WHOLE[0], WHOLE[1], ("ca.crt", "nothing")]);
    let error = in_cluster(&mounted.0, SERVER).await.unwrap_err();
    assert!(error.to_string().contains("holds no certificate"), "{error}");
    let error = in_cluster(&Mounted::new(&WHOLE).0, "not a url").await.unwrap_err();
    assert!(error.to_string().contains("is not a URL"), "{error}");
}
