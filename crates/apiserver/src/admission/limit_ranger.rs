//! LimitRanger: what the LimitRanges of a namespace say of one pod, container or claim; they also fill in what containers
//! do not say.

use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Object, Quantity, Status, Value, View};
use canopus_resources::core::pod::amounts::{Amounts, amounts, is_pod_level, of_containers};
use std::sync::Arc;

pub struct LimitRanger {
    pub ranges: Arc<dyn View>,
}

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    /// A pod's containers only change through `resize`.
    fn handles(&self, request: &Request) -> bool {
        match request.operation {
            Operation::Create => request.is("", "pods", "") || request.is("", "persistentvolumeclaims", ""),
            Operation::Update => request.is("", "pods", "resize") || request.is("", "persistentvolumeclaims", ""),
            _ => false,
        }
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        if request.resource.plural == "pods" {
            for range in self.ranges.list(request.namespace) {
                fill_in(&mut request.object, &range.value());
            }
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        // Claims that are on their way out may lose their finalizers.
        if request.operation == Operation::Update && !request.old["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        for range in self.ranges.list(request.namespace) {
            let problems = problems(request.resource.plural, &request.object, &range);
            match problems.as_slice() {
                [] => {}
                [one] => return Err(request.forbidden(one)),
                many => return Err(request.forbidden(&format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

/// Gives containers the default requests and limits they lack, and notes it in an annotation.
fn fill_in(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (Value::object(), Value::object());
    for limit in range["spec"]["limits"].items().iter().filter(|limit| limit["type"].str() == "Container") {
        for (to, list) in [(&mut requests, "defaultRequest"), (&mut limits, "default")] {
            limit[list].entries().for_each(|(name, quantity)| to.set(name, quantity));
        }
    }
    let mut notes = Vec::new();
    for (list, called) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container["name"].str().to_string();
            for (field, what, defaults) in [("limits", "limit", &limits), ("requests", "request", &requests)] {
                let set = merge(container, field, defaults);
                if !set.is_empty() {
                    notes.push((what, format!("{} {what} for {called} {name}", set.join(", "))));
                }
            }
            // Requests are told of first.
            let length = notes.len();
            if length >= 2 && notes[length - 1].0 == "request" && notes[length - 2].0 == "limit" {
                notes.swap(length - 1, length - 2);
            }
        }
    }
    if !notes.is_empty() {
        let all = notes.into_iter().map(|(_, note)| note).collect::<Vec<_>>().join("; ");
        pod.set_path(&["metadata", "annotations", ANNOTATION], format!("LimitRanger plugin set: {all}"));
    }
}

/// The names of what was missing.
fn merge(container: &mut Value, field: &str, defaults: &Value) -> Vec<String> {
    let there = &container["resources"][field];
    let missing: Vec<String> =
        defaults.entries().map(|(name, _)| name.to_string()).filter(|name| there.get(name).is_none()).collect();
    for name in &missing {
        container.set_path(&["resources", field, name], &defaults[name.as_str()]);
    }
    missing
}

fn problems(plural: &str, object: &Value, range: &Object) -> Vec<String> {
    let mut out = Vec::new();
    for limit in range.value()["spec"]["limits"].items() {
        let kind = limit["type"].str();
        match (plural, kind) {
            ("pods", "Container") => {
                for container in ["containers", "initContainers"].iter().flat_map(|l| object["spec"][*l].items()) {
                    let resources = &container["resources"];
                    bounds(limit, &amounts(&resources["requests"]), &amounts(&resources["limits"]), &mut out);
                }
            }
            ("pods", "Pod") => {
                bounds(limit, &whole(&object["spec"], "requests"), &whole(&object["spec"], "limits"), &mut out);
            }
            ("persistentvolumeclaims", "PersistentVolumeClaim") => {
                let requests = amounts(&object["spec"]["resources"]["requests"]);
                for (name, least) in amounts(&limit["min"]) {
                    out.extend(minimum(kind, &name, least, &requests, &Amounts::new()));
                }
                for (name, most) in amounts(&limit["max"]) {
                    out.extend(maximum_request(kind, &name, most, &requests));
                }
            }
            _ => {}
        }
    }
    out
}

/// What a pod's containers come to, without overhead; what is said of the whole pod counts instead.
fn whole(spec: &Value, list: &str) -> Amounts {
    let mut total = of_containers(spec, list);
    total.extend(amounts(&spec["resources"][list]).into_iter().filter(|(name, _)| is_pod_level(name)));
    total
}

fn bounds(limit: &Value, requests: &Amounts, limits: &Amounts, out: &mut Vec<String>) {
    let kind = limit["type"].str();
    for (name, least) in amounts(&limit["min"]) {
        out.extend(minimum(kind, &name, least, requests, limits));
    }
    for (name, most) in amounts(&limit["max"]) {
        out.extend(maximum(kind, &name, most, requests, limits));
    }
    for (name, most) in amounts(&limit["maxLimitRequestRatio"]) {
        out.extend(ratio(kind, &name, most, requests, limits));
    }
}

fn minimum(kind: &str, name: &str, least: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let usage = format!("minimum {name} usage per {kind} is {least}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{usage}.  No request is specified")),
        (Some(request), _) if *request < least => Some(format!("{usage}, but request is {request}")),
        (_, Some(limit)) if *limit < least => Some(format!("{usage}, but limit is {limit}")),
        _ => None,
    }
}

fn maximum_request(kind: &str, name: &str, most: Quantity, requests: &Amounts) -> Option<String> {
    let usage = format!("maximum {name} usage per {kind} is {most}");
    match requests.get(name) {
        None => Some(format!("{usage}.  No request is specified")),
        Some(request) if *request > most => Some(format!("{usage}, but request is {request}")),
        Some(_) => None,
    }
}

fn maximum(kind: &str, name: &str, most: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let usage = format!("maximum {name} usage per {kind} is {most}");
    match (requests.get(name), limits.get(name)) {
        (_, None) => Some(format!("{usage}.  No limit is specified")),
        (_, Some(limit)) if *limit > most => Some(format!("{usage}, but limit is {limit}")),
        (Some(request), _) if *request > most => Some(format!("{usage}, but request is {request}")),
        _ => None,
    }
}

fn ratio(kind: &str, name: &str, most: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {kind} is {most}, but");
    let amount = |list: &Amounts| list.get(name).map(Quantity::milli_value).filter(|value| *value != 0);
    let Some(request) = amount(requests) else {
        return Some(format!("{start} no request is specified or request is 0"));
    };
    let Some(limit) = amount(limits) else { return Some(format!("{start} no limit is specified or limit is 0")) };
    let observed = limit as f64 / request as f64;
    (observed * 1000.0 > most.milli_value() as f64).then(|| format!("{start} provided ratio is {observed:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    fn range(limits: Value) -> Object {
        Object::from_value(value!({"metadata": {"name": "l"}, "spec": {"limits": limits}}), &[], 1)
    }

    fn pod(requests: Value, limits: Value) -> Value {
        value!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}})
    }

    #[test]
    fn defaults_are_filled_in_and_noted() {
        let range = range(
            value!([{"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1"}}]),
        );
        let mut filled = pod(value!({}), value!({"cpu": "3"}));
        fill_in(&mut filled, &range.value());
        assert_eq!(
            filled["spec"]["containers"][0]["resources"],
            value!({"requests": {"cpu": "1"}, "limits": {"cpu": "3", "memory": "1Gi"}})
        );
        assert_eq!(
            filled["metadata"]["annotations"][ANNOTATION].str(),
            "LimitRanger plugin set: cpu request for container c; memory limit for container c"
        );
    }

    #[test]
    fn bounds_are_kept() {
        let both = |kind: &str| value!([{"type": kind, "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}}]);
        let cases: Vec<(Value, Value, &[&str])> = vec![
            (both("Container"), pod(value!({"cpu": "500m"}), value!({"cpu": "1"})), &[]),
            (
                both("Pod"),
                pod(value!({"cpu": "50m"}), value!({"cpu": "2"})),
                &[
                    "minimum cpu usage per Pod is 100m, but request is 50m",
                    "maximum cpu usage per Pod is 1, but limit is 2",
                    "cpu max limit to request ratio per Pod is 2, but provided ratio is 40.000000",
                ],
            ),
            (
                both("Container"),
                pod(value!({}), value!({})),
                &[
                    "minimum cpu usage per Container is 100m.  No request is specified",
                    "maximum cpu usage per Container is 1.  No limit is specified",
                    "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
                ],
            ),
        ];
        for (limits, pod, expected) in cases {
            assert_eq!(problems("pods", &pod, &range(limits)), expected);
        }
        let claims =
            range(value!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]));
        let claim = |size: &str| value!({"spec": {"resources": {"requests": {"storage": size}}}});
        assert_eq!(problems("persistentvolumeclaims", &claim("1Gi"), &claims), [""; 0]);
        assert_eq!(
            problems("persistentvolumeclaims", &claim("3Gi"), &claims),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
    }
}
