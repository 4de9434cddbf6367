//! `start`: from the start of the process until `/readyz` says ok, and until a first pod is Running, its image being
//! there. On a new data directory, and again on one that exists.

use anyhow::Result;
use bytes::Bytes;
use canopus_benches::cluster::Bench;
use canopus_benches::watching::Events;
use canopus_benches::{Report, Samples, objects, progress, run};
use http::Method;
use std::time::{Duration, Instant};

const RUNS: usize = 7;
const PODS: &str = "/api/v1/namespaces/default/pods";

fn main() -> Result<()> {
    run(async || {
        let report = Report::new("start");
        let (mut ready, mut running, mut ready_again) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..RUNS {
            let mut bench = Bench::new()?;
            bench.import_image();
            let began = Instant::now();
            bench.launch();
            let mut api = bench.ready().await?;
            ready.push(began.elapsed());
            let mut events = Events::of(&mut api, PODS).await?;
            // As a user would: again and again, until the namespace has its service account.
            while !api.exchange(Method::POST, PODS, objects::running_pod("first")).await?.0.is_success() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            running.push(events.running(1).await?["first"] - began);
            api.call(Method::DELETE, &format!("{PODS}/first"), Bytes::new()).await?;
            events.deleted(1).await?;
            bench.stop();
            let began = Instant::now();
            bench.launch();
            bench.ready().await?;
            ready_again.push(began.elapsed());
            progress!("run {}: {:?}, {:?}, again {:?}", round + 1, ready[round], running[round], ready_again[round]);
        }
        let (ready, running, again): (Samples, Samples, Samples) =
            (ready.into_iter().collect(), running.into_iter().collect(), ready_again.into_iter().collect());
        report.goal("ready_p50", ready.ms(50), "ms", 300.0);
        report.figure("ready_p99", ready.ms(99), "ms");
        report.goal("first_pod_running_p50", running.ms(50), "ms", 2000.0);
        report.figure("first_pod_running_p99", running.ms(99), "ms");
        report.goal("ready_again_p50", again.ms(50), "ms", 300.0);
        report.figure("ready_again_p99", again.ms(99), "ms");
        Ok(())
    })
}
