//! `api-memory`: what pods cost in memory, and what discovery and the OpenAPI documents cost those who ask first.

use anyhow::Result;
use canopus_api::json;
use canopus_benches::load::Load;
use canopus_benches::objects::PendingPod;
use canopus_benches::{Bench, Connection, Report, progress, run, usage};
use std::time::{Duration, Instant};

const CLIENTS: usize = 16;
/// After a burst, until what was kept for it is gone.
const SETTLED: Duration = Duration::from_secs(4);
/// How many pods there are, step by step.
const STEPS: [usize; 2] = [10_000, 50_000];

/// Everything below /openapi/v3.
async fn openapi_v3(api: &mut Connection) -> Result<usize> {
    let index = api.get("/openapi/v3").await?;
    let mut size = index.len();
    for (_, group) in json::parse(&index)?["paths"].entries() {
        size += api.drain(group["serverRelativeURL"].str()).await?;
    }
    Ok(size)
}

/// All that a client reads that has never seen the cluster.
async fn discovery(api: &mut Connection) -> Result<usize> {
    let mut size = api.drain("/api").await? + api.drain("/api/v1").await?;
    let groups = api.get("/apis").await?;
    size += groups.len();
    for group in json::parse(&groups)?["groups"].items() {
        for version in group["versions"].items() {
            size += api.drain(&format!("/apis/{}", version["groupVersion"].str())).await?;
        }
    }
    Ok(size)
}

struct Cost<'a> {
    report: &'a Report,
    server: u32,
}

impl Cost<'_> {
    /// Reports what `ask` costs now; how many bytes it answers.
    async fn of(&self, name: &str, ask: impl AsyncFnOnce() -> Result<usize>) -> Result<()> {
        let (cpu, rss, began) = (usage::cpu(self.server)?, usage::memory(self.server).rss, Instant::now());
        let size = ask().await?;
        self.report.figure(name, began.elapsed().as_secs_f64() * 1000.0, "ms");
        let cpu = usage::cpu(self.server)? - cpu;
        self.report.figure(&format!("{name}_server_cpu"), cpu.as_secs_f64() * 1000.0, "ms");
        self.report.figure(&format!("{name}_memory_growth"), usage::memory(self.server).rss - rss, "MB");
        self.report.figure(&format!("{name}_size"), size as f64 / 1e6, "MB");
        Ok(())
    }
}

fn main() -> Result<()> {
    run(async || {
        let report = &Report::new("api-memory");
        let bench = Bench::started().await?;
        let server = bench.pid()?;
        let cost = Cost { report, server };
        let mut api = bench.connect().await?;
        for which in ["first", "second"] {
            cost.of(&format!("{which}_discovery"), async || discovery(&mut api).await).await?;
            cost.of(&format!("{which}_openapi_v2"), async || api.drain("/openapi/v2").await).await?;
            cost.of(&format!("{which}_openapi_v3"), async || openapi_v3(&mut api).await).await?;
        }

        let mut connections = Vec::new();
        for _ in 0..CLIENTS {
            connections.push(bench.connect().await?);
        }
        bench.namespace(&mut api, "many").await?;
        let (pod, mut there) = (PendingPod::new()?, 0);
        for pods in STEPS {
            let before = usage::memory(server).rss;
            let path = "/api/v1/namespaces/many/pods";
            Load::fill(&connections, path, there..pods, |number| pod.number(number)).await?;
            tokio::time::sleep(SETTLED).await;
            let growth = usage::memory(server).rss - before;
            report.figure(&format!("per_1000_of_{pods}_pods"), growth * 1000.0 / (pods - there) as f64, "MB");
            progress!("{pods} pods are there");
            there = pods;
        }
        report.figure("server_rss", usage::memory(server).rss, "MB");
        Ok(())
    })
}
