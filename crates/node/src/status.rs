//! A pod's status: a pure function of its spec, what the runtime says, and the status it had before.

use std::collections::BTreeMap;
use std::net::IpAddr;

use canopus_api::{Time, Value, value};

use crate::planner::{Instance, Observed, ProbeResults, State};
use crate::pod;

/// Why a container isn't running yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// Everything a status is made of besides the pod itself.
pub struct Inputs<'a> {
    pub observed: &'a Observed,
    pub probes: &'a ProbeResults,
    /// By container name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    pub pod_ips: &'a [IpAddr],
    pub host_ip: IpAddr,
    pub now: Time,
    /// The pod's containers have ended for good: it is being deleted, past its deadline, or complete.
    pub terminal: bool,
}

/// The new `status` of `pod`.
pub fn pod_status(pod: &Value, inputs: &Inputs) -> Value {
    let spec = &pod["spec"];
    let init = container_statuses(pod, spec["initContainers"].items(), inputs);
    let mains = container_statuses(pod, spec["containers"].items(), inputs);
    let old = &pod["status"];
    let mut status = value!({
        "phase": phase(pod, &init, &mains, inputs),
        "startTime": if old["startTime"].is_null() { Value::from(inputs.now) } else { old["startTime"].clone() },
        "qosClass": pod::qos(pod).name(),
        "hostIP": inputs.host_ip.to_string(),
        "hostIPs": [{"ip": inputs.host_ip.to_string()}],
        "observedGeneration": pod["metadata"]["generation"].clone(),
    });
    if pod::is_terminal(pod) {
        status.set("phase", &old["phase"]);
    }
    for name in ["reason", "message", "nominatedNodeName"] {
        if !old[name].is_null() {
            status.set(name, &old[name]);
        }
    }
    // As upstream: terminal only once nothing runs any more.
    let runs = inputs.observed.running().next().is_some();
    if pod::deadline(pod).is_some_and(|d| d <= inputs.now) && !pod::is_terminal(pod) && !runs {
        status.set("phase", "Failed");
        status.set("reason", "DeadlineExceeded");
        status.set("message", "Pod was active on the node longer than the specified deadline");
    }
    if let Some(first) = inputs.pod_ips.first() {
        status.set("podIP", first.to_string());
        let ips: Vec<Value> = inputs.pod_ips.iter().map(|ip| value!({"ip": ip.to_string()})).collect();
        status.set("podIPs", ips);
    }
    status.set("conditions", conditions(pod, &status, &init, &mains, inputs));
    if !init.is_empty() {
        status.set("initContainerStatuses", init);
    }
    status.set("containerStatuses", mains);
    status
}

fn container_statuses(pod: &Value, containers: &[Value], inputs: &Inputs) -> Vec<Value> {
    containers.iter().map(|c| container_status(pod, c, inputs)).collect()
}

fn container_status(pod: &Value, container: &Value, inputs: &Inputs) -> Value {
    let name = container["name"].str();
    let latest = inputs.observed.latest(name);
    let waiting = inputs.waiting.get(name);
    let before = inputs.observed.previous(name).map(terminated);
    let (state, last) = match latest {
        Some(i) if i.state == State::Running => (running(i), before),
        Some(i) if waiting.is_some() => (waiting_state(pod, name, waiting), Some(terminated(i))),
        Some(i) => (terminated(i), before),
        None => (waiting_state(pod, name, waiting), None),
    };
    let is_init = pod::is_init(pod, name);
    let started = latest.is_some_and(|i| inputs.probes.is_started(container, i));
    let ready = match latest {
        // One that ran to its end is ready.
        Some(i) if is_init && !pod::is_sidecar(container) => i.state == State::Exited && i.exit_code == 0,
        Some(i) => inputs.probes.is_ready(container, i),
        None => false,
    };
    let mut status = value!({
        "name": name, "image": container["image"].clone(), "imageID": latest.map_or("", |i| i.image_id.as_str()),
        "state": state, "lastState": last.unwrap_or_else(Value::object),
        "ready": ready, "started": started, "restartCount": latest.map_or(0, |i| i.attempt),
    });
    if let Some(i) = latest {
        status.set("containerID", container_id(&i.id));
        let groups: Vec<u32> = i.user.2.clone();
        status.set("user", value!({"linux": {"uid": i.user.0, "gid": i.user.1, "supplementalGroups": groups}}));
    }
    let resources = &container["resources"];
    status.set("resources", if resources.is_null() { Value::object() } else { resources.clone() });
    if !resources["requests"].is_empty() {
        status.set("allocatedResources", &resources["requests"]);
    }
    let mounts = container["volumeMounts"].items().iter().map(mount_status);
    let mounts: Vec<Value> = mounts.collect();
    if !mounts.is_empty() {
        status.set("volumeMounts", mounts);
    }
    status
}

