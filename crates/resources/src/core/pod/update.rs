//! What may change in a pod that exists: little (upstream `ValidatePodUpdate`).

use super::{scheduling, template};
use crate::semantic::equal;
use canopus_api::{Errors, Field, Value};

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks a change of the pod itself.
pub fn validate(new: &Field, old: &Value, errors: &mut Errors) {
    super::validate_pod(new, errors);
    let meta = new.at("metadata");
    template::annotation_update(&meta.at("annotations"), &old["metadata"]["annotations"], errors);
    let (spec, old) = (new.at("spec"), &old["spec"]);
    for list in ["containers", "initContainers"] {
        if !images(&spec.at(list), &old[list], errors) {
            return;
        }
    }
    if !deadline(&spec.at("activeDeadlineSeconds"), &old["activeDeadlineSeconds"], errors) {
        return;
    }
    tolerations(&spec.at("tolerations"), &old["tolerations"], errors);
    gates(&spec.at("schedulingGates"), &old["schedulingGates"], errors);
    if equal(spec.value, old) {
        return;
    }
    let allowed = with_allowed_changes_undone(&spec, old, errors);
    if !equal(&allowed, old) {
        errors.forbidden(&spec, format!("{MAY_CHANGE}\n{}", differences(old, &allowed)));
    }
}

/// Images may change, the number of containers not; false ends the validation.
fn images(list: &Field, old: &Value, errors: &mut Errors) -> bool {
    if list.value.items().len() != old.items().len() {
        errors.forbidden(list, "pod updates may not add or remove containers");
        return false;
    }
    for container in list.items() {
        crate::checks::required(&container.at("image"), errors);
        super::containers::image_padding(&container, errors);
    }
    true
}

/// It may be set, and lowered; false ends the validation.
fn deadline(new: &Field, old: &Value, errors: &mut Errors) -> bool {
    let Some(seconds) = new.value.as_i64() else {
        if !old.is_null() {
            errors.invalid(new, "must not update from a positive integer to nil value");
        }
        return true;
    };
    if !(0..=i64::from(i32::MAX)).contains(&seconds) {
        errors.invalid(new, format!("must be between 0 and {}, inclusive", i32::MAX));
        return false;
    }
    if old.as_i64().is_some_and(|old| old < seconds) {
        errors.invalid(new, "must be less than or equal to previous value");
        return false;
    }
    true
}

/// New ones may come, old ones only change their tolerationSeconds.
fn tolerations(new: &Field, old: &Value, errors: &mut Errors) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.remove("tolerationSeconds");
        toleration
    };
    let kept: Vec<Value> = new.value.items().iter().map(without_seconds).collect();
    if !old.items().iter().all(|old| kept.iter().any(|new| equal(new, &without_seconds(old)))) {
        return errors.forbidden(new, "existing toleration can not be modified except its tolerationSeconds");
    }
    scheduling::tolerations(new, errors);
}

fn gates(new: &Field, old: &Value, errors: &mut Errors) {
    for gate in new.items() {
        let name = gate.at("name");
        if !old.items().iter().any(|old| old["name"].str() == name.str()) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", name.str());
            errors.forbidden(&name, why);
        }
    }
}

