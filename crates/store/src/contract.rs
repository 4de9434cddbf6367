//! What every [`Store`] must do, as tests that any implementation can run.
//!
//! A case gets a store of its own: empty, and nobody else writes to it. It may have had a past, since revisions are
//! compared with the one that the case finds.

use crate::{Change, Error, Event, Expect, Outcome, Range, Revision, Store, Version, Watch, Write, prefix_end};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

type Subject = Arc<dyn Store>;
type Run = fn(Subject) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One test: it panics if the store is wrong.
pub struct Case {
    pub name: &'static str,
    pub run: Run,
}

const fn case(name: &'static str, run: Run) -> Case {
    Case { name, run }
}

/// All of them.
pub const CASES: &[Case] = &[
    case("a_write_gets_the_next_revision", |store| Box::pin(a_write_gets_the_next_revision(store))),
    case("expectations_are_kept", |store| Box::pin(expectations_are_kept(store))),
    case("a_conflict_shows_the_current_version", |store| Box::pin(a_conflict_shows_the_current_version(store))),
    case("deletion_and_rebirth", |store| Box::pin(deletion_and_rebirth(store))),
    case("facts_come_back_to_readers", |store| Box::pin(facts_come_back_to_readers(store))),
    case("ranges_are_ordered_and_bounded", |store| Box::pin(ranges_are_ordered_and_bounded(store))),
    case("limits_tell_what_remains", |store| Box::pin(limits_tell_what_remains(store))),
    case("old_revisions_can_be_read", |store| Box::pin(old_revisions_can_be_read(store))),
    case("compaction_forgets_and_keeps", |store| Box::pin(compaction_forgets_and_keeps(store))),
    case("a_watch_sees_every_change_in_order", |store| Box::pin(a_watch_sees_every_change_in_order(store))),
    case("a_watch_starts_at_a_revision", |store| Box::pin(a_watch_starts_at_a_revision(store))),
    case("a_watch_of_the_future_waits_for_it", |store| Box::pin(a_watch_of_the_future_waits_for_it(store))),
    case("a_compacted_watch_is_refused", |store| Box::pin(a_compacted_watch_is_refused(store))),
    case("a_watch_knows_what_it_has_seen", |store| Box::pin(a_watch_knows_what_it_has_seen(store))),
    case("progress_follows_the_consumer", |store| Box::pin(progress_follows_the_consumer(store))),
    case("a_ttl_deletes_and_a_rewrite_lifts_it", |store| Box::pin(a_ttl_deletes_and_a_rewrite_lifts_it(store))),
    case("bad_requests_are_refused", |store| Box::pin(bad_requests_are_refused(store))),
    case("concurrent_swaps_lose_nothing", |store| Box::pin(concurrent_swaps_lose_nothing(store))),
    case("long_ranges_are_consistent_under_writes", |store| Box::pin(long_ranges_are_consistent_under_writes(store))),
];

/// Runs every case on a store that `open` makes for it.
pub async fn check<F, S>(mut open: F)
where
    F: FnMut() -> S,
    S: Future<Output = Subject>,
{
    for case in CASES {
        // Shown when the case fails.
        println!("contract: {}", case.name);
        (case.run)(open().await).await;
    }
}

async fn committed(store: &Subject, write: Write) -> (Revision, Option<Arc<Version>>, Option<Arc<Version>>) {
    match store.commit(write).await.expect("the store works") {
        Outcome::Committed { revision, version, previous } => (revision, version, previous),
        Outcome::Conflict { current, .. } => panic!("unexpected conflict with {current:?}"),
    }
}

async fn conflict(store: &Subject, write: Write) -> (Option<Arc<Version>>, Revision) {
    match store.commit(write).await.expect("the store works") {
        Outcome::Conflict { current, revision } => (current, revision),
        Outcome::Committed { revision, .. } => panic!("committed as {revision} against its expectation"),
    }
}

async fn put(store: &Subject, key: &str, value: &str) -> Revision {
    committed(store, Write::put(key, Expect::Anything, value.to_owned())).await.0
}

