//! What the parts of one agent share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use canopus_api::{Api, Gvr, Value, View};
use canopus_client::{Informer, Recorder};
use canopus_images::Images;
use canopus_net::podnetwork::PodNetwork;
use canopus_runtime::Runtime;
use canopus_runtime::spec::DnsConfig;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::Error;
use crate::admission::Allocatable;
use crate::sources::Sources;

/// Shared by all workers.
pub struct Node {
    pub name: String,
    pub ip: IpAddr,
    pub state_dir: PathBuf,
    pub log_dir: PathBuf,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    pub host_dns: DnsConfig,
    pub memory_capacity: i64,
    /// Bytes that pods may ask for.
    pub allocatable_memory: i64,
    pub cpu_capacity: i64,
    pub api: Arc<dyn Api>,
    pub runtime: Arc<Runtime>,
    pub images: Images,
    pub network: Arc<PodNetwork>,
    pub recorder: Recorder,
    pub services: Arc<Informer>,
    /// Those bound to this node.
    pub pods: Arc<Informer>,
    pub max_pods: u32,
    pub sources: Sources,
    /// Work that blocks is short; more threads than these would only take memory.
    pub turns: Semaphore,
    /// Who is to hear of a sandbox's events.
    pub wakers: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Node {
    pub fn gvr() -> Gvr {
        Gvr::new("", "v1", "pods")
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.state_dir.join("pods").join(uid)
    }

    /// Directory of a pod's log files.
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.log_dir.join(format!("{namespace}_{name}_{uid}"))
    }

    /// What pods may ask for.
    pub fn allocatable(&self) -> Allocatable {
        Allocatable { milli_cpu: self.cpu_capacity, memory: self.allocatable_memory, pods: self.max_pods.into() }
    }

    /// Runs what may block, but not for long.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let node = self.clone();
        // Never closed.
        let _turn = self.turns.acquire().await;
        tokio::task::spawn_blocking(move || work(&node)).await.map_err(|_| Error::Interrupted)
    }

    /// Service links, and always those of the API server.
    pub fn service_env(&self, pod: &Value) -> Vec<(String, String)> {
        let mut env = Vec::new();
        if let Some(api) = self.services.get("default", "kubernetes") {
            add_service(&api.value(), &mut env);
        }
        if pod["spec"]["enableServiceLinks"].as_bool() != Some(false) {
            for service in self.services.list(pod["metadata"]["namespace"].str()) {
                let service = service.value();
                if service["metadata"]["name"].str() != "kubernetes" {
                    add_service(&service, &mut env);
                }
            }
        }
        env
    }
}

fn add_service(service: &Value, env: &mut Vec<(String, String)>) {
    let spec = &service["spec"];
    let ip = spec["clusterIP"].str();
    let ports = spec["ports"].items();
    let Some(first) = ports.first().filter(|_| !matches!(ip, "" | "None")) else { return };
    let upper = |s: &str| s.to_ascii_uppercase().replace('-', "_");
    let name = upper(service["metadata"]["name"].str());
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    env.push((format!("{name}_SERVICE_HOST"), ip.to_owned()));
    env.push((format!("{name}_SERVICE_PORT"), first["port"].int().to_string()));
    for port in ports.iter().filter(|p| !p["name"].str().is_empty()) {
        env.push((format!("{name}_SERVICE_PORT_{}", upper(port["name"].str())), port["port"].int().to_string()));
    }
    let url = |port: &Value| {
        let protocol = if port["protocol"].str().is_empty() { "TCP" } else { port["protocol"].str() };
        (protocol.to_ascii_lowercase(), port["port"].int())
    };
    let (protocol, number) = url(first);
    env.push((format!("{name}_PORT"), format!("{protocol}://{host}:{number}")));
    for port in ports {
        let (protocol, number) = url(port);
        let prefix = format!("{name}_PORT_{number}_{}", protocol.to_ascii_uppercase());
        env.push((prefix.clone(), format!("{protocol}://{host}:{number}")));
        env.push((format!("{prefix}_PROTO"), protocol));
        env.push((format!("{prefix}_PORT"), number.to_string()));
        env.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
}
