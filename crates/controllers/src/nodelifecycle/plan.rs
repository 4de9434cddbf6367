//! What silence and conditions mean for a node.

use crate::context::condition;
use canopus_api::labels::*;
use canopus_api::{Time, Value, value};
use std::time::Duration;

const TAINT_NETWORK: &str = "node.kubernetes.io/network-unavailable";

/// How long a node may be silent (`--node-monitor-grace-period`; longer before its first status).
pub(super) fn grace(node: &Value) -> Duration {
    let reported = !condition(&node["status"], "Ready").is_null();
    Duration::from_secs(if reported { 50 } else { 60 })
}

/// The last sign of life, and what the node was like when all was well with it.
pub(super) struct Probe {
    heartbeat: String,
    /// The revision of the node's lease.
    lease: u64,
    at: Time,
    /// The revision of the node when there was nothing to do about it.
    settled: u64,
}

impl Probe {
    pub fn new(now: Time) -> Probe {
        Probe { heartbeat: String::new(), lease: 0, at: now, settled: 0 }
    }

    /// Notes a renewal of the lease. Whether that is all there is to know: the node is as it was when all was well.
    pub fn alive(&mut self, node: u64, lease: u64, now: Time) -> bool {
        let renewed = lease != self.lease;
        if renewed {
            (self.lease, self.at) = (lease, now);
        }
        renewed && node == self.settled
    }

    /// Notes a new heartbeat; answers how long the node has been silent.
    pub fn observe(&mut self, status: &Value, now: Time) -> Duration {
        let heartbeat = condition(status, "Ready")["lastHeartbeatTime"].str();
        if heartbeat != self.heartbeat {
            (self.heartbeat, self.at) = (heartbeat.into(), now);
        }
        now.since(self.at)
    }

    pub fn settle(&mut self, node: u64) {
        self.settled = node;
    }
}

/// The conditions of a node that is silent.
pub(super) fn unknown(node: &Value, now: Time) -> Vec<Value> {
    let mut conditions = node["status"]["conditions"].items().to_vec();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let old = condition(&node["status"], kind);
        if old["status"].str() == "Unknown" {
            continue;
        }
        let (reason, message, heartbeat) = match old.is_null() {
            true => {
                ("NodeStatusNeverUpdated", "Kubelet never posted node status.", &node["metadata"]["creationTimestamp"])
            }
            false => ("NodeStatusUnknown", "Kubelet stopped posting node status.", &old["lastHeartbeatTime"]),
        };
        let new = value!({
            "type": kind, "status": "Unknown", "reason": reason, "message": message,
            "lastHeartbeatTime": heartbeat, "lastTransitionTime": now,
        });
        match conditions.iter_mut().find(|c| c["type"].str() == kind) {
            Some(slot) => *slot = new,
            None => conditions.push(new),
        }
    }
    conditions
}

/// The taints a node should have: those that conditions call for, and everybody else's.
pub(super) fn taints(node: &Value, status: &Value, now: Time) -> Vec<Value> {
    let is = |kind: &str, state: &str| condition(status, kind)["status"].str() == state;
    let (down, lost) = (is("Ready", "False"), is("Ready", "Unknown"));
    // A node that has said nothing yet keeps the taint it was admitted with.
    let silent = condition(status, "Ready").is_null();
    let cordoned = node["spec"]["unschedulable"].bool();
    let table = [
        (TAINT_NOT_READY, "NoSchedule", down || silent),
        (TAINT_UNREACHABLE, "NoSchedule", lost),
        (TAINT_MEMORY_PRESSURE, "NoSchedule", is("MemoryPressure", "True")),
        (TAINT_DISK_PRESSURE, "NoSchedule", is("DiskPressure", "True")),
        (TAINT_PID_PRESSURE, "NoSchedule", is("PIDPressure", "True")),
        (TAINT_NETWORK, "NoSchedule", is("NetworkUnavailable", "True")),
        (TAINT_UNSCHEDULABLE, "NoSchedule", cordoned),
        (TAINT_NOT_READY, "NoExecute", down),
        (TAINT_UNREACHABLE, "NoExecute", lost),
    ];
    let same = |taint: &Value, key: &str, effect: &str| taint["key"].str() == key && taint["effect"].str() == effect;
    let mut taints = node["spec"]["taints"].items().to_vec();
    taints.retain(|taint| !table.iter().any(|(key, effect, wanted)| !wanted && same(taint, key, effect)));
    for (key, effect, _) in table.into_iter().filter(|(_, _, wanted)| *wanted) {
        if !taints.iter().any(|taint| same(taint, key, effect)) {
            taints.push(value!({"key": key, "effect": effect, "timeAdded": now}));
        }
    }
    taints
}

/// A patch of a pod's status that says it isn't ready; None when it says so already.
pub(super) fn not_ready(status: &Value, now: Time) -> Option<Value> {
    (condition(status, "Ready")["status"].str() == "True")
        .then(|| value!({"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}]}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str, cordoned: bool, taints: &[(&str, &str)]) -> Value {
        let taints: Vec<Value> = taints.iter().map(|(k, e)| value!({"key": *k, "effect": *e})).collect();
        value!({
            "metadata": {"name": "n"}, "spec": {"unschedulable": cordoned, "taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": "x"}]},
        })
    }

    #[test]
    fn taints_follow_conditions() {
        let table: &[(Value, &[(&str, &str)])] = &[
            (node("True", false, &[(TAINT_NOT_READY, "NoSchedule"), ("mine", "NoExecute")]), &[("mine", "NoExecute")]),
            (node("False", false, &[]), &[(TAINT_NOT_READY, "NoSchedule"), (TAINT_NOT_READY, "NoExecute")]),
            (node("Unknown", false, &[]), &[(TAINT_UNREACHABLE, "NoSchedule"), (TAINT_UNREACHABLE, "NoExecute")]),
            (node("True", true, &[]), &[(TAINT_UNSCHEDULABLE, "NoSchedule")]),
        ];
        for (node, expected) in table {
            let taints = taints(node, &node["status"], Time::from_unix(0));
            let got: Vec<(&str, &str)> = taints.iter().map(|t| (t["key"].str(), t["effect"].str())).collect();
            assert_eq!(got, *expected);
        }
    }

    #[test]
    fn silence_makes_conditions_unknown() {
        let node = node("True", false, &[]);
        let mut probe = Probe::new(Time::from_unix(0));
        assert_eq!(probe.observe(&node["status"], Time::from_unix(10)), Duration::ZERO);
        assert_eq!(probe.observe(&node["status"], Time::from_unix(60)), grace(&node));
        assert!(!probe.alive(5, 1, Time::from_unix(61)), "it is not known to be well");
        assert_eq!(probe.observe(&node["status"], Time::from_unix(61)), Duration::ZERO);
        probe.settle(5);
        assert!(!probe.alive(5, 1, Time::from_unix(62)), "a lease that is not renewed is no sign of life");
        assert!(probe.alive(5, 2, Time::from_unix(63)));
        assert!(!probe.alive(6, 3, Time::from_unix(64)), "the node has changed");
        let conditions = unknown(&node, Time::from_unix(60));
        let reasons: Vec<&str> = conditions.iter().map(|c| c["reason"].str()).collect();
        let never = "NodeStatusNeverUpdated";
        assert_eq!(reasons, ["NodeStatusUnknown", never, never, never]);
    }
}
