//! `pod-start`: from sending a pod to seeing it Running on a watch, the image being there: one by one, then 10 and 100
//! at once.

use anyhow::{Context, Result};
use bytes::Bytes;
use canopus_benches::watching::Events;
use canopus_benches::{Bench, Connection, Report, Samples, objects, progress, run, usage};
use http::Method;
use std::time::{Duration, Instant};

const ONE_BY_ONE: usize = 60;
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Starts pods all at once; how long each took. They are deleted again.
async fn at_once(api: &mut Connection, events: &mut Events, prefix: &str, count: usize) -> Result<Samples> {
    let names: Vec<String> = (0..count).map(|i| format!("{prefix}-{i}")).collect();
    let began = Instant::now();
    let mut creates = tokio::task::JoinSet::new();
    for name in &names {
        let (mut api, pod) = (api.clone(), objects::running_pod(name));
        creates.spawn(async move { api.call(Method::POST, PODS, pod).await });
    }
    let seen = events.running(count).await?;
    while let Some(created) = creates.join_next().await {
        created??;
    }
    for name in &names {
        api.call(Method::DELETE, &format!("{PODS}/{name}"), Bytes::new()).await?;
    }
    events.deleted(count).await?;
    // What is left of them goes in peace.
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(seen.values().map(|at| *at - began).collect())
}

fn main() -> Result<()> {
    run(async || {
        let report = Report::new("pod-start");
        let bench = Bench::started().await?;
        bench.import_image();
        let mut api = bench.connect().await?;
        let mut events = Events::of(&mut api, PODS).await?;
        let before = usage::cpu(bench.pid()?)?;
        let mut times = Vec::new();
        for i in 0..ONE_BY_ONE {
            let took = at_once(&mut api, &mut events, &format!("single-{i}"), 1).await.with_context(|| bench.log())?;
            times.push(Duration::from_secs_f64(took.ms(100) / 1000.0));
        }
        let cpu = usage::cpu(bench.pid()?)? - before;
        let single: Samples = times.into_iter().collect();
        progress!("{} pods one by one", single.len());
        report.goal("one_p50", single.ms(50), "ms", 100.0);
        report.goal("one_p99", single.ms(99), "ms", 250.0);
        report.figure("one_cpu", cpu.as_secs_f64() * 1000.0 / ONE_BY_ONE as f64, "ms");
        for (count, figure) in [(10, "all_of_10"), (100, "all_of_100")] {
            let times = at_once(&mut api, &mut events, &figure.replace('_', "-"), count).await;
            let times = times.with_context(|| bench.log())?;
            if count == 100 {
                report.goal(figure, times.ms(100), "ms", 5000.0);
            } else {
                report.figure(figure, times.ms(100), "ms");
            }
        }
        Ok(())
    })
}
