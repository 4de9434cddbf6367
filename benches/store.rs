//! `store`: durable commits by many writers, fan-out to watchers, ranges, opening, compaction. `CANOPUS_BENCH_SECONDS` sets
//! how long each load lasts, `TMPDIR` which file system is measured.

use bytes::Bytes;
use canopus_benches::{Report, seconds, usage};
use canopus_store::memory::MemoryStore;
use canopus_store::sqlite::{Options, SqliteStore};
use canopus_store::{Expect, Limits, Store, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// About what a pod takes.
const VALUE: usize = 3800;

fn report(figure: &str, value: f64, unit: &str) {
    Report::of("store").figure(figure, value, unit);
}

fn cpu() -> Duration {
    usage::own_cpu().unwrap_or_default()
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1000.0
}

/// Each writer writes new keys one after the other, as in `api-write`.
async fn commits(name: &str, store: &Arc<dyn Store>, writers: usize, time: Duration) {
    let (begin, used) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            let name = name.to_owned();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while begin.elapsed() < time {
                    let start = Instant::now();
                    let key = format!("/registry/pods/{name}-{writer}/pod-{:08}", latencies.len());
                    let value = Bytes::from(vec![b'x'; VALUE]);
                    store.commit(Write::put(key, Expect::Absent, value)).await.unwrap();
                    latencies.push(start.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let (took, used) = (begin.elapsed(), cpu() - used);
    latencies.sort();
    let figure = |what: &str| format!("{what}_{name}_{writers}_writers");
    report(&figure("commits"), latencies.len() as f64 / took.as_secs_f64(), "1/s");
    report(&figure("commit_p50"), percentile(&latencies, 50), "ms");
    report(&figure("commit_p99"), percentile(&latencies, 99), "ms");
    report(&figure("commit_max"), percentile(&latencies, 100), "ms");
    report(&figure("commit_cpu"), used.as_secs_f64() * 1e6 / latencies.len() as f64, "us");
}

/// How long after the write begins each watcher has the event.
async fn fanout(store: &Arc<dyn Store>, watchers: usize, writes: usize) {
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..watchers {
        let mut watch = store.watch("/fanout/", store.revision() + 1).await.unwrap();
        let send = send.clone();
        tokio::spawn(async move {
            while let Some(Ok(events)) = watch.next().await {
                let now = Instant::now();
                for _ in events.iter() {
                    // The measurement may have ended.
                    let _ = send.send(now);
                }
            }
        });
    }
    let used = cpu();
    let mut latencies = Vec::new();
    for i in 0..writes {
        let start = Instant::now();
        store.commit(Write::put(format!("/fanout/{i}"), Expect::Absent, vec![b'x'; VALUE])).await.unwrap();
        for _ in 0..watchers {
            latencies.push(receive.recv().await.unwrap() - start);
        }
    }
    let used = cpu() - used;
    latencies.sort();
    report(&format!("fanout_{watchers}_p50"), percentile(&latencies, 50), "ms");
    report(&format!("fanout_{watchers}_p99"), percentile(&latencies, 99), "ms");
    report(&format!("fanout_{watchers}_delivery_cpu"), used.as_secs_f64() * 1e6 / latencies.len() as f64, "us");
}

async fn ranges(store: &Arc<dyn Store>) {
    for limit in [500, 5000, 0] {
        let begin = Instant::now();
        let mut items = 0;
        for _ in 0..20 {
            items = store.range("/registry/", "/registry0", None, limit).await.unwrap().items.len();
        }
        report(&format!("range_{items}_items"), begin.elapsed().as_secs_f64() * 1000.0 / 20.0, "ms");
    }
}

async fn run() {
    let time = seconds(4);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default()).unwrap());
    commits("memory", &memory, 64, time / 4).await;
    drop(memory);
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path, Options::default()).unwrap());
    for writers in [1, 8, 64, 512] {
        commits("sqlite", &store, writers, time).await;
    }
    ranges(&store).await;
    fanout(&store, 500, 200).await;
    let keys = store.revision() - 1;
    report("stored", keys as f64, "keys");
    report("resident", usage::memory(std::process::id()).rss, "MB");
    drop(store);
    // The watchers' tasks let go of what they share a moment later, but the file is free at once.
    let begin = Instant::now();
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    report("open_per_key", begin.elapsed().as_secs_f64() * 1e6 / keys as f64, "us");
    let store: Arc<dyn Store> = Arc::new(store);
    let mut updates = tokio::task::JoinSet::new();
    for i in 0..20_000 {
        let store = store.clone();
        updates.spawn(async move {
            store.commit(Write::put(format!("/u/{}", i % 100), Expect::Anything, vec![b'x'; VALUE])).await.unwrap()
        });
    }
    while updates.join_next().await.is_some() {}
    let begin = Instant::now();
    let compaction = store.compact(store.revision());
    tokio::pin!(compaction);
    let mut latencies = Vec::new();
    loop {
        let start = Instant::now();
        let write = Write::put(format!("/c/{}", latencies.len()), Expect::Absent, vec![b'x'; VALUE]);
        tokio::select! {
            done = &mut compaction => break done.unwrap(),
            written = store.commit(write) => drop(written.unwrap()),
        }
        latencies.push(start.elapsed());
    }
    report("compact_20000_rows", begin.elapsed().as_secs_f64() * 1000.0, "ms");
    latencies.sort();
    if !latencies.is_empty() {
        report("commit_p50_while_compacting", percentile(&latencies, 50), "ms");
        report("commit_p99_while_compacting", percentile(&latencies, 99), "ms");
    }
}

fn main() {
    Report::new("store");
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}
