//! The login by AWS IAM: a signed question to AWS who we are, which Vault asks in our place.

use super::login;
use archestra_core::{
    Error, Result,
    secret::{SecretValue, wiped_json},
};
use async_trait::async_trait;
use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use std::{collections::BTreeMap, fmt, path::PathBuf};
use zeroize::Zeroizing;

const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Credentials of AWS.
#[derive(Debug, Clone)]
pub struct AwsCredentials {
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: SecretValue,
    /// The session token that belongs to credentials that expire.
    pub session_token: Option<SecretValue>,
}

/// Where credentials of AWS come from, asked at each login.
#[async_trait]
pub trait AwsCredentialSource: fmt::Debug + Send + Sync + 'static {
    /// Credentials that hold now.
    async fn credentials(&self) -> Result<AwsCredentials>;
}

#[async_trait]
impl AwsCredentialSource for AwsCredentials {
    async fn credentials(&self) -> Result<Self> {
        Ok(self.clone())
    }
}

/// Credentials in a file as the tools of AWS share it, which is read again at each login.
#[derive(Debug, Clone)]
pub struct AwsCredentialsFile {
    /// The file.
    pub path: PathBuf,
    /// The section of it, usually `default`.
    pub profile: String,
}

#[async_trait]
impl AwsCredentialSource for AwsCredentialsFile {
    async fn credentials(&self) -> Result<AwsCredentials> {
        let shown = self.path.display();
        let text = login::read(&self.path).await;
        let text = text.map_err(|_| Error::invalid(shown.to_string(), "it is empty or cannot be read", REMEDY))?;
        section(text.expose(), &self.profile).ok_or_else(|| {
            let reason = format!("there are no aws_access_key_id and aws_secret_access_key under [{}]", self.profile);
            Error::invalid(shown.to_string(), reason, REMEDY)
        })
    }
}

const REMEDY: &str = "write them there, or name another file";

/// The credentials in one section of a file.
fn section(text: &str, profile: &str) -> Option<AwsCredentials> {
    let mut within = false;
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            within = name.trim() == profile;
        } else if within && let Some((name, value)) = line.split_once('=') {
            found.insert(name.trim(), value.trim());
        }
    }
    let found = |name| found.get(name).copied().filter(|value| !value.is_empty());
    Some(AwsCredentials {
        access_key_id: found("aws_access_key_id")?.to_owned(),
        secret_access_key: found("aws_secret_access_key")?.into(),
        session_token: found("aws_session_token").map(SecretValue::from),
    })
}

/// What is signed beside the credentials.
pub(super) struct Question<'a> {
    pub(super) role: &'a str,
    pub(super) region: Option<&'a str>,
    pub(super) server_id: Option<&'a str>,
    pub(super) at: DateTime<Utc>,
}

/// The body of the login, and what in it is secret.
pub(super) fn login_body(question: &Question<'_>, credentials: &AwsCredentials) -> Zeroizing<Vec<u8>> {
    let host = match question.region {
        None => "sts.amazonaws.com".to_owned(),
        Some(region) if region.starts_with("cn-") => format!("sts.{region}.amazonaws.com.cn"),
        Some(region) => format!("sts.{region}.amazonaws.com"),
    };
    let region = question.region.unwrap_or(GLOBAL);
    let mut headers = BTreeMap::from([
        ("content-type", FORM.to_owned()),
        ("host", host.clone()),
        ("x-amz-date", question.at.format(TIME).to_string()),
    ]);
    if let Some(token) = &credentials.session_token {
        headers.insert("x-amz-security-token", token.expose().to_owned());
    }
    if let Some(server_id) = question.server_id {
        headers.insert("x-vault-aws-iam-server-id", server_id.to_owned());
    }
    let authorization = sign(credentials, region, "sts", &headers, BODY, question.at);
    let mut all: BTreeMap<&str, [&str; 1]> = headers.iter().map(|(name, value)| (*name, [value.as_str()])).collect();
    all.insert("authorization", [&authorization]);
    let headers = wiped_json(&all).expect("a map of strings is always JSON");
    let body = BTreeMap::from([
        ("role", question.role.to_owned()),
        ("iam_http_request_method", "POST".to_owned()),
        ("iam_request_url", STANDARD.encode(format!("https://{host}/"))),
        ("iam_request_body", STANDARD.encode(BODY)),
        ("iam_request_headers", STANDARD.encode(&*headers)),
    ]);
    wiped_json(&body).expect("a map of strings is always JSON")
}

