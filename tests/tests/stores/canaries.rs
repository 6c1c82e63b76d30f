//! What is secret is nowhere in clear: not in a dump of the database, a backup, the log at its lowest level, an answer of the API,
//! or the arguments of a process.

use archestra_tests::{Home, Start, canaries::Planted, postgres::Database};

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn no_secret_is_in_a_dump_a_backup_a_log_or_an_answer() {
    let (database, home) = (Database::new(), Home::new());
    let key = home.key_file("key");
    let url = database.url();
    let args = ["--runtime", "process", "--log", "trace,sqlx=trace,sea_orm_migration=trace", "--key-file"];
    let mut args: Vec<String> = args.map(str::to_owned).to_vec();
    args.push(key.display().to_string());
    let env = vec![("ARCHESTRA_DATABASE_URL", url), ("ARCHESTRA_QUICKSTART", "false".to_owned())];
    let start = Start { args, env };
    let binary = home.start(&start).await;
    let mut planted = Planted::new();
    planted.secret(database.password());
    planted.used_by(&binary, &home, &start).await;
    let log_file = binary.log_file();
    assert!(binary.stop().await.success());
    let dump = database.dump();
    assert!(
        dump.matches("INSERT INTO public.secrets").count() >= 3 && dump.contains("INSERT INTO public.audit"),
        "{dump}"
    );
    planted.said("the dump", dump);
    let log = std::fs::read_to_string(log_file).unwrap();
    assert!(log.contains("TRACE") && log.contains("archestra"), "the log is at its lowest level");
    planted.said("the log", log);
    planted.check();
}
