//! Secrets that are planted: what is said and written while they are used, and the look for them in it.

use crate::{
    Answer, Home, Running, Start,
    binary::ADMIN,
    remote::{Mood, Remote},
};
use http::Method;
use serde_json::{Value, json};

const STATIC: &str = "canary-static-8d1f2c";
const PROMPTED: &str = "canary-prompted-8d1f2c";
const FIXED: &str = "canary-fixed-8d1f2c";
const HEADER: &str = "canary-header-8d1f2c";
/// What is in requests that are refused.
pub const REFUSED: &str = "canary-refused-8d1f2c";
const PULL: &str = "canary-pull-8d1f2c";
const BEARER: &str = "arch_canarybearer8d1f2c8d1f2c8d1f2c8d1f2c";

/// What a text looks like in a file: as it is, as hex digits, and in Base64 wherever it begins.
fn forms(secret: &str) -> Vec<String> {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_owned(), hex];
    for before in 0..3_usize {
        let padded = [vec![0; before], secret.as_bytes().to_vec()].concat();
        let whole = base64(&padded[..padded.len() - padded.len() % 3]);
        // The first characters also depend on what is before the text.
        forms.push(whole[before.div_ceil(3) * 4..].to_owned());
    }
    forms
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let chunks = bytes.chunks_exact(3);
    let digits = chunks.flat_map(|chunk| {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63]))
    });
    digits.collect()
}

fn clean(what: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        for form in forms(secret) {
            let around = text.find(&form).map(|at| text[..at].chars().rev().take(200).collect::<Vec<_>>());
            let around = around.map(|before| before.into_iter().rev().collect::<String>());
            assert!(around.is_none(), "{what} holds a secret, as {form}, behind: {around:?}");
        }
    }
}

/// What was said and written, and what must not be in it.
#[derive(Debug)]
pub struct Planted {
    said: Vec<(String, String)>,
    secrets: Vec<String>,
}

impl Default for Planted {
    fn default() -> Self {
        Self::new()
    }
}

impl Planted {
    /// The secrets that [`used_by`](Self::used_by) plants, and nothing said.
    pub fn new() -> Self {
        let secrets = [STATIC, PROMPTED, FIXED, HEADER, REFUSED, PULL, BEARER, ADMIN];
        Self { said: Vec::new(), secrets: secrets.map(str::to_owned).to_vec() }
    }

