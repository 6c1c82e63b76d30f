//! Records that another version wrote.

use crate::{support::Fresh, unreadable};

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn records_that_cannot_be_read_are_told_apart() {
    let fresh = Fresh::new().await;
    let (store, raw) = (fresh.open().await, fresh.raw().await);
    unreadable::records_that_cannot_be_read_are_told_apart(&store, &raw).await;
    raw.close().await.unwrap();
}
