//! Giving a pod to a node: the `binding` subresource.

use crate::checks::required;
use canopus_api::{Errors, Field, Gvr, Result, Status, Time, Value, value};

/// All that is wrong with a `Binding` (upstream `ValidatePodBinding`).
pub fn validate(binding: &Field, errors: &mut Errors) {
    let target = binding.at("target");
    let kind = target.at("kind");
    if !matches!(kind.str(), "" | "Node") {
        errors.not_supported(&kind, &["Node", "<empty>"]);
    }
    required(&target.at("name"), errors);
}

/// Assigns `pod` to the node that `binding` names, with the binding's annotations and labels.
/// `binding.metadata.uid` and `.resourceVersion` are preconditions, which the caller checks.
///
/// # Errors
/// `Conflict`, as upstream's `assignPod`, for a pod that is being deleted, has a node or is gated.
pub fn bind(pod: &mut Value, binding: &Value, now: Time) -> Result<()> {
    let name = pod["metadata"]["name"].str().to_owned();
    let conflict = |why: String| Err(Status::conflict(&Gvr::new("", "v1", "pods/binding"), &name, &why));
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod["spec"]["nodeName"].str();
    if !node.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    if !pod["spec"]["schedulingGates"].is_empty() {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod.set_path(&["spec", "nodeName"], &binding["target"]["name"]);
    for map in ["annotations", "labels"] {
        for (key, text) in binding["metadata"][map].entries() {
            pod.set_path(&["metadata", map, key], text);
        }
    }
    pod.remove_path(&["status", "nominatedNodeName"]);
    set_condition(pod, "PodScheduled", "True", now);
    Ok(())
}

/// Sets a condition that has neither reason nor message.
fn set_condition(pod: &mut Value, kind: &str, status: &str, now: Time) {
    let conditions = pod.obj_mut("status").entry("conditions", || Value::Null).ensure_array();
    let found = conditions.iter().position(|c| c["type"].str() == kind);
    let same = found.map(|i| &conditions[i]).filter(|c| c["status"].str() == status);
    let since = same.map_or_else(|| now.into(), |c| c["lastTransitionTime"].clone());
    let condition = value!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since});
    match found {
        Some(i) => conditions[i] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assigns_once() {
        let mut pod = value!({"metadata": {"name": "p", "labels": {"a": "1"}}, "spec": {}, "status": {"nominatedNodeName": "m",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
        let binding = value!({"metadata": {"name": "p", "annotations": {"x": "y"}, "labels": {"a": "2"}}, "target": {"kind": "Node", "name": "n"}});
        bind(&mut pod, &binding, Time(0)).unwrap();
        assert_eq!(
            pod,
            value!({
                "metadata": {"name": "p", "labels": {"a": "2"}, "annotations": {"x": "y"}}, "spec": {"nodeName": "n"},
                "status": {"conditions": [{"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": "1970-01-01T00:00:00Z"}]},
            })
        );
        let again = bind(&mut pod, &binding, Time(0)).unwrap_err();
        assert_eq!(
            (again.code, again.message.as_str()),
            (409, r#"Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n""#)
        );
    }

    #[test]
    fn refuses() {
        let binding = value!({"target": {"name": "n"}});
        for (pod, why) in [
            (
                value!({"metadata": {"name": "p", "deletionTimestamp": "x"}}),
                "pod p is being deleted, cannot be assigned to a host",
            ),
            (
                value!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}}),
                "pod p has non-empty .spec.schedulingGates",
            ),
        ] {
            let mut pod = pod;
            assert!(bind(&mut pod, &binding, Time(0)).unwrap_err().message.ends_with(why));
        }
        let mut errors = Errors::new();
        validate(&Field::root(&value!({"target": {"kind": "Pod"}})), &mut errors);
        assert_eq!(
            crate::checks::texts(&errors),
            [
                r#"target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>""#,
                "target.name: Required value"
            ]
        );
    }
}
