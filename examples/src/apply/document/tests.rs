//! Reading documents and replacing what they take from elsewhere.

use super::load;
use crate::environment::Environment;
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str, document: &str) -> Self {
        let path = std::env::temp_dir().join(format!("archestra-document-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("document.yaml"), document).unwrap();
        Self(path)
    }

    fn document(&self) -> PathBuf {
        self.0.join("document.yaml")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn values_come_from_variables_and_files_beside_the_document() {
    let directory = Directory::new(
        "values",
        "apiVersion: archestra.dev/v1\nentries:\n- name: a\n  count: 3\n  list: [{valueFrom: {env: PASSWORD}}]\n  key: {valueFrom: {file: keys/a.txt}}\n",
    );
    fs::create_dir(directory.0.join("keys")).unwrap();
    fs::write(directory.0.join("keys/a.txt"), "two\nlines\r\n").unwrap();
    let document = load(&directory.document(), &Environment::from([("PASSWORD", "hunter2")])).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&document.to_json()).unwrap(),
        json!({"apiVersion": "archestra.dev/v1", "entries": [{"name": "a", "count": 3, "list": ["hunter2"], "key": "two\nlines"}]})
    );
}

#[test]
fn everything_that_is_missing_is_named_with_its_path() {
    let directory = Directory::new(
        "missing",
        "entries:\n- a: {valueFrom: {env: NOT_SET}}\n  b: {valueFrom: {file: gone.txt}}\n- c: {valueFrom: {env: X, file: y}}\n",
    );
    let told = load(&directory.document(), &Environment::default()).unwrap_err().text().to_owned();
    for expected in [
        "entries[0].a: the environment variable NOT_SET is not set",
        "entries[0].b: the file gone.txt",
        "entries[1].c: `valueFrom` is not understood",
    ] {
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn bad_yaml_is_refused_with_line_and_column() {
    for (name, text, expected) in [
        ("open", "a: [1,\n  2\n", "not YAML at line"),
        ("twice", "a: 1\na: 2\n", "not YAML at line 2"),
        ("empty", " \n", "is empty"),
    ] {
        let directory = Directory::new(name, text);
        let told = load(&directory.document(), &Environment::default()).unwrap_err().text().to_owned();
        assert!(told.contains("document.yaml") && told.contains(expected), "{told}");
    }
}
