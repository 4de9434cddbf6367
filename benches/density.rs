//! `density`: a Deployment of 10,000 replicas on 5,000 simulated nodes, from its creation until the server has been told
//! of every pod that it runs; every write durable. Then 30,000 more, to see whether the rate holds as the cluster
//! fills. First in one process, without a network. Then nodes and client over HTTPS, each node with a certificate and a
//! connection of its own, to a `canopus up` in a process of its own. Then in one process again, smaller, to tell by
//! threads what is spent on whom.
//!
//! `CANOPUS_DENSITY=nodes,pods,more` measures another size, `CANOPUS_DENSITY_PARTS=in-process,https,by-component` some of the parts.

use anyhow::{Context, Result, ensure};
use canopus_api::{Api, Gvr, ListOptions, Patch, Status, Target, Value, WriteOptions, value};
use canopus_apiserver::pki::{self, Pki};
use canopus_benches::{Bench, Report, progress, usage};
use canopus_client::RemoteApi;
use canopus_testkit::control_plane::{ControlPlane, Threads};
use canopus_testkit::nodes::SimulatedNodes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

const GOAL: f64 = 3307.0;

struct Size {
    nodes: usize,
    pods: usize,
    more: usize,
}

impl Size {
    fn chosen() -> Result<Size> {
        let text = std::env::var("CANOPUS_DENSITY").unwrap_or_else(|_| "5000,10000,30000".into());
        let numbers: Vec<usize> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let [nodes, pods, more] = numbers[..] else { anyhow::bail!("CANOPUS_DENSITY is not nodes,pods,more") };
        Ok(Size { nodes, pods, more })
    }
}

/// Threads of one component, named after it.
fn threads(name: &'static str) -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build()?)
}

fn failed(error: Status) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

fn deployment(replicas: usize) -> Value {
    let resources = value!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}});
    value!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": i64::try_from(replicas).unwrap_or(i64::MAX),
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "app", "image": "registry.example/web:1.2.3", "resources": resources,
                    "ports": [{"containerPort": 8080, "name": "http"}],
                    "env": [{"name": "PORT", "value": "8080"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
                }]},
            },
        },
    })
}

fn deployments(name: &str) -> Target {
    Target::new(&Gvr::new("apps", "v1", "deployments"), "default", name)
}

async fn account(admin: &Arc<dyn Api>) {
    let target = Target::new(&Gvr::new("", "v1", "serviceaccounts"), "default", "default");
    while admin.get(&target).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// CPU time by thread name.
fn by_thread() -> Result<BTreeMap<String, Duration>> {
    let mut all = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let dir = task?.path();
        let (Ok(name), Ok(stat)) =
            (std::fs::read_to_string(dir.join("comm")), std::fs::read_to_string(dir.join("schedstat")))
        else {
            continue;
        };
        let nanos = stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        *all.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(nanos);
    }
    Ok(all)
}

/// One wave of pods: from `cause` until all run.
async fn wave(
    report: &Report,
    name: &str,
    cluster: &Measured<'_>,
    pods: usize,
    cause: impl Future<Output = Result<(), Status>>,
) -> Result<()> {
    let nodes = cluster.nodes;
    let before = nodes.count();
    let (cpu, server, threads, began) = (usage::own_cpu()?, cluster.server_cpu()?, by_thread()?, Instant::now());
    cause.await.map_err(failed)?;
    let all = async {
        let mut look = tokio::time::interval(Duration::from_secs(2));
        loop {
            tokio::select! {
                () = nodes.ran(before + pods) => return,
                _ = look.tick() => progress!("{name}: {} of {pods} after {:.1?}", nodes.count() - before, began.elapsed()),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(900), all).await.context("the pods do not run")?;
    let took = began.elapsed();
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / pods as f64;
    report.goal(&format!("{name}_pods"), pods as f64 / took.as_secs_f64(), "1/s", GOAL);
    let server = cluster.server_cpu()? - server;
    report.goal(&format!("{name}_cpu_per_pod"), each(usage::own_cpu()? - cpu + server), "us", 605.0);
    if !server.is_zero() {
        report.figure(&format!("{name}_cpu_per_pod_server"), each(server), "us");
    }
    for (thread, now) in by_thread()? {
        let spent = now.saturating_sub(threads.get(&thread).copied().unwrap_or_default());
        if each(spent) >= 1.0 {
            report.figure(&format!("{name}_cpu_per_pod_{thread}"), each(spent), "us");
        }
    }
    Ok(())
}

/// A cluster and how to see what it costs.
struct Measured<'a> {
    admin: Arc<dyn Api>,
    nodes: &'a SimulatedNodes,
    /// The server's process, if it has one of its own.
    server: Option<u32>,
}

impl Measured<'_> {
    fn server_cpu(&self) -> Result<Duration> {
        self.server.map_or(Ok(Duration::ZERO), usage::cpu)
    }
}

