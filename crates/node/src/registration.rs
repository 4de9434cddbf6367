//! The Node object and its lease: what this host is, and that it lives.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use canopus_api::{Api, Gvr, Object, Patch, Status, Target, Time, Value, WriteOptions, value};
use canopus_client::{Recorder, now};
use canopus_images::Images;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use crate::node_status::Facts;
use crate::node_status::{Health, labels, news, node_status};

const LEASE_SECONDS: u32 = 40;
const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// Status is written this often even if nothing has changed, and looked at each lease period.
const STATUS_PERIOD: Duration = Duration::from_secs(300);
/// Most images a Node's status tells of.
const MAX_IMAGES: usize = 50;

/// This host's memory in bytes.
pub fn memory_capacity() -> std::io::Result<i64> {
    meminfo("MemTotal:").ok_or_else(|| std::io::Error::other("/proc/meminfo does not say how much memory there is"))
}

fn meminfo(key: &str) -> Option<i64> {
    let text = std::fs::read_to_string(Path::new("/proc/meminfo")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<i64>().ok()?.saturating_mul(1024))
}

/// Types and statuses alone.
fn conditions(status: &Value) -> Vec<Value> {
    let of = |c: &Value| value!([c["type"].clone(), c["status"].clone()]);
    status["conditions"].items().iter().map(of).collect()
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

/// Keeps the Node and its lease fresh.
pub struct Registration {
    pub facts: Facts,
    pub api: Arc<dyn Api>,
    pub images: Images,
    pub recorder: Recorder,
    pub state_dir: PathBuf,
    pub network_ready: watch::Receiver<bool>,
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: "kubelet".into(), ..WriteOptions::default() }
}

impl Registration {
    /// Makes the Node, unless it is there.
    pub async fn begin(&self) {
        self.event("Starting", "Starting kubelet.".to_owned());
        while let Err(error) = self.register().await {
            tracing::warn!(%error, "failed to register the node");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(LEASE_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut written: Option<(Time, Value)> = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = self.network_ready.changed() => if changed.is_err() {
                    // Its sender is dropped once there is nothing more to say.
                    tokio::select! {
                        _ = ticks.tick() => {}
                        () = shutdown.cancelled() => return,
                    }
                },
                () = shutdown.cancelled() => return,
            }
            if let Err(error) = self.beat(&mut written).await {
                tracing::warn!(%error, "failed to update the node");
                ticks.reset_after(Duration::from_secs(1));
            }
        }
    }

    fn event(&self, reason: &str, message: String) {
        // As upstream, whose node Events have the name for a uid.
        let meta = value!({"name": &self.facts.name, "uid": &self.facts.name});
        self.recorder.normal(&value!({"kind": "Node", "apiVersion": "v1", "metadata": meta}), reason, message);
    }

    fn health(&self) -> Health {
        let disk = nix::sys::statvfs::statvfs(&self.state_dir).ok();
        #[expect(clippy::cast_precision_loss, reason = "fractions need not be exact")]
        let free = |available: u64, all: u64| if all == 0 { 1.0 } else { available as f64 / all as f64 };
        Health {
            network_ready: *self.network_ready.borrow(),
            memory_available: meminfo("MemAvailable:").unwrap_or(i64::MAX),
            disk_free: disk.map_or(1.0, |d| free(d.blocks_available(), d.blocks())),
            inodes_free: disk.map_or(1.0, |d| free(d.files_available(), d.files())),
        }
    }

    fn node(&self) -> Target {
        Target::new(&Gvr::new("", "v1", "nodes"), "", &self.facts.name)
    }

    async fn beat(&self, written: &mut Option<(Time, Value)>) -> Result<(), Status> {
        let images = image_list(&self.images).await;
        let health = self.health();
        // What a change of is worth telling at once: all but the times.
        let shown = value!({
            "images": images.clone(), "conditions": conditions(&node_status(&self.facts, health, Vec::new(), &Value::Null, Time(0))),
        });
        let stale = written.as_ref().is_none_or(|(at, seen)| now().since(*at) >= STATUS_PERIOD || *seen != shown);
        let node = if stale { Some(self.write(health, images).await?) } else { None };
        if stale {
            *written = Some((now(), shown));
        }
        self.lease(node.as_deref()).await
    }

    async fn write(&self, health: Health, images: Vec<Value>) -> Result<Arc<Object>, Status> {
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
        let status = node_status(&self.facts, health, images, &old["status"], now());
        let news = news(&old["status"], &status);
        let body = value!({"status": status});
        let written = self.api.patch(&self.node().subresource("status"), Patch::Merge(body), &options()).await?;
        for reason in news {
            self.event(reason, format!("Node {} status is now: {reason}", self.facts.name));
        }
        Ok(written)
    }

    async fn register(&self) -> Result<Arc<Object>, Status> {
        let health = Health { network_ready: false, ..self.health() };
        let status = node_status(&self.facts, health, Vec::new(), &Value::Null, now());
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
