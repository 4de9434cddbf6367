//! Histories of concurrent clients, and whether they are linearizable.

mod check;
mod plants;

use crate::etcd::testing::Etcd;
use crate::memory::MemoryStore;
use crate::sqlite::{Options, SqliteStore};
use crate::{Error, Expect, Limits, Outcome, Revision, Store, Version, Write};
use check::{Input, Operation, Output, State, linearizable};
use plants::{Plant, Planted};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const CLIENTS: u64 = 8;
const KEYS: u64 = 3;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Something that happened: to which key, what, and the revision of a write.
type Happened = (u64, Operation, Option<Revision>);

/// The time, and the numbers of writes.
#[derive(Default)]
struct Ticks(AtomicU64);

impl Ticks {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel) + 1
    }
}

fn number(version: Option<&Arc<Version>>) -> State {
    version.map(|version| std::str::from_utf8(&version.value).unwrap().parse().unwrap())
}

/// One client: it reads, writes, swaps what it saw last, and deletes, on a few keys.
async fn client(store: Arc<dyn Store>, ticks: Arc<Ticks>, seed: u64, count: usize) -> Vec<Happened> {
    let mut random = Random(seed);
    let mut seen: [(State, Revision); KEYS as usize] = Default::default();
    let mut history = Vec::with_capacity(count);
    for _ in 0..count {
        let key = random.below(KEYS);
        let name = format!("/h/{key}");
        let last = &mut seen[key as usize];
        let new = ticks.next();
        let (input, write) = match random.below(10) {
            0..4 => (Input::Get, None),
            4..6 => (Input::Put(new), Some(Write::put(name.as_str(), Expect::Anything, new.to_string()))),
            6..9 => {
                let expect = if last.0.is_none() { Expect::Absent } else { Expect::Revision(last.1) };
                (Input::Swap(last.0, new), Some(Write::put(name.as_str(), expect, new.to_string())))
            }
            _ => (Input::Delete, Some(Write::delete(name.as_str(), Expect::Anything))),
        };
        let call = ticks.next();
        let (output, revision) = match write {
            None => match store.get(&name).await {
                Ok((found, _)) => {
                    *last = (number(found.as_ref()), found.as_ref().map_or(0, |version| version.mod_revision));
                    (Some(Output::Got(last.0)), None)
                }
                Err(error) => unknown(&error),
            },
            Some(write) => match store.commit(write).await {
                Ok(Outcome::Committed { revision, version, .. }) => {
                    *last = (number(version.as_ref()), revision);
                    (Some(Output::Written), Some(revision))
                }
                Ok(Outcome::Conflict { current, .. }) => {
                    *last = (number(current.as_ref()), current.as_ref().map_or(0, |version| version.mod_revision));
                    (Some(Output::Refused(last.0)), None)
                }
                Err(error) => unknown(&error),
            },
        };
        let end = if output.is_some() { ticks.next() } else { u64::MAX };
        history.push((key, Operation { call, end, input, output }, revision));
    }
    history
}

fn unknown(error: &Error) -> (Option<Output>, Option<Revision>) {
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    (None, None)
}

async fn record(stores: &[Arc<dyn Store>], seed: u64, count: usize) -> Vec<Happened> {
    let ticks = Arc::new(Ticks::default());
    let start = |id: u64| {
        let store = stores[id as usize % stores.len()].clone();
        tokio::spawn(client(store, ticks.clone(), seed.wrapping_mul(1000).wrapping_add(id), count))
    };
    let clients: Vec<_> = (0..CLIENTS).map(start).collect();
    let mut history = Vec::new();
    for client in clients {
        history.extend(client.await.unwrap());
    }
    history
}

/// What is wrong with a history, if anything is.
fn fault(history: &[Happened]) -> Option<String> {
    for key in 0..KEYS {
        let operations: Vec<Operation> = history.iter().filter(|h| h.0 == key).map(|h| h.1).collect();
        if !linearizable(&operations) {
            return Some(format!("the history of /h/{key} is not linearizable"));
        }
    }
    // Over all keys, revisions follow time.
    let mut writes: Vec<_> =
        history.iter().filter_map(|(_, op, revision)| Some((op.call, op.end, (*revision)?))).collect();
    let mut ended: Vec<(u64, Revision)> = writes.iter().map(|(_, end, revision)| (*end, *revision)).collect();
    writes.sort_unstable();
    ended.sort_unstable();
    let (mut newest, mut next) = (0, 0);
    for (call, _, revision) in writes {
        while next < ended.len() && ended[next].0 < call {
            newest = newest.max(ended[next].1);
            next += 1;
        }
        if revision <= newest {
            return Some(format!("revision {revision} was given after {newest}"));
        }
    }
    None
}

/// How many histories are made of each store.
fn rounds() -> u64 {
    std::env::var("CANOPUS_SOAK_HISTORIES").map_or(3, |text| text.parse().unwrap())
}

async fn clear(store: &dyn Store) {
    for item in store.range("/h/", "/h0", None, 0).await.unwrap().items {
        store.commit(Write::delete(item.key.clone(), Expect::Anything)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn built_in_stores_are_linearizable() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(directory.path().join("store.db"), Options::default()).unwrap();
    let stores: [Arc<dyn Store>; 2] = [Arc::new(sqlite), Arc::new(MemoryStore::new(Limits::default()).unwrap())];
    for store in &stores {
        for seed in 0..rounds() {
            clear(&**store).await;
            let history = record(std::slice::from_ref(store), seed, 150).await;
            assert_eq!(fault(&history), None, "seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn etcd_is_linearizable_through_two_stores() {
    let etcd = Etcd::start();
    let stores: [Arc<dyn Store>; 2] = [Arc::new(etcd.store().await.unwrap()), Arc::new(etcd.store().await.unwrap())];
    for seed in 0..rounds() {
        clear(&*stores[0]).await;
        let history = record(&stores, seed, 100).await;
        assert_eq!(fault(&history), None, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn etcd_is_linearizable_when_it_is_killed() {
    let mut etcd = Etcd::start();
    let stores: [Arc<dyn Store>; 2] = [Arc::new(etcd.store().await.unwrap()), Arc::new(etcd.store().await.unwrap())];
    for seed in 0..rounds() {
        clear(&*stores[0]).await;
        let recording = {
            let stores = stores.clone();
            tokio::spawn(async move { record(&stores, seed, 100).await })
        };
        let before = stores[0].revision();
        while stores[0].revision() < before + 100 && !recording.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        etcd.restart();
        assert_eq!(fault(&recording.await.unwrap()), None, "seed {seed}");
    }
}

/// The checker earns its keep: each kind of violation is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn planted_violations_are_caught() {
    for plant in [Plant::StaleReads, Plant::LostWrites, Plant::BlindSwaps] {
        let store: Arc<dyn Store> = Arc::new(Planted::new(MemoryStore::new(Limits::default()).unwrap(), plant));
        let history = record(std::slice::from_ref(&store), 1, 150).await;
        assert!(fault(&history).is_some(), "{plant:?} went unnoticed");
    }
}
