//! Behind something that stands between us and the server and makes trouble: it refuses what only servers understand,
//! notifications do not get through, it breaks connections off at the worst moment, or lets them lead nowhere.

use crate::support::{Fresh, ring};
use archestra_core::{
    ErrorKind,
    catalog::CatalogStore,
    feed::{ChangeSet, FeedEvent, Version},
    secret::{Expect, SecretStore as _},
    testing::fixtures,
};
use archestra_store::{SqlConfig, SqlSecrets, SqlStore};
use futures::StreamExt as _;
use sea_orm::ConnectionTrait as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    task::JoinSet,
    time::{Instant, timeout},
};

/// Asks for encryption, instead of a protocol version.
const ENCRYPT: u32 = 80_877_103;

/// What becomes of the next commit.
const CALM: u8 = 0;
/// It never reaches the server.
const BEFORE: u8 = 1;
/// It happens, and its answer never arrives.
const AFTER: u8 = 2;

/// What stands between, as tests steer it.
#[derive(Debug, Default)]
struct Between {
    mood: AtomicU8,
    /// How many connections there were.
    made: AtomicU64,
    /// So many of the first connections lead nowhere: nothing arrives, and nobody is told.
    dead: AtomicU64,
    /// Whether it hands on what connections are to be set up with.
    transparent: AtomicBool,
}

type Mood = Arc<Between>;

/// Starts one in front of the server of `fresh`, which ends with the returned tasks; the URL of the database through it.
async fn pooler(fresh: &Fresh, mood: &Mood) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let (credentials, at) = fresh.url().rsplit_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let (there, database) = at.split_once('/').unwrap();
    let there = there.to_owned();
    let mood = Arc::clone(mood);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            connections.spawn(serve(client, there.clone(), Arc::clone(&mood)));
        }
    });
    (format!("{credentials}@{here}/{database}"), tasks)
}

async fn serve(mut client: TcpStream, server: String, mood: Mood) -> Option<()> {
    let startup = loop {
        let length = client.read_u32().await.ok()?;
        let mut rest = vec![0; usize::try_from(length).unwrap() - 4];
        client.read_exact(&mut rest).await.ok()?;
        if rest[..4] == ENCRYPT.to_be_bytes() {
            client.write_all(b"N").await.ok()?;
            continue;
        }
        break [length.to_be_bytes().to_vec(), rest].concat();
    };
    let number = mood.made.fetch_add(1, SeqCst);
    let refused = !mood.transparent.load(SeqCst);
    if refused && startup.windows(8).any(|window| window == b"options\0") {
        let fields = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0";
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        client.write_all(&[b"E", length.as_slice(), fields].concat()).await.ok()?;
        return None;
    }
    let mut server = TcpStream::connect(server).await.ok()?;
    server.write_all(&startup).await.ok()?;
    client.set_nodelay(true).ok()?;
    server.set_nodelay(true).ok()?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let seen = |kind, body: &[u8], expected, text: &[u8], at: u8| {
        kind == expected && body == text && mood.mood.compare_exchange(at, CALM, SeqCst, SeqCst).is_ok()
    };
    let arrives = |kind| kind != b'A' && number >= mood.dead.load(SeqCst);
    tokio::select! {
        ended = relay(from_client, to_server, |kind, body| !seen(kind, body, b'Q', b"COMMIT\0", BEFORE), arrives) => ended,
        ended = relay(from_server, to_client, |kind, body| !seen(kind, body, b'C', b"COMMIT\0", AFTER), arrives) => ended,
    }
}