fn mount_status(mount: &Value) -> Value {
    let mut status = value!({"name": mount["name"].clone(), "mountPath": mount["mountPath"].clone()});
    if mount["readOnly"].bool() {
        status.set("readOnly", true);
        status.set("recursiveReadOnly", "Disabled");
    }
    status
}

pub(crate) fn container_id(id: &str) -> String {
    format!("canopus://{id}")
}

fn running(instance: &Instance) -> Value {
    value!({"running": {"startedAt": instance.started_at.unwrap_or(instance.created_at)}})
}

fn terminated(instance: &Instance) -> Value {
    let reason = match instance {
        i if i.state == State::Unknown => "ContainerStatusUnknown",
        i if i.start_error.is_some() => "StartError",
        i if i.oom_killed => "OOMKilled",
        i if i.exit_code == 0 => "Completed",
        _ => "Error",
    };
    let mut inner = value!({
        "exitCode": if instance.state == State::Unknown { 137 } else { instance.exit_code }, "reason": reason,
        "startedAt": instance.started_at, "finishedAt": instance.finished_at, "containerID": container_id(&instance.id),
    });
    let message = match &instance.start_error {
        Some(error) => error.as_str(),
        None if instance.state == State::Unknown => "The container could not be located when the pod was terminated",
        None => &instance.message,
    };
    if !message.is_empty() {
        inner.set("message", message);
    }
    value!({"terminated": inner})
}

fn waiting_state(pod: &Value, name: &str, waiting: Option<&Waiting>) -> Value {
    let mut inner = Value::object();
    match waiting {
        Some(w) => {
            inner.set("reason", &w.reason);
            if !w.message.is_empty() {
                inner.set("message", &w.message);
            }
        }
        None if !pod["spec"]["initContainers"].is_empty() && !is_sidecar_name(pod, name) => {
            inner.set("reason", "PodInitializing");
        }
        None => inner.set("reason", "ContainerCreating"),
    }
    value!({"waiting": inner})
}

fn is_sidecar_name(pod: &Value, name: &str) -> bool {
    pod::container(pod, name).is_some_and(pod::is_sidecar)
}

/// How a container ended, this time or, if it waits, the last.
fn ended(status: &Value) -> Option<i64> {
    let state = &status["state"];
    let of = if state["waiting"].is_null() { &state["terminated"] } else { &status["lastState"]["terminated"] };
    (!of.is_null()).then(|| of["exitCode"].int())
}

/// Upstream's `getPhase`.
fn phase(pod: &Value, init: &[Value], mains: &[Value], inputs: &Inputs) -> &'static str {
    let initialized = has_initialized(pod, mains);
    let (mut pending, mut waiting, mut running) = (0, 0, 0);
    for (spec, status) in pod["spec"]["initContainers"].items().iter().zip(init) {
        let runs = !status["state"]["running"].is_null();
        match (pod::is_sidecar(spec), ended(status)) {
            (false, None) => pending += usize::from(!initialized),
            (false, Some(0)) => {}
            (false, Some(code)) if inputs.terminal || !pod::restarts(pod, spec, code) => return "Failed",
            (false, Some(_)) => {}
            (true, _) if runs => {
                running += 1;
                pending += usize::from(!initialized && !status["started"].bool());
            }
            (true, None) => waiting += usize::from(!initialized),
            (true, Some(_)) => {}
        }
    }
    let (mut stopped, mut succeeded, mut over) = (0, 0, 0);
    for (spec, status) in pod["spec"]["containers"].items().iter().zip(mains) {
        match ended(status) {
            _ if !status["state"]["running"].is_null() => running += 1,
            Some(code) => {
                stopped += 1;
                succeeded += usize::from(code == 0);
                over += usize::from(!pod::restarts(pod, spec, code));
            }
            None => waiting += 1,
        }
    }
    if inputs.terminal && running == 0 {
        return if stopped > 0 && waiting == 0 && stopped == succeeded { "Succeeded" } else { "Failed" };
    }
    match () {
        () if pending > 0 || waiting > 0 => "Pending",
        () if running > 0 || stopped != over => "Running",
        () if stopped == succeeded => "Succeeded",
        () => "Failed",
    }
}

/// A main container runs or has run: the init containers have done their work.
fn has_initialized(pod: &Value, mains: &[Value]) -> bool {
    let began = |s: &Value| s["state"]["waiting"].is_null() || !s["lastState"]["terminated"].is_null();
    pod["spec"]["initContainers"].is_empty() || mains.iter().any(began)
}

fn names(containers: &[Value], statuses: &[Value], good: impl Fn(&Value, &Value) -> bool) -> Vec<String> {
    let bad = containers.iter().zip(statuses).filter(|(c, s)| !good(c, s));
    bad.map(|(c, _)| c["name"].str().to_owned()).collect()
}