/// The region that the global endpoint is in.
const GLOBAL: &str = "us-east-1";
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// The `Authorization` of a POST to `/`, by Signature Version 4. The names of `headers` are in lower case.
fn sign(
    credentials: &AwsCredentials,
    region: &str,
    service: &str,
    headers: &BTreeMap<&str, String>,
    body: &str,
    at: DateTime<Utc>,
) -> String {
    let (day, time) = (at.format("%Y%m%d").to_string(), at.format(TIME).to_string());
    let signed = headers.keys().copied().collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let request = Zeroizing::new(format!("POST\n/\n\n{lines}\n{signed}\n{}", hash(body)));
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(&request));
    let first = Zeroizing::new(format!("AWS4{}", credentials.secret_access_key.expose()));
    let mut key = mac(first.as_bytes(), &day);
    for part in [region, service, "aws4_request"] {
        key = mac(key.as_ref(), part);
    }
    let signature = hex(mac(key.as_ref(), &text).as_ref());
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
        credentials.access_key_id
    )
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn hash(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> AwsCredentials {
        AwsCredentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        }
    }

    /// `post-x-www-form-urlencoded` of the Signature Version 4 test suite.
    #[test]
    fn the_signature_is_that_of_the_published_example() {
        let at: DateTime<Utc> = "2015-08-30T12:36:00Z".parse().unwrap();
        let headers = BTreeMap::from([
            ("content-type", "application/x-www-form-urlencoded".to_owned()),
            ("host", "example.amazonaws.com".to_owned()),
            ("x-amz-date", "20150830T123600Z".to_owned()),
        ]);
        assert_eq!(
            sign(&credentials(), "us-east-1", "service", &headers, "Param1=value1", at),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        );
    }

    #[test]
    fn the_question_holds_what_vault_wants_and_never_the_secret_key() {
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        let question =
            Question { role: "archestra", region: Some("eu-west-1"), server_id: Some("vault.example.com"), at };
        let credentials = AwsCredentials { session_token: Some("session".into()), ..credentials() };
        let body: BTreeMap<String, String> = serde_json::from_slice(&login_body(&question, &credentials)).unwrap();
        let text = |key: &str| String::from_utf8(STANDARD.decode(&body[key]).unwrap()).unwrap();
        assert_eq!(text("iam_request_url"), "https://sts.eu-west-1.amazonaws.com/");
        assert_eq!(text("iam_request_body"), BODY);
        let headers: BTreeMap<String, Vec<String>> = serde_json::from_str(&text("iam_request_headers")).unwrap();
        assert_eq!(headers["x-vault-aws-iam-server-id"], ["vault.example.com"]);
        assert_eq!(headers["x-amz-security-token"], ["session"]);
        assert!(
            headers["authorization"][0]
                .contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-vault-aws-iam-server-id")
        );
        assert!(!format!("{headers:?} {credentials:?}").contains("EXAMPLEKEY"));
        for (region, url) in
            [(None, "https://sts.amazonaws.com/"), (Some("cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn/")]
        {
            let question = Question { region, ..question };
            let body: BTreeMap<String, String> = serde_json::from_slice(&login_body(&question, &credentials)).unwrap();
            assert_eq!(String::from_utf8(STANDARD.decode(&body["iam_request_url"]).unwrap()).unwrap(), url);
        }
    }

    #[test]
    fn a_file_holds_credentials_under_the_profile() {
        let text = "# shared\n[other]\naws_access_key_id = A\n[ default ]\naws_access_key_id=AKID\n\
                    aws_secret_access_key = s3cret/+=\n aws_session_token = t0k==\n\n[last]\naws_access_key_id = B\n";
        let found = section(text, "default").unwrap();
        assert_eq!((found.access_key_id.as_str(), found.secret_access_key.expose()), ("AKID", "s3cret/+="));
        assert_eq!(found.session_token.unwrap().expose(), "t0k==");
        for profile in ["other", "last", "absent"] {
            assert!(section(text, profile).is_none(), "{profile}");
        }
    }
}
