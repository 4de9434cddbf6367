//! The Node object and its lease: what this host is, and that it lives.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use canopus_api::{Api, Gvr, Object, Patch, Quantity, Status, Target, Time, Value, WriteOptions, value};
use canopus_client::now;
use canopus_images::Images;
use tokio_util::sync::CancellationToken;

const LEASE_SECONDS: u32 = 40;
const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// Status is written this often even if nothing has changed, and looked at each lease period.
const STATUS_PERIOD: Duration = Duration::from_secs(300);
/// Most images a Node's status tells of.
const MAX_IMAGES: usize = 50;

/// What stays the same while the agent runs.
#[derive(Debug, Clone)]
pub struct Facts {
    pub name: String,
    pub ip: IpAddr,
    pub max_pods: u32,
    /// `v1.36.0`.
    pub version: String,
    pub port: u16,
    pub cpus: usize,
    pub memory: i64,
    pub disk: i64,
}

/// This host's memory in bytes.
pub fn memory_capacity() -> std::io::Result<i64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    Ok(meminfo(&text, "MemTotal:"))
}

/// Less upstream's default hard eviction threshold.
pub fn allocatable_memory(capacity: i64) -> i64 {
    (capacity - (100 << 20)).max(0)
}

fn meminfo(text: &str, key: &str) -> i64 {
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    let number = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<i64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn labels(facts: &Facts) -> Value {
    value!({
        "kubernetes.io/hostname": &facts.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": arch(),
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": arch(),
    })
}

fn node_info(facts: &Facts) -> Value {
    let release = read("/etc/os-release");
    let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    value!({
        "machineID": read("/etc/machine-id"), "systemUUID": read("/sys/class/dmi/id/product_uuid"),
        "bootID": read("/proc/sys/kernel/random/boot_id"), "kernelVersion": read("/proc/sys/kernel/osrelease"),
        "osImage": pretty.unwrap_or("Linux").trim_matches('"'), "operatingSystem": "linux", "architecture": arch(),
        "containerRuntimeVersion": format!("canopus://{}", env!("CARGO_PKG_VERSION")),
        "kubeletVersion": &facts.version, "kubeProxyVersion": "",
    })
}

/// The `status` of the Node at `now`; `old` is what it was.
pub fn node_status(facts: &Facts, images: Vec<Value>, old: &Value, now: Time) -> Value {
    let capacity = value!({
        "cpu": facts.cpus.to_string(), "memory": format!("{}Ki", facts.memory / 1024),
        "pods": facts.max_pods.to_string(), "ephemeral-storage": format!("{}Ki", facts.disk / 1024),
        "hugepages-1Gi": "0", "hugepages-2Mi": "0",
    });
    let mut allocatable = capacity.clone();
    allocatable.set("memory", format!("{}Ki", allocatable_memory(facts.memory) / 1024));
    allocatable.set("ephemeral-storage", Quantity::from_int(facts.disk / 10 * 9).to_string());
    let conditions = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let known = old["conditions"].items();
    let mut list: Vec<Value> = conditions
        .iter()
        .map(|(kind, status, reason, message)| {
            let same = known.iter().find(|c| c["type"].str() == *kind && c["status"].str() == *status);
            value!({
                "type": *kind, "status": *status, "reason": *reason, "message": *message, "lastHeartbeatTime": now,
                "lastTransitionTime": same.map_or(Value::from(now), |c| c["lastTransitionTime"].clone()),
            })
        })
        .collect();
    list.extend(known.iter().filter(|c| !conditions.iter().any(|(k, ..)| *k == c["type"].str())).cloned());
    value!({
        "capacity": capacity, "allocatable": allocatable, "nodeInfo": node_info(facts), "conditions": list,
        "addresses": [
            {"type": "InternalIP", "address": facts.ip.to_string()}, {"type": "Hostname", "address": &facts.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}}, "images": images,
    })
}

async fn image_list(images: &Images) -> Vec<Value> {
    let mut list = images.list().await.unwrap_or_default();
    list.sort_by_key(|i| std::cmp::Reverse(i.size));
    let describe = |i: &canopus_images::Image| {
        let names: Vec<Value> = i.repo_digests.iter().chain(&i.repo_tags).take(5).map(Value::from).collect();
        value!({"names": names, "sizeBytes": i64::try_from(i.size).unwrap_or(i64::MAX)})
    };
    list.iter().take(MAX_IMAGES).map(describe).collect()
}

/// Registers the Node and keeps it and its lease fresh until `shutdown`.
pub async fn run(facts: Facts, api: Arc<dyn Api>, images: Images, shutdown: CancellationToken) {
    let registration = Registration { facts, api, images };
    let mut ticks = tokio::time::interval(LEASE_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut written: Option<(Time, Value)> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = registration.beat(&mut written).await {
            tracing::warn!(%error, "failed to update the node");
            ticks.reset_after(Duration::from_secs(1));
        }
    }
}

struct Registration {
    facts: Facts,
    api: Arc<dyn Api>,
    images: Images,
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: "kubelet".into(), ..WriteOptions::default() }
}

