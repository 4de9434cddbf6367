//! What Deployments, ReplicaSets and their like have in common.

use crate::checks::{self, nonnegative};
use crate::core::pod::template;
use crate::core::pod::warnings;
use canopus_api::{Errors, Field, LabelSelector, Value, names, value};

/// `replicas`, `minReadySeconds` and the like: fields of `place` that count something.
pub fn counts(place: &Field, fields: &[&str], errors: &mut Errors) {
    fields.iter().for_each(|field| nonnegative(&place.at(field), errors));
}

/// `spec.selector` and `spec.template`. Both apps kinds say "deployment" about an empty selector, as upstream.
pub fn selector_and_template(spec: &Field, errors: &mut Errors) {
    let selector = spec.at("selector");
    if selector.is_unset() {
        errors.required(&selector, "");
    } else {
        checks::label_selector(&selector, errors);
        not_empty(&selector, "deployment", errors);
    }
    match LabelSelector::from_value(selector.value) {
        Ok(parsed) => template::validate_for_selector(&spec.at("template"), &parsed, "ReplicaSet", errors),
        Err(_) => errors.invalid(&selector, "invalid label selector"),
    }
}

/// A selector that is there must select by something.
pub fn not_empty(selector: &Field, kind: &str, errors: &mut Errors) {
    let (labels, expressions) = (&selector.value["matchLabels"], &selector.value["matchExpressions"]);
    if selector.is_set() && labels.is_empty() && expressions.is_empty() {
        errors.invalid(selector, format!("empty selector is invalid for {kind}"));
    }
}

/// Pods that a controller keeps running restart always, and have no end.
pub fn restarts_always(template: &Field, kind: &str, errors: &mut Errors) {
    let spec = template.at("spec");
    let deadline = spec.at("activeDeadlineSeconds");
    checks::one_of(&spec.at("restartPolicy"), &["Always"], errors);
    if deadline.is_set() {
        errors.forbidden(&deadline, format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

/// A count of a status that only grows.
pub fn not_decremented(count: &Field, old: &Value, errors: &mut Errors) {
    if count.int() < old.int() {
        errors.invalid(&count.with(&count.int().into()), "cannot be decremented");
    }
}

/// Counts of a status that may not exceed others.
pub fn at_most_replicas(status: &Field, fields: &[&str], errors: &mut Errors) {
    parts_of_replicas(status, fields, "readyReplicas", errors);
}

/// Like [`at_most_replicas`]; `ready` is what the message calls the ready ones.
pub fn parts_of_replicas(status: &Field, fields: &[&str], ready: &str, errors: &mut Errors) {
    for field in fields {
        let count = status.at(field);
        if count.int() > status.value["replicas"].int() {
            errors.invalid(&count, "cannot be greater than status.replicas");
        }
    }
    let available = status.at("availableReplicas");
    if available.int() > status.value["readyReplicas"].int() {
        errors.invalid(&available, format!("cannot be greater than {ready}"));
    }
}

/// Warnings of a kind that makes pods from `spec.template`: on creation, and when the spec has changed.
pub fn template_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    match old {
        None => {
            let why = names::dns1123_label(object["metadata"]["name"].str());
            if !why.is_empty() {
                out.push(format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]", why.join(" ")));
            }
        }
        Some(old) if old["metadata"]["generation"] == object["metadata"]["generation"] => return out,
        Some(_) => {}
    }
    let root = Field::root(object);
    out.extend(warnings::of(&root.at("spec").at("template"), false));
    out
}

/// Names and images of a template's containers, as cells.
pub fn container_cells(pod_spec: &Value) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let texts: Vec<&str> = pod_spec["containers"].items().iter().map(|c| c[field].str()).collect();
        texts.join(",").into()
    })
}

/// The selector of a workload: a map of labels in a ReplicationController, a `LabelSelector` elsewhere.
fn selector(object: &Value) -> LabelSelector {
    let selector = &object["spec"]["selector"];
    if object["kind"].str() == "ReplicationController" {
        LabelSelector::from_map(selector)
    } else {
        LabelSelector::from_value(selector).unwrap_or_else(|_| LabelSelector::nothing())
    }
}

/// The `autoscaling/v1 Scale` of a Deployment, ReplicaSet, StatefulSet or ReplicationController.
pub fn to_scale(object: &Value) -> Value {
    let mut meta = Value::object();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            meta.set(field, value);
        }
    }
    let mut scale = value!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": {},
        "status": {"replicas": (object["status"]["replicas"].int())},
    });
    let (replicas, selector) = (object["spec"]["replicas"].int(), selector(object).to_string());
    if replicas != 0 {
        scale.set_path(&["spec", "replicas"], replicas);
    }
    if !selector.is_empty() {
        scale.set_path(&["status", "selector"], selector);
    }
    scale
}

/// All that is wrong with a Scale beyond its metadata.
pub fn validate_scale(scale: &Field, errors: &mut Errors) {
    nonnegative(&scale.at("spec").at("replicas"), errors);
}

/// Gives a workload the size, and the resourceVersion to compare with, of a Scale.
/// `scale.metadata.uid`, when set, is a precondition, which the caller checks.
pub fn apply_scale(object: &mut Value, scale: &Value) {
    object.set_path(&["spec", "replicas"], scale["spec"]["replicas"].int());
    match scale["metadata"].get("resourceVersion") {
        Some(version) => object.set_path(&["metadata", "resourceVersion"], version),
        None => drop(object.remove_path(&["metadata", "resourceVersion"])),
    }
}

/// A cell with a `LabelSelector`.
pub fn selector_cell(selector: &Value, for_none: &str, for_bad: &str) -> Value {
    match LabelSelector::from_value(selector) {
        Err(_) => for_bad.into(),
        Ok(parsed) => match parsed.to_string() {
            text if text.is_empty() => for_none.into(),
            text => text.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales() {
        let mut object = value!({"kind": "Deployment", "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "5", "labels": {"a": "1"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "2", "a": "1"}}}, "status": {"replicas": 2}});
        let mut scale = to_scale(&object);
        assert_eq!(
            scale,
            value!({"apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "5"},
            "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "a=1,b=2"}})
        );
        scale.set("spec", Value::object());
        apply_scale(&mut object, &scale);
        assert_eq!(object["spec"]["replicas"].as_i64(), Some(0));
        let mut errors = Errors::new();
        validate_scale(&Field::root(&value!({"spec": {"replicas": -1}})), &mut errors);
        assert_eq!(checks::texts(&errors), ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]);
    }

    #[test]
    fn controllers_have_a_plain_selector() {
        let scale = to_scale(&value!({"kind": "ReplicationController", "spec": {"selector": {"x": "y"}}}));
        assert_eq!(scale["status"], value!({"replicas": 0, "selector": "x=y"}));
    }
}
