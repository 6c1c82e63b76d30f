//! Which database it is: the same for all who open it and over a restart, taken over by a restoration, and no other's.

use crate::support::{fresh_path, memory, open};

#[tokio::test]
async fn all_handles_on_a_database_see_the_same_and_another_has_another() {
    let (path, other) = (fresh_path(), memory().await);
    let (first, second) = tokio::join!(open(&path), open(&path));
    let id = first.instance().await.unwrap();
    assert_eq!(second.instance().await.unwrap(), id);
    first.close().await;
    second.close().await;
    assert_eq!(open(&path).await.instance().await.unwrap(), id, "it outlives all handles");
    assert_ne!(other.instance().await.unwrap(), id);
}

#[tokio::test]
async fn a_restored_database_takes_it_over() {
    let (old, new) = (memory().await, memory().await);
    let (id, other) = (old.instance().await.unwrap(), new.instance().await.unwrap());
    let mut backup = Vec::new();
    old.backup(&mut backup).await.unwrap();
    let text = String::from_utf8(backup).unwrap();
    let twice = {
        let row = text.lines().find(|line| line.contains("\"instance\"")).unwrap();
        let another = row.replace(&id.to_string(), &other.to_string());
        text.replacen(row, &format!("{row}\n{another}"), 1)
    };
    assert!(new.restore(&mut twice.as_bytes()).await.is_err(), "a database is only one");
    assert_eq!(new.instance().await.unwrap(), other, "what is not restored changes nothing");
    new.restore(&mut text.as_bytes()).await.unwrap();
    assert_eq!(new.instance().await.unwrap(), id);
}

#[tokio::test]
async fn a_backup_from_before_there_was_one_changes_nothing() {
    let (old, new) = (memory().await, memory().await);
    let mut backup = Vec::new();
    old.backup(&mut backup).await.unwrap();
    let text = String::from_utf8(backup).unwrap();
    let before = new.instance().await.unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("{\"table\":\"instance\""));
    let older = lines.collect::<Vec<_>>().join("\n").replace("\"instance\":1,", "");
    assert!(!older.contains("instance\""), "{older}");
    new.restore(&mut older.as_bytes()).await.unwrap();
    assert_eq!(new.instance().await.unwrap(), before);
}
