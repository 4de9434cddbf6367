//! `idle`: what a whole single-node cluster takes while nothing happens: after its start, and with ten pods.

use anyhow::{Context, Result};
use canopus_benches::watching::Events;
use canopus_benches::{Bench, Report, objects, progress, run, seconds, usage};
use http::Method;
use std::time::{Duration, Instant};

const PODS: &str = "/api/v1/namespaces/default/pods";
const TEN: usize = 10;
/// What a start leaves to be done is done by then.
const SETTLE: Duration = Duration::from_secs(15);

async fn observe(report: &Report, bench: &Bench, when: &str, pods: usize) -> Result<()> {
    tokio::time::sleep(SETTLE).await;
    let server = bench.pid()?;
    let shims = usage::running_from(&bench.data_dir().join("bin"));
    let all: Vec<u32> = shims.iter().copied().chain([server]).collect();
    let cpu = || all.iter().map(|pid| usage::cpu(*pid)).sum::<Result<Duration>>();
    let sleeps = || all.iter().flat_map(|pid| usage::sleeps(*pid)).collect();
    let (began, cpu_before, sleeps_before) = (Instant::now(), cpu()?, sleeps());
    tokio::time::sleep(seconds(30)).await;
    let took = began.elapsed().as_secs_f64();
    let used = (cpu()? - cpu_before).as_secs_f64();
    let canopus = usage::memory(server);
    let mut below = usage::Memory::default();
    shims.iter().for_each(|pid| below += usage::memory(*pid));
    report.goal(&format!("rss_{when}"), canopus.rss + below.rss, "MB", 60.0);
    report.figure(&format!("pss_{when}"), canopus.pss + below.pss, "MB");
    if pods > 0 {
        report.figure(&format!("shim_rss_{when}"), below.rss / pods as f64, "MB per pod");
        report.goal(&format!("shim_pss_{when}"), below.pss / pods as f64, "MB per pod", 1.0);
    }
    report.goal(&format!("cpu_{when}"), used / took * 100.0, "% of a core", 0.5);
    report.figure(&format!("wakeups_{when}"), usage::woken(&sleeps_before, &sleeps()) as f64 / took, "1/s");
    Ok(())
}

fn main() -> Result<()> {
    run(async || {
        let report = Report::new("idle");
        let bench = Bench::started().await?;
        bench.import_image();
        observe(&report, &bench, "empty", 0).await?;
        let mut api = bench.connect().await?;
        let mut events = Events::of(&mut api, PODS).await?;
        for i in 0..TEN {
            api.call(Method::POST, PODS, objects::running_pod(&format!("idle-{i}"))).await?;
        }
        events.running(TEN).await.with_context(|| bench.log())?;
        progress!("{TEN} pods run");
        drop((events, api));
        observe(&report, &bench, "10_pods", TEN).await
    })
}
