use super::testing::Etcd;
use super::{EtcdStore, Options};
use crate::{Change, Error, Expect, Outcome, Store, Write, contract};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract() {
    let etcd = Etcd::start();
    contract::check(|| async {
        etcd.wipe().await.unwrap();
        Arc::new(etcd.store().await.unwrap()) as Arc<dyn Store>
    })
    .await;
}

async fn put(store: &dyn Store, key: &str, value: &str) -> u64 {
    match store.commit(Write::put(key, Expect::Anything, value.to_owned())).await.unwrap() {
        Outcome::Committed { revision, .. } => revision,
        Outcome::Conflict { .. } => unreachable!("it expects nothing"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_see_each_others_writes_in_order() {
    let etcd = Etcd::start();
    let stores = [etcd.store().await.unwrap(), etcd.store().await.unwrap()];
    let base = stores[0].current().await.unwrap();
    let mut watches = [stores[0].watch("", base + 1).await.unwrap(), stores[1].watch("", base + 1).await.unwrap()];
    let mut last = 0;
    for i in 0..50 {
        last = put(&stores[i % 2], &format!("/k/{}", i % 7), &i.to_string()).await;
        // What one has acknowledged is known to the other as soon as it asks.
        let other = &stores[(i + 1) % 2];
        assert!(other.current().await.unwrap() >= last);
    }
    let mut seen = Vec::new();
    for watch in &mut watches {
        let mut events = Vec::new();
        while watch.revision() < last {
            for event in watch.next().await.unwrap().unwrap().iter() {
                events.push((event.revision, event.key.to_string(), event.version.as_ref().unwrap().value.clone()));
            }
        }
        seen.push(events);
    }
    assert_eq!(seen[0].len(), 50);
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].is_sorted_by_key(|event| event.0));
    // Progress towards what the other has just written.
    let progress = watches[0].progress();
    let newest = put(&stores[1], "/k/last", "x").await;
    let consumer = tokio::spawn(async move {
        let [mut watch, _] = watches;
        while watch.next().await.is_some() {}
    });
    progress.reached(newest).await.unwrap();
    assert!(matches!(progress.reached(newest + 1000).await, Err(Error::FutureRevision { .. })));
    consumer.abort();
}

#[tokio::test]
async fn a_writers_facts_reach_its_own_watchers() {
    let etcd = Etcd::start();
    let (ours, theirs) = (etcd.store().await.unwrap(), etcd.store().await.unwrap());
    let base = ours.current().await.unwrap();
    let mut here = ours.watch("/a", base + 1).await.unwrap();
    let mut there = theirs.watch("/a", base + 1).await.unwrap();
    let value = bytes::Bytes::from("value");
    let change = Change::Put { value: value.clone(), facts: Some(Arc::new(7_u32)), ttl: None };
    ours.commit(Write { key: "/a".into(), expect: Expect::Absent, change }).await.unwrap();
    let group = here.next().await.unwrap().unwrap();
    let version = group[0].version.as_ref().unwrap();
    assert_eq!(version.facts.as_ref().unwrap().downcast_ref(), Some(&7_u32));
    assert_eq!(version.value.as_ptr(), value.as_ptr(), "one buffer for all");
    assert!(there.next().await.unwrap().unwrap()[0].version.as_ref().unwrap().facts.is_none());
    // Somebody else's write of the same key has none of it.
    put(&theirs, "/a", "other").await;
    assert!(here.next().await.unwrap().unwrap()[0].version.as_ref().unwrap().facts.is_none());
}

#[tokio::test]
async fn only_one_of_two_compacts() {
    let etcd = Etcd::start();
    let stores = [etcd.store().await.unwrap(), etcd.store().await.unwrap()];
    assert!(stores[0].may_compact(1).await.unwrap());
    assert!(!stores[1].may_compact(1).await.unwrap(), "it finds that the other has");
    assert!(stores[0].may_compact(2).await.unwrap());
    assert!(!stores[1].may_compact(2).await.unwrap());
    // The first has gone away: after an interval it is the other's turn.
    assert!(stores[1].may_compact(3).await.unwrap());
    assert!(!stores[0].may_compact(4).await.unwrap());
}

#[tokio::test]
async fn what_another_has_compacted_is_refused() {
    let etcd = Etcd::start();
    let (ours, theirs) = (etcd.store().await.unwrap(), etcd.store().await.unwrap());
    let first = put(&ours, "/a", "1").await;
    put(&ours, "/a", "2").await;
    let last = put(&ours, "/a", "3").await;
    theirs.compact(last).await.unwrap();
    assert!(matches!(ours.range("/a", "/b", Some(first), 0).await, Err(Error::Compacted { .. })));
    assert_eq!(ours.range("/a", "/b", Some(last), 0).await.unwrap().items.len(), 1);
    // A new store knows nothing of what has happened and must ask.
    let young = etcd.store().await.unwrap();
    let mut watch = young.watch("/a", first).await.unwrap();
    match watch.next().await {
        Some(Err(Error::Compacted { compacted, .. })) => assert_eq!(compacted, last),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lost_lease_is_replaced() {
    let etcd = Etcd::start();
    let store = etcd.store().await.unwrap();
    let lasting = |key: &str| {
        let change = Change::Put { value: "1".into(), facts: None, ttl: Some(Duration::from_secs(3600)) };
        Write { key: key.into(), expect: Expect::Anything, change }
    };
    store.commit(lasting("/a")).await.unwrap();
    store.commit(lasting("/b")).await.unwrap();
    let lease = store.inner.leases.get(&store.inner.client, Duration::from_secs(3600)).await.unwrap();
    store.inner.client.revoke(lease).await.unwrap();
    assert!(store.get("/a").await.unwrap().0.is_none(), "one lease for both");
    assert!(store.get("/b").await.unwrap().0.is_none());
    store.commit(lasting("/c")).await.unwrap();
    assert!(store.get("/c").await.unwrap().0.is_some());
}

#[tokio::test]
async fn another_prefix_is_another_cluster() {
    let etcd = Etcd::start();
    let at = |prefix: &str| {
        EtcdStore::connect(Options { servers: vec![etcd.url()], prefix: prefix.into(), ..Options::default() })
    };
    let (a, b) = (at("/a").await.unwrap(), at("/b").await.unwrap());
    let base = a.current().await.unwrap();
    let mut watch = a.watch("/registry/", base + 1).await.unwrap();
    put(&b, "/registry/pods/x", "b").await;
    put(&a, "/registry/pods/x", "a").await;
    let events = watch.next().await.unwrap().unwrap();
    let event = &events[0];
    assert_eq!((&*event.key, &event.version.as_ref().unwrap().value[..]), ("/registry/pods/x", &b"a"[..]));
    let found = b.range("/registry/", "/registry0", None, 0).await.unwrap();
    assert_eq!((found.items.len(), &found.items[0].value[..]), (1, &b"b"[..]));
}

#[tokio::test]
async fn nobody_waits_for_a_server_that_is_not_there() {
    for (servers, text) in [(vec![], "no etcd server"), (vec!["localhost:1".into()], "is not the URL")] {
        let error = EtcdStore::connect(Options { servers, ..Options::default() }).await.err().unwrap();
        assert!(error.to_string().contains(text), "{error}");
    }
    // The first of two servers is dead.
    let etcd = Etcd::start();
    let servers = vec!["http://127.0.0.1:1".into(), etcd.url()];
    let store = EtcdStore::connect(Options { servers, ..Options::default() }).await.unwrap();
    put(&store, "/a", "1").await;
    let options = Options { servers: vec![etcd.url().replace("http:", "https:")], ..Options::default() };
    let error = EtcdStore::connect(options).await.err().unwrap();
    assert!(error.to_string().contains("--etcd-cafile"), "{error}");
}

/// Kills etcd again and again under two writers, and looks at what the watchers saw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_outlive_restarts_and_skip_nothing() {
    let mut etcd = Etcd::start();
    let stores: Vec<Arc<EtcdStore>> =
        vec![Arc::new(etcd.store().await.unwrap()), Arc::new(etcd.store().await.unwrap())];
    let base = stores[0].current().await.unwrap();
    let mut watches = Vec::new();
    for store in &stores {
        watches.push(store.watch("/w/", base + 1).await.unwrap());
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|id| {
            let (store, stop) = (stores[id % 2].clone(), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                let mut n = 0;
                while !stop.load(std::sync::atomic::Ordering::Acquire) {
                    n += 1;
                    let key = format!("/w/{id}/{}", n % 5);
                    match store.commit(Write::put(key.as_str(), Expect::Anything, n.to_string())).await {
                        Ok(Outcome::Committed { revision, .. }) => acknowledged.push((revision, key, n.to_string())),
                        Ok(Outcome::Conflict { .. }) => unreachable!("it expects nothing"),
                        // It may have happened or not.
                        Err(Error::Unavailable(_)) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    for _ in 0..5 {
        let seen = stores[0].revision();
        while stores[0].revision() < seen + 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        etcd.restart();
    }
    stop.store(true, std::sync::atomic::Ordering::Release);
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        for (revision, key, value) in writer.await.unwrap() {
            assert!(acknowledged.insert(revision, (key, value)).is_none(), "two writes at revision {revision}");
        }
    }
    let last = stores[0].current().await.unwrap();
    for (watch, store) in watches.iter_mut().zip(&stores) {
        let mut events = BTreeMap::new();
        while watch.revision() < last {
            for event in watch.next().await.unwrap().unwrap().iter() {
                let value = String::from_utf8(event.version.as_ref().unwrap().value.to_vec()).unwrap();
                let before = events.insert(event.revision, (event.key.to_string(), value));
                assert!(before.is_none(), "revision {} came twice", event.revision);
            }
            // What the feed has yet to bring.
            store.current().await.unwrap();
        }
        // Nothing else was written, so there is an event for each revision.
        assert!(events.keys().copied().eq(base + 1..=last), "gaps");
        for (revision, write) in &acknowledged {
            assert_eq!(events.get(revision), Some(write), "an acknowledged write is missing");
        }
    }
}

/// The feed was away for longer than etcd keeps history.
#[tokio::test]
async fn a_watch_that_missed_a_compaction_says_so() {
    let mut etcd = Etcd::start();
    let store = etcd.store().await.unwrap();
    let first = put(&store, "/a", "1").await;
    let mut watch = store.watch("/a", first).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap()[0].revision, first);
    // While this store can't follow, others write and compact.
    store.inner.shared.lose(first);
    match watch.next().await {
        Some(Err(Error::Lagged)) => {}
        other => panic!("{other:?}"),
    }
    etcd.restart();
    let other = etcd.store().await.unwrap();
    let mut last = 0;
    for i in 0..10 {
        last = put(&other, "/a", &i.to_string()).await;
    }
    other.compact(last).await.unwrap();
    let again = store.range("/a", "/b", None, 0).await.unwrap();
    let mut watch = store.watch("/a", again.revision + 1).await.unwrap();
    let next = put(&other, "/a", "x").await;
    assert_eq!(watch.next().await.unwrap().unwrap()[0].revision, next);
}
