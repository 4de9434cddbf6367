//! Facts about a pod that several parts ask for.

use std::time::Duration;

use canopus_api::{Quantity, Time, Value};

/// `name_namespace(uid)`, as logs and messages name a pod.
pub fn format(pod: &Value) -> String {
    let meta = &pod["metadata"];
    format!("{}_{}({})", meta["name"].str(), meta["namespace"].str(), meta["uid"].str())
}

/// An init container that keeps running beside the others (KEP-753).
pub fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"].str() == "Always"
}

/// All containers: init containers first.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let spec = &pod["spec"];
    spec["initContainers"].items().iter().chain(spec["containers"].items())
}

pub fn container<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    containers(pod).find(|c| c["name"].str() == name)
}

pub fn is_init(pod: &Value, name: &str) -> bool {
    pod["spec"]["initContainers"].items().iter().any(|c| c["name"].str() == name)
}

/// `spec.containers{name}`: the part of a pod an Event is about.
pub fn field_path(pod: &Value, name: &str) -> String {
    let list = if is_init(pod, name) { "initContainers" } else { "containers" };
    format!("spec.{list}{{{name}}}")
}

/// Seconds the pod's containers get to end.
pub fn grace(pod: &Value) -> Duration {
    let seconds = pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let seconds = seconds.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

pub fn is_deleting(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

/// Succeeded or Failed already, whoever said so.
pub fn is_terminal(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].str(), "Succeeded" | "Failed")
}

/// When `activeDeadlineSeconds` is over.
pub fn deadline(pod: &Value) -> Option<Time> {
    let seconds = pod["spec"]["activeDeadlineSeconds"].as_i64()?;
    let start = Time::parse(pod["status"]["startTime"].str())?;
    Some(start.plus(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
}

/// Whether a container that has ended with `exit_code` runs again: its rules, else its policy, else the pod's.
pub fn restarts(pod: &Value, container: &Value, exit_code: i64) -> bool {
    let own = container["restartPolicy"].str();
    let matches = |rule: &&Value| {
        let codes = &rule["exitCodes"];
        let listed = codes["values"].items().iter().any(|v| v.as_i64() == Some(exit_code));
        match codes["operator"].str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    if !own.is_empty()
        && let Some(rule) = container["restartPolicyRules"].items().iter().find(matches)
        && rule["action"].str() == "Restart"
    {
        return true;
    }
    let policy = if own.is_empty() { pod["spec"]["restartPolicy"].str() } else { own };
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// A quantity of a container's `resources.<kind>.<resource>`.
pub fn resource(container: &Value, kind: &str, resource: &str) -> Option<Quantity> {
    Quantity::from_value(container["resources"][kind].get(resource)?)
}

/// What a pod asks for: its containers and sidecars together, or what an init container needs beside the sidecars
/// before it, plus overhead. Millicores of "cpu", else whole units.
pub fn request(pod: &Value, name: &str) -> i64 {
    let number = |q: Quantity| if name == "cpu" { q.milli_value() } else { q.value() };
    let of = |c: &Value| resource(c, "requests", name).map_or(0, number);
    let spec = &pod["spec"];
    let (mut sidecars, mut most) = (0_i64, 0_i64);
    for init in spec["initContainers"].items() {
        if is_sidecar(init) {
            sidecars = sidecars.saturating_add(of(init));
            most = most.max(sidecars);
        } else {
            most = most.max(sidecars.saturating_add(of(init)));
        }
    }
    let mains = spec["containers"].items().iter().map(of).fold(sidecars, i64::saturating_add);
    let overhead = spec["overhead"].get(name).and_then(Quantity::from_value).map_or(0, number);
    most.max(mains).saturating_add(overhead)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }

    /// The group, below the runtime's root, of pods of this class.
    pub fn cgroup(self) -> &'static str {
        match self {
            Qos::Guaranteed => "kubepods",
            Qos::Burstable => "kubepods/burstable",
            Qos::BestEffort => "kubepods/besteffort",
        }
    }
}

/// The class that follows from requests and limits of CPU and memory.
pub fn qos(pod: &Value) -> Qos {
    let (mut any, mut guaranteed) = (false, true);
    for container in containers(pod) {
        for name in ["cpu", "memory"] {
            let request = resource(container, "requests", name).filter(|q| !q.is_zero());
            let limit = resource(container, "limits", name).filter(|q| !q.is_zero());
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn restart_rules_come_before_policies() {
        let pod = value!({"spec": {"restartPolicy": "Never"}});
        let rules = value!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
        let cases = [
            (value!({}), 1, false),
            (value!({"restartPolicy": "Always"}), 0, true),
            (value!({"restartPolicy": "OnFailure"}), 0, false),
            (value!({"restartPolicy": "OnFailure"}), 3, true),
            (value!({"restartPolicy": "Never", "restartPolicyRules": rules.clone()}), 42, true),
            (value!({"restartPolicy": "Never", "restartPolicyRules": rules}), 1, false),
        ];
        for (container, code, wanted) in cases {
            assert_eq!(restarts(&pod, &container, code), wanted, "{container:?} {code}");
        }
    }

    #[test]
    fn qos_classes() {
        let pod = |resources: Value| value!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
        let both = value!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos(&pod(value!({}))), Qos::BestEffort);
        assert_eq!(qos(&pod(value!({"requests": {"cpu": "1"}}))), Qos::Burstable);
        assert_eq!(qos(&pod(value!({"limits": both.clone()}))), Qos::Guaranteed);
        assert_eq!(qos(&pod(value!({"limits": both, "requests": {"cpu": "500m", "memory": "1Gi"}}))), Qos::Burstable);
    }
}
