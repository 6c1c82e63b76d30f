//! What the flags about Vault mean, and what is refused before anything is asked.

use super::{Secrets, Transit};
use crate::{
    environment::Environment,
    flags::{self, Command, SecretsChoice},
};
use archestra_store::VaultAuth;

fn decide(arguments: &[&str], environment: &Environment) -> Result<Secrets, String> {
    let line = ["archestra"].iter().chain(arguments).copied();
    let Command::Serve(settings) = flags::parse(line).unwrap() else { panic!("not `serve`") };
    let settings = flags::resolve(*settings, environment).unwrap();
    let choice: SecretsChoice = settings.secrets.unwrap();
    Secrets::decide(choice, &settings.vault, environment).map_err(|failure| failure.text().to_owned())
}

const ADDRESS: [&str; 4] = ["--secrets", "vault", "--vault-address", "https://vault.example.com"];

fn with(more: &[&str], environment: &Environment) -> Result<Secrets, String> {
    decide(&[&ADDRESS, more].concat(), environment)
}

#[test]
fn a_token_comes_from_the_variable_or_from_a_file() {
    let environment = Environment::from([("ARCHESTRA_VAULT_TOKEN", "canary-t0ken")]);
    let decided = with(&[], &environment).unwrap();
    assert!(!format!("{decided:?}").contains("canary"));
    let Secrets::Vault(config) = decided else { panic!("{decided:?}") };
    assert!(matches!(&config.auth, VaultAuth::Token(token) if token.expose() == "canary-t0ken"));
    assert_eq!((config.mount.as_str(), config.prefix.as_str()), ("secret", "archestra"));
    let decided = with(&["--vault-credential-file", "/run/token"], &Environment::default()).unwrap();
    assert!(matches!(&decided, Secrets::Vault(config) if matches!(config.auth, VaultAuth::TokenFile(_))));
    assert!(with(&["--vault-credential-file", "/run/token"], &environment).unwrap_err().contains("both set"));
}

#[test]
fn each_method_says_what_it_lacks() {
    let none = Environment::default();
    for (more, told) in [
        (&[][..], "ARCHESTRA_VAULT_TOKEN"),
        (&["--vault-auth", "kubernetes"], "--vault-role"),
        (&["--vault-auth", "approle", "--vault-role", "r"], "ARCHESTRA_VAULT_SECRET_ID"),
        (&["--vault-auth", "jwt", "--vault-role", "r"], "--vault-credential-file"),
        (&["--vault-auth", "kubernetes", "--vault-role", "r", "--vault-mount", "a/../b"], "mount"),
        (&["--vault-auth", "kubernetes", "--vault-role", "r", "--vault-prefix", "/a"], "prefix"),
    ] {
        let refused = with(more, &none).unwrap_err();
        assert!(refused.contains(told), "{more:?}: {refused}");
    }
    assert!(decide(&["--secrets", "vault"], &none).unwrap_err().contains("--vault-address"));
    assert!(decide(&["--secrets", "vault-readonly"], &none).unwrap_err().contains("--vault-address"));
}

#[test]
fn kubernetes_needs_only_a_role() {
    let more = ["--vault-auth", "kubernetes", "--vault-role", "archestra", "--vault-namespace", "team"];
    let Secrets::Vault(config) = with(&more, &Environment::default()).unwrap() else { panic!("not Vault") };
    assert_eq!(config.namespace.as_deref(), Some("team"));
    assert!(matches!(
        &config.auth,
        VaultAuth::Kubernetes { mount, jwt_file, .. }
            if mount == "kubernetes" && jwt_file.ends_with("serviceaccount/token")
    ));
}

#[test]
fn aws_takes_credentials_from_variables_or_a_file() {
    let variables = Environment::from([("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "canary-s3cret")]);
    let more = ["--vault-auth", "aws", "--vault-role", "archestra", "--vault-aws-region", "eu-west-1"];
    let decided = with(&more, &variables).unwrap();
    assert!(!format!("{decided:?}").contains("canary"));
    let Secrets::Vault(config) = decided else { panic!("not Vault") };
    assert!(
        matches!(&config.auth, VaultAuth::Aws { mount, region, .. } if mount == "aws" && region.as_deref() == Some("eu-west-1"))
    );
    let file = [&more[..], &["--vault-credential-file", "/run/aws"]].concat();
    with(&file, &Environment::default()).unwrap();
    assert!(with(&file, &variables).unwrap_err().contains("AWS_ACCESS_KEY_ID are both set"));
    let half = Environment::from([("AWS_ACCESS_KEY_ID", "AKID")]);
    for lacking in [&Environment::default(), &half] {
        let refused = with(&more, lacking).unwrap_err();
        assert!(refused.contains("AWS_SECRET_ACCESS_KEY") && refused.contains("--vault-credential-file"), "{refused}");
    }
    assert!(with(&["--vault-auth", "aws"], &variables).unwrap_err().contains("--vault-role"));
    let wrong = ["--vault-auth", "aws", "--vault-role", "r", "--vault-aws-region", "evil.example.com/"];
    assert!(with(&wrong, &variables).unwrap_err().contains("auth.region"));
}

#[test]
fn a_transit_key_needs_vault_and_a_name() {
    let decide = |line: &[&str]| {
        let line: Vec<_> = ["archestra"].iter().chain(line).copied().collect();
        let Ok(Command::Serve(settings)) = flags::parse(line) else { panic!("no settings") };
        let environment = Environment::from([("ARCHESTRA_VAULT_TOKEN", "canary-t0ken")]);
        let settings = flags::resolve(*settings, &environment).unwrap();
        Transit::decide(&settings.vault, &environment).map_err(|failure| failure.text().to_owned())
    };
    assert!(decide(&[]).unwrap().is_none());
    assert!(decide(&["--key-transit", "k"]).unwrap_err().starts_with("--key-transit: Vault needs --vault-address"));
    let at = ["--vault-address", "https://vault.example.com", "--key-transit"];
    let decided = decide(&[&at[..], &["keys"]].concat()).unwrap().unwrap();
    assert_eq!(decided.command(), "bao write -field=ciphertext -f transit/datakey/wrapped/keys");
    assert!(!format!("{decided:?}").contains("canary"));
    assert!(decide(&[&at[..], &["a/../b"]].concat()).unwrap_err().contains("transit.key"));
    assert!(decide(&[&at[..], &["k", "--key-transit-mount", "/x"]].concat()).unwrap_err().contains("transit.mount"));
}