async fn measure(report: &Report, size: &Size, cluster: &Measured<'_>) -> Result<()> {
    let admin = &cluster.admin;
    account(admin).await;
    let process = cluster.server.unwrap_or_else(std::process::id);
    usage::reset_peak(process)?;
    let options = WriteOptions::default();
    wave(report, "first", cluster, size.pods, async {
        admin.create(&deployments(""), deployment(size.pods), &options).await.map(|_| ())
    })
    .await?;
    if size.more > 0 {
        wave(report, "more", cluster, size.more, async {
            let replicas = i64::try_from(size.pods + size.more).unwrap_or(i64::MAX);
            let patch = Patch::Merge(value!({"spec": {"replicas": replicas}}));
            admin.patch(&deployments("web"), patch, &options).await.map(|_| ())
        })
        .await?;
    }
    report.figure("peak", usage::peak(process), "MB");
    let pods = admin.list(&Target::new(&Gvr::new("", "v1", "pods"), "", ""), &ListOptions::default()).await;
    let pods = pods.map_err(failed)?.items;
    let running = pods.iter().filter(|p| p.facts.field("status.phase") == Some("Running")).count();
    ensure!(running == size.pods + size.more, "{running} of {} pods run", pods.len());
    let body: usize = pods.iter().map(|p| p.body().len()).sum();
    report.figure("pod_size", body as f64 / pods.len() as f64, "bytes");
    Ok(())
}

/// A cluster of `size`, measured. Its components run on the threads that `runtimes` are for: the nodes, the API server, the
/// controllers, the scheduler.
fn cluster(report: &Report, size: &Size, runtimes: [&Runtime; 4]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [nodes, server, controllers, scheduler] = runtimes;
    nodes.block_on(async {
        let handles = Threads {
            server: server.handle().clone(),
            controllers: controllers.handle().clone(),
            scheduler: scheduler.handle().clone(),
        };
        let plane = ControlPlane::start(dir.path(), "100.64.0.0/10", &handles).await?;
        let began = Instant::now();
        let nodes = SimulatedNodes::join(size.nodes, |name| std::future::ready(Ok(plane.node(&name)))).await;
        let nodes = nodes.map_err(failed)?;
        progress!("{} nodes joined in {:.1?}", size.nodes, began.elapsed());
        measure(report, size, &Measured { admin: plane.admin(), nodes: &nodes, server: None }).await
    })
}

/// The same with the server in a process of its own and everybody else on the network.
async fn over_https(report: &Report, size: &Size) -> Result<()> {
    let mut bench = Bench::with(&["--cluster-cidr", "100.64.0.0/10"])?;
    bench.launch();
    let mut api = bench.ready().await?;
    bench.usable(&mut api).await?;
    let config = bench.kubeconfig()?;
    let url = bench.url();
    let admin: Arc<dyn Api> = Arc::new(RemoteApi::new(&url, config.tls()?, None, "kubectl"));
    // The cluster's one real node is not to run any of it.
    let node = Target::new(&Gvr::new("", "v1", "nodes"), "", canopus_benches::cluster::NODE);
    let cordon = Patch::Merge(value!({"spec": {"unschedulable": true}}));
    admin.patch(&node, cordon, &WriteOptions::default()).await.map_err(failed)?;
    let pki = Pki::open(&bench.data_dir().join("pki"), canopus_client::now())?;
    let door = |name: String| {
        let identity = pki.node_client(&name).and_then(|identity| pki::client_config(pki.ca_pem(), Some(&identity)));
        let api = identity.map(|tls| Arc::new(RemoteApi::new(&url, tls, None, "kubelet")) as Arc<dyn Api>);
        std::future::ready(api.map_err(Status::internal))
    };
    let began = Instant::now();
    let nodes = SimulatedNodes::join(size.nodes, door).await.map_err(failed)?;
    progress!("{} nodes joined over HTTPS in {:.1?}", size.nodes, began.elapsed());
    measure(report, size, &Measured { admin, nodes: &nodes, server: Some(bench.pid()?) }).await
}

fn chosen(part: &str) -> bool {
    std::env::var("CANOPUS_DENSITY_PARTS").map_or(true, |parts| parts.split(',').any(|p| p == part))
}

fn main() -> Result<()> {
    let size = Size::chosen()?;
    let all = threads("all")?;
    if chosen("in-process") {
        cluster(&Report::new("density"), &size, [&all; 4])?;
    }
    if chosen("https") {
        all.block_on(over_https(&Report::of("density-https"), &size))?;
    }
    all.shutdown_background();
    if chosen("by-component") {
        // Smaller, to see who spends it.
        by_component(&Size { nodes: size.nodes / 2, pods: size.pods / 2, more: 0 })?;
    }
    Ok(())
}

fn by_component(size: &Size) -> Result<()> {
    let names = ["nodes", "apiserver", "controllers", "scheduler"];
    let runtimes = names.map(threads).into_iter().collect::<Result<Vec<_>>>()?;
    let [nodes, server, controllers, scheduler] = &runtimes[..] else { unreachable!("there are four") };
    cluster(&Report::of("density-by-component"), size, [nodes, server, controllers, scheduler])?;
    runtimes.into_iter().for_each(Runtime::shutdown_background);
    Ok(())
}