async fn delete(store: &Subject, key: &str) -> Revision {
    committed(store, Write::delete(key, Expect::Anything)).await.0
}

async fn get(store: &Subject, key: &str) -> Option<Arc<Version>> {
    store.get(key).await.expect("the store works").0
}

fn text(value: &Bytes) -> &str {
    std::str::from_utf8(value).expect("the tests store text")
}

/// `key=value` of every item.
fn shown(range: &Range) -> Vec<String> {
    range.items.iter().map(|item| format!("{}={}", item.key, text(&item.value))).collect()
}

async fn list(store: &Subject, prefix: &str, at: Option<Revision>) -> Vec<String> {
    shown(&store.range(prefix, &prefix_end(prefix), at, 0).await.expect("the store works"))
}

/// `revision key previous>value`, the revision counted from `base`.
fn line(event: &Event, base: Revision) -> String {
    let value = |version: &Option<Arc<Version>>| version.as_ref().map_or("-".into(), |v| text(&v.value).to_owned());
    if let Some(version) = &event.version {
        assert_eq!((version.mod_revision, &version.key), (event.revision, &event.key));
    }
    format!("{} {} {}>{}", event.revision - base, event.key, value(&event.previous), value(&event.version))
}

async fn next(watch: &mut Watch) -> Arc<[Event]> {
    watch.next().await.expect("the watch goes on").expect("the watch works")
}

/// The next `count` events.
async fn lines(watch: &mut Watch, count: usize, base: Revision) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let events = next(watch).await;
        assert!(!events.is_empty());
        lines.extend(events.iter().map(|event| line(event, base)));
    }
    lines
}

async fn a_write_gets_the_next_revision(store: Subject) {
    let base = store.revision();
    assert!(base >= 1, "revision 0 means something else to clients");
    let (revision, version, previous) = committed(&store, Write::put("/a", Expect::Anything, "1")).await;
    let version = version.expect("a put has a version");
    assert_eq!((revision, version.mod_revision, version.create_revision, version.version), {
        (base + 1, base + 1, base + 1, 1)
    });
    assert!(previous.is_none());
    let (revision, version, previous) = committed(&store, Write::put("/a", Expect::Anything, "2")).await;
    let version = version.expect("a put has a version");
    assert_eq!((revision, version.create_revision, version.version), (base + 2, base + 1, 2));
    assert_eq!(previous.map(|previous| previous.mod_revision), Some(base + 1));
    assert_eq!(store.revision(), base + 2);
    let (current, at) = store.get("/a").await.expect("the store works");
    assert_eq!((text(&current.expect("it exists").value), at), ("2", base + 2));
    assert_eq!(store.get("/b").await.map(|(version, at)| (version.is_none(), at)).ok(), Some((true, base + 2)));
}

async fn expectations_are_kept(store: Subject) {
    let first = committed(&store, Write::put("/a", Expect::Absent, "1")).await.0;
    conflict(&store, Write::put("/a", Expect::Absent, "2")).await;
    conflict(&store, Write::put("/a", Expect::Revision(first + 1), "2")).await;
    conflict(&store, Write::put("/b", Expect::Revision(first), "2")).await;
    conflict(&store, Write::delete("/b", Expect::Anything)).await;
    let second = committed(&store, Write::put("/a", Expect::Revision(first), "2")).await.0;
    assert_eq!(second, first + 1, "a conflict has no revision");
    conflict(&store, Write::delete("/a", Expect::Revision(first))).await;
    committed(&store, Write::delete("/a", Expect::Revision(second))).await;
    conflict(&store, Write::put("/a", Expect::Revision(second), "3")).await;
    committed(&store, Write::put("/a", Expect::Absent, "3")).await;
}

async fn a_conflict_shows_the_current_version(store: Subject) {
    let revision = put(&store, "/a", "1").await;
    let latest = put(&store, "/b", "1").await;
    let (current, at) = conflict(&store, Write::put("/a", Expect::Absent, "2")).await;
    let current = current.expect("it exists");
    assert_eq!((current.mod_revision, text(&current.value)), (revision, "1"));
    assert!(at >= latest);
    assert!(conflict(&store, Write::delete("/c", Expect::Anything)).await.0.is_none());
}

