//! The README is about what is there: its code is in the examples that compile, and its configuration is all there is.
#![expect(clippy::unwrap_used, reason = "this is test code")]

use archestra_tests::binary;
use std::{fs, path::Path, process::Command};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// The lines of a text, without their indentation, which differs between the README and a function's body.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn its_code_is_in_the_examples() {
    let examples = [read("examples/examples/embed.rs"), read("examples/examples/test_your_gateway.rs")];
    let examples: Vec<_> = examples.iter().map(|text| lines(text)).collect();
    let readme = read("README.md");
    let passages: Vec<_> = readme.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!passages.is_empty());
    for passage in passages {
        let wanted = lines(passage);
        let found = examples.iter().any(|example| example.windows(wanted.len()).any(|window| window == wanted));
        assert!(found, "this is in no example:\n{passage}");
    }
}

#[test]
fn it_names_every_flag() {
    let readme = read("README.md");
    for command in [["--help"].as_slice(), &["apply", "--help"]] {
        let help = Command::new(binary::path()).args(command).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let words = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
        for flag in words.map(|word| word.trim_end_matches([',', ';', '.', ':'])) {
            let known = readme.contains(&format!("`{flag}`")) || ["--help", "--version"].contains(&flag);
            assert!(known, "the README does not name {flag}");
        }
    }
}