type Verdict = (bool, &'static str, String);

fn initialized(pod: &Value, init: &[Value], mains: &[Value], phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return (true, "PodCompleted", String::new());
    }
    if has_initialized(pod, mains) {
        return (true, "", String::new());
    }
    let done = |c: &Value, s: &Value| if pod::is_sidecar(c) { s["started"].bool() } else { s["ready"].bool() };
    let incomplete = names(pod["spec"]["initContainers"].items(), init, done);
    match incomplete.is_empty() {
        true => (true, "", String::new()),
        false => {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            (false, "ContainersNotInitialized", message)
        }
    }
}

fn containers_ready(pod: &Value, init: &[Value], mains: &[Value], phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return (false, "PodCompleted", String::new()),
        "Failed" => return (false, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = |c: &Value, s: &Value| !pod::is_sidecar(c) || s["ready"].bool();
    let mut unready = names(pod["spec"]["initContainers"].items(), init, sidecars);
    unready.extend(names(pod["spec"]["containers"].items(), mains, |_, s| s["ready"].bool()));
    match unready.is_empty() {
        true => (true, "", String::new()),
        false => (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    }
}

fn pod_ready(pod: &Value, containers: &Verdict) -> Verdict {
    if !containers.0 {
        return containers.clone();
    }
    let old = pod["status"]["conditions"].items();
    for gate in pod["spec"]["readinessGates"].items() {
        let kind = gate["conditionType"].str();
        let message = match old.iter().find(|c| c["type"].str() == kind) {
            Some(c) if c["status"].str() == "True" => continue,
            Some(_) => format!("the status of pod readiness gate {kind:?} is not \"True\", but False"),
            None => format!("corresponding condition of pod readiness gate {kind:?} does not exist."),
        };
        return (false, "ReadinessGatesNotReady", message);
    }
    (true, "", String::new())
}

fn conditions(pod: &Value, status: &Value, init: &[Value], mains: &[Value], inputs: &Inputs) -> Vec<Value> {
    let phase = status["phase"].str();
    let containers = containers_ready(pod, init, mains, phase);
    let sandbox = inputs.observed.sandbox.as_ref().is_some_and(|s| s.ready);
    let sandbox = sandbox && (!inputs.pod_ips.is_empty() || pod["spec"]["hostNetwork"].bool());
    let verdicts: [(&str, Verdict); 5] = [
        ("PodReadyToStartContainers", (sandbox, "", String::new())),
        ("Initialized", initialized(pod, init, mains, phase)),
        ("Ready", pod_ready(pod, &containers)),
        ("ContainersReady", containers),
        ("PodScheduled", (true, "", String::new())),
    ];
    let old = pod["status"]["conditions"].items();
    let mut list: Vec<Value> = verdicts.into_iter().map(|(kind, v)| condition(pod, old, kind, v, inputs.now)).collect();
    let ours: Vec<String> = list.iter().map(|c| c["type"].str().to_owned()).collect();
    list.extend(old.iter().filter(|c| !ours.iter().any(|o| o == c["type"].str())).cloned());
    list
}

fn condition(pod: &Value, old: &[Value], kind: &str, verdict: Verdict, now: Time) -> Value {
    let (holds, reason, message) = verdict;
    let text = if holds { "True" } else { "False" };
    let before = old.iter().find(|c| c["type"].str() == kind && c["status"].str() == text);
    let since = before.map(|c| c["lastTransitionTime"].clone()).filter(|t| !t.is_null());
    let mut condition = value!({
        "type": kind, "status": text, "lastProbeTime": null,
        "lastTransitionTime": since.unwrap_or_else(|| Value::from(now)),
        "observedGeneration": pod["metadata"]["generation"].clone(),
    });
    if !reason.is_empty() {
        condition.set("reason", reason);
    }
    if !message.is_empty() {
        condition.set("message", message);
    }
    condition
}

/// Equal, where a null is as good as nothing: servers may drop it.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(_), Value::Object(_)) => {
            let covered = |a: &Value, b: &Value| a.entries().all(|(key, value)| same(value, &b[key.as_str()]));
            covered(a, b) && covered(b, a)
        }
        (Value::Array(_), Value::Array(_)) => {
            a.items().len() == b.items().len() && a.items().iter().zip(b.items()).all(|(a, b)| same(a, b))
        }
        _ => a == b,
    }
}

/// The merge patch that turns `old` into `new`; `None` if they say the same.
pub fn diff(old: &Value, new: &Value) -> Option<Value> {
    let mut patch = Value::object();
    for (key, value) in new.entries() {
        if !same(&old[key.as_str()], value) {
            patch.set(key, value);
        }
    }
    for name in ["podIP", "podIPs"] {
        if new[name].is_null() && !old[name].is_null() {
            patch.set(name, Value::Null);
        }
    }
    (!patch.is_empty()).then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_that_the_server_has_dropped_is_no_difference() {
        let old = value!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let new = value!({"phase": "Running", "message": null, "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null}]});
        assert_eq!(diff(&old, &new), None);
        let other = value!({"phase": "Failed", "conditions": [{"type": "Ready", "status": "False"}]});
        assert_eq!(diff(&old, &other).map(|d| d.entries().count()), Some(2));
    }
}