async fn deletion_and_rebirth(store: Subject) {
    let born = put(&store, "/a", "1").await;
    let (died, version, previous) = committed(&store, Write::delete("/a", Expect::Anything)).await;
    assert_eq!((died, version.is_none()), (born + 1, true), "a deletion has a revision of its own");
    assert_eq!(previous.map(|previous| previous.mod_revision), Some(born));
    assert!(get(&store, "/a").await.is_none());
    assert!(list(&store, "/", None).await.is_empty());
    // Its neighbour doesn't stand in for it.
    put(&store, "/a/b", "1").await;
    assert!(get(&store, "/a").await.is_none());
    assert!(conflict(&store, Write::put("/a", Expect::Revision(born), "2")).await.0.is_none());
    delete(&store, "/a/b").await;
    let (reborn, version, previous) = committed(&store, Write::put("/a", Expect::Absent, "2")).await;
    let version = version.expect("a put has a version");
    assert_eq!((version.create_revision, version.version, previous.is_none()), (reborn, 1, true));
}

async fn facts_come_back_to_readers(store: Subject) {
    let change = Change::Put { value: "1".into(), facts: Some(Arc::new(42_u32)), ttl: None };
    committed(&store, Write { key: "/a".into(), expect: Expect::Anything, change }).await;
    let version = get(&store, "/a").await.expect("it exists");
    // A store may have let go of them, but may not change them.
    if let Some(facts) = &version.facts {
        assert_eq!(facts.downcast_ref::<u32>(), Some(&42));
    }
}

async fn ranges_are_ordered_and_bounded(store: Subject) {
    for key in ["/b/2", "/a", "/b/10", "/b0", "/c", "/b/é", "/b/"] {
        put(&store, key, "x").await;
    }
    let keys = |range: Range| range.items.iter().map(|item| item.key.to_string()).collect::<Vec<_>>();
    let range = |start: &'static str, end: &'static str| {
        let store = store.clone();
        async move { keys(store.range(start, end, None, 0).await.expect("the store works")) }
    };
    assert_eq!(range("/b/", "/b0").await, ["/b/", "/b/10", "/b/2", "/b/é"]);
    assert_eq!(range("/b/2", "/c").await, ["/b/2", "/b/é", "/b0"]);
    assert_eq!(range("/b0", "").await, ["/b0", "/c"]);
    assert_eq!(range("/b/1", "/b/2\0").await, ["/b/10", "/b/2"]);
    assert!(range("/d", "").await.is_empty());
    assert!(range("/c", "/a").await.is_empty(), "an upside-down range is empty");
    assert!(range("/a", "/a").await.is_empty());
}

async fn limits_tell_what_remains(store: Subject) {
    for i in 0..10 {
        put(&store, &format!("/a/{i}"), "x").await;
    }
    delete(&store, "/a/9").await;
    put(&store, "/b", "x").await;
    let read = |start: &'static str, limit| {
        let store = store.clone();
        async move {
            let range = store.range(start, "/a0", None, limit).await.expect("the store works");
            (range.items.len(), range.more, range.remaining)
        }
    };
    assert_eq!(read("/a/", 0).await, (9, false, 0));
    assert_eq!(read("/a/", 9).await, (9, false, 0));
    assert_eq!(read("/a/", 8).await, (8, true, 1));
    assert_eq!(read("/a/3\0", 2).await, (2, true, 3));
}

