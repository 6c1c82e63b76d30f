//! What is secret is nowhere in clear where Vault has it: in the log of all that asks Vault at its lowest level, in what is said
//! while Vault refuses, in a dump of the database, a backup, or an answer of the API.

use super::{apply, vault_token};
use archestra_tests::{
    Home, Start,
    canaries::{Planted, REFUSED},
    openbao::OpenBao,
    postgres::Database,
    upstream::Upstream,
};
use serde_json::json;
use std::path::Path;

const LOG: &str = "trace,sqlx=trace,sea_orm_migration=trace,vaultrs=trace,rustify=trace";

fn with(bao: &OpenBao, database: &Database, key: &Path, secrets: &str) -> Start {
    let mut start = bao.start_with(secrets);
    let key = key.display().to_string();
    start.args.extend(["--runtime", "process", "--log", LOG, "--key-file", &key].map(str::to_owned));
    start.env.push(("ARCHESTRA_DATABASE_URL", database.url()));
    start
}

#[tokio::test]
#[ignore = "needs OpenBao and PostgreSQL"]
async fn no_secret_that_is_in_vault_is_anywhere_else() {
    let (bao, database, home) = (OpenBao::start().await, Database::new(), Home::new());
    let key = home.key_file("key");
    let start = with(&bao, &database, &key, "vault");
    let mut planted = Planted::new();
    planted.secret(database.password());
    planted.secret(vault_token(&start));
    let binary = home.start(&start).await;
    planted.used_by(&binary, &home, &start).await;
    // A change that a sealed Vault refuses, and one of which it says that it is too large.
    bao.seal().await;
    let upstream = Upstream::start().await;
    let document = |value: &str| {
        upstream.document(&json!({"entry": "tracker", "scope": {"team": "finance"}, "values": {"token": value}}))
    };
    planted.refused(&apply(&binary, &document(REFUSED)).await);
    bao.unseal().await;
    planted.refused(&apply(&binary, &document(&REFUSED.repeat(60_000))).await);
    let log = binary.log_file();
    assert!(binary.stop().await.success());

    // What people put into Vault themselves.
    let own = "canary-own-8d1f2c";
    planted.secret(own);
    bao.post("secret/data/archestra/finance/own", &json!({"data": {"token": own}})).await.ok();
    let start = with(&bao, &database, &key, "vault-readonly");
    let binary = home.start(&start).await;
    let mut read = upstream.servers("own", &[("own".to_owned(), String::new())].into());
    read["teams"] = json!([{"name": "finance", "members": ["admin@localhost"]}]);
    let at = json!({"token": {"vault": "archestra/finance/own#token"}});
    read["installations"] = json!([{"entry": "own", "scope": {"team": "finance"}, "values": at}]);
    apply(&binary, &read).await.ok();
    let gateway = binary.gateway("own");
    gateway.until_listed("own__echo").await;
    upstream.seen();
    gateway.call("own__echo", json!({})).await;
    assert_eq!(upstream.seen(), [format!("Bearer {own}")]);
    planted.refused(&apply(&binary, &document(REFUSED)).await);
    let logs = [log, binary.log_file()];
    assert!(binary.stop().await.success());

    let dump = database.dump();
    assert!(dump.contains("INSERT INTO public.installations") && dump.contains("INSERT INTO public.audit"), "{dump}");
    planted.said("the dump", dump);
    for log in logs {
        let log = std::fs::read_to_string(log).unwrap();
        for part in ["TRACE", "rustify::endpoint", "sqlx", "archestra"] {
            assert!(log.contains(part), "the log is not at its lowest level: nothing of {part}");
        }
        planted.said("the log", log);
    }
    planted.check();
}
