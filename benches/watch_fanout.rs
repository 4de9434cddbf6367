//! `watch-fanout`: 500 watchers of one namespace, each with every update of its pods: from sending an update until a
//! watcher has the event; then how many deliveries a second one writer can cause. And 1,000 watchers of one pod each, as
//! nodes watch, on a stream of 2,000 updates a second.

use anyhow::{Result, bail};
use bytes::Bytes;
use canopus_benches::objects::{PendingPod, turned};
use canopus_benches::{Bench, Connection, Report, Samples, progress, run, seconds, usage};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const WATCHERS: usize = 500;
/// As many watches share a connection.
const SHARE: usize = 50;
const PER_SECOND: u32 = 20;
const PODS: &str = "/api/v1/namespaces/watched/pods";

/// Watchers that each see a little of a stream, its writers, and the updates a second of all of them.
const SPARSE: usize = 1000;
const WRITERS: usize = 40;
const STREAM: usize = 2000;

#[derive(Default)]
struct Deliveries {
    /// When each update was sent.
    sent: RefCell<Vec<Instant>>,
    took: RefCell<Vec<Duration>>,
    count: Cell<usize>,
    progress: Notify,
}

impl Deliveries {
    /// Every event of one watch, in order: an event is a line.
    async fn receive(&self, mut body: Incoming) -> Result<()> {
        let mut seen = 0;
        while let Some(frame) = body.frame().await {
            let now = Instant::now();
            let lines = frame?.data_ref().map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
            let sent = self.sent.borrow();
            let Some(delivered) = sent.get(seen..seen + lines) else { bail!("an event that nobody caused") };
            self.took.borrow_mut().extend(delivered.iter().map(|at| now - *at));
            seen += lines;
            self.count.set(self.count.get() + lines);
            self.progress.notify_one();
        }
        bail!("a watch ended")
    }

    /// Waits until so many `watchers` have everything that was sent.
    async fn complete(&self, watchers: usize) {
        while self.count.get() < self.sent.borrow().len() * watchers {
            self.progress.notified().await;
        }
    }
}

/// Updates one pod again and again.
struct Writer {
    api: Connection,
    number: usize,
    object: Bytes,
    turn: usize,
}

impl Writer {
    async fn update(&mut self, deliveries: &Deliveries) -> Result<()> {
        self.turn += 1;
        let body = turned(&self.object, self.turn)?;
        deliveries.sent.borrow_mut().push(Instant::now());
        let path = format!("{PODS}/{}", PendingPod::name(self.number));
        self.object = self.api.call(Method::PUT, &path, body).await?;
        Ok(())
    }
}

async fn measure(report: &Report) -> Result<()> {
    let bench = Bench::started().await?;
    let server = bench.pid()?;
    let mut api = bench.connect().await?;
    bench.namespace(&mut api, "watched").await?;
    let object = api.call(Method::POST, PODS, PendingPod::new()?.number(0)).await?;
    let from = canopus_api::json::parse(&object)?["metadata"]["resourceVersion"].str().to_owned();
    let deliveries = Rc::new(Deliveries::default());
    for _ in 0..WATCHERS / SHARE {
        let mut connection = bench.connect().await?;
        for _ in 0..SHARE {
            let body = connection.stream(&format!("{PODS}?watch=true&resourceVersion={from}")).await?;
            let deliveries = deliveries.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = deliveries.receive(body).await {
                    progress!("{error:#}");
                }
            });
        }
    }
    progress!("{WATCHERS} watchers watch");
    let mut writer = Writer { api: api.clone(), number: 0, object, turn: 0 };

    let (cpu, own_cpu) = (usage::cpu(server)?, usage::own_cpu()?);
    let each = |cpu: Duration, count: usize| cpu.as_secs_f64() * 1e6 / count as f64;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    let end = Instant::now() + seconds(10);
    while Instant::now() < end {
        ticks.tick().await;
        writer.update(&deliveries).await?;
    }
    deliveries.complete(WATCHERS).await;
    let took: Samples = deliveries.took.take().into_iter().collect();
    report.goal("delivery_p50", took.ms(50), "ms", 3.0);
    report.goal("delivery_p99", took.ms(99), "ms", 6.0);
    report.figure("delivery_server_cpu", each(usage::cpu(server)? - cpu, took.len()), "us");
    report.figure("delivery_generator_cpu", each(usage::own_cpu()? - own_cpu, took.len()), "us");

    let (cpu, began, before) = (usage::cpu(server)?, Instant::now(), deliveries.count.get());
    while began.elapsed() < seconds(10) / 3 {
        writer.update(&deliveries).await?;
    }
    deliveries.complete(WATCHERS).await;
    let count = deliveries.count.get() - before;
    report.figure("deliveries_at_full_speed", count as f64 / began.elapsed().as_secs_f64(), "1/s");
    report.figure("delivery_server_cpu_at_full_speed", each(usage::cpu(server)? - cpu, count), "us");
    Ok(())
}

