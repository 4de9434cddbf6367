//! Templates of pods, in every kind that makes pods.

use super::{Scope, scheduling, security, spec};
use crate::checks;
use canopus_api::{Errors, Field, Value};

const MIRROR: &str = "kubernetes.io/config.mirror";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// All that is wrong with a `PodTemplateSpec` (upstream `ValidatePodTemplateSpec`). Its defaults must have been set
/// with [`super::defaults::template`]. The paths are upstream's: labels are blamed without `metadata`.
pub fn validate(template: &Field, errors: &mut Errors) {
    let (meta, pod_spec) = (template.value.at("metadata"), template.at("spec"));
    checks::labels(&template.at("labels").with(&meta["labels"]), errors);
    let annotations = template.at("annotations");
    let annotations = annotations.with(&meta["annotations"]);
    checks::annotations(&annotations, errors);
    pod_annotations(&annotations, pod_spec.value, errors);
    spec::validate(&pod_spec, &Scope { is_pod: false, pod_name: "", is_mirror: false }, errors);
    security::annotations_match(&pod_spec, &meta["annotations"], errors);
    let ephemeral = pod_spec.at("ephemeralContainers");
    if !ephemeral.value.is_empty() {
        errors.forbidden(&ephemeral, "ephemeral containers not allowed in pod template");
    }
}

/// A template whose pods a controller keeps running: its labels match the controller's selector, and it restarts
/// always (upstream `ValidatePodTemplateSpecForReplicaSet`; `kind` is what its message calls the controller).
pub fn validate_for_selector(template: &Field, selector: &canopus_api::LabelSelector, kind: &str, errors: &mut Errors) {
    let meta = template.at("metadata");
    let labels = meta.at("labels");
    if !selector.is_everything() && !selector.matches_value(labels.value) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
    validate(template, errors);
    crate::apps::workload::restarts_always(template, kind, errors);
}

/// Annotations that mean something to pods.
pub fn pod_annotations(annotations: &Field, spec: &Value, errors: &mut Errors) {
    let mirror = annotations.key(MIRROR);
    if mirror.is_set() && spec["nodeName"].str().is_empty() {
        errors.invalid(&mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
    let text = annotations.value[TOLERATIONS].str();
    if !text.is_empty() {
        match canopus_api::json::parse(text.as_bytes()) {
            Ok(list) => scheduling::tolerations(&annotations.at(TOLERATIONS).with(&list), errors),
            Err(why) => errors.invalid(&annotations.with(&TOLERATIONS.into()), why.to_string()),
        }
    }
    let cost = annotations.key(DELETION_COST);
    if cost.is_set() && !is_deletion_cost(cost.str()) {
        errors.invalid(&cost, "must be a 32bit integer");
    }
    security::annotations(annotations, spec, errors);
}

/// No plus sign and no leading zeros.
fn is_deletion_cost(text: &str) -> bool {
    let first = text.as_bytes().first();
    let plain = text == "0" || first.is_some_and(|b| matches!(b, b'-' | b'1'..=b'9'));
    plain && text.parse::<i32>().is_ok()
}

/// Whether a pod is the reflection of one that its node runs from a file.
pub fn is_mirror(pod: &Value) -> bool {
    !pod["metadata"]["annotations"][MIRROR].is_null()
}

/// What an update may do to the annotations of a pod.
pub fn annotation_update(new: &Field, old: &Value, errors: &mut Errors) {
    for (key, _) in old.entries().filter(|(k, before)| new.value.get(k) != Some(*before)) {
        let place = new.key(key);
        if key.starts_with(security::APPARMOR) {
            errors.forbidden(&place, "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&place, "may not remove or update mirror pod annotation");
        }
    }
    for (key, place) in new.entries().filter(|(k, _)| old.get(k).is_none()) {
        if key.starts_with(security::APPARMOR) {
            errors.forbidden(&place, "may not add AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&place, "may not add mirror pod annotation");
        }
    }
}
