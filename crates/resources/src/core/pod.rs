//! Pod: containers that live and die together on one node.

pub mod amounts;
pub mod bind;
pub mod claim_template;
mod columns;
pub mod connect;
mod containers;
pub mod defaults;
mod env;
pub mod legacy_volumes;
mod mounts;
pub mod paths;
mod probes;
mod projected;
pub mod requirements;
mod resize;
pub mod scheduling;
mod security;
pub mod spec;
pub mod status;
pub mod template;
pub mod update;
pub mod volumes;
pub mod warnings;
mod windows;

use crate::resource::{Column, Context, Info, Resource, Subresource, Verb};
use canopus_api::{Errors, Facts, Field, Time, Value, names, value};

pub struct Pod;

const CONNECT: &[Verb] = &[Verb::Create, Verb::Get];

static INFO: Info = Info {
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource { name: "attach", kind: ("", "v1", "PodAttachOptions"), verbs: CONNECT },
        Subresource { name: "binding", kind: ("", "v1", "Binding"), verbs: Verb::CREATE },
        Subresource { name: "ephemeralcontainers", kind: ("", "v1", "Pod"), verbs: Verb::STATUS },
        Subresource { name: "eviction", kind: ("policy", "v1", "Eviction"), verbs: Verb::CREATE },
        Subresource { name: "exec", kind: ("", "v1", "PodExecOptions"), verbs: CONNECT },
        Subresource { name: "log", kind: ("", "v1", "Pod"), verbs: &[Verb::Get] },
        Subresource { name: "portforward", kind: ("", "v1", "PodPortForwardOptions"), verbs: CONNECT },
        Subresource {
            name: "proxy",
            kind: ("", "v1", "PodProxyOptions"),
            verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        },
        Subresource { name: "resize", kind: ("", "v1", "Pod"), verbs: Verb::STATUS },
        Subresource::status("", "v1", "Pod"),
    ],
    selectable_fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    generation: true,
    ..Info::stored("", "v1", "Pod", "pods")
};

/// Where a pod spec is, for the rules that depend on it.
pub struct Scope<'a> {
    /// In a Pod, and not in a template.
    pub is_pod: bool,
    /// "" in templates.
    pub pod_name: &'a str,
    /// A mirror of a pod that its node runs from a file.
    pub is_mirror: bool,
}

/// All lists of containers in a pod spec, in the order in which upstream visits them.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// All containers of a pod spec.
pub fn each_container(spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINER_LISTS.into_iter().flat_map(|list| spec[list].items())
}

fn each_container_mut(spec: &mut Value, mut change: impl FnMut(&mut Value)) {
    for list in CONTAINER_LISTS {
        spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().for_each(&mut change);
    }
}

/// What every pod must satisfy, however it is written (upstream `validatePodMetadataAndSpec`).
fn validate_pod(pod: &Field, errors: &mut Errors) {
    let (meta, pod_spec) = (pod.at("metadata"), pod.at("spec"));
    template::pod_annotations(&meta.at("annotations"), pod_spec.value, errors);
    let name = meta.value["name"].str();
    let scope = Scope { is_pod: true, pod_name: name, is_mirror: template::is_mirror(pod.value) };
    spec::validate(&pod_spec, &scope, errors);
    if pod_spec.value["serviceAccountName"].str().is_empty() {
        for volume in pod_spec.at("volumes").items() {
            let projected = volume.at("projected");
            for source in projected.at("sources").items() {
                let token = source.at("serviceAccountToken");
                if token.is_set() {
                    errors.forbidden(&token, "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        pod_spec.at(list).items().for_each(|container| containers::image_padding(&container, errors));
    }
}

/// Puts back the metadata that subresources of a pod may not change.
fn restore_metadata(new: &mut Value, old: &Value) {
    const KEPT: &[&str] =
        &["annotations", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "labels", "ownerReferences"];
    let meta = new.obj_mut("metadata");
    for field in KEPT {
        match old["metadata"].get(field) {
            Some(value) => meta.insert(*field, value),
            None => meta.remove(field),
        };
    }
}

fn keep(new: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => new.set(field, value),
        None => {
            new.remove(field);
        }
    }
}

impl Resource for Pod {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        defaults::pod(object);
    }

    fn defaults_spec_only(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Value, cx: &Context) {
        let qos = amounts::qos_class(&object["spec"]);
        object.set("status", value!({"phase": "Pending", "qosClass": qos}));
        if !object["spec"]["schedulingGates"].is_empty() {
            let gated = value!({
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null, "lastTransitionTime": cx.now,
            });
            object.set_path(&["status", "conditions"], Value::Array(vec![gated]));
        }
        scheduling::apply_label_keys(object);
        security::apparmor_fields_from_annotations(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        match cx.subresource {
            "status" => status::prepare(new, old),
            "resize" => resize::prepare(new, old),
            "ephemeralcontainers" => {
                let ephemeral = new["spec"]["ephemeralContainers"].clone();
                keep(new, old, "spec");
                keep(new, old, "status");
                restore_metadata(new, old);
                match ephemeral {
                    Value::Null => drop(new.remove_path(&["spec", "ephemeralContainers"])),
                    list => new.set_path(&["spec", "ephemeralContainers"], list),
                }
            }
            _ => {
                keep(new, old, "status");
            }
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        validate_pod(object, errors);
        let pod_spec = object.at("spec");
        let (ephemeral, node) = (pod_spec.at("ephemeralContainers"), pod_spec.at("nodeName"));
        if !ephemeral.value.is_empty() {
            errors.forbidden(&ephemeral, "cannot be set on create");
        }
        if !node.str().is_empty() && !pod_spec.value["schedulingGates"].is_empty() {
            errors.forbidden(&node, "cannot be set until all schedulingGates have been cleared");
        }
        security::annotations_match(&pod_spec, &object.value["metadata"]["annotations"], errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        match cx.subresource {
            "status" => status::validate(new, old, errors),
            "resize" => resize::validate(new, old, errors),
            "ephemeralcontainers" => update::ephemeral_containers(new, old, errors),
            _ => update::validate(new, old, errors),
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let mut out = Vec::new();
        let why = names::dns1123_label(object["metadata"]["name"].str());
        if !why.is_empty() {
            out.push(format!("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]", why.join(" ")));
        }
        out.extend(warnings::of(&Field::root(object), true));
        out
    }

    fn columns(&self) -> &'static [Column] {
        columns::COLUMNS
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        columns::row(object, now)
    }

    fn facts(&self, object: &Value) -> Facts {
        let mut facts = Facts::extract(object, INFO.selectable_fields);
        for (name, value) in &mut facts.fields {
            match name.as_str() {
                "spec.hostNetwork" if value.is_empty() => *value = "false".into(),
                "status.podIP" => *value = object["status"]["podIPs"][0]["ip"].str().into(),
                _ => {}
            }
        }
        facts
    }

    fn grace_seconds(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let grace = requested.unwrap_or(object["spec"]["terminationGracePeriodSeconds"].int());
        let nowhere = object["spec"]["nodeName"].str().is_empty();
        let over = matches!(object["status"]["phase"].str(), "Failed" | "Succeeded");
        Some(match grace {
            _ if nowhere || over => 0,
            negative if negative < 0 => 1,
            grace => grace,
        })
    }
}

#[cfg(test)]
mod tests;
