//! `api-list`: lists of 5,000 and 50,000 pods of about 3 KB: alone, ten at once, and in pages of 500; then ten at once
//! of 1 GB.

use anyhow::{Result, ensure};
use bytes::Bytes;
use canopus_api::{json, value};
use canopus_benches::load::Load;
use canopus_benches::objects::PendingPod;
use canopus_benches::{Bench, Connection, Report, Samples, progress, run, usage};
use std::time::{Duration, Instant};

const LISTS: usize = 30;
const AT_ONCE: usize = 10;
const PAGE: usize = 500;
/// ConfigMaps of so many bytes, and how many.
const LARGE: (usize, usize) = (100_000, 10_000);

/// All objects, page by page; how many pages.
async fn pages(api: &mut Connection, path: &str) -> Result<usize> {
    let mut token = String::new();
    for page in 1.. {
        let path = format!("{path}?limit={PAGE}&continue={}", canopus_client::remote::encode(&token));
        let answer = api.get(&path).await?;
        // The metadata comes first; the items are not worth the generator's time.
        let start = answer.windows(11).position(|w| w == b"\"metadata\":").unwrap_or(0) + 11;
        let end = answer[start..].iter().position(|b| *b == b'}').map_or(start, |n| start + n + 1);
        token = json::parse(&answer[start..end])?["continue"].str().into();
        if token.is_empty() {
            return Ok(page);
        }
    }
    Ok(0)
}

struct Lists<'a> {
    report: &'a Report,
    server: u32,
    connections: &'a [Connection],
}

impl Lists<'_> {
    /// Lists of a namespace of `pods` pods, one after the other.
    async fn alone(&self, path: &str, pods: usize) -> Result<()> {
        let mut api = self.connections[0].clone();
        let size = api.drain(path).await?;
        let (cpu, own_cpu) = (usage::cpu(self.server)?, usage::own_cpu()?);
        let mut times = Vec::new();
        for _ in 0..LISTS {
            let began = Instant::now();
            ensure!(api.drain(path).await? == size, "lists of the same objects differ");
            times.push(began.elapsed());
        }
        let times: Samples = times.into_iter().collect();
        let each = |cpu: Duration| cpu.as_secs_f64() * 1000.0 / LISTS as f64;
        let named = |what: &str| format!("list_{pods}_{what}");
        match pods {
            5000 => self.report.goal(&named("p50"), times.ms(50), "ms", 40.0),
            _ => self.report.figure(&named("p50"), times.ms(50), "ms"),
        }
        self.report.figure(&named("p99"), times.ms(99), "ms");
        self.report.figure(&named("server_cpu"), each(usage::cpu(self.server)? - cpu), "ms");
        self.report.figure(&named("generator_cpu"), each(usage::own_cpu()? - own_cpu), "ms");
        self.report.figure(&named("size"), size as f64 / 1e6, "MB");
        let began = Instant::now();
        ensure!(pages(&mut api, path).await? == pods / PAGE, "the pages do not add up");
        self.report.figure(&named("in_pages_of_500"), began.elapsed().as_secs_f64() * 1000.0, "ms");
        Ok(())
    }

    async fn at_once(&self, path: &str, what: &str, goal: Option<f64>) -> Result<()> {
        let resident = usage::memory(self.server).rss;
        usage::reset_peak(self.server)?;
        let began = Instant::now();
        let all = self.connections.iter().map(|connection| {
            let mut api = connection.clone();
            async move { api.drain(path).await }
        });
        let sizes = futures::future::try_join_all(all).await?;
        self.report.figure(&format!("ten_of_{what}"), began.elapsed().as_secs_f64() * 1000.0, "ms");
        self.report.figure(&format!("ten_of_{what}_size"), sizes.iter().sum::<usize>() as f64 / 1e6, "MB");
        let (growth, name) = (usage::peak(self.server) - resident, format!("ten_of_{what}_memory_growth"));
        match goal {
            Some(goal) => self.report.goal(&name, growth, "MB", goal),
            None => self.report.figure(&name, growth, "MB"),
        }
        self.report.figure(&format!("server_rss_with_{what}"), resident, "MB");
        Ok(())
    }
}

fn main() -> Result<()> {
    run(async || {
        let report = &Report::new("api-list");
        let bench = Bench::started().await?;
        let mut connections = Vec::new();
        for _ in 0..AT_ONCE {
            connections.push(bench.connect().await?);
        }
        let lists = Lists { report, server: bench.pid()?, connections: &connections };
        let pod = PendingPod::new()?;
        for pods in [5_000, 50_000] {
            let namespace = format!("listed-{pods}");
            bench.namespace(&mut connections[0].clone(), &namespace).await?;
            let path = format!("/api/v1/namespaces/{namespace}/pods");
            Load::fill(&connections, &path, 0..pods, |number| pod.number(number)).await?;
            progress!("{pods} pods are there");
            lists.alone(&path, pods).await?;
            lists.at_once(&path, &pods.to_string(), None).await?;
        }

        bench.namespace(&mut connections[0].clone(), "large").await?;
        let path = "/api/v1/namespaces/large/configmaps";
        let (size, count) = LARGE;
        let content = "0123456789".repeat(size / 10);
        Load::fill(&connections, path, 0..count, |number| {
            let map = value!({"metadata": {"name": format!("m-{number}")}, "data": {"k": content.as_str()}});
            Bytes::from(json::to_vec(&map))
        })
        .await?;
        progress!("{count} ConfigMaps of {size} bytes are there");
        lists.at_once(path, "1_gb", Some(300.0)).await
    })
}
