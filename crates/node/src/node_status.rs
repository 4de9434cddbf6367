//! The Node's status: a pure function of the host's facts and of how it does.

use std::net::IpAddr;

use canopus_api::{Quantity, Time, Value, value};

use crate::eviction::Thresholds;

/// What stays the same while the agent runs.
#[derive(Debug, Clone)]
pub struct Facts {
    pub name: String,
    pub ip: IpAddr,
    pub max_pods: u32,
    pub thresholds: Thresholds,
    /// `v1.36.0`.
    pub version: String,
    pub port: u16,
    pub cpus: usize,
    pub memory: i64,
    pub disk: i64,
}

impl Facts {
    /// Bytes of memory that pods may ask for: all but what is kept back.
    pub fn allocatable_memory(&self) -> i64 {
        (self.memory - self.thresholds.reserved_memory(self.memory)).max(0)
    }
}

/// How the host does.
#[derive(Debug, Clone, Copy)]
pub struct Health {
    pub network_ready: bool,
    /// Bytes.
    pub memory_available: i64,
    /// Fractions of the node's file system, and of its inodes, that are free.
    pub disk_free: f64,
    pub inodes_free: f64,
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

pub fn labels(facts: &Facts) -> Value {
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
pub fn node_status(facts: &Facts, health: Health, images: Vec<Value>, old: &Value, now: Time) -> Value {
    let capacity = value!({
        "cpu": facts.cpus.to_string(), "memory": format!("{}Ki", facts.memory / 1024),
        "pods": facts.max_pods.to_string(), "ephemeral-storage": format!("{}Ki", facts.disk / 1024),
        "hugepages-1Gi": "0", "hugepages-2Mi": "0",
    });
    let mut allocatable = capacity.clone();
    allocatable.set("memory", format!("{}Ki", facts.allocatable_memory() / 1024));
    allocatable.set("ephemeral-storage", Quantity::from_int(facts.disk / 10 * 9).to_string());
    let conditions = conditions(facts, health);
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
        "features": {"supplementalGroupsPolicy": true},
    })
}

type Condition = (&'static str, &'static str, &'static str, &'static str);

/// By the eviction thresholds; upstream has none for processes by default.
fn conditions(facts: &Facts, health: Health) -> [Condition; 4] {
    let memory = match facts.thresholds.memory_pressure(health.memory_available, facts.memory) {
        true => ("MemoryPressure", "True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        false => ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    };
    let disk = match facts.thresholds.disk_pressure(health.disk_free, health.inodes_free, facts.disk) {
        true => ("DiskPressure", "True", "KubeletHasDiskPressure", "kubelet has disk pressure"),
        false => ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    };
    let ready = match health.network_ready {
        true => ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        false => (
            "Ready",
            "False",
            "KubeletNotReady",
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
             message:the node has no range of pod addresses yet",
        ),
    };
    let processes = ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available");
    [memory, disk, processes, ready]
}

/// The Events that tell of conditions that are new: upstream's reasons.
pub fn news(old: &Value, new: &Value) -> Vec<&'static str> {
    let reasons = [
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", "NodeReady", "NodeNotReady"),
    ];
    let status = |of: &Value, kind: &str| {
        let found = of["conditions"].items().iter().find(|c| c["type"].str() == kind);
        found.map(|c| c["status"].str() == "True")
    };
    let changed = |(kind, yes, no): &(&str, &'static str, &'static str)| {
        let now = status(new, kind)?;
        (status(old, kind) != Some(now)).then_some(if now { *yes } else { *no })
    };
    reasons.iter().filter_map(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_change_with_health_and_are_news_once() {
        let facts = Facts {
            name: "n".into(),
            ip: [192, 0, 2, 1].into(),
            max_pods: 110,
            thresholds: crate::eviction::DEFAULT.parse().unwrap(),
            version: "v1".into(),
            port: 10250,
            cpus: 2,
            memory: 4 << 30,
            disk: 1 << 40,
        };
        let good = Health { network_ready: true, memory_available: 1 << 30, disk_free: 0.5, inodes_free: 0.5 };
        let first = node_status(&facts, good, Vec::new(), &Value::Null, Time(1_000_000));
        let all = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"];
        assert_eq!(news(&Value::Null, &first), all);
        let full = Health { disk_free: 0.1, network_ready: false, ..good };
        let second = node_status(&facts, full, Vec::new(), &first, Time(5_000_000));
        assert_eq!(news(&first, &second), ["NodeHasDiskPressure", "NodeNotReady"]);
        let since = |status: &Value, i: usize| status["conditions"][i]["lastTransitionTime"].str().to_owned();
        assert_eq!(since(&second, 0), since(&first, 0));
        assert_ne!(since(&second, 1), since(&first, 1));
        assert!(news(&second, &second).is_empty());
        assert_eq!(first["allocatable"]["memory"].str(), "4091904Ki");
    }
}
