//! The agent's beginning: what has to be there before the first pod.

use std::sync::Arc;
use std::time::Duration;

use canopus_api::{Api, FieldSelector, Gvr, ListOptions, Target};
use canopus_client::{Informer, Recorder};
use canopus_images::Images;
use canopus_net::podnetwork::{PodNetwork, PodNetworkConfig};
use canopus_runtime::Runtime;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::container::parse_resolv_conf;
use crate::node::Node;
use crate::registration::{Facts, Registration};
use crate::sources::Sources;
use crate::{Config, Error, registration};

/// How long to wait for the pod range before the Node is said not to be ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// Registers the Node, waits for its range of pod addresses and opens everything that pods need.
pub(crate) async fn open(
    config: Config,
    api: Arc<dyn Api>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Node, Error> {
    let facts = facts(&config)?;
    let images = Images::open(config.image_root.clone()).await?;
    let recorder = Recorder::start(api.clone(), "kubelet", &config.node_name, shutdown.clone());
    let (ready, network_ready) = watch::channel(false);
    let registration = Registration {
        facts: facts.clone(),
        api: api.clone(),
        images: images.clone(),
        recorder: recorder.clone(),
        state_dir: config.state_dir.clone(),
        network_ready,
    };
    registration.begin().await;
    let runtime = config.runtime.clone();
    let runtime =
        tokio::task::spawn_blocking(move || Runtime::open(runtime)).await.map_err(|_| Error::Interrupted)??;
    for warning in runtime.warnings() {
        tracing::warn!("{warning}");
    }
    let mut ranges = Box::pin(pod_ranges(api.clone(), config.node_name.clone(), shutdown.clone()));
    let early = tokio::time::timeout(PATIENCE, &mut ranges).await;
    let network = match early {
        Ok(ranges) => {
            let network = open_network(&config, ranges).await?;
            ready.send_replace(true);
            tasks.spawn(registration.run(shutdown.clone()));
            network
        }
        Err(_) => {
            tracing::warn!("the node has no range of pod addresses yet");
            tasks.spawn(registration.run(shutdown.clone()));
            let network = open_network(&config, ranges.await).await?;
            ready.send_replace(true);
            network
        }
    };
    let resolv = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
    let services = Target::new(&Gvr::new("", "v1", "services"), "", "");
    let own = field("spec.nodeName", &config.node_name);
    Ok(Node {
        services: Informer::start(api.clone(), services, ListOptions::default(), shutdown.clone()),
        pods: Informer::start(api.clone(), Target::new(&Node::gvr(), "", ""), own, shutdown.clone()),
        sources: Sources::new(api.clone(), shutdown.clone()),
        recorder,
        max_pods: config.max_pods,
        name: config.node_name,
        ip: config.node_ip,
        state_dir: config.state_dir,
        log_dir: config.log_dir,
        cluster_dns: config.cluster_dns,
        cluster_domain: config.cluster_domain,
        host_dns: parse_resolv_conf(&resolv),
        memory_capacity: facts.memory,
        allocatable_memory: facts.allocatable_memory(),
        cpu_capacity: i64::try_from(facts.cpus).unwrap_or(1) * 1000,
        api,
        runtime: Arc::new(runtime),
        images,
        network,
        turns: Semaphore::new((2 * facts.cpus).max(8)),
        wakers: Mutex::default(),
    })
}

fn facts(config: &Config) -> Result<Facts, Error> {
    std::fs::create_dir_all(&config.state_dir)?;
    let disk = nix::sys::statvfs::statvfs(&config.state_dir).map_err(std::io::Error::from)?;
    Ok(Facts {
        name: config.node_name.clone(),
        ip: config.node_ip,
        max_pods: config.max_pods,
        thresholds: config.eviction_hard,
        version: config.version.clone(),
        port: config.server.port,
        cpus: std::thread::available_parallelism()?.get(),
        memory: registration::memory_capacity()?,
        disk: i64::try_from(disk.blocks().saturating_mul(disk.fragment_size())).unwrap_or(i64::MAX),
    })
}

fn field(name: &str, value: &str) -> ListOptions {
    ListOptions { fields: FieldSelector::equal(name, value), ..ListOptions::default() }
}

/// The Node's `spec.podCIDRs`, as soon as they are assigned.
async fn pod_ranges(api: Arc<dyn Api>, name: String, shutdown: CancellationToken) -> Vec<IpNet> {
    let token = shutdown.child_token();
    let nodes = Target::new(&Gvr::new("", "v1", "nodes"), "", "");
    let informer = Informer::start(api, nodes, field("metadata.name", &name), token.clone());
    let (sender, mut receiver) = watch::channel(Vec::new());
    informer.on_change(move |change| {
        let node = change.object().value();
        let ranges: Vec<IpNet> =
            node["spec"]["podCIDRs"].items().iter().filter_map(|range| range.str().parse().ok()).collect();
        if !ranges.is_empty() {
            sender.send_replace(ranges);
        }
    });
    let found = receiver.wait_for(|ranges| !ranges.is_empty()).await.map(|ranges| ranges.clone());
    token.cancel();
    match found {
        Ok(ranges) => ranges,
        // The watch ends with the agent, which nobody waits for then.
        Err(_) => std::future::pending().await,
    }
}

async fn open_network(config: &Config, pod_cidrs: Vec<IpNet>) -> Result<Arc<PodNetwork>, Error> {
    let network = PodNetworkConfig {
        bridge: config.bridge.clone(),
        pod_cidrs,
        mtu: None,
        state_dir: config.state_dir.join("network"),
    };
    let services = config.service_cidrs.clone();
    let opened = tokio::task::spawn_blocking(move || -> Result<_, Error> {
        let network = PodNetwork::open(network)?;
        for cidr in services {
            network.ensure_service_route(cidr)?;
        }
        Ok(Arc::new(network))
    });
    opened.await.map_err(|_| Error::Interrupted)?
}
