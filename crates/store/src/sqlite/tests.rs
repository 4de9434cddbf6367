use super::{Options, SqliteStore};
use crate::{Change, Error, Expect, Limits, Outcome, Revision, Store, Write, contract};
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    fn open(&self) -> Result<SqliteStore, Error> {
        SqliteStore::open(self.path(), Options::default())
    }

    /// Changes the file behind the store's back.
    fn sql(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
}

async fn put(store: &SqliteStore, key: &str, value: &str) -> Revision {
    match store.commit(Write::put(key, Expect::Anything, value.to_owned())).await {
        Ok(Outcome::Committed { revision, .. }) => revision,
        other => panic!("{other:?}"),
    }
}

async fn shown(store: &SqliteStore, at: Option<Revision>) -> Vec<String> {
    let range = store.range("", "", at, 0).await.unwrap();
    let show = |version: &Arc<crate::Version>| {
        let value = String::from_utf8_lossy(&version.value).into_owned();
        format!("{}={value} {} {} {}", version.key, version.create_revision, version.mod_revision, version.version)
    };
    range.items.iter().map(show).collect()
}

fn with_window(place: &Place, window_events: usize) -> Arc<dyn Store> {
    let limits = Limits { window_events, ..Limits::default() };
    Arc::new(SqliteStore::open(place.path(), Options { limits }).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract() {
    let mut places = Vec::new();
    contract::check(|| {
        let place = Place::new();
        let store = with_window(&place, Limits::default().window_events);
        places.push(place);
        async { store }
    })
    .await;
}

/// With a window of one event, all that is not newest comes from the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_keeps_the_contract() {
    for name in ["old_revisions", "compaction", "a_watch_starts", "a_compacted", "long_ranges"] {
        let place = Place::new();
        let case = contract::CASES.iter().find(|case| case.name.starts_with(name)).unwrap();
        (case.run)(with_window(&place, 1)).await;
    }
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let place = Place::new();
    let store = place.open().unwrap();
    put(&store, "/a", "1").await;
    put(&store, "/b", "1").await;
    let old = put(&store, "/a", "2").await;
    store.commit(Write::delete("/b", Expect::Anything)).await.unwrap();
    put(&store, "/b", "2").await;
    let (before, then) = (shown(&store, None).await, shown(&store, Some(old)).await);
    drop(store);
    let store = place.open().unwrap();
    assert_eq!(store.revision(), 6);
    assert_eq!(shown(&store, None).await, before);
    assert_eq!(shown(&store, Some(old)).await, then);
    let mut watch = store.watch("", 2).await.unwrap();
    let events = watch.next().await.unwrap().unwrap();
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    assert_eq!(events[2].previous.as_ref().map(|previous| previous.mod_revision), Some(2));
    assert_eq!(put(&store, "/a", "3").await, 7);
    let events = watch.next().await.unwrap().unwrap();
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [7]);
}

#[tokio::test]
async fn compaction_is_remembered_and_frees_the_file() {
    let place = Place::new();
    let store = place.open().unwrap();
    let value = "x".repeat(60_000);
    for _ in 0..300 {
        put(&store, "/a", &value).await;
    }
    let last = store.commit(Write::delete("/a", Expect::Anything)).await.map(|_| store.revision()).unwrap();
    store.compact(last).await.unwrap();
    drop(store);
    let store = place.open().unwrap();
    assert_eq!((store.revision(), store.compacted()), (last, last));
    assert!(matches!(store.watch("", last).await, Err(Error::Compacted { .. })));
    assert_eq!(put(&store, "/a", "1").await, last + 1);
    drop(store);
    let connection = Connection::open(place.path()).unwrap();
    let rows: i64 = connection.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn idle_time_gives_pages_back() {
    let place = Place::new();
    let store = place.open().unwrap();
    let value = "x".repeat(1 << 20);
    for _ in 0..20 {
        put(&store, "/a", &value).await;
    }
    drop(store);
    assert!(std::fs::metadata(place.path()).unwrap().len() > 20 << 20);
    let store = place.open().unwrap();
    store.compact(store.revision()).await.unwrap();
    // Vacuuming goes on after the answer, and ends by itself: ask the file, through a connection of our own.
    let connection = Connection::open(place.path()).unwrap();
    while connection.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap() > 2048 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn expiry_survives_reopening() {
    let place = Place::new();
    let store = place.open().unwrap();
    let change = Change::Put { value: "1".into(), facts: None, ttl: Some(Duration::from_millis(600)) };
    store.commit(Write { key: "/a".into(), expect: Expect::Absent, change }).await.unwrap();
    drop(store);
    let store = place.open().unwrap();
    let mut watch = store.watch("/a", 3).await.unwrap();
    let events = watch.next().await.unwrap().unwrap();
    assert!(events[0].version.is_none());
    assert_eq!(events[0].revision, 3);
}

#[tokio::test]
async fn a_file_in_use_is_refused() {
    let place = Place::new();
    let store = place.open().unwrap();
    let error = place.open().err().unwrap();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    store.close();
    assert!(matches!(store.get("/a").await, Err(Error::Closed)));
    assert!(matches!(store.commit(Write::delete("/a", Expect::Anything)).await, Err(Error::Closed)));
    place.open().unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let place = Place::new();
    place.open().unwrap();
    place.sql("PRAGMA user_version = 2");
    let error = place.open().err().unwrap();
    assert!(matches!(error, Error::NewerSchema { found: 2, known: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    type Damage = fn(&Place);
    let damages: [(&str, Damage); 6] = [
        ("is corrupt: the checksum of revision 3 is wrong", |place| {
            place.sql("UPDATE log SET value = CAST('y' AS BLOB) WHERE revision = 3");
        }),
        ("is corrupt: revision 3 is missing", |place| place.sql("DELETE FROM log WHERE revision = 3")),
        ("is corrupt: revision 2 is missing", |place| place.sql("DELETE FROM log WHERE revision = 2")),
        ("is corrupt: it is another program's database", |place| place.sql("PRAGMA application_id = 7")),
        ("is corrupt: file is not a database", |place| std::fs::write(place.path(), "hello".repeat(1000)).unwrap()),
        ("is corrupt: database disk image is malformed", |place| {
            let bytes = std::fs::read(place.path()).unwrap();
            std::fs::write(place.path(), &bytes[..bytes.len() / 2]).unwrap();
        }),
    ];
    for (message, damage) in damages {
        let place = Place::new();
        let store = place.open().unwrap();
        for key in ["/a", "/b", "/c"] {
            put(&store, key, &"x".repeat(10_000)).await;
        }
        drop(store);
        damage(&place);
        let error = place.open().err().unwrap().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn secrets_are_for_the_owner() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let _store = place.open().unwrap();
    for entry in std::fs::read_dir(place.directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}
