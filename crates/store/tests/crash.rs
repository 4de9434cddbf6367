//! Kills a process that writes, at random moments, and looks at what it leaves behind.
//!
//! The child is this binary again. Before each write it says so on its standard output, and after it what came of it.
//! `CANOPUS_SOAK_STORE_KILLS` is how often it is killed, `CANOPUS_SOAK_SEED` makes a run repeatable (but for the timing).

use bytes::Bytes;
use canopus_store::sqlite::{Options, SqliteStore};
use canopus_store::{Change, Event, Expect, Limits, Outcome, Revision, Store, Version, Write};
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const CHILD: &str = "CANOPUS_STORE_CRASH_CHILD";
const WRITERS: u64 = 8;
const KEYS: u64 = 6;

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

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may be reading no more.
    let _ = out.write_all(format!("@{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// A value that shows whether it is whole: its name, padding that follows from it, its name.
fn value(name: &str, size: usize) -> Bytes {
    format!("{name} {} {name}", ".".repeat(size)).into()
}

/// The name of a value that must be whole.
fn name(version: &Version) -> String {
    let text = std::str::from_utf8(&version.value).unwrap();
    let (name, rest) = text.split_once(' ').unwrap();
    let (padding, end) = rest.split_once(' ').unwrap();
    assert!(end == name && padding.bytes().all(|byte| byte == b'.'), "a torn value at {}", version.mod_revision);
    name.to_owned()
}

// The child.

async fn writer(store: Arc<SqliteStore>, id: u64, seed: u64) {
    let mut random = Random(seed.wrapping_add(id));
    for n in 0.. {
        let key = format!("/w/{id}/{}", random.below(KEYS));
        let name = format!("{seed}.{id}.{n}");
        let delete = random.below(4) == 0;
        let size = if random.below(20) == 0 { 40_000 } else { random.below(3000) as usize };
        let write = match delete {
            true => Write::delete(&*key, Expect::Anything),
            false => Write::put(&*key, Expect::Anything, value(&name, size)),
        };
        let after = if delete { "-" } else { &name };
        say(&format!("try {key} {after}"));
        match store.commit(write).await.unwrap() {
            Outcome::Committed { revision, .. } => say(&format!("done {key} {after} {revision}")),
            Outcome::Conflict { .. } => say(&format!("nothing {key}")),
        }
    }
}

/// All count in one key.
async fn counter(store: Arc<SqliteStore>) {
    loop {
        let (current, _) = store.get("/n").await.unwrap();
        let count = current.as_ref().map_or(0, |version| name(version).parse::<u64>().unwrap());
        let expect = current.map_or(Expect::Absent, |version| Expect::Revision(version.mod_revision));
        let next = (count + 1).to_string();
        if let Outcome::Committed { revision, .. } =
            store.commit(Write::put("/n", expect, value(&next, 1))).await.unwrap()
        {
            say(&format!("count {next} {revision}"));
        }
    }
}

async fn fleeting(store: Arc<SqliteStore>) {
    for n in 0_u64.. {
        let ttl = Some(Duration::from_millis(100 + n % 400));
        let change = Change::Put { value: value("fleeting", 10), facts: None, ttl };
        let write = Write { key: format!("/ttl/{}", n % 50).into(), expect: Expect::Anything, change };
        store.commit(write).await.unwrap();
    }
}

async fn compactor(store: Arc<SqliteStore>) {
    let mut watch = store.watch("/n", store.revision() + 1).await.unwrap();
    let mut seen = 0;
    while let Some(Ok(events)) = watch.next().await {
        seen += events.len();
        if seen > 100 {
            seen = 0;
            store.compact(store.revision().saturating_sub(200).max(1)).await.unwrap();
        }
    }
}

/// Not a test of its own: what the parent runs and kills.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (seed, path) = task.split_once(' ').unwrap();
    let seed = seed.parse().unwrap();
    println!();
    // A small window, so that old history is read from the file.
    let limits = Limits { window_events: 5000, ..Limits::default() };
    let store = Arc::new(SqliteStore::open(path, Options { limits }).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    for id in 0..WRITERS {
        runtime.spawn(writer(store.clone(), id, seed));
    }
    runtime.spawn(counter(store.clone()));
    runtime.spawn(counter(store.clone()));
    runtime.spawn(fleeting(store.clone()));
    runtime.block_on(compactor(store));
}

// The parent.

/// What the children were told, over all of their lives.
#[derive(Default)]
struct Witness {
    /// What each writer's key was left as (`None`: absent), and what else it may have become: there is one write at
    /// most whose end nobody saw.
    keys: BTreeMap<String, (Option<String>, Option<Option<String>>)>,
    tried: HashSet<String>,
    /// Acknowledged since the last look: revision, key, name.
    acknowledged: Vec<(Revision, String, Option<String>)>,
    count: u64,
    revision: Revision,
    total: usize,
}

impl Witness {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let name = |name: &str| (name != "-").then(|| name.to_owned());
        match words[..] {
            ["try", key, after] => {
                self.tried.extend(name(after));
                self.keys.entry(key.to_owned()).or_default().1 = Some(name(after));
            }
            ["done", key, after, revision] => {
                self.keys.insert(key.to_owned(), (name(after), None));
                self.acknowledge(revision, key, name(after));
            }
            ["nothing", key] => self.keys.entry(key.to_owned()).or_default().1 = None,
            ["count", count, revision] => {
                self.count = self.count.max(count.parse().unwrap());
                self.acknowledge(revision, "/n", name(count));
            }
            _ => panic!("a strange line: {line}"),
        }
    }

    fn acknowledge(&mut self, revision: &str, key: &str, name: Option<String>) {
        let revision = revision.parse().unwrap();
        assert!(revision > self.revision, "revision {revision} was there before");
        self.acknowledged.push((revision, key.to_owned(), name));
        self.total += 1;
    }

    /// Runs a child and kills it when it has said so many things.
    fn run_child(&mut self, path: &Path, seed: u64, lines: u64) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{seed} {}", path.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut heard = 0;
        let mut line = String::new();
        if lines == 0 {
            child.kill().unwrap();
        }
        while out.read_line(&mut line).unwrap() > 0 {
            // What was cut short was not said.
            if let Some(line) = line.strip_prefix('@').and_then(|line| line.strip_suffix('\n')) {
                self.hear(line);
                heard += 1;
            }
            if heard == lines {
                child.kill().unwrap();
                heard += 1;
            }
            line.clear();
        }
        let status = child.wait().unwrap();
        assert!(status.code().is_none(), "the child ended by itself: {status}");
    }

    async fn inspect(&mut self, store: &SqliteStore) {
        let (revision, compacted) = (store.revision(), store.compacted());
        assert!(revision >= self.revision, "the revision went back from {} to {revision}", self.revision);
        let events = history(store).await;
        let revisions: Vec<Revision> = events.iter().map(|event| event.revision).collect();
        assert!(revisions.iter().copied().eq((compacted + 1).max(2)..=revision), "gaps in {revisions:?}");
        self.check_events(store, &events).await;
        for (revision, key, expected) in std::mem::take(&mut self.acknowledged) {
            let Some(event) = revision.checked_sub(compacted.max(1) + 1).map(|i| &events[i as usize]) else {
                continue;
            };
            assert_eq!((&*event.key, event.version.as_deref().map(name)), (&*key, expected), "revision {revision}");
        }
        for (key, (acknowledged, possible)) in &mut self.keys {
            let found = store.get(key).await.unwrap().0.as_deref().map(name);
            let expected = found == *acknowledged || Some(&found) == possible.as_ref();
            assert!(expected, "{key} is {found:?}, not {acknowledged:?} or {possible:?}");
            (*acknowledged, *possible) = (found, None);
        }
        let count = store.get("/n").await.unwrap().0.map_or(0, |version| name(&version).parse().unwrap());
        assert!(count >= self.count, "the counter went back from {} to {count}", self.count);
        (self.count, self.revision) = (count, revision);
    }

    /// History leads from the compacted state to the present one, and each step is what somebody did.
    async fn check_events(&self, store: &SqliteStore, events: &[Event]) {
        let mut state = snapshot(store, Some(store.compacted().max(1))).await;
        for event in events {
            let previous = event.previous.as_ref().map(|previous| previous.mod_revision);
            assert_eq!(previous, state.get(&*event.key).copied(), "before {event:?}");
            match &event.version {
                Some(version) => drop(state.insert(event.key.to_string(), version.mod_revision)),
                None => drop(state.remove(&*event.key)),
            }
            let Some(version) = &event.version else { continue };
            let written = name(version);
            if &*event.key == "/n" {
                let before = event.previous.as_deref().map_or(0, |version| name(version).parse::<u64>().unwrap());
                assert_eq!(written, (before + 1).to_string());
            } else if event.key.starts_with("/w/") {
                assert!(self.tried.contains(&written), "nobody wrote {event:?}");
            }
        }
        let last = events.last().map_or(store.compacted().max(1), |event| event.revision);
        assert_eq!(state, snapshot(store, Some(last)).await);
    }
}

