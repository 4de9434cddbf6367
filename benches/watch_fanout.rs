//! `watch-fanout`: 500 watchers of one namespace, each with every update of its pods: from sending an update until a
//! watcher has the event; then how many deliveries a second one writer can cause.

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

    async fn complete(&self) {
        while self.count.get() < self.sent.borrow().len() * WATCHERS {
            self.progress.notified().await;
        }
    }
}

/// Updates one pod again and again.
struct Writer {
    api: Connection,
    object: Bytes,
    turn: usize,
}

impl Writer {
    async fn update(&mut self, deliveries: &Deliveries) -> Result<()> {
        self.turn += 1;
        let body = turned(&self.object, self.turn)?;
        deliveries.sent.borrow_mut().push(Instant::now());
        let path = format!("{PODS}/{}", PendingPod::name(0));
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
    let mut writer = Writer { api, object, turn: 0 };

    let (cpu, own_cpu) = (usage::cpu(server)?, usage::own_cpu()?);
    let each = |cpu: Duration, count: usize| cpu.as_secs_f64() * 1e6 / count as f64;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    let end = Instant::now() + seconds(10);
    while Instant::now() < end {
        ticks.tick().await;
        writer.update(&deliveries).await?;
    }
    deliveries.complete().await;
    let took: Samples = deliveries.took.take().into_iter().collect();
    report.goal("delivery_p50", took.ms(50), "ms", 3.0);
    report.goal("delivery_p99", took.ms(99), "ms", 6.0);
    report.figure("delivery_server_cpu", each(usage::cpu(server)? - cpu, took.len()), "us");
    report.figure("delivery_generator_cpu", each(usage::own_cpu()? - own_cpu, took.len()), "us");

    let (cpu, began, before) = (usage::cpu(server)?, Instant::now(), deliveries.count.get());
    while began.elapsed() < seconds(10) / 3 {
        writer.update(&deliveries).await?;
    }
    deliveries.complete().await;
    let count = deliveries.count.get() - before;
    report.figure("deliveries_at_full_speed", count as f64 / began.elapsed().as_secs_f64(), "1/s");
    report.figure("delivery_server_cpu_at_full_speed", each(usage::cpu(server)? - cpu, count), "us");
    Ok(())
}

fn main() -> Result<()> {
    run(async || {
        let report = Report::new("watch-fanout");
        tokio::task::LocalSet::new().run_until(measure(&report)).await
    })
}
