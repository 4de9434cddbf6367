//! Random histories against a model that is obviously right.

use crate::memory::MemoryStore;
use crate::sqlite::{Options, SqliteStore};
use crate::{Change, Error, Event, Expect, Limits, Outcome, Revision, Store, Version, Watch, Write, system_clock};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const KEYS: [&str; 5] = ["/a/1", "/a/2", "/a/1/x", "/b/1", "/c"];
const PREFIXES: [&str; 4] = ["", "/a/", "/a/1", "/b/"];

#[derive(Debug, Clone)]
enum Step {
    Put(usize, Guess),
    Delete(usize, Guess),
    Get(usize),
    /// From prefix, at so many revisions ago (`None`: now), at most so many.
    Range(usize, Option<u64>, usize),
    /// From prefix, from so many revisions ago.
    Watch(usize, u64),
    /// Compacts to so many revisions ago.
    Compact(u64),
    Reopen,
}

/// What the writer expects, relative to what is there.
#[derive(Debug, Clone)]
enum Guess {
    Anything,
    Absent,
    Right,
    Wrong,
}

fn step() -> impl Strategy<Value = Step> {
    let guess = || {
        let guesses = [Guess::Anything, Guess::Anything, Guess::Absent, Guess::Right, Guess::Wrong];
        prop::sample::select(guesses.to_vec())
    };
    prop_oneof![
        8 => (0..KEYS.len(), guess()).prop_map(|(key, guess)| Step::Put(key, guess)),
        4 => (0..KEYS.len(), guess()).prop_map(|(key, guess)| Step::Delete(key, guess)),
        1 => (0..KEYS.len()).prop_map(Step::Get),
        3 => (0..PREFIXES.len(), prop::option::of(0..12_u64), 0..4_usize)
            .prop_map(|(prefix, at, limit)| Step::Range(prefix, at, limit)),
        2 => (0..PREFIXES.len(), 0..12_u64).prop_map(|(prefix, ago)| Step::Watch(prefix, ago)),
        1 => (0..8_u64).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

/// What is known of a version: value, created, modified, writes.
type Known = (String, Revision, Revision, u64);

fn known(version: &Version) -> Known {
    let value = String::from_utf8_lossy(&version.value).into_owned();
    (value, version.create_revision, version.mod_revision, version.version)
}

/// The keyspace at every revision since the first, never forgotten.
struct Model {
    history: Vec<BTreeMap<&'static str, Known>>,
    changes: Vec<(Revision, &'static str)>,
    compacted: Revision,
}

impl Model {
    fn new() -> Model {
        // There is no revision 0.
        Model { history: vec![BTreeMap::new(), BTreeMap::new()], changes: Vec::new(), compacted: 0 }
    }

    fn revision(&self) -> Revision {
        self.history.len() as Revision - 1
    }

    fn ago(&self, ago: u64) -> Revision {
        self.revision().saturating_sub(ago).max(1)
    }

    fn at(&self, revision: Revision) -> &BTreeMap<&'static str, Known> {
        &self.history[revision as usize]
    }

    fn change(&mut self, key: &'static str, value: Option<String>) {
        let revision = self.revision() + 1;
        let mut now = self.at(revision - 1).clone();
        match (value, now.get(key)) {
            (Some(value), Some((_, created, _, writes))) => {
                let version = (value, *created, revision, writes + 1);
                now.insert(key, version);
            }
            (Some(value), None) => drop(now.insert(key, (value, revision, revision, 1))),
            (None, _) => drop(now.remove(key)),
        }
        self.history.push(now);
        self.changes.push((revision, key));
    }

    /// What a watch from `from` on sees: revision, key, previous, new.
    fn events(&self, prefix: &str, from: Revision) -> Vec<(Revision, String, Option<Known>, Option<Known>)> {
        let seen = self.changes.iter().filter(|(revision, key)| *revision >= from && key.starts_with(prefix));
        seen.map(|(revision, key)| {
            let state = |revision| self.at(revision).get(key).cloned();
            (*revision, key.to_string(), state(revision - 1), state(*revision))
        })
        .collect()
    }
}

/// A watch and what it has yet to see.
struct Watching {
    watch: Watch,
    prefix: &'static str,
    next: Revision,
}

async fn check_watch(watching: &mut Watching, model: &Model) {
    let expected = model.events(watching.prefix, watching.next);
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let events = watching.watch.next().await.unwrap().unwrap();
        let show = |event: &Event| {
            let known = |version: &Option<Arc<Version>>| version.as_deref().map(known);
            (event.revision, event.key.to_string(), known(&event.previous), known(&event.version))
        };
        seen.extend(events.iter().map(show));
    }
    assert_eq!(seen, expected);
    watching.next = model.revision() + 1;
    // The store may have to look once more to find that there is nothing more.
    let progress = watching.watch.progress();
    tokio::select! {
        biased;
        events = watching.watch.next() => panic!("{events:?} is too much"),
        reached = progress.reached(model.revision()) => reached.unwrap(),
    }
    assert_eq!(watching.watch.revision(), model.revision());
}

async fn write(store: &dyn Store, model: &mut Model, key: &'static str, guess: &Guess, value: Option<String>) {
    let now = model.at(model.revision()).get(key).cloned();
    let current = now.as_ref().map_or(0, |now| now.2);
    let expect = match guess {
        Guess::Anything => Expect::Anything,
        Guess::Absent => Expect::Absent,
        Guess::Right => Expect::Revision(current),
        Guess::Wrong => Expect::Revision(current + 1),
    };
    let allowed = match guess {
        Guess::Anything => now.is_some() || value.is_some(),
        Guess::Absent => now.is_none() && value.is_some(),
        Guess::Right => now.is_some(),
        Guess::Wrong => false,
    };
    let change = match &value {
        Some(value) => Change::Put { value: value.clone().into(), facts: None, ttl: None },
        None => Change::Delete,
    };
    match store.commit(Write { key: key.into(), expect, change }).await.unwrap() {
        Outcome::Committed { revision, version, previous } => {
            assert!(allowed);
            model.change(key, value);
            assert_eq!(revision, model.revision());
            assert_eq!(version.as_deref().map(known), model.at(revision).get(key).cloned());
            assert_eq!(previous.as_deref().map(known), now);
        }
        Outcome::Conflict { current, revision } => {
            assert!(!allowed);
            assert_eq!((current.as_deref().map(known), revision), (now, model.revision()));
        }
    }
}

async fn range(store: &dyn Store, model: &Model, prefix: &str, at: Option<Revision>, limit: usize) {
    let found = store.range(prefix, &crate::prefix_end(prefix), at, limit).await;
    let revision = at.unwrap_or(model.revision());
    if revision < model.compacted {
        return assert!(matches!(found, Err(Error::Compacted { .. })));
    }
    let found = found.unwrap();
    let all = model.at(revision).iter().filter(|(key, _)| key.starts_with(prefix));
    let all: Vec<_> = all.map(|(key, known)| (key.to_string(), known.clone())).collect();
    let shown = if limit == 0 { all.len() } else { limit.min(all.len()) };
    let items: Vec<_> = found.items.iter().map(|item| (item.key.to_string(), known(item))).collect();
    assert_eq!((found.revision, &items[..]), (revision, &all[..shown]));
    assert_eq!((found.more, found.remaining), (shown < all.len(), (all.len() - shown) as u64));
}

/// Runs `steps` on the store that `open` opens, and opens again if it `survives` that.
async fn run(steps: &[Step], survives: bool, open: impl Fn() -> Arc<dyn Store>) {
    let mut store = open();
    let mut model = Model::new();
    let mut watches: Vec<Watching> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        match step {
            Step::Put(key, guess) => {
                let value = Some(format!("{i}"));
                write(&*store, &mut model, KEYS[*key], guess, value).await;
            }
            Step::Delete(key, guess) => write(&*store, &mut model, KEYS[*key], guess, None).await,
            Step::Get(key) => {
                let (version, revision) = store.get(KEYS[*key]).await.unwrap();
                let expected = model.at(model.revision()).get(KEYS[*key]).cloned();
                assert_eq!((version.as_deref().map(known), revision), (expected, model.revision()));
            }
            Step::Range(prefix, ago, limit) => {
                range(&*store, &model, PREFIXES[*prefix], ago.map(|ago| model.ago(ago)), *limit).await;
            }
            Step::Watch(prefix, ago) => {
                let (prefix, next) = (PREFIXES[*prefix], model.ago(*ago));
                match store.watch(prefix, next).await {
                    Ok(watch) => {
                        assert!(next > model.compacted);
                        watches.push(Watching { watch, prefix, next });
                    }
                    Err(Error::Compacted { .. }) => assert!(next <= model.compacted),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Compact(ago) => {
                // A watch that is behind the compaction ends, which another test shows.
                for watching in &mut watches {
                    check_watch(watching, &model).await;
                }
                let up_to = model.ago(*ago);
                store.compact(up_to).await.unwrap();
                model.compacted = model.compacted.max(up_to);
            }
            Step::Reopen if survives => {
                watches.clear();
                drop(store);
                store = open();
            }
            Step::Reopen => {}
        }
        assert_eq!((store.revision(), store.compacted()), (model.revision(), model.compacted));
    }
    for watching in &mut watches {
        check_watch(watching, &model).await;
    }
    for revision in model.compacted.max(1)..=model.revision() {
        range(&*store, &model, "", Some(revision), 0).await;
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

/// Large enough that no watch is cut off, since nobody reads between the steps.
fn limits(window_events: usize) -> Limits {
    Limits { window_events, ..Limits::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]
    #[test]
    fn memory_is_as_the_model(steps in prop::collection::vec(step(), 1..120)) {
        block_on(run(&steps, false, || Arc::new(MemoryStore::simulated(limits(200), system_clock()).unwrap())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]
    #[test]
    fn sqlite_is_as_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        block_on(run(&steps, true, || {
            Arc::new(SqliteStore::open(&path, Options { limits: limits(200) }).unwrap())
        }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]
    /// With the smallest window, everything old comes from the log.
    #[test]
    fn the_log_is_as_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let (watches, mut steps): (Vec<Step>, Vec<Step>) =
            steps.into_iter().partition(|step| matches!(step, Step::Watch(..)));
        // At the end nothing is written any more, so that no watch is too slow.
        steps.extend(watches);
        block_on(run(&steps, false, || Arc::new(MemoryStore::simulated(limits(1), system_clock()).unwrap())));
    }
}
