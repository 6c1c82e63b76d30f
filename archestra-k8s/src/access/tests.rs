//! What is said of kubeconfigs and clusters that cannot be used.

use super::*;
use archestra_core::secret::SecretValue;
use std::time::Duration;

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
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
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
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
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
