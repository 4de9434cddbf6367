//! What `kubectl get pods` shows.

use super::amounts::is_sidecar;
use crate::resource::{Column, age, name};
use canopus_api::time::human_duration;
use canopus_api::{Time, Value};

pub static COLUMNS: &[Column] = &[
    Column::NAME,
    Column::new("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
    Column::new("Status", "string", "The aggregate status of the containers in this pod."),
    Column::new(
        "Restarts",
        "string",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    Column::AGE,
    Column::wide(
        "IP",
        "string",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    Column::wide(
        "Node",
        "string",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    Column::wide(
        "Nominated Node",
        "string",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
    ),
    Column::wide(
        "Readiness Gates",
        "string",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

/// The cells of one pod.
pub fn row(pod: &Value, now: Time) -> Vec<Value> {
    let summary = summary(pod);
    let or_none = |v: &Value| if v.str().is_empty() { "<none>".into() } else { v.clone() };
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.reason.as_str().into(),
        summary.restarts.cell(now),
        age(pod, now),
        or_none(&pod["status"]["podIPs"][0]["ip"]),
        or_none(&pod["spec"]["nodeName"]),
        or_none(&pod["status"]["nominatedNodeName"]),
        readiness_gates(pod),
    ]
}

#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Time>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status["restartCount"].int();
        self.last = self.last.max(Time::parse(status.path(&["lastState", "terminated", "finishedAt"]).str()));
    }

    /// `2 (5m ago)`
    fn cell(&self, now: Time) -> Value {
        match self.last.filter(|_| self.count != 0) {
            Some(last) => format!("{} ({} ago)", self.count, human_duration(now.since(last))).into(),
            None => self.count.to_string().into(),
        }
    }
}

struct Summary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: Restarts,
}

fn has_condition(pod: &Value, kind: &str, is: impl Fn(&Value) -> bool) -> bool {
    pod["status"]["conditions"].items().iter().any(|c| c["type"].str() == kind && is(c))
}

fn summary(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let phase = status["phase"].str();
    let mut reason = if status["reason"].str().is_empty() { phase } else { status["reason"].str() }.to_owned();
    if has_condition(pod, "PodScheduled", |c| c["reason"].str() == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let sidecars = spec["initContainers"].items().iter().filter(|c| is_sidecar(c)).count();
    let containers = spec["containers"].items().len() + sidecars;
    let mut out = Summary { ready: 0, containers, reason, restarts: Restarts::default() };
    let (initializing, of_sidecars) = init_containers(pod, &mut out);
    let initialized = status["conditions"].items().iter().find(|c| c["type"].str() == "Initialized");
    if !initializing || initialized.is_some_and(|c| c["status"].str() == "True") {
        out.restarts = of_sidecars;
        regular_containers(pod, &mut out);
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        if status["reason"].str() == "NodeLost" {
            out.reason = "Unknown".into();
        } else if !matches!(phase, "Failed" | "Succeeded") {
            out.reason = "Terminating".into();
        }
    }
    out
}

/// Whether the pod still initializes, and the restarts of its sidecars.
fn init_containers(pod: &Value, out: &mut Summary) -> (bool, Restarts) {
    let definitions = pod["spec"]["initContainers"].items();
    let mut of_sidecars = Restarts::default();
    for (i, container) in pod["status"]["initContainerStatuses"].items().iter().enumerate() {
        out.restarts.add(container);
        let sidecar = definitions.iter().any(|c| c["name"] == container["name"] && is_sidecar(c));
        if sidecar {
            of_sidecars.add(container);
        }
        let (terminated, waiting) = (&container["state"]["terminated"], container["state"]["waiting"]["reason"].str());
        if !terminated.is_null() && terminated["exitCode"].int() == 0 {
            continue;
        }
        if sidecar && container["started"].bool() {
            out.ready += usize::from(container["ready"].bool());
            continue;
        }
        out.reason = if !terminated.is_null() {
            format!("Init:{}", termination(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", definitions.len())
        };
        return (true, of_sidecars);
    }
    (false, of_sidecars)
}

/// `Error`, `Signal:9`, `ExitCode:1`
fn termination(terminated: &Value) -> String {
    match (terminated["reason"].str(), terminated["signal"].int()) {
        ("", 0) => format!("ExitCode:{}", terminated["exitCode"].int()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

fn regular_containers(pod: &Value, out: &mut Summary) {
    let (mut running, mut failure) = (false, String::new());
    for container in pod["status"]["containerStatuses"].items().iter().rev() {
        out.restarts.add(container);
        let state = &container["state"];
        let waiting = state["waiting"]["reason"].str();
        if !waiting.is_empty() {
            out.reason = waiting.into();
        } else if !state["terminated"].is_null() {
            out.reason = termination(&state["terminated"]);
            if state["terminated"]["exitCode"].int() != 0 {
                failure.clone_from(&out.reason);
            }
        } else if container["ready"].bool() && !state["running"].is_null() {
            running = true;
            out.ready += 1;
        }
    }
    // One that still runs says more about the pod than one that is done.
    if out.reason == "Completed" {
        if running && has_condition(pod, "Ready", |c| c["status"].str() == "True") {
            out.reason = "Running".into();
        } else if !failure.is_empty() {
            out.reason = failure;
        } else if running {
            out.reason = "NotReady".into();
        }
    }
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = pod["spec"]["readinessGates"].items();
    if gates.is_empty() {
        return "<none>".into();
    }
    let conditions = pod["status"]["conditions"].items();
    let is_true = |gate: &&Value| {
        let condition = conditions.iter().find(|c| c["type"].str() == gate["conditionType"].str());
        condition.is_some_and(|c| c["status"].str() == "True")
    };
    format!("{}/{}", gates.iter().filter(is_true).count(), gates.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    /// READY, STATUS and RESTARTS of a pod with these containers, init containers and status.
    fn shown(spec: Value, status: Value, deleted: bool) -> String {
        let mut pod = value!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status});
        if deleted {
            pod.set_path(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        }
        let cells = row(&pod, Time::parse("2026-01-01T00:10:00Z").unwrap());
        format!("{} {} {}", cells[1].str(), cells[2].str(), cells[3].str())
    }

    #[test]
    fn states() {
        let running = || value!({"ready": true, "restartCount": 0, "state": {"running": {}}});
        let one = || value!({"containers": [{"name": "a"}]});
        let init = || value!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let ready = || value!([{"type": "Ready", "status": "True"}]);
        let terminated =
            |code: i64, reason: &str| value!({"state": {"terminated": {"exitCode": code, "reason": reason}}});
        let waiting = |reason: &str| value!({"state": {"waiting": {"reason": reason}}});
        let cases = [
            (one(), value!({"phase": "Pending"}), false, "0/1 Pending 0"),
            (one(), value!({"phase": "Running", "containerStatuses": [running()]}), false, "1/1 Running 0"),
            (one(), value!({"phase": "Running", "containerStatuses": [running()]}), true, "1/1 Terminating 0"),
            (
                one(),
                value!({"phase": "Succeeded", "containerStatuses": [terminated(0, "Completed")]}),
                true,
                "0/1 Completed 0",
            ),
            (one(), value!({"phase": "Failed", "reason": "Evicted"}), false, "0/1 Evicted 0"),
            (one(), value!({"phase": "Running", "reason": "NodeLost"}), true, "0/1 Unknown 0"),
            (
                one(),
                value!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}),
                false,
                "0/1 CrashLoopBackOff 0",
            ),
            (
                one(),
                value!({"phase": "Running", "containerStatuses": [{"restartCount": 2, "ready": true, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}}}]}),
                false,
                "1/1 Running 2 (5m ago)",
            ),
            (
                one(),
                value!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
                false,
                "0/1 Signal:9 0",
            ),
            (
                one(),
                value!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
                false,
                "0/1 ExitCode:3 0",
            ),
            (
                one(),
                value!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                false,
                "0/1 SchedulingGated 0",
            ),
            (
                init(),
                value!({"phase": "Pending", "initContainerStatuses": [waiting("PodInitializing"), waiting("PodInitializing")],
                "containerStatuses": [waiting("PodInitializing")]}),
                false,
                "0/1 Init:0/2 0",
            ),
            (
                init(),
                value!({"phase": "Pending", "initContainerStatuses": [terminated(0, "Completed"), waiting("CrashLoopBackOff")]}),
                false,
                "0/1 Init:CrashLoopBackOff 0",
            ),
            (
                init(),
                value!({"phase": "Pending", "initContainerStatuses": [terminated(1, "Error")]}),
                false,
                "0/1 Init:Error 0",
            ),
            (
                init(),
                value!({"phase": "Pending", "initContainerStatuses": [terminated(2, "")]}),
                false,
                "0/1 Init:ExitCode:2 0",
            ),
            (
                value!({"containers": [{}, {}]}),
                value!({"phase": "Running", "conditions": ready(), "containerStatuses": [terminated(0, "Completed"), running()]}),
                false,
                "1/2 Running 0",
            ),
            (
                value!({"containers": [{}, {}]}),
                value!({"phase": "Running", "containerStatuses": [terminated(0, "Completed"), running()]}),
                false,
                "1/2 NotReady 0",
            ),
            (
                value!({"containers": [{}, {}]}),
                value!({"phase": "Failed", "containerStatuses": [terminated(0, "Completed"), terminated(1, "Error")]}),
                false,
                "0/2 Error 0",
            ),
            (
                value!({"containers": [{}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]}),
                value!({"phase": "Running", "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
                    "containerStatuses": [running()]}),
                false,
                "2/2 Running 1",
            ),
        ];
        for (spec, status, deleted, expected) in cases {
            assert_eq!(shown(spec, status, deleted), expected);
        }
    }

    #[test]
    fn wide() {
        let pod = value!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "readinessGates": [{"conditionType": "a/b"}, {"conditionType": "c/d"}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "a/b", "status": "True"}]}});
        let cells: Vec<_> = row(&pod, Time(0)).iter().skip(4).map(|c| c.str().to_owned()).collect();
        assert_eq!(cells, ["<unknown>", "10.0.0.1", "n", "<none>", "1/2"]);
    }
}
