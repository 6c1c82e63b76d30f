//! Making, reading and refusing key files.

use crate::{
    config::{Database, KeyFile},
    failure::Failure,
};
use archestra_core::secret::KeyRing;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

async fn load(file: &KeyFile, database: &Database) -> Result<KeyRing, Failure> {
    super::load(file, None, database).await
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("archestra-key-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn database(&self) -> Database {
        Database::Sqlite(self.0.join("archestra.db"))
    }

    fn key(&self) -> PathBuf {
        self.0.join("archestra.key")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[tokio::test]
async fn the_first_start_makes_one_and_the_next_reads_it() {
    let directory = Directory::new("first");
    let made = load(&KeyFile::Default(directory.key()), &directory.database()).await.unwrap();
    assert_eq!(fs::metadata(directory.key()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "no temporary file is left");
    fs::write(directory.0.join("archestra.db"), "x").unwrap();
    let read = load(&KeyFile::Default(directory.key()), &directory.database()).await.unwrap();
    assert_eq!(made.fingerprint(), read.fingerprint());
}

#[tokio::test]
async fn a_file_that_others_can_read_is_refused() {
    let directory = Directory::new("mode");
    drop(load(&KeyFile::Default(directory.key()), &directory.database()).await.unwrap());
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(directory.key(), Permissions::from_mode(mode)).unwrap();
        let refused = load(&KeyFile::Named(directory.key()), &directory.database()).await.unwrap_err();
        assert!(refused.text().contains("chmod 600"), "{refused}");
    }
}

#[tokio::test]
async fn no_key_is_made_for_a_database_that_is_there_or_at_a_path_that_was_named() {
    let directory = Directory::new("lost");
    let refused = load(&KeyFile::Named(directory.key()), &directory.database()).await.unwrap_err();
    assert!(refused.text().contains("does not exist"), "{refused}");
    fs::write(directory.0.join("archestra.db"), "x").unwrap();
    let refused = load(&KeyFile::Default(directory.key()), &directory.database()).await.unwrap_err();
    assert!(refused.text().contains("is gone"), "{refused}");
    assert!(!directory.key().exists());
}

#[tokio::test]
async fn a_file_that_holds_something_else_is_refused_without_its_content() {
    let directory = Directory::new("content");
    fs::write(directory.key(), "hunter2").unwrap();
    fs::set_permissions(directory.key(), Permissions::from_mode(0o600)).unwrap();
    let refused = load(&KeyFile::Default(directory.key()), &directory.database()).await.unwrap_err();
    assert!(refused.text().contains("line 1") && !refused.text().contains("hunter2"), "{refused}");
}

#[tokio::test]
async fn a_database_on_a_server_needs_a_key_file_that_somebody_made() {
    let directory = Directory::new("server");
    let server = Database::Postgres("postgres://u:canary@db/archestra".to_owned());
    let refused = load(&KeyFile::Default(directory.key()), &server).await.unwrap_err();
    assert!(refused.text().contains("--key-file") & !refused.text().contains("canary"), "{refused}");
    let made = load(&KeyFile::Default(directory.key()), &directory.database()).await.unwrap();
    assert_eq!(load(&KeyFile::Default(directory.key()), &server).await.unwrap().fingerprint(), made.fingerprint());
}

#[tokio::test]
async fn a_variable_holds_what_a_file_would() {
    let (old, new) = (KeyRing::generate().unwrap(), KeyRing::generate().unwrap());
    let text = format!("{},{}", new.to_text().trim(), old.to_text().trim());
    let database = Database::Sqlite("/does/not/exist".into());
    let ring = load(&KeyFile::Variable(text.as_str().into()), &database).await.unwrap();
    assert_eq!((ring.newest(), ring.ids().count()), (new.newest(), 2));
    let refused = load(&KeyFile::Variable("k1 canary".into()), &database).await.unwrap_err();
    assert!(refused.text().contains("ARCHESTRA_KEY") && !refused.text().contains("canary"), "{refused}");
}

#[tokio::test]
async fn a_wrapped_key_needs_the_key_that_wraps_it() {
    let directory = Directory::new("wrapped");
    fs::write(directory.key(), "k1 vault:v1:canary+/=\n").unwrap();
    fs::set_permissions(directory.key(), Permissions::from_mode(0o600)).unwrap();
    let refused = load(&KeyFile::Named(directory.key()), &directory.database()).await.unwrap_err();
    assert!(refused.text().contains("with --key-transit") && !refused.text().contains("canary"), "{refused}");
}