async fn old_revisions_can_be_read(store: Subject) {
    let empty = store.revision();
    let one = put(&store, "/a/x", "1").await;
    let two = put(&store, "/a/y", "1").await;
    let three = put(&store, "/a/x", "2").await;
    let four = delete(&store, "/a/x").await;
    let five = put(&store, "/a/x", "3").await;
    for (at, expected) in [
        (empty, vec![]),
        (one, vec!["/a/x=1"]),
        (two, vec!["/a/x=1", "/a/y=1"]),
        (three, vec!["/a/x=2", "/a/y=1"]),
        (four, vec!["/a/y=1"]),
        (five, vec!["/a/x=3", "/a/y=1"]),
    ] {
        assert_eq!(list(&store, "/a/", Some(at)).await, expected, "at {}", at - empty);
    }
    let page = store.range("/a/", "/a0", Some(three), 1).await.expect("the store works");
    assert_eq!((shown(&page), page.revision, page.remaining), (vec!["/a/x=2".to_owned()], three, 1));
    match store.range("/a/", "/a0", Some(five + 1), 0).await {
        Err(Error::FutureRevision { requested, .. }) => assert_eq!(requested, five + 1),
        other => panic!("{other:?}"),
    }
}

async fn compaction_forgets_and_keeps(store: Subject) {
    put(&store, "/a", "1").await;
    put(&store, "/gone", "1").await;
    let before = delete(&store, "/gone").await;
    let at = put(&store, "/a", "2").await;
    let after = put(&store, "/a", "3").await;
    store.compact(at).await.expect("it can be compacted");
    assert_eq!(store.compacted(), at);
    match store.range("/", "", Some(before), 0).await {
        Err(Error::Compacted { compacted, .. }) => assert_eq!(compacted, at),
        other => panic!("{other:?}"),
    }
    assert_eq!(list(&store, "/", Some(at)).await, ["/a=2"]);
    assert_eq!(list(&store, "/", Some(after)).await, ["/a=3"]);
    store.compact(before).await.expect("compacting again is no error");
    assert_eq!(store.compacted(), at);
    assert!(matches!(store.compact(after + 1).await, Err(Error::FutureRevision { .. })));
    store.compact(after).await.expect("it can be compacted");
    assert_eq!(list(&store, "/", None).await, ["/a=3"]);
    let (next, version, _) = committed(&store, Write::put("/a", Expect::Revision(after), "4")).await;
    assert_eq!((next, version.map(|version| version.version)), (after + 1, Some(4)));
    // Deleting everything and compacting that away doesn't turn the revision back.
    let last = delete(&store, "/a").await;
    store.compact(last).await.expect("it can be compacted");
    assert_eq!(put(&store, "/gone", "2").await, last + 1);
}

async fn a_watch_sees_every_change_in_order(store: Subject) {
    let base = store.revision();
    let mut pods = store.watch("/pods/", base + 1).await.expect("it can be watched");
    let mut all = store.watch("", base + 1).await.expect("it can be watched");
    put(&store, "/pods/a", "1").await;
    put(&store, "/nodes/a", "1").await;
    put(&store, "/pods/a", "2").await;
    delete(&store, "/pods/a").await;
    put(&store, "/pods/a", "3").await;
    put(&store, "/pods", "not below").await;
    assert_eq!(lines(&mut pods, 4, base).await, ["1 /pods/a ->1", "3 /pods/a 1>2", "4 /pods/a 2>-", "5 /pods/a ->3"]);
    let seen = lines(&mut all, 6, base).await;
    assert_eq!((seen[1].as_str(), seen[5].as_str()), ("2 /nodes/a ->1", "6 /pods ->not below"));
}

async fn a_watch_starts_at_a_revision(store: Subject) {
    let base = store.revision();
    for i in 1..=5 {
        put(&store, "/a", &i.to_string()).await;
        put(&store, "/b", &i.to_string()).await;
    }
    let mut watch = store.watch("/a", base + 3).await.expect("it can be watched");
    put(&store, "/a", "6").await;
    assert_eq!(lines(&mut watch, 5, base).await, ["3 /a 1>2", "5 /a 2>3", "7 /a 3>4", "9 /a 4>5", "11 /a 5>6"]);
}

