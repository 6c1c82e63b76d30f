//! What is confirmed to whoever follows.

use super::*;
use crate::{SqlConfig, sql::connect::connect};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_look_confirms_however_long_it_takes_but_not_when_it_began_too_early() {
    let db = connect(&SqlConfig::new("sqlite::memory:")).await.unwrap();
    let pulse = |looks, begun| Pulse { looks, begun, head: 0, mark: None, trouble: None };
    let (sender, pulses) = watch::channel(pulse(0, Instant::now()));
    let mut follower = Follower::new(db, pulses, "catalog", |_, id| Some(id), Some(StoreRevision(0)));
    sender.send_replace(pulse(1, Instant::now()));
    sleep(Duration::from_millis(5)).await;
    let mut next = Box::pin(follower.next());
    assert!(timeout(Duration::from_millis(300), &mut next).await.is_err(), "it was not asked for yet");
    let begun = Instant::now();
    sleep(Duration::from_millis(2500)).await;
    sender.send_replace(pulse(2, begun));
    let confirmed = timeout(LIMIT, next).await.expect("it was asked for before").unwrap().unwrap();
    assert_eq!(confirmed, FeedEvent::Confirmed { revision: StoreRevision(0) });
}