/// Hands messages on: those that get through, until one breaks the connection off.
async fn relay(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    goes_on: impl Fn(u8, &[u8]) -> bool,
    gets_through: impl Fn(u8) -> bool,
) -> Option<()> {
    loop {
        let kind = from.read_u8().await.ok()?;
        let length = from.read_u32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        from.read_exact(&mut body).await.ok()?;
        if !goes_on(kind, &body) {
            return None;
        }
        if gets_through(kind) {
            to.write_all(&[&[kind], length.to_be_bytes().as_slice(), &body].concat()).await.ok()?;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn changes_are_followed_where_notifications_do_not_get_through() {
    let fresh = Fresh::new().await;
    let (url, _pooler) = pooler(&fresh, &Mood::default()).await;
    let near = SqlStore::connect(SqlConfig::new(&url)).await.unwrap();
    let far = SqlStore::connect(SqlConfig::new(&url)).await.unwrap();
    let mut events = CatalogStore::changes(&near, None);
    assert!(matches!(events.next().await.unwrap().unwrap(), FeedEvent::Resync { .. }));
    for n in 0..10 {
        let revision =
            far.commit(ChangeSet::new().create(fixtures::remote_entry(&format!("entry {n}")))).await.unwrap();
        let seen = async {
            loop {
                if let FeedEvent::Changed { revision, .. } = events.next().await.unwrap().unwrap() {
                    return revision;
                }
            }
        };
        assert_eq!(timeout(Duration::from_secs(30), seen).await.unwrap(), revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn limits_hold_although_connections_cannot_set_them() {
    let fresh = Fresh::new().await;
    let (url, _pooler) = pooler(&fresh, &Mood::default()).await;
    let config = SqlConfig::new(&url).lock_timeout(Duration::from_millis(300));
    let store = SqlStore::connect(config).await.unwrap();
    let raw = fresh.raw().await;
    let blocker = sea_orm::TransactionTrait::begin(&raw).await.unwrap();
    blocker.execute_unprepared("UPDATE feed_head SET floor = floor").await.unwrap();
    let error = store.commit(ChangeSet::new().create(fixtures::remote_entry("blocked"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("holds a transaction open"), "{error}");
    blocker.rollback().await.unwrap();
    raw.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_commit_whose_answer_is_lost_is_reported_as_what_it_was() {
    let (fresh, mood) = (Fresh::new().await, Mood::default());
    let (url, _pooler) = pooler(&fresh, &mood).await;
    let store = SqlStore::connect(SqlConfig::new(&url)).await.unwrap();
    let secrets = SqlSecrets::new(&store, ring());
    for n in 0..5 {
        let done = fixtures::remote_entry(&format!("done {n}"));
        mood.mood.store(AFTER, SeqCst);
        let revision = store.commit(ChangeSet::new().create(done.clone())).await.unwrap();
        assert_eq!(mood.mood.load(SeqCst), CALM, "the answer was lost");
        assert_eq!(store.get(done.id.into()).await.unwrap().version, Version(1));

        let not_done = fixtures::remote_entry(&format!("not done {n}"));
        mood.mood.store(BEFORE, SeqCst);
        let error = store.commit(ChangeSet::new().create(not_done.clone())).await.unwrap_err();
        assert_eq!((error.kind(), mood.mood.load(SeqCst)), (ErrorKind::Unavailable, CALM));
        assert!(error.to_string().contains("nothing was changed, try again"), "{error}");
        assert_eq!(store.get(not_done.id.into()).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(store.commit(ChangeSet::new().create(not_done)).await.unwrap() > revision);

        // Where nobody can tell, nobody says that it was not done.
        let reference = fixtures::secret_ref(&format!("entry/{n}"));
        mood.mood.store(AFTER, SeqCst);
        let put = secrets.put(&reference, &fixtures::bundle(&[("k", "v")]), Expect::Absent).await;
        let error = put.unwrap_err();
        assert_eq!((error.kind(), mood.mood.load(SeqCst)), (ErrorKind::Unavailable, CALM));
        assert!(error.to_string().contains("may or may not be there"), "{error}");
        assert!(secrets.get(&reference).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn connections_that_lead_nowhere_are_given_up() {
    let fresh = Fresh::new().await;
    for (transparent, connect) in [(true, 8), (false, 8), (true, 2)] {
        let mood = Mood::default();
        mood.transparent.store(transparent, SeqCst);
        let (url, _pooler) = pooler(&fresh, &mood).await;
        let connect_timeout = Duration::from_secs(connect);
        let config = SqlConfig::new(&url).connect_timeout(connect_timeout).deadline(Duration::from_secs(8));
        let store = SqlStore::connect(config).await.unwrap();
        let mut events = CatalogStore::changes(&store, None);
        assert!(matches!(events.next().await.unwrap().unwrap(), FeedEvent::Resync { .. }));
        let name = |n: usize| format!("{transparent} {connect} {n}");
        let before = (0..4).map(|n| {
            let (store, entry) = (store.clone(), fixtures::remote_entry(&format!("before {}", name(n))));
            async move { store.commit(ChangeSet::new().create(entry)).await.unwrap() }
        });
        futures::future::join_all(before).await;
        // All of their connections wait for the next ones.
        tokio::time::sleep(Duration::from_millis(200)).await;
        mood.dead.store(mood.made.load(SeqCst), SeqCst);
        let begun = Instant::now();
        let mut waiting = JoinSet::new();
        for n in 1..=8 {
            let (store, name) = (store.clone(), name(n));
            waiting.spawn(async move {
                while store.commit(ChangeSet::new().create(fixtures::remote_entry(&name))).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        let all = timeout(Duration::from_secs(30), waiting.join_all()).await;
        assert!(all.is_ok(), "no recovery");
        println!("everything goes on after {:?}", begun.elapsed());
        let followed = async {
            let mut seen = 0;
            while seen < 12 {
                if let Ok(FeedEvent::Changed { keys, .. }) = events.next().await.unwrap() {
                    seen += keys.len();
                }
            }
        };
        timeout(Duration::from_secs(30), followed).await.unwrap();
    }
}
