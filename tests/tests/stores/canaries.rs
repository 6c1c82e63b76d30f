//! What is secret is nowhere in clear: not in a dump of the database, a backup, the log at its lowest level, an answer of the API,
//! or the arguments of a process.

use super::key_file;
use archestra_tests::{
    Home, Start,
    binary::{self, ADMIN},
    postgres::Database,
    remote::{Mood, Remote},
};
use http::Method;
use serde_json::{Value, json};
use std::process::Command;

const STATIC: &str = "canary-static-8d1f2c";
const PROMPTED: &str = "canary-prompted-8d1f2c";
const FIXED: &str = "canary-fixed-8d1f2c";
const HEADER: &str = "canary-header-8d1f2c";
const REFUSED: &str = "canary-refused-8d1f2c";
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

#[test]
fn a_text_is_recognized_whatever_it_is_written_as() {
    assert_eq!(base64(b"canary"), "Y2FuYXJ5");
    let forms = forms("canary-1");
    for (before, written) in [("", "Y2FuYXJ5"), ("x", "eGNhbmFyeS0x"), ("xy", "eHljYW5hcnkt")] {
        assert!(forms.iter().any(|form| written.contains(&form[..6])), "{before} {forms:?}");
    }
    assert!(forms.contains(&"63616e6172792d31".to_owned()));
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

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn no_secret_is_in_a_dump_a_backup_a_log_or_an_answer() {
    let (database, home) = (Database::new(), Home::new());
    let key = key_file(&home, "key");
    let url = database.url();
    let args = ["--runtime", "process", "--log", "trace,sqlx=trace,sea_orm_migration=trace", "--key-file"];
    let mut args: Vec<String> = args.map(str::to_owned).to_vec();
    args.push(key.display().to_string());
    let env = vec![("ARCHESTRA_DATABASE_URL", url.clone()), ("ARCHESTRA_QUICKSTART", "false".to_owned())];
    let binary = home.start(&Start { args, env }).await;
    let (api, remote) = (binary.api(), Remote::start().await);
    let secrets = [STATIC, PROMPTED, FIXED, HEADER, REFUSED, PULL, BEARER, ADMIN];
    let mut secrets = secrets.map(str::to_owned).to_vec();
    let password = url.split_once("://").unwrap().1.split_once('@').unwrap().0.split_once(':').unwrap().1;
    secrets.push(password.to_owned());
    let mut said = Vec::new();

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
        said.push((format!("the answer to {}", entry["name"]), made.text()));
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
        assert!((400..500).contains(&refused.status), "{} {}", refused.status, refused.text());
        said.push((format!("a refusal with {}", refused.status), refused.text()));
    }
    for installed in
        [install("local", json!({ "API_KEY": PROMPTED })).await, install("tracker", json!({ "token": STATIC })).await]
    {
        said.push(("the answer to an installation".to_owned(), installed.text()));
        installed.ok();
    }
    let spec = json!({ "slug": "all", "scope": "organization", "tools": [{ "entry": "tracker", "tool": "*" }] });
    api.post("/api/v1/gateways", &spec).await.ok();
    let made = api.post("/api/v1/tokens", &json!({ "name": "ci" })).await.ok();
    secrets.push(made["token"].as_str().unwrap().to_owned());
    let gateway = binary.gateway("all").as_token(made["token"].as_str());
    gateway.until_listed("tracker__wait").await;
    gateway.call("tracker__wait", json!({ "say": "hello" })).await;
    remote.be(Mood::Dropping);
    let failed = gateway.modern("tools/call", json!({ "name": "tracker__wait", "arguments": {} })).await;
    said.push(("a call that failed".to_owned(), failed.text()));

    // Every list there is, and what can be asked of each installation.
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
        said.push((path, answer.text()));
    }
    said.push(("the metrics".to_owned(), binary.metrics().await));

    let file = home.path().join("backup");
    let mut backup = Command::new(binary::path());
    backup.args(["backup", "--to"]).arg(&file).arg("--data-dir").arg(home.path().join("data"));
    let output = backup.env("ARCHESTRA_DATABASE_URL", &url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("\"secrets\"") && written.contains("tracker"), "{written}");
    said.push(("what the backup says".to_owned(), String::from_utf8_lossy(&output.stderr).into_owned()));
    said.push(("the backup".to_owned(), written));

    for process in binary.descendants() {
        said.push(("the arguments of a process".to_owned(), process.command.clone()));
    }
    let log_file = binary.log();
    assert!(binary.stop().await.success());
    let dump = database.dump();
    assert!(
        dump.matches("INSERT INTO public.secrets").count() >= 3 && dump.contains("INSERT INTO public.audit"),
        "{dump}"
    );
    said.push(("the dump".to_owned(), dump));
    assert!(log_file.contains("TRACE") && log_file.contains("archestra"), "the log is at its lowest level");
    said.push(("the log".to_owned(), log_file));
    for (what, text) in said {
        clean(&what, &text, &secrets);
    }
}