async fn a_watch_of_the_future_waits_for_it(store: Subject) {
    let base = store.revision();
    let mut watch = store.watch("/a", base + 3).await.expect("it can be watched");
    for i in 1..=4 {
        put(&store, "/a", &i.to_string()).await;
    }
    assert_eq!(lines(&mut watch, 2, base).await, ["3 /a 2>3", "4 /a 3>4"]);
}

async fn a_compacted_watch_is_refused(store: Subject) {
    put(&store, "/a", "1").await;
    let at = put(&store, "/a", "2").await;
    store.compact(at).await.expect("it can be compacted");
    // A source may find out when it is asked for the first event.
    let refused = match store.watch("/a", at).await {
        Err(error) => error,
        Ok(mut watch) => match watch.next().await {
            Some(Err(error)) => error,
            other => panic!("{other:?}"),
        },
    };
    assert!(matches!(refused, Error::Compacted { compacted, .. } if compacted == at), "{refused:?}");
    let mut watch = store.watch("/a", at + 1).await.expect("it can be watched");
    put(&store, "/a", "3").await;
    assert_eq!(lines(&mut watch, 1, at).await, ["1 /a 2>3"]);
}

async fn a_watch_knows_what_it_has_seen(store: Subject) {
    let base = store.revision();
    let mut watch = store.watch("/a", base + 1).await.expect("it can be watched");
    let first = put(&store, "/a", "1").await;
    assert!(watch.revision() < first, "there is something it hasn't seen");
    next(&mut watch).await;
    assert!(watch.revision() >= first);
    // What doesn't concern the watch moves it on without an event.
    assert_eq!(put(&store, "/b", "1").await, first + 1);
    reaches(&mut watch, first + 1).await;
    let mut young = store.watch("/a", first + 2).await.expect("it can be watched");
    reaches(&mut young, first + 1).await;
}

async fn reaches(watch: &mut Watch, revision: Revision) {
    let progress = watch.progress();
    tokio::select! {
        reached = progress.reached(revision) => reached.expect("the watch goes on"),
        events = watch.next() => panic!("unexpected {events:?}"),
    }
    assert!(watch.revision() >= revision);
}

async fn progress_follows_the_consumer(store: Subject) {
    let base = store.revision();
    let mut watch = store.watch("/a", base + 1).await.expect("it can be watched");
    let progress = watch.progress();
    let first = put(&store, "/a", "1").await;
    next(&mut watch).await;
    assert!(progress.revision() < first, "the consumer hasn't come back yet");
    let second = put(&store, "/a", "2").await;
    next(&mut watch).await;
    assert!((first..second).contains(&progress.revision()));
    assert!(matches!(progress.reached(second + 1).await, Err(Error::FutureRevision { .. })));
    let waiting = tokio::spawn(async move { progress.reached(second).await });
    tokio::select! {
        events = watch.next() => panic!("unexpected {events:?}"),
        reached = waiting => reached.expect("no panic").expect("the watch goes on"),
    }
    let progress = watch.progress();
    put(&store, "/a", "3").await;
    let last = store.revision();
    drop(watch);
    assert!(matches!(progress.reached(last).await, Err(Error::Closed)));
}

async fn a_ttl_deletes_and_a_rewrite_lifts_it(store: Subject) {
    let base = store.revision();
    let lasting = |key: &str, ttl| {
        let change = Change::Put { value: "1".into(), facts: None, ttl: Some(ttl) };
        Write { key: key.into(), expect: Expect::Anything, change }
    };
    let mut watch = store.watch("/a/", base + 1).await.expect("it can be watched");
    let (_, kept, _) = committed(&store, lasting("/a/kept", Duration::from_secs(1))).await;
    assert!(kept.expect("a put has a version").expires_at.is_some());
    let (_, kept, _) = committed(&store, Write::put("/a/kept", Expect::Anything, "2")).await;
    assert!(kept.expect("a put has a version").expires_at.is_none());
    committed(&store, lasting("/a/long", Duration::from_secs(3600))).await;
    committed(&store, lasting("/a/short", Duration::from_secs(1))).await;
    assert_eq!(lines(&mut watch, 5, base).await[4], "5 /a/short 1>-");
    assert_eq!(store.revision(), base + 5);
    assert_eq!(list(&store, "/a/", None).await, ["/a/kept=2", "/a/long=1"]);
}

