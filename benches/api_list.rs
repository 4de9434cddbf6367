//! `api-list`: lists of 5,000 pods of about 3 KB: alone, ten at once, and in pages of 500.

use anyhow::{Result, ensure};
use canopus_api::json;
use canopus_benches::load::Load;
use canopus_benches::objects::PendingPod;
use canopus_benches::{Bench, Connection, Report, Samples, progress, run, usage};
use http::Method;
use std::cell::Cell;
use std::time::{Duration, Instant};

const PODS: usize = 5000;
const LISTS: usize = 30;
const AT_ONCE: usize = 10;
const PAGE: usize = 500;
const PATH: &str = "/api/v1/namespaces/listed/pods";

/// All pods, page by page; how many pages.
async fn pages(api: &mut Connection) -> Result<usize> {
    let mut token = String::new();
    for page in 1.. {
        let path = format!("{PATH}?limit={PAGE}&continue={}", canopus_client::remote::encode(&token));
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

fn main() -> Result<()> {
    run(async || {
        let report = Report::new("api-list");
        let bench = Bench::started().await?;
        let server = bench.pid()?;
        let mut connections = Vec::new();
        for _ in 0..AT_ONCE {
            connections.push(bench.connect().await?);
        }
        bench.namespace(&mut connections[0], "listed").await?;
        let (pod, next) = (&PendingPod::new()?, &Cell::new(0));
        Load::drive(server, AT_ONCE, Duration::MAX / 4, async |client, _| {
            let mut api = connections[client].clone();
            while next.get() < PODS {
                api.call(Method::POST, PATH, pod.number(next.replace(next.get() + 1))).await?;
            }
            Ok(())
        })
        .await?;
        progress!("{PODS} pods are there");

        let api = &mut connections[0].clone();
        let size = api.drain(PATH).await?;
        let (cpu, own_cpu) = (usage::cpu(server)?, usage::own_cpu()?);
        let mut times = Vec::new();
        for _ in 0..LISTS {
            let began = Instant::now();
            ensure!(api.drain(PATH).await? == size, "lists of the same objects differ");
            times.push(began.elapsed());
        }
        let times: Samples = times.into_iter().collect();
        let each = |cpu: Duration| cpu.as_secs_f64() * 1000.0 / LISTS as f64;
        report.goal("list_p50", times.ms(50), "ms", 40.0);
        report.figure("list_p99", times.ms(99), "ms");
        report.figure("list_server_cpu", each(usage::cpu(server)? - cpu), "ms");
        report.figure("list_generator_cpu", each(usage::own_cpu()? - own_cpu), "ms");
        report.figure("list_size", size as f64 / 1e6, "MB");

        let resident = usage::memory(server).rss;
        usage::reset_peak(server)?;
        let began = Instant::now();
        let all = connections.iter().map(|connection| {
            let mut api = connection.clone();
            async move { api.drain(PATH).await }
        });
        futures::future::try_join_all(all).await?;
        report.figure("ten_at_once", began.elapsed().as_secs_f64() * 1000.0, "ms");
        report.figure("ten_at_once_memory_growth", usage::peak(server) - resident, "MB");
        report.figure("server_rss", resident, "MB");

        let began = Instant::now();
        ensure!(pages(api).await? == PODS / PAGE, "the pages do not add up");
        report.figure("pages_of_500", began.elapsed().as_secs_f64() * 1000.0, "ms");
        Ok(())
    })
}
