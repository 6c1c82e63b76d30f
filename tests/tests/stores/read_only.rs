//! A database on a file system that can only be read.

use super::refused;
use archestra_tests::Home;
use std::{fs, path::Path, process::Command};

/// A folder mounted over itself so that nobody can write, root neither. Dropped, it is as before.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn mount(folder: &'a Path) -> Self {
        run("mount", &["--bind", folder.to_str().unwrap(), folder.to_str().unwrap()]);
        let mounted = Self(folder);
        run("mount", &["-o", "remount,bind,ro", folder.to_str().unwrap()]);
        mounted
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0).status().ok();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}; this test needs to be root and may mount");
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_database_on_a_read_only_file_system_is_refused_with_the_remedy_and_left_as_it_is() {
    let home = Home::new();
    let binary = home.bare().await;
    let entry = serde_json::json!({ "name": "kept", "remote": { "url": "http://127.0.0.1:9/mcp" } });
    binary.api().post("/api/v1/entries", &entry).await.ok();
    assert!(binary.stop().await.success());
    let folder = home.path().join("data");
    let before = contents(&folder);
    let mounted = ReadOnly::mount(&folder);
    assert!(fs::write(folder.join("probe"), "").is_err(), "nobody can write there");
    let (code, said) = refused(&home, &[], None);
    assert!(code == 1 || code == 2, "{code} {said}");
    assert!(said.contains("writable"), "{said}");
    drop(mounted);
    assert_eq!(contents(&folder), before, "nothing is changed");
    let binary = home.bare().await;
    let entries = binary.api().get("/api/v1/entries").await.ok();
    assert_eq!(entries["items"][0]["name"], "kept");
    assert!(binary.stop().await.success());
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let files = files.filter(|file| file.file_type().unwrap().is_file());
    let mut all: Vec<_> =
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect();
    all.sort_unstable();
    all
}