/// Watchers that are told of one pod each, while all pods change all the time.
async fn sparse(report: &Report) -> Result<()> {
    let bench = Bench::started().await?;
    let server = bench.pid()?;
    let mut api = bench.connect().await?;
    bench.namespace(&mut api, "watched").await?;
    let before = usage::memory(server).rss;
    let pod = PendingPod::new()?;
    let mut watched = Vec::new();
    for share in 0..SPARSE / SHARE {
        let mut connection = bench.connect().await?;
        for number in share * SHARE..(share + 1) * SHARE {
            let object = api.call(Method::POST, PODS, pod.number(number)).await?;
            let from = canopus_api::json::parse(&object)?["metadata"]["resourceVersion"].str().to_owned();
            let only = format!("fieldSelector=metadata.name%3D{}", PendingPod::name(number));
            let body = connection.stream(&format!("{PODS}?watch=true&resourceVersion={from}&{only}")).await?;
            let deliveries = Rc::new(Deliveries::default());
            let receiving = deliveries.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = receiving.receive(body).await {
                    progress!("{error:#}");
                }
            });
            watched.push((deliveries, Writer { api: connection.clone(), number, object, turn: 0 }));
        }
    }
    report.figure("sparse_memory_growth", usage::memory(server).rss - before, "MB");
    progress!("{SPARSE} watchers watch a pod each");

    let (cpu, began, end) = (usage::cpu(server)?, Instant::now(), Instant::now() + seconds(10));
    let writers = watched.chunks_mut(SPARSE / WRITERS).map(|pods| async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) * WRITERS as u32 / STREAM as u32);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in 0.. {
            ticks.tick().await;
            if Instant::now() > end {
                break;
            }
            let (deliveries, writer) = &mut pods[turn % (SPARSE / WRITERS)];
            writer.update(deliveries).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(writers).await?;
    let took = began.elapsed();
    for (deliveries, _) in &watched {
        deliveries.complete(1).await;
    }
    let delivered: Samples = watched.iter().flat_map(|(deliveries, _)| deliveries.took.take()).collect();
    report.figure("sparse_updates", delivered.len() as f64 / took.as_secs_f64(), "1/s");
    report.figure("sparse_delivery_p50", delivered.ms(50), "ms");
    report.figure("sparse_delivery_p99", delivered.ms(99), "ms");
    let cpu = (usage::cpu(server)? - cpu).as_secs_f64();
    report.figure("sparse_server_cpu", cpu * 1e6 / delivered.len() as f64, "us per update");
    report.figure("sparse_server_rss", usage::memory(server).rss, "MB");
    Ok(())
}

fn main() -> Result<()> {
    run(async || {
        let report = Report::new("watch-fanout");
        tokio::task::LocalSet::new()
            .run_until(async {
                measure(&report).await?;
                sparse(&report).await
            })
            .await
    })
}
