//! Changing the resources of a running pod (KEP-1287).

use super::amounts::{is_sidecar, qos_class};
use super::template;
use crate::semantic::equal;
use canopus_api::{Errors, Field, Value};

const RESIZABLE: &[&str] = &["cpu", "memory"];

/// Puts back everything but resources and resize policies. Containers that came, went or moved are left for
/// [`validate`] to refuse.
pub fn prepare(new: &mut Value, old: &Value) {
    let same_containers = ["containers", "initContainers"].into_iter().all(|list| {
        let (new, old) = (new["spec"][list].items(), old["spec"][list].items());
        new.len() == old.len() && new.iter().zip(old).all(|(new, old)| new["name"] == old["name"])
    });
    if !same_containers {
        return;
    }
    let mut spec = old["spec"].clone();
    for list in ["containers", "initContainers"] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else { continue };
        for (container, new) in containers.iter_mut().zip(new["spec"][list].items()) {
            copy(container, new, "resources");
            copy(container, new, "resizePolicy");
        }
    }
    copy(&mut spec, &new["spec"], "resources");
    new.set("spec", spec);
    super::restore_metadata(new, old);
    copy(new, old, "status");
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    match from.get(field) {
        Some(value) => to.set(field, value),
        None => {
            to.remove(field);
        }
    }
}

/// Checks a change through `resize`.
pub fn validate(new: &Field, old: &Value, errors: &mut Errors) {
    let nowhere = Value::Null;
    let nowhere = Field::root(&nowhere);
    if template::is_mirror(old) {
        return errors.forbidden(&nowhere.at(""), "static pods cannot be resized");
    }
    if old.path(&["spec", "os", "name"]).str() == "windows" {
        return errors.forbidden(&nowhere.at(""), "windows pods cannot be resized");
    }
    super::validate_pod(new, errors);
    let spec = new.at("spec");
    let had = match old["status"]["qosClass"].str() {
        "" => qos_class(&old["spec"]),
        class => class,
    };
    if had != qos_class(spec.value) {
        let shown = &new.value["status"]["qosClass"];
        errors.invalid(&spec.with(shown), "Pod QOS Class may not change as a result of resizing");
    }
    let running = old["status"]["containerStatuses"].items().iter().find(|s| !s["state"]["running"].is_null());
    if running.is_some_and(|s| s["resources"].is_null()) {
        errors.forbidden(&spec, "Pod running on node without support for resize");
    }
    of_pod(&spec, &old["spec"], errors);
    if same_containers(&spec, &old["spec"], errors) {
        of_containers(&spec, &old["spec"], errors);
    }
}

fn same_containers(spec: &Field, old: &Value, errors: &mut Errors) -> bool {
    let before = errors.len();
    for list in ["containers", "initContainers"] {
        let (new, old) = (spec.at(list), old[list].items());
        if new.value.items().len() != old.len() {
            errors.forbidden(&new, format!("{list} may not be added or removed on resize"));
            continue;
        }
        for (container, old) in new.items().zip(old) {
            if container.value["name"] != old["name"] {
                let why = format!("{list} may not be renamed or reordered on resize");
                errors.forbidden(&container.at("name"), why);
            }
        }
    }
    errors.len() == before
}

fn removed(new: &Value, old: &Value) -> bool {
    old.entries().any(|(name, _)| new.get(name).is_none())
}

fn of_pod(spec: &Field, old: &Value, errors: &mut Errors) {
    let (new, old) = (spec.at("resources"), &old["resources"]);
    if !old.is_null() && new.is_unset() {
        return errors.forbidden(&new, "pod-level resources cannot be removed");
    }
    for (list, what) in [("requests", "requests"), ("limits", "limits")] {
        if removed(&new.value[list], &old[list]) {
            errors.forbidden(&new.at(list), format!("pod-level resource {what} cannot be removed"));
        }
    }
    if !equal_but_resizable(new.value, old) {
        errors.forbidden(spec, "only cpu and memory resources are mutable at pod-level");
    }
}

/// Whether two `resources` differ in cpu and memory at most.
fn equal_but_resizable(new: &Value, old: &Value) -> bool {
    let stripped = |resources: &Value| {
        let mut resources = resources.clone();
        for list in ["requests", "limits"] {
            for name in RESIZABLE {
                resources.remove_path(&[list, name]);
            }
            if resources[list].is_empty() {
                resources.remove(list);
            }
        }
        if resources.is_empty() { Value::Null } else { resources }
    };
    equal(&stripped(new), &stripped(old))
}

fn of_containers(spec: &Field, old: &Value, errors: &mut Errors) {
    for list in ["initContainers", "containers"] {
        for (container, old) in spec.at(list).items().zip(old[list].items()) {
            let resources = container.at("resources");
            for part in ["requests", "limits"] {
                if removed(&resources.value[part], &old["resources"][part]) {
                    errors.forbidden(&resources.at(part), format!("resource {part} cannot be removed"));
                }
            }
        }
    }
    for (container, old) in spec.at("containers").items().zip(old["containers"].items()) {
        if !only_resources_differ(container.value, old) {
            errors.forbidden(spec, "only cpu and memory resources are mutable");
        }
    }
    for (container, old) in spec.at("initContainers").items().zip(old["initContainers"].items()) {
        if !only_resources_differ(container.value, old) {
            let why = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.forbidden(&container, why);
        }
        let restarts =
            container.value["resizePolicy"].items().iter().filter(|p| p["restartPolicy"].str() == "RestartContainer");
        if !equal(container.value, old) && !is_sidecar(container.value) {
            let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            restarts.for_each(|_| errors.forbidden(&container, why));
        }
    }
}

fn only_resources_differ(new: &Value, old: &Value) -> bool {
    let mut stripped = new.clone();
    copy(&mut stripped, old, "resources");
    equal(&stripped, old) && equal_but_resizable(&new["resources"], &old["resources"])
}