impl Registration {
    fn node(&self) -> Target {
        Target::new(&Gvr::new("", "v1", "nodes"), "", &self.facts.name)
    }

    async fn beat(&self, written: &mut Option<(Time, Value)>) -> Result<(), Status> {
        let images = image_list(&self.images).await;
        let stale = written
            .as_ref()
            .is_none_or(|(at, seen)| now().since(*at) >= STATUS_PERIOD || seen.items() != images.as_slice());
        let node = if stale { Some(self.write(images.clone()).await?) } else { None };
        if stale {
            *written = Some((now(), Value::Array(images)));
        }
        self.lease(node.as_deref()).await
    }

    async fn write(&self, images: Vec<Value>) -> Result<Arc<Object>, Status> {
        let node = match self.api.get(&self.node()).await {
            Ok(node) => node,
            Err(error) if error.is_not_found() => self.register().await?,
            Err(error) => return Err(error),
        };
        let old = node.value();
        if labels(&self.facts).entries().any(|(k, v)| old["metadata"]["labels"][k.as_str()] != *v) {
            let patch = value!({"metadata": {"labels": labels(&self.facts)}});
            self.api.patch(&self.node(), Patch::Merge(patch), &options()).await?;
        }
        let status = node_status(&self.facts, images, &old["status"], now());
        let body = value!({"status": status});
        self.api.patch(&self.node().subresource("status"), Patch::Merge(body), &options()).await
    }

    async fn register(&self) -> Result<Arc<Object>, Status> {
        let status = node_status(&self.facts, Vec::new(), &Value::Null, now());
        let body = value!({
            "apiVersion": "v1", "kind": "Node", "spec": {}, "status": status,
            "metadata": {
                "name": &self.facts.name, "labels": labels(&self.facts),
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
        });
        match self.api.create(&self.node(), body, &options()).await {
            Err(there) if there.is_already_exists() => self.api.get(&self.node()).await,
            other => other,
        }
    }

    async fn lease(&self, node: Option<&Object>) -> Result<(), Status> {
        let gvr = Gvr::new("coordination.k8s.io", "v1", "leases");
        let target = Target::new(&gvr, "kube-node-lease", &self.facts.name);
        let renew = now().rfc3339_micro();
        let spec = value!({
            "holderIdentity": &self.facts.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renew,
        });
        let patch = Patch::Merge(value!({"spec": spec.clone()}));
        match self.api.patch(&target, patch, &options()).await {
            Err(missing) if missing.is_not_found() => {}
            other => return other.map(|_| ()),
        }
        let uid = match node {
            Some(node) => node.facts.uid.clone(),
            None => self.api.get(&self.node()).await?.facts.uid.clone(),
        };
        let owner = value!({"apiVersion": "v1", "kind": "Node", "name": &self.facts.name, "uid": uid});
        let body = value!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec,
            "metadata": {"name": &self.facts.name, "namespace": "kube-node-lease", "ownerReferences": [owner]},
        });
        self.api.create(&target, body, &options()).await.map(|_| ())
    }
}
