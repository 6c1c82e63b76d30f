//! The rules of the house that no other tool checks: who may depend on what, and how files begin and how long they are.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "this is test code")]

use serde_json::Value;
use std::{fs, path::Path, process::Command};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn every_layer_depends_only_on_what_it_may() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let only = |dependency: &str| -> &[&str] {
        match dependency {
            "rmcp" | "axum" | "hyper" | "jsonwebtoken" | "oauth2" => &["archestra-gateway"],
            // The HTTP client below vaultrs, since its own takes the token along wherever a redirect leads.
            "reqwest" => &["archestra-store"],
            "kube" | "k8s-openapi" => &["archestra-k8s"],
            "sea-orm" | "sea-orm-migration" | "sqlx" | "vaultrs" => &["archestra-store"],
            "archestra-k8s" | "archestra-store" | "archestra-gateway" => &[],
            _ => &["*"],
        }
    };
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if ["archestra-examples", "archestra-tests", "archestra-benches"].contains(&name) {
            continue;
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            let allowed = only(to);
            let normal = dependency["kind"] == Value::Null && dependency["optional"] == false;
            assert!(!normal || allowed == ["*"] || allowed.contains(&name), "{name} must not depend on {to}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_keeps_to_one_purpose() {
    let mut faults = Vec::new();
    visit(root(), &mut |path, text| {
        let lines = text.lines().count();
        if lines > 800 {
            faults.push(format!("{}: {lines} lines", path.display()));
        }
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("//!") {
            faults.push(format!("{}: the first line does not say what lives here", path.display()));
        }
        if path.file_name().is_some_and(|name| name == "mod.rs") {
            faults.push(format!("{}: use foo.rs and foo/part.rs", path.display()));
        }
    });
    assert!(faults.is_empty(), "{faults:#?}");
}

fn visit(dir: &Path, check: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                visit(&path, check);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            check(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
