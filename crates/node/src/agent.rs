//! The agent as a whole: starts the parts, gives every pod a worker, and clears what nobody owns.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use canopus_api::{Api, FieldSelector, Gvr, ListOptions, Object, Target, View};
use canopus_client::{Informer, Recorder};
use canopus_images::Images;
use canopus_net::podnetwork::{PodNetwork, PodNetworkConfig};
use canopus_runtime::{Runtime, RuntimeEvent, SandboxStatus};
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::container::{POD_NAME, POD_NAMESPACE, parse_resolv_conf};
use crate::node::Node;
use crate::observe;
use crate::registration;
use crate::sources::Sources;
use crate::worker::{self, Worker};

/// Where to serve logs, exec and health.
pub struct Server {
    pub port: u16,
    /// Asks for client certificates and verifies those it is shown.
    pub tls: Arc<rustls::ServerConfig>,
}

/// Everything a node agent has to be told.
pub struct Config {
    pub node_name: String,
    /// `/var/lib/canopus/node`.
    pub state_dir: PathBuf,
    /// `/var/log/pods`, or a directory of the data directory's own.
    pub log_dir: PathBuf,
    pub node_ip: IpAddr,
    /// Of this node, at most one of each family.
    pub pod_cidrs: Vec<IpNet>,
    /// The bridge's name: "cni0".
    pub bridge: String,
    /// Routed so that the service proxy sees connections from the host.
    pub service_cidrs: Vec<IpNet>,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    pub runtime: canopus_runtime::Config,
    pub image_root: PathBuf,
    pub server: Server,
    pub max_pods: u32,
    /// `v1.36.0`.
    pub version: String,
}