async fn bad_requests_are_refused(store: Subject) {
    let base = store.revision();
    let put = |key: &str, size| Write::put(key, Expect::Anything, vec![b'x'; size]);
    assert!(matches!(store.commit(put("", 1)).await, Err(Error::EmptyKey)));
    assert!(matches!(store.get("").await, Err(Error::EmptyKey)));
    let long = "x".repeat(5 << 10);
    assert!(matches!(store.commit(put(&long, 1)).await, Err(Error::TooLarge { what: "key", .. })));
    assert!(matches!(store.commit(put("/a", 16 << 20)).await, Err(Error::TooLarge { what: "value", .. })));
    assert_eq!(store.revision(), base);
    committed(&store, put("/a", 0)).await;
    committed(&store, put("/a", 1 << 20)).await;
    assert_eq!(get(&store, "/a").await.map(|version| version.value.len()), Some(1 << 20));
}

async fn concurrent_swaps_lose_nothing(store: Subject) {
    const TASKS: usize = 8;
    const EACH: usize = 25;
    let base = store.revision();
    let mut watch = store.watch("/n", base + 1).await.expect("it can be watched");
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    increment(&store, "/n").await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let total = TASKS * EACH;
    assert_eq!(get(&store, "/n").await.map(|version| text(&version.value).to_owned()), Some(total.to_string()));
    assert_eq!(store.revision(), base + total as u64);
    let seen = lines(&mut watch, total, base).await;
    assert_eq!(seen[total - 1], format!("{total} /n {}>{total}", total - 1));
}

async fn increment(store: &Subject, key: &str) {
    let mut current = get(store, key).await;
    loop {
        let (expect, number) = match &current {
            Some(version) => {
                (Expect::Revision(version.mod_revision), text(&version.value).parse::<u64>().expect("a number"))
            }
            None => (Expect::Absent, 0),
        };
        match store.commit(Write::put(key, expect, (number + 1).to_string())).await.expect("the store works") {
            Outcome::Committed { .. } => return,
            Outcome::Conflict { current: newer, .. } => current = newer,
        }
    }
}

/// Each pass writes its number to some keys, one after the other; so at any revision a later key is at most as new as an
/// earlier one, and at most one pass older.
async fn long_ranges_are_consistent_under_writes(store: Subject) {
    const KEYS: usize = 1500;
    const STEP: usize = 15;
    const PASSES: usize = 3;
    let write_all = |pass: usize, step: usize| {
        let store = store.clone();
        let write = move |i| {
            let store = store.clone();
            async move { put(&store, &format!("/k/{i:05}"), &pass.to_string()).await }
        };
        (0..KEYS).step_by(step).map(write)
    };
    let mut filling: tokio::task::JoinSet<Revision> = write_all(0, 1).collect();
    while let Some(written) = filling.join_next().await {
        written.expect("no panic");
    }
    let passes: Vec<_> = (1..PASSES).map(|pass| write_all(pass, STEP)).collect();
    let mut writer = tokio::spawn(async move {
        for write in passes.into_iter().flatten() {
            write.await;
        }
    });
    loop {
        let range = store.range("/k/", "/k0", None, 0).await.expect("the store works");
        assert_eq!(range.items.len(), KEYS);
        let number = |i: usize| text(&range.items[i].value).parse::<usize>().expect("a number");
        let numbers: Vec<usize> = (0..KEYS).step_by(STEP).map(number).collect();
        assert!(numbers.is_sorted_by(|a, b| a >= b), "a later key is newer than an earlier one");
        assert!(numbers[0] - numbers[numbers.len() - 1] <= 1);
        assert!(range.items.iter().all(|item| item.mod_revision <= range.revision));
        tokio::select! {
            biased;
            done = &mut writer => return done.expect("no panic"),
            () = tokio::task::yield_now() => {}
        }
    }
}
