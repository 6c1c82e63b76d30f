//! The first call: the binary on a clean folder, its demo server, clients of both eras, real clients and real servers.

use archestra_tests::{
    Home, Running,
    mcp::{response, text},
    parts,
};
use serde_json::{Value, json};
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};
use tokio::{process::Command, time::Instant};

#[tokio::test]
async fn a_clean_folder_serves_the_demo_to_clients_of_both_eras() {
    let home = Home::new();
    let binary = home.quickstart().await;
    let gateway = binary.gateway("demo");
    gateway.until_listed("demo__echo").await;
    assert_eq!(gateway.tools().await, ["demo__add", "demo__echo"]);
    let echoed = gateway.call("demo__echo", json!({ "message": "héllo \"world\"\n" })).await;
    assert!(text(&echoed).contains("héllo \"world\"\n"), "{echoed}");
    assert_eq!(echoed["resultType"], "complete");

    let session = gateway.session().await;
    assert_eq!(session.initialized["protocolVersion"], "2025-11-25");
    assert_eq!(session.tools().await, ["demo__add", "demo__echo"]);
    let sum = session.call(7, "demo__add", json!({ "a": 19, "b": 23 })).await;
    assert_eq!(text(&sum), "42");
    assert!(sum.get("resultType").is_none(), "{sum}");
    assert_eq!(response(&session.request(8, "ping", json!({})).await)["result"], json!({}));

    let discovered = response(&gateway.modern("server/discover", json!({})).await);
    assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(discovered["result"]["capabilities"]["tools"]["listChanged"], true);
}

/// A start without a token in the environment, whose output goes to a file.
fn first_start(home: &Home, log: &Path) -> std::process::Command {
    let out = std::fs::File::create(log).expect("a log file");
    let mut command = std::process::Command::new(archestra_tests::binary::path());
    command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "none", "--data-dir"]).arg(home.path().join("data"));
    command.env_remove("ARCHESTRA_ADMIN_TOKEN").env_remove("ARCHESTRA_TOKEN").stdin(Stdio::null());
    command.stdout(out.try_clone().expect("a second handle")).stderr(out);
    command
}

async fn until_said(log: &Path, what: &str) -> String {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        // Whole lines only.
        if said.rsplit_once('\n').is_some_and(|(lines, _)| lines.contains(what)) {
            return said;
        }
        assert!(Instant::now() < until, "{what} is not said: {said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The command that a start says under this name.
fn said_under<'a>(name: &str, said: &'a str) -> Option<&'a str> {
    said.lines().find_map(|line| line.trim_end().strip_prefix(&format!("  {name:<8} ")))
}

/// A child that is ended with what it started.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        archestra_tests::processes::terminate(self.0.id());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn the_first_start_puts_the_token_into_a_private_file_and_the_second_says_nothing_of_it() {
    let home = Home::new();
    let log = home.path().join("first");
    let first = Ended(first_start(&home, &log).spawn().unwrap());
    let said = until_said(&log, "\n  or ").await;
    let file = home.path().join("data/admin-token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(token.starts_with("arch_") && !said.contains(&token), "it is in the file and nowhere else: {said}");
    assert!(said_under("token", &said).unwrap().contains(file.canonicalize().unwrap().to_str().unwrap()), "{said}");
    let endpoint = said_under("gateway", &said).unwrap();
    let server = endpoint.strip_suffix("/v1/mcp/demo").unwrap().to_owned();
    let api = |token: &str| archestra_tests::Api::new(server.clone(), Some(token.to_owned()));
    archestra_tests::Mcp::new(api(&token), "demo").until_listed("demo__echo").await;
    assert_eq!(api("arch_another").get("/api/v1/me").await.status, 401);
    drop(first);

    let log = home.path().join("second");
    let _second = Ended(first_start(&home, &log).spawn().unwrap());
    let said = until_said(&log, " listens on ").await;
    assert!(!said.contains("  token ") && !said.contains("  gateway ") && !said.contains("  try "), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), token);
}

#[tokio::test]
#[ignore = "needs curl and script(1)"]
async fn what_the_first_start_says_to_try_works_as_it_is_said() {
    let home = Home::new();
    let log = home.path().join("file");
    let in_file = Ended(first_start(&home, &log).spawn().unwrap());
    let said = until_said(&log, "\n  or ").await;
    let tried = parts::printed(Command::new("sh").args(["-c", said_under("try", &said).unwrap()])).await;
    assert!(tried.contains("demo__echo"), "{tried}");
    drop(in_file);

    // On a terminal, in another folder.
    let (home, log) = (Home::new(), home.path().join("terminal"));
    let plain = first_start(&home, &log);
    let words: Vec<_> =
        std::iter::once(plain.get_program()).chain(plain.get_args()).map(|word| word.to_str().unwrap()).collect();
    let mut terminal = std::process::Command::new("script");
    terminal.args(["--quiet", "--flush", "--return", "--command", &format!("exec {}", words.join(" "))]).arg(&log);
    terminal.env_remove("ARCHESTRA_ADMIN_TOKEN");
    terminal.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _on_terminal = Ended(terminal.spawn().unwrap());
    let said = until_said(&log, "\n  or ").await;
    assert!(said_under("token", &said).unwrap().ends_with("(shown only now; it is the admin's)"), "{said}");
    assert!(!home.path().join("data/admin-token").exists());
    let tried = parts::printed(Command::new("sh").args(["-c", said_under("try", &said).unwrap()])).await;
    assert!(tried.contains("demo__echo"), "{tried}");
}