/// Runs the agent until `shutdown`. Containers run on.
pub async fn run(config: Config, api: Arc<dyn Api>, shutdown: CancellationToken) -> Result<(), Error> {
    let (facts, server) = (facts(&config)?, config.server.tls.clone());
    let port = config.server.port;
    let node = Arc::new(open(config, api, &facts, &shutdown).await?);
    let heard = node.runtime.events();
    let waking = node.clone();
    // Ends when the runtime does, at the process's end.
    std::thread::Builder::new().name("runtime-events".to_owned()).spawn(move || {
        while let Ok(event) = heard.recv() {
            wake(&waking, &event);
        }
    })?;
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await?;
    let tasks = TaskTracker::new();
    tasks.spawn(registration::run(facts, node.api.clone(), node.images.clone(), shutdown.clone()));
    tasks.spawn(crate::server::serve(node.clone(), listener, server, shutdown.clone()));
    tokio::select! {
        result = Agent { node, tasks: tasks.clone(), shutdown: shutdown.clone() }.run() => result?,
        () = shutdown.cancelled() => {}
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

fn facts(config: &Config) -> Result<registration::Facts, Error> {
    std::fs::create_dir_all(&config.state_dir)?;
    let disk = nix::sys::statvfs::statvfs(&config.state_dir).map_err(std::io::Error::from)?;
    Ok(registration::Facts {
        name: config.node_name.clone(),
        ip: config.node_ip,
        max_pods: config.max_pods,
        version: config.version.clone(),
        port: config.server.port,
        cpus: std::thread::available_parallelism()?.get(),
        memory: registration::memory_capacity()?,
        disk: i64::try_from(disk.blocks().saturating_mul(disk.fragment_size())).unwrap_or(i64::MAX),
    })
}

async fn open(
    config: Config,
    api: Arc<dyn Api>,
    facts: &registration::Facts,
    shutdown: &CancellationToken,
) -> Result<Node, Error> {
    let images = Images::open(config.image_root).await?;
    let network = PodNetworkConfig {
        bridge: config.bridge,
        pod_cidrs: config.pod_cidrs,
        mtu: None,
        state_dir: config.state_dir.join("network"),
    };
    let (runtime, services) = (config.runtime, config.service_cidrs);
    let opened = tokio::task::spawn_blocking(move || -> Result<_, Error> {
        let runtime = Runtime::open(runtime)?;
        for warning in runtime.warnings() {
            tracing::warn!("{warning}");
        }
        let network = PodNetwork::open(network)?;
        for cidr in services {
            network.ensure_service_route(cidr)?;
        }
        let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Ok((Arc::new(runtime), Arc::new(network), parse_resolv_conf(&resolv)))
    });
    let (runtime, network, host_dns) = opened.await.map_err(|_| Error::Interrupted)??;
    let services = Target::new(&Gvr::new("", "v1", "services"), "", "");
    let fields = FieldSelector::equal("spec.nodeName", &config.node_name);
    let own = ListOptions { fields, ..ListOptions::default() };
    Ok(Node {
        recorder: Recorder::start(api.clone(), "kubelet", &config.node_name, shutdown.clone()),
        services: Informer::start(api.clone(), services, ListOptions::default(), shutdown.clone()),
        pods: Informer::start(api.clone(), Target::new(&Node::gvr(), "", ""), own, shutdown.clone()),
        max_pods: config.max_pods,
        sources: Sources::new(api.clone(), shutdown.clone()),
        name: config.node_name,
        ip: config.node_ip,
        state_dir: config.state_dir,
        log_dir: config.log_dir,
        cluster_dns: config.cluster_dns,
        cluster_domain: config.cluster_domain,
        host_dns,
        memory_capacity: facts.memory,
        cpu_capacity: i64::try_from(facts.cpus).unwrap_or(1) * 1000,
        api,
        runtime,
        images,
        network,
        wakers: Mutex::default(),
    })
}

fn wake(node: &Node, event: &RuntimeEvent) {
    let sandbox = match event {
        RuntimeEvent::Started { sandbox, .. }
        | RuntimeEvent::Exited { sandbox, .. }
        | RuntimeEvent::SandboxStopped { sandbox } => sandbox,
        _ => return,
    };
    if let Some(waker) = node.wakers.lock().get(sandbox) {
        waker.notify_one();
    }
}

struct Agent {
    node: Arc<Node>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

type Known = HashMap<String, watch::Sender<Option<Arc<Object>>>>;

impl Agent {
    async fn run(self) -> Result<(), Error> {
        self.node.pods.synced().await;
        self.node.services.synced().await;
        let mut sandboxes = self.node.blocking(|node| observe::by_pod(&node.runtime)).await??;
        let mut known = Known::new();
        // Those of pods that the API still has are carried on with, of whatever age; others are cleared.
        let listed: BTreeSet<String> = self.node.pods.list("").iter().map(|p| p.facts.uid.to_string()).collect();
        let orphans: Vec<String> = sandboxes.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        self.clear(orphans.into_iter().filter_map(|uid| sandboxes.remove(&uid).map(|s| (uid, s))).collect(), &listed)
            .await?;
        let (sender, mut changes) = mpsc::unbounded_channel();
        self.node.pods.on_change(move |change| {
            let deleted = change.new.is_none();
            // Fails only once nobody listens any more.
            let _ = sender.send((change.object().clone(), deleted));
        });
        while let Some((pod, deleted)) = changes.recv().await {
            let uid = pod.facts.uid.to_string();
            known.retain(|_, sender| !sender.is_closed());
            match (known.get(&uid), deleted) {
                (Some(worker), _) => drop(worker.send(if deleted { None } else { Some(pod) })),
                (None, true) => {}
                (None, false) => {
                    let own = sandboxes.remove(&uid).unwrap_or_default();
                    known.insert(uid, self.start(&pod, own));
                }
            }
            self.restarted_name(&known);
        }
        Ok(())
    }

    /// A pod that was deleted and made anew under its name between two lists shows as a change: the old one is gone.
    fn restarted_name(&self, known: &Known) {
        for (uid, sender) in known {
            let gone = sender.borrow().as_ref().is_some_and(|old| {
                self.node.pods.by_key(&old.key()).is_none_or(|newest| newest.facts.uid != uid.as_str())
            });
            if gone {
                sender.send_replace(None);
            }
        }
    }

    fn start(&self, pod: &Arc<Object>, sandboxes: Vec<SandboxStatus>) -> watch::Sender<Option<Arc<Object>>> {
        let (sender, receiver) = watch::channel(Some(pod.clone()));
        let worker = Worker::new(self.node.clone(), pod.clone(), receiver, sandboxes);
        self.tasks.spawn(worker.run(self.shutdown.clone()));
        sender
    }

    async fn clear(&self, orphans: Vec<(String, Vec<SandboxStatus>)>, listed: &BTreeSet<String>) -> Result<(), Error> {
        let listed = listed.clone();
        self.node
            .blocking(move |node| -> Result<(), Error> {
                for (uid, sandboxes) in orphans {
                    let labels = sandboxes.first().map(|s| s.spec.labels.clone()).unwrap_or_default();
                    let get = |key: &str| labels.get(key).cloned().unwrap_or_default();
                    let ids: Vec<String> = sandboxes.into_iter().map(|s| s.id).collect();
                    tracing::info!(pod = %uid, "clearing up after a pod that is gone");
                    worker::clean(node, &ids, [&uid, &get(POD_NAMESPACE), &get(POD_NAME)])?;
                }
                node.network.reconcile(&listed)?;
                clear_directories(node, &listed)?;
                clear_logs(node, &listed)?;
                clear_roots(node)
            })
            .await?
    }
}

/// Directories of pods that are gone.
fn clear_directories(node: &Node, listed: &BTreeSet<String>) -> Result<(), Error> {
    let entries = match std::fs::read_dir(node.state_dir.join("pods")) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    for entry in entries {
        let entry = entry?;
        if !listed.contains(entry.file_name().to_string_lossy().as_ref()) {
            crate::volumes::teardown(&entry.path())?;
        }
    }
    Ok(())
}

/// Logs of pods that are gone: `<namespace>_<name>_<uid>`.
fn clear_logs(node: &Node, listed: &BTreeSet<String>) -> Result<(), Error> {
    let entries = match std::fs::read_dir(&node.log_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let [_, _, uid] = name.split('_').collect::<Vec<_>>().as_slice()
            && !listed.contains(*uid)
        {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Root file systems of containers that were never recorded or are gone.
fn clear_roots(node: &Node) -> Result<(), Error> {
    let known: BTreeSet<String> = node.runtime.list_containers(None)?.into_iter().map(|c| c.id).collect();
    for id in node.images.store().containers()? {
        if !known.contains(&id) {
            node.images.store().release(&id)?;
        }
    }
    Ok(())
}