/// The new spec with all that may change, or that has been judged already, as it was.
fn with_allowed_changes_undone(spec: &Field, old: &Value, errors: &mut Errors) -> Value {
    let mut undone = spec.value.clone();
    for list in ["containers", "initContainers"] {
        let Some(containers) = undone.get_mut(list).and_then(Value::as_array_mut) else { continue };
        for (container, old) in containers.iter_mut().zip(old[list].items()) {
            restore(container, old, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        restore(&mut undone, old, field);
    }
    if old["terminationGracePeriodSeconds"].int() < 0 && undone["terminationGracePeriodSeconds"].int() == 1 {
        restore(&mut undone, old, "terminationGracePeriodSeconds");
    }
    if !old["schedulingGates"].is_empty() {
        gated(spec, &mut undone, old, errors);
    }
    undone
}

fn restore(object: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => object.set(field, value),
        None => {
            object.remove(field);
        }
    }
}

/// While a pod is gated, its node selector and required node affinity may become narrower (KEP-3838).
fn gated(spec: &Field, undone: &mut Value, old: &Value, errors: &mut Errors) {
    let selector = spec.at("nodeSelector");
    if !old["nodeSelector"].entries().all(|(key, value)| selector.value.get(key) == Some(value)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&selector, why);
    }
    restore(undone, old, "nodeSelector");
    let (affinity, of_old) = (spec.at("affinity"), &old["affinity"]["nodeAffinity"]);
    let node = affinity.at("nodeAffinity");
    if equal(node.value, of_old) {
        return;
    }
    narrower(&node, of_old, errors);
    if undone["affinity"].is_null() {
        undone.set_path(&["affinity", "nodeAffinity"], of_old);
    } else if of_old.is_null() {
        undone.remove_path(&["affinity", "nodeAffinity"]);
        if old["affinity"].is_null() && undone["affinity"].is_empty() {
            undone.remove("affinity");
        }
    } else {
        undone.set_path(&["affinity", "nodeAffinity"], of_old);
    }
}

fn narrower(node: &Field, old: &Value, errors: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let required = node.at(REQUIRED);
    let (terms, old_terms) = (required.at("nodeSelectorTerms"), old[REQUIRED]["nodeSelectorTerms"].items());
    if old_terms.is_empty() {
        return;
    }
    if terms.value.items().len() != old_terms.len() {
        return errors.invalid(&terms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
    }
    for (term, old) in terms.items().zip(old_terms) {
        let starts = |list: &str| {
            let (new, old) = (term.value[list].items(), old[list].items());
            new.len() >= old.len() && new.iter().zip(old).all(|(new, old)| equal(new, old))
        };
        let was_empty = old["matchExpressions"].is_empty() && old["matchFields"].is_empty();
        let is_empty = term.value["matchExpressions"].is_empty() && term.value["matchFields"].is_empty();
        if (was_empty && !is_empty) || !starts("matchExpressions") || !starts("matchFields") {
            errors.invalid(&term, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// Lines `-path: before` and `+path: after` for what differs. Not Go's notation, but to the same end.
pub fn differences(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    collect(&mut String::new(), old, new, &mut lines);
    lines.join("\n")
}

fn collect(path: &mut String, old: &Value, new: &Value, lines: &mut Vec<String>) {
    const MOST: usize = 100;
    if equal(old, new) || lines.len() >= MOST {
        return;
    }
    let length = path.len();
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for name in names {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(name);
                collect(path, old.at(name), new.at(name), lines);
                path.truncate(length);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                path.push_str(&format!("[{i}]"));
                collect(path, a, b, lines);
                path.truncate(length);
            }
        }
        _ => {
            for (sign, value) in [('-', old), ('+', new)] {
                if !value.is_null() {
                    lines.push(format!("{sign}{path}: {}", canopus_api::json::to_string(value)));
                }
            }
        }
    }
}

/// Checks a change through `ephemeralcontainers`: they may come, but neither change nor go (KEP-277).
pub fn ephemeral_containers(new: &Field, old: &Value, errors: &mut Errors) {
    if template::is_mirror(old) {
        let why = "static pods do not support ephemeral containers";
        return errors.forbidden(&Field::root(&Value::Null).at(""), why);
    }
    super::validate_pod(new, errors);
    let (meta, spec) = (new.at("metadata"), new.at("spec"));
    template::annotation_update(&meta.at("annotations"), &old["metadata"]["annotations"], errors);
    let list = spec.at("ephemeralContainers");
    for before in old["spec"]["ephemeralContainers"].items() {
        let name = before["name"].str();
        match list.value.items().iter().find(|c| c["name"].str() == name) {
            None => errors.forbidden(&list, format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(after) if !equal(after, before) => {
                let why = format!(
                    "existing ephemeral containers {name:?} may not be changed\n{}",
                    differences(before, after)
                );
                errors.forbidden(&list, why);
            }
            Some(_) => {}
        }
    }
}