#[tokio::test]
async fn stop_and_start_keep_everything_and_leave_nothing_behind() {
    let home = Home::new();
    let binary = home.quickstart().await;
    binary.gateway("demo").until_listed("demo__echo").await;
    let children = binary.descendants();
    assert!(!children.is_empty());
    assert!(binary.stop().await.success());
    archestra_tests::processes::all_gone(&children, Duration::from_secs(1)).await;

    let binary = home.quickstart().await;
    let gateway = binary.gateway("demo");
    assert_eq!(gateway.tools().await, ["demo__add", "demo__echo"]);
    let echoed = until_ok(&gateway, "demo__echo", json!({ "message": "again" })).await;
    assert!(text(&echoed).contains("again"));
    let gateways = binary.api().get("/api/v1/gateways").await.ok();
    assert_eq!(gateways["items"].as_array().unwrap().len(), 1, "the quickstart makes its things once: {gateways}");
}

#[tokio::test]
async fn after_kill_nine_nothing_lives_five_seconds_later() {
    let home = Home::new();
    let binary = home.quickstart().await;
    binary.gateway("demo").until_listed("demo__echo").await;
    let children = binary.descendants();
    assert!(!children.is_empty());
    binary.kill().await;
    archestra_tests::processes::all_gone(&children, Duration::from_secs(5)).await;
    let binary = home.quickstart().await;
    let echoed = until_ok(&binary.gateway("demo"), "demo__echo", json!({ "message": "back" })).await;
    assert!(text(&echoed).contains("back"));
}