    /// Another secret.
    pub fn secret(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    /// Something that was said or written.
    pub fn said(&mut self, what: impl Into<String>, text: impl Into<String>) {
        self.said.push((what.into(), text.into()));
    }

    /// The answer to a request that must be refused.
    pub fn refused(&mut self, answer: &Answer) {
        assert!((400..600).contains(&answer.status), "{} {}", answer.status, answer.text());
        self.said(format!("a refusal with {}", answer.status), answer.text());
    }

    /// Makes sure that no secret is anywhere in clear.
    pub fn check(&self) {
        for (what, text) in &self.said {
            clean(what, text, &self.secrets);
        }
    }

    /// Has a binary use secrets in every way there is, and notes what it says and writes, but for its log and its database.
    pub async fn used_by(&mut self, binary: &Running, home: &Home, start: &Start) {
        let (api, remote) = (binary.api(), Remote::start().await);
        install(self, binary, &remote).await;
        let made = api.post("/api/v1/tokens", &json!({ "name": "ci" })).await.ok();
        let token = made["token"].as_str().unwrap();
        self.secret(token);
        let gateway = binary.gateway("all").as_token(Some(token));
        gateway.until_listed("tracker__wait").await;
        gateway.call("tracker__wait", json!({ "say": "hello" })).await;
        remote.be(Mood::Dropping);
        let failed = gateway.modern("tools/call", json!({ "name": "tracker__wait", "arguments": {} })).await;
        self.said("a call that failed", failed.text());
        self.everything_read(binary).await;

        let file = home.path().join("backup");
        let (code, text) = home.run(&["backup", "--to", file.to_str().unwrap()], start);
        assert_eq!(code, 0, "{text}");
        let written = std::fs::read_to_string(&file).unwrap();
        assert!(written.contains("\"secrets\"") && written.contains("tracker"), "{written}");
        self.said("what the backup says", text);
        self.said("the backup", written);
        for process in binary.descendants() {
            self.said("the arguments of a process", process.command);
        }
    }

    /// Every list there is, and what can be asked of each installation.
    async fn everything_read(&mut self, binary: &Running) {
        let api = binary.api();
        let described = api.get("/api/v1/openapi.json").await.ok();
        let paths = described["paths"].as_object().unwrap();
        let lists: Vec<&String> =
            paths.keys().filter(|path| paths[*path]["get"].is_object() && !path.contains('{')).collect();
        assert!(lists.len() >= 8, "{lists:?}");
        let mut asked: Vec<String> = lists.into_iter().map(|path| format!("/api/v1{path}")).collect();
        let installations = api.get("/api/v1/installations").await.ok();
        for installation in installations["items"].as_array().unwrap() {
            let one = format!("/api/v1/installations/{}", installation["id"].as_str().unwrap());
            asked.extend(["", "/revisions", "/manifest", "/logs"].map(|more| format!("{one}{more}")));
        }
        asked.extend(["/api/v1/entries/tracker", "/api/v1/entries/local"].map(str::to_owned));
        for path in asked {
            let answer = api.send(Method::GET, &path, &[], None).await;
            self.said(path, answer.text());
        }
        self.said("the metrics", binary.metrics().await);
    }
}

/// Two servers with secrets of their own and of their installations, and requests about them that are refused.
async fn install(planted: &mut Planted, binary: &Running, remote: &Remote) {
    let api = binary.api();
    let entries = [
        json!({ "name": "tracker", "scope": "organization", "remote": { "url": remote.url() },
            "credential": { "static": [
                { "name": "token", "header": "Authorization", "prefix": "Bearer ", "secret": true, "required": true },
                { "name": "key", "header": "x-key", "secret": true, "value": HEADER },
            ] } }),
        json!({ "name": "local", "scope": "organization", "selfHosted": { "command": ["sleep", "100"], "env": [
            { "name": "API_KEY", "secret": true, "prompt": true, "required": true },
            { "name": "LICENSE", "secret": true, "value": FIXED }] } }),
    ];
    for entry in entries {
        let made = api.post("/api/v1/entries", &entry).await;
        planted.said(format!("the answer to {}", entry["name"]), made.text());
        made.ok();
    }
    let install = async |entry: &str, values: Value| {
        let spec = json!({ "entry": entry, "scope": "organization", "values": values });
        api.post("/api/v1/installations", &spec).await
    };
    for refused in [
        install("local", json!({ "API_KEY": REFUSED, "OTHER": REFUSED })).await,
        install("tracker", json!({ "token": { "valueFrom": REFUSED } })).await,
        api.post(
            "/api/v1/entries",
            &json!({ "name": "bad", "selfHosted": { "image": "x/y:1", "imagePullSecrets": [
            { "server": "registry.example.com", "username": "u", "password": PULL }] } }),
        )
        .await,
        api.post(
            "/api/v1/entries",
            &json!({ "name": "bad", "remote": { "url": format!("https://u:{REFUSED}@example.com/mcp") } }),
        )
        .await,
        api.as_token(Some(BEARER)).get("/api/v1/entries").await,
    ] {
        assert!(refused.status < 500, "{} {}", refused.status, refused.text());
        planted.refused(&refused);
    }
    for installed in
        [install("local", json!({ "API_KEY": PROMPTED })).await, install("tracker", json!({ "token": STATIC })).await]
    {
        planted.said("the answer to an installation", installed.text());
        installed.ok();
    }
    let spec = json!({ "slug": "all", "scope": "organization", "tools": [{ "entry": "tracker", "tool": "*" }] });
    api.post("/api/v1/gateways", &spec).await.ok();
}

#[cfg(test)]
mod tests {
    use super::{base64, forms};

    #[test]
    fn a_text_is_recognized_whatever_it_is_written_as() {
        assert_eq!(base64(b"canary"), "Y2FuYXJ5");
        let forms = forms("canary-1");
        for (before, written) in [("", "Y2FuYXJ5"), ("x", "eGNhbmFyeS0x"), ("xy", "eHljYW5hcnkt")] {
            assert!(forms.iter().any(|form| written.contains(&form[..6])), "{before} {forms:?}");
        }
        assert!(forms.contains(&"63616e6172792d31".to_owned()));
    }
}
