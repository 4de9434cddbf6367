use crate::log::{Log, Record};
use crate::memory::{MemoryLog, MemoryStore};
use crate::{Change, Clock, Error, Event, Expect, Limits, Outcome, Revision, Store, Write, contract};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Backed, Engine, system_clock};

fn small_window() -> Limits {
    Limits { window_events: 3, ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    contract::check(|| async { Arc::new(MemoryStore::new(Limits::default()).unwrap()) as _ }).await;
}

/// An inline store needs no thread: only its TTLs need somebody who calls `expire`.
#[tokio::test]
async fn simulation_keeps_the_contract() {
    for case in contract::CASES.iter().filter(|case| !case.name.contains("ttl")) {
        (case.run)(Arc::new(MemoryStore::simulated(Limits::default(), system_clock()).unwrap())).await;
    }
}

#[tokio::test]
async fn simulated_time_expires_keys() {
    let time = Arc::new(AtomicU64::new(1_000_000));
    let clock: Clock = Arc::new({
        let time = time.clone();
        move || time.load(Ordering::Relaxed)
    });
    let store = MemoryStore::simulated(Limits::default(), clock).unwrap();
    for (key, seconds) in [("/a", 10), ("/b", 20)] {
        let change = Change::Put { value: "x".into(), facts: None, ttl: Some(Duration::from_secs(seconds)) };
        store.commit(Write { key: key.into(), expect: Expect::Absent, change }).await.unwrap();
    }
    assert_eq!(store.expire(), Some(1_010_000));
    time.store(1_009_999, Ordering::Relaxed);
    assert_eq!((store.expire(), store.revision()), (Some(1_010_000), 3));
    time.store(1_010_000, Ordering::Relaxed);
    assert_eq!((store.expire(), store.revision()), (Some(1_020_000), 4));
    time.store(9_000_000, Ordering::Relaxed);
    assert_eq!((store.expire(), store.revision()), (None, 5));
}

#[tokio::test]
async fn a_live_watcher_that_is_too_slow_is_cut_off() {
    let store = MemoryStore::simulated(small_window(), system_clock()).unwrap();
    let mut watch = store.watch("/a", 2).await.unwrap();
    for _ in 0..5 {
        store.commit(Write::put("/a", Expect::Anything, "x")).await.unwrap();
    }
    assert!(matches!(watch.next().await, Some(Err(Error::Lagged))));
    assert!(watch.next().await.is_none());
    // From the log it can begin again where it was.
    let mut watch = store.watch("/a", 2).await.unwrap();
    let mut revisions = Vec::new();
    while revisions.len() < 5 {
        revisions.extend(watch.next().await.unwrap().unwrap().iter().map(|event| event.revision));
    }
    assert_eq!(revisions, [2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn an_idle_watcher_is_not_slow() {
    let store = MemoryStore::simulated(small_window(), system_clock()).unwrap();
    let mut watch = store.watch("/a", 2).await.unwrap();
    for _ in 0..10 {
        store.commit(Write::put("/b", Expect::Anything, "x")).await.unwrap();
    }
    assert_eq!(watch.revision(), 11);
    store.commit(Write::put("/a", Expect::Anything, "x")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap()[0].revision, 12);
}

/// A log whose appends fail from some revision on, by answering so or by a panic.
struct Failing(MemoryLog, Revision, fn() -> Error);

impl Log for Failing {
    fn compacted(&self) -> Revision {
        self.0.compacted()
    }
    fn replay(&mut self, visit: &mut dyn FnMut(Record) -> Result<(), Error>) -> Result<(), Error> {
        self.0.replay(visit)
    }
    fn append(&mut self, group: &[Event]) -> Result<(), Error> {
        match group.iter().any(|event| event.revision >= self.1) {
            true => Err(self.2()),
            false => self.0.append(group),
        }
    }
    fn compact(&mut self, up_to: Revision, drop: &[Revision]) -> Result<(), Error> {
        self.0.compact(up_to, drop)
    }
    fn tidy(&mut self) -> Result<bool, Error> {
        Ok(false)
    }
    fn between_groups(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

struct Engined(Engine);

impl Backed for Engined {
    fn engine(&self) -> &Engine {
        &self.0
    }
}

#[tokio::test]
async fn a_failed_write_is_fatal() {
    let log = MemoryLog::default();
    let engine = Engine::start(
        Failing(log.clone(), 3, || Error::Failed("disk on fire".into())),
        Arc::new(log),
        Limits::default(),
        system_clock(),
    )
    .unwrap();
    let store = Engined(engine);
    let mut watch = store.watch("/", 2).await.unwrap();
    let write = |key: &str| store.commit(Write::put(key, Expect::Anything, "x"));
    assert!(matches!(write("/a").await, Ok(Outcome::Committed { revision: 2, .. })));
    let error = write("/b").await.unwrap_err();
    assert_eq!(error.to_string(), "the store has failed: disk on fire");
    assert_eq!(store.revision(), 2);
    assert!(matches!(write("/a").await, Err(Error::Failed(_))));
    assert!(matches!(store.get("/a").await, Err(Error::Failed(_))));
    assert!(matches!(store.range("/", "", None, 0).await, Err(Error::Failed(_))));
    assert!(matches!(store.compact(2).await, Err(Error::Failed(_))));
    assert!(matches!(store.watch("/", 2).await, Err(Error::Failed(_))));
    // What was acknowledged is still delivered; then the watch says why it ends.
    assert_eq!(watch.next().await.unwrap().unwrap()[0].revision, 2);
    assert!(matches!(watch.next().await, Some(Err(Error::Failed(_)))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn closing_ends_watches() {
    let store = MemoryStore::new(Limits::default()).unwrap();
    let mut watch = store.watch("/", 2).await.unwrap();
    let ending = tokio::spawn(async move { watch.next().await.is_none() });
    drop(store);
    assert!(ending.await.unwrap());
}

#[tokio::test]
async fn a_panic_of_the_commit_thread_is_fatal() {
    let log = MemoryLog::default();
    let failing = Failing(log.clone(), 2, || panic!("as the test wants it"));
    let store = Engined(Engine::start(failing, Arc::new(log), Limits::default(), system_clock()).unwrap());
    for _ in 0..2 {
        let error = store.commit(Write::put("/a", Expect::Anything, "x")).await.unwrap_err();
        assert_eq!(error.to_string(), "the store has failed: the commit thread panicked");
    }
}

/// Revision 1 is the empty store's: nothing happened at it, so a watch from the start has nothing to wait for.
#[tokio::test]
async fn a_watch_of_a_store_without_a_past_is_current() {
    let store = crate::memory::MemoryStore::new(Limits::default()).unwrap();
    let watch = crate::Store::watch(&store, "", 1).await.unwrap();
    assert_eq!(watch.revision(), 1);
    watch.progress().reached(1).await.unwrap();
}
