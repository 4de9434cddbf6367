//! The agent as a whole: starts the parts, gives every pod a worker, and clears what nobody owns.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use canopus_api::{Api, Object, View};
use canopus_runtime::cgroups::Resources;
use canopus_runtime::{RuntimeEvent, SandboxStatus};
use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::container::{self, POD_NAME, POD_NAMESPACE};
use crate::eviction::Thresholds;
use crate::node::Node;
use crate::observe;
use crate::pod::{self, Qos};
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
    /// What is kept free on this host.
    pub eviction_hard: Thresholds,
    /// `v1.36.0`.
    pub version: String,
}

/// Runs the agent until `shutdown`. Containers run on.
pub async fn run(config: Config, api: Arc<dyn Api>, shutdown: CancellationToken) -> Result<(), Error> {
    let (tls, port) = (config.server.tls.clone(), config.server.port);
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await?;
    let tasks = TaskTracker::new();
    let node = tokio::select! {
        node = crate::open::open(config, api, &tasks, &shutdown) => Arc::new(node?),
        () = shutdown.cancelled() => return Ok(()),
    };
    let heard = node.runtime.events();
    let waking = node.clone();
    // Ends when the runtime does, at the process's end.
    std::thread::Builder::new().name("runtime-events".to_owned()).spawn(move || {
        while let Ok(event) = heard.recv() {
            wake(&waking, &event);
        }
    })?;
    tasks.spawn(crate::server::serve(node.clone(), listener, tls, shutdown.clone()));
    tokio::select! {
        result = Agent { node, tasks: tasks.clone(), shutdown: shutdown.clone() }.run() => result?,
        () = shutdown.cancelled() => {}
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
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
        // Before anything is listed: a pod that goes while this begins is either not listed, or heard of.
        let (sender, mut changes) = mpsc::unbounded_channel();
        self.node.pods.on_change(move |change| {
            let deleted = change.new.is_none();
            // Fails only once nobody listens any more.
            let _ = sender.send((change.object().clone(), deleted));
        });
        let mut sandboxes = self.node.blocking(|node| observe::by_pod(&node.runtime)).await??;
        let mut known = Known::new();
        // Those of pods that the API still has are carried on with, of whatever age; others are cleared.
        let listed: BTreeSet<String> = self.node.pods.list("").iter().map(|p| p.facts.uid.to_string()).collect();
        let orphans: Vec<String> = sandboxes.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        self.clear(orphans.into_iter().filter_map(|uid| sandboxes.remove(&uid).map(|s| (uid, s))).collect(), &listed)
            .await?;
        let mut shares = 0;
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
            self.share_cpu(&mut shares).await?;
        }
        Ok(())
    }

    /// Burstable pods together get CPU time as they together ask for, best-effort ones what is left, as upstream.
    async fn share_cpu(&self, set: &mut u64) -> Result<(), Error> {
        let pods = self.node.pods.list("").into_iter().map(|p| p.value());
        let burstable = pods.filter(|p| !pod::is_terminal(p) && pod::qos(p) == Qos::Burstable);
        let wanted = container::shares(burstable.map(|p| pod::request(&p, "cpu")).sum());
        if wanted == std::mem::replace(set, wanted) {
            return Ok(());
        }
        let apply = move |node: &Node| -> std::io::Result<()> {
            for (class, shares) in [(Qos::Burstable, wanted), (Qos::BestEffort, container::shares(0))] {
                let limits = Resources { cpu_shares: Some(shares), ..Resources::default() };
                node.runtime.cgroups().create(&node.runtime.cgroup_path(class.cgroup()), &limits)?;
            }
            Ok(())
        };
        Ok(self.node.blocking(apply).await??)
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