#[tokio::test]
async fn every_call_is_counted_and_recorded() {
    let home = Home::new();
    let binary = home.quickstart().await;
    let gateway = binary.gateway("demo");
    gateway.until_listed("demo__echo").await;
    gateway.call("demo__echo", json!({ "message": "x" })).await;
    let until = Instant::now() + Duration::from_secs(30);
    let record = loop {
        let records = binary.api().get("/api/v1/audit?action=tools/call").await.ok();
        if let Some(record) = records["items"].as_array().and_then(|items| items.first()) {
            break record.clone();
        }
        assert!(Instant::now() < until, "no audit record: {records}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(record["outcome"], "success");
    assert_eq!(record["call"]["tool"], "echo");
    assert_eq!(record["call"]["entry"], "demo");
    assert_eq!(record["call"]["resolution"], "organization");
    assert!(record["call"]["responseBytes"].as_u64().unwrap() > 0);
    let metrics = binary.metrics().await;
    for name in [
        "mcp_tool_calls_total",
        "mcp_tool_call_duration_seconds_count",
        "mcp_request_size_bytes_count",
        "mcp_response_size_bytes_count",
    ] {
        let of_call = |line: &&str| {
            line.starts_with(&format!("{name}{{"))
                && line.contains(r#"agent_name="demo",agent_type="mcp_gateway",mcp_server_name="demo",tool_name="echo",status="success""#)
        };
        let line = metrics.lines().find(of_call).unwrap_or_else(|| panic!("no {name}:\n{metrics}"));
        assert!(line.ends_with("} 1"), "{line}");
    }
    assert!(metrics.contains(r#"mcp_server_deployment_status{server_name="demo",state="running"} 1"#), "{metrics}");
}

#[tokio::test]
#[ignore = "needs npm and PyPI parts: .ci/parts"]
async fn the_inspector_lists_and_calls_in_both_eras() {
    let home = Home::new();
    let binary = demo(&home).await;
    for era in ["legacy", "modern"] {
        let listed = inspector(&binary, era, &["--method", "tools/list"]).await;
        assert!(listed.contains("demo__echo"), "{era}: {listed}");
        let called = inspector(
            &binary,
            era,
            &["--method", "tools/call", "--tool-name", "demo__echo", "--tool-arg", "message=hi"],
        )
        .await;
        assert!(called.contains("hi"), "{era}: {called}");
    }
}

#[tokio::test]
#[ignore = "needs npm and PyPI parts: .ci/parts"]
async fn the_python_sdk_lists_and_calls_in_both_eras() {
    let home = Home::new();
    let binary = demo(&home).await;
    for mode in ["legacy", "auto", "2026-07-28"] {
        let mut command = Command::new(parts::python());
        command.arg(client("client.py")).args([
            binary.gateway("demo").url().as_str(),
            archestra_tests::binary::ADMIN,
            mode,
        ]);
        let printed: Value = serde_json::from_str(&parts::printed(&mut command).await).unwrap();
        assert_eq!(printed["tools"], json!(["demo__add", "demo__echo"]), "{mode}");
        assert!(printed["echo"].as_str().unwrap().contains("from python"), "{mode}: {printed}");
        let expected = if mode == "legacy" { "2025-11-25" } else { "2026-07-28" };
        assert_eq!(printed["version"], expected, "{mode}");
    }
}

#[tokio::test]
#[ignore = "needs npm and PyPI parts: .ci/parts"]
async fn the_typescript_sdks_list_and_call_in_both_eras() {
    let home = Home::new();
    let binary = demo(&home).await;
    for mode in ["v1", "legacy", "auto", "2026-07-28"] {
        let script = client(if mode == "v1" { "client-v1.mjs" } else { "client.mjs" });
        // The modules are found beside the script.
        let copy = home.path().join(script.file_name().unwrap());
        std::fs::copy(script, &copy).unwrap();
        let modules = home.path().join("node_modules");
        if !modules.exists() {
            std::os::unix::fs::symlink(parts::npm(), &modules).unwrap();
        }
        let mut command = Command::new(parts::node());
        command.arg(copy).args([binary.gateway("demo").url().as_str(), archestra_tests::binary::ADMIN, mode]);
        let printed: Value = serde_json::from_str(&parts::printed(&mut command).await).unwrap();
        assert_eq!(printed["tools"], json!(["demo__add", "demo__echo"]), "{mode}");
        assert!(printed["echo"].as_str().unwrap().contains("from typescript"), "{mode}: {printed}");
    }
}

#[tokio::test]
#[ignore = "needs npm and PyPI parts: .ci/parts"]
async fn servers_from_npm_and_pypi_are_installed_and_called_through_one_gateway() {
    let home = Home::new();
    let files = home.path().join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("note.txt"), "written by the test").unwrap();
    let everything = parts::npm().join("@modelcontextprotocol/server-everything/dist/index.js");
    let filesystem = parts::npm().join("@modelcontextprotocol/server-filesystem/dist/index.js");
    let port = archestra_tests::binary::free_port();
    let mut remote = Command::new(parts::node());
    remote.arg(&everything).arg("streamableHttp").env("PORT", port.to_string()).kill_on_drop(true);
    let _remote = remote.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until_listening(port).await;

    let binary = home.bare().await;
    let api = binary.api();
    let node = parts::node().display().to_string();
    // What the server is told goes through a file.
    let (said, time) = (home.path().join("said"), parts::python_bin("mcp-server-time"));
    let heard = format!("tee {} | {} --local-timezone UTC", said.display(), time.display());
    for (name, spec) in [
        ("everything", json!({ "selfHosted": { "command": [node, everything, "stdio"] } })),
        ("remote", json!({ "remote": { "url": format!("http://127.0.0.1:{port}/mcp") } })),
        (
            "files",
            json!({ "selfHosted": { "command": [node, filesystem], "args": [files] }, "labels": { "kind": "local" } }),
        ),
        (
            "time",
            json!({ "selfHosted": { "command": ["sh"], "args": ["-c", heard], "transport": "stdio" }, "labels": { "kind": ["local", "clock"] } }),
        ),
    ] {
        let mut entry = spec;
        entry["name"] = name.into();
        entry["scope"] = "organization".into();
        api.post("/api/v1/entries", &entry).await.ok();
        api.post("/api/v1/installations", &json!({ "entry": name, "scope": "organization" })).await.ok();
    }
    let selectors: Vec<_> = ["everything", "remote", "files", "time"]
        .iter()
        .map(|entry| json!({ "entry": entry, "tool": "*", "credential": "resolveAtCallTime" }))
        .collect();
    api.post("/api/v1/gateways", &json!({ "slug": "all", "scope": "organization", "tools": selectors })).await.ok();
    let automatic = json!({ "slug": "auto", "scope": "organization", "toolAssignment": "automatic", "labels": { "kind": "local" } });
    api.post("/api/v1/gateways", &automatic).await.ok();

    let all = binary.gateway("all");
    for tool in ["everything__echo", "remote__echo", "files__read_text_file", "time__get_current_time"] {
        all.until_listed(tool).await;
    }
    let session = all.session().await;
    for (n, prefix) in ["everything", "remote"].into_iter().enumerate() {
        let echoed = until_ok(&all, &format!("{prefix}__echo"), json!({ "message": "modern" })).await;
        assert!(text(&echoed).contains("modern"), "{prefix}: {echoed}");
        let echoed = session.call(n as u64 + 10, &format!("{prefix}__echo"), json!({ "message": "legacy" })).await;
        assert!(text(&echoed).contains("legacy"), "{prefix}: {echoed}");
    }
    let auto = binary.gateway("auto");
    auto.until_listed("files__read_text_file").await;
    auto.until_listed("time__get_current_time").await;
    assert!(auto.tools().await.iter().all(|tool| tool.starts_with("files__") || tool.starts_with("time__")));
    let read = until_ok(&auto, "files__read_text_file", json!({ "path": files.join("note.txt") })).await;
    assert!(text(&read).contains("written by the test"), "{read}");
    let time = until_ok(&auto, "time__get_current_time", json!({ "timezone": "UTC" })).await;
    assert!(text(&time).contains("UTC"), "{time}");
    let session = auto.session().await;
    let time = session.call(1, "time__get_current_time", json!({ "timezone": "UTC" })).await;
    assert!(text(&time).contains("UTC"), "{time}");
    // It is a modern server, and is spoken to as one, also for a legacy client.
    let said = std::fs::read_to_string(said).unwrap();
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls: Vec<_> = said.iter().filter(|message| message["method"] == "tools/call").collect();
    assert!(calls.len() >= 2 && said.iter().all(|message| message["method"] != "initialize"), "{said:#?}");
    for call in calls {
        let version = &call["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"];
        assert_eq!(version, "2026-07-28", "{call}");
    }
}

#[tokio::test]
#[ignore = "needs npm and PyPI parts: .ci/parts"]
async fn npx_servers_leave_no_grandchildren() {
    let home = Home::new();
    let binary = home.bare().await;
    let api = binary.api();
    // npx starts a shell, which starts the server; the package is there, and nothing is downloaded.
    let folder = parts::npm().parent().expect("node_modules is in a folder").to_path_buf();
    let npx = ["npx", "--offline", "--no", "--prefix"].map(PathBuf::from);
    let package = ["mcp-server-everything", "stdio"].map(PathBuf::from);
    let command: Vec<_> = npx.into_iter().chain([folder]).chain(package).collect();
    let entry = json!({ "name": "nested", "scope": "organization", "selfHosted": { "command": command } });
    api.post("/api/v1/entries", &entry).await.ok();
    api.post("/api/v1/installations", &json!({ "entry": "nested", "scope": "organization" })).await.ok();
    let tools = [json!({ "entry": "nested", "tool": "*", "credential": "resolveAtCallTime" })];
    api.post("/api/v1/gateways", &json!({ "slug": "nested", "scope": "organization", "tools": tools })).await.ok();
    let gateway = archestra_tests::hosted::known(binary.gateway("nested")).await;
    gateway.until_listed("nested__echo").await;
    let echoed = until_ok(&gateway, "nested__echo", json!({ "message": "deep" })).await;
    assert!(text(&echoed).contains("deep"), "{echoed}");
    let children = binary.descendants();
    let of_npx = children.iter().find(|child| child.command.starts_with("npm exec"));
    let below = of_npx.map(|npx| archestra_tests::processes::descendants(npx.id)).unwrap_or_default();
    let server = below.iter().any(|child| child.command.contains("mcp-server-everything"));
    assert!(server && below.len() >= 2, "the server is a grandchild of npx: {children:#?}");
    binary.kill().await;
    archestra_tests::processes::all_gone(&children, Duration::from_secs(5)).await;
}

async fn demo(home: &Home) -> Running {
    let binary = home.quickstart().await;
    binary.gateway("demo").until_listed("demo__echo").await;
    binary
}

/// Calls until the server is up again and the call succeeds.
async fn until_ok(gateway: &archestra_tests::Mcp, tool: &str, arguments: Value) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let result = gateway.call(tool, arguments.clone()).await;
        if result["isError"] != true && result.is_object() {
            return result;
        }
        assert!(Instant::now() < until, "{tool}: {result}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn until_listening(port: u16) {
    let until = Instant::now() + Duration::from_secs(60);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(Instant::now() < until, "nothing listens on {port}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn inspector(binary: &Running, era: &str, args: &[&str]) -> String {
    let url = binary.gateway("demo").url();
    let header = format!("Authorization: Bearer {}", archestra_tests::binary::ADMIN);
    let mut command = Command::new(parts::node());
    command.arg(parts::npm().join(".bin/mcp-inspector")).args(["--cli", &url, "--transport", "http"]);
    command.args(["--header", &header, "--protocol-era", era]).args(args);
    parts::printed(&mut command).await
}

fn client(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}