async fn snapshot(store: &SqliteStore, at: Option<Revision>) -> BTreeMap<String, Revision> {
    let range = store.range("", "", at, 0).await.unwrap();
    range.items.iter().map(|item| (item.key.to_string(), item.mod_revision)).collect()
}

/// Everything since the last compaction.
async fn history(store: &SqliteStore) -> Vec<Event> {
    let (revision, compacted) = (store.revision(), store.compacted());
    let mut events = Vec::new();
    let mut watch = store.watch("", compacted + 1).await.unwrap();
    while watch.revision() < revision {
        events.extend(watch.next().await.unwrap().unwrap().iter().cloned());
    }
    // Keys that expire meanwhile add to it.
    events.retain(|event| event.revision <= revision);
    events
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let kills = number("CANOPUS_SOAK_STORE_KILLS").unwrap_or(20);
    let seed = number("CANOPUS_SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("CANOPUS_SOAK_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut random = Random(seed);
    let mut witness = Witness::default();
    for kill in 0..kills {
        // Now and then before it gets anywhere, mostly in full flight.
        let lines = if random.below(8) == 0 { random.below(3) } else { random.below(6000) };
        witness.run_child(&path, seed.wrapping_add(kill << 20), lines);
        let store = SqliteStore::open(&path, Options::default()).unwrap();
        runtime.block_on(witness.inspect(&store));
    }
    println!("{} acknowledged writes, {} revisions", witness.total, witness.revision);
    assert!(witness.total > 0 || kills < 3);
}
