//! Which ReplicaSet is the deployment's newest, and how versions are numbered.

use super::hash::template_hash;
use super::plan::Working;
use super::set::{Set, same_template};
use crate::context::controller_ref;
use canopus_api::labels::POD_TEMPLATE_HASH;
use canopus_api::{Value, value};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the deployment that its ReplicaSets don't get.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
const HISTORY_LENGTH: usize = 2000;

/// The oldest set that has the deployment's template.
pub(super) fn find_new(deployment: &Value, sets: &mut Vec<Set>) -> Option<Set> {
    sets.sort_by(|a, b| (a.created(), a.name()).cmp(&(b.created(), b.name())));
    let template = &deployment["spec"]["template"];
    let at = sets.iter().position(|set| same_template(template, &set.value["spec"]["template"]))?;
    Some(sets.remove(at))
}

pub(super) fn number(set: &Set) -> i64 {
    set.annotation(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// One more than the newest of the old sets'.
pub(super) fn next(old: &[Set]) -> i64 {
    old.iter().map(number).max().unwrap_or(0) + 1
}

/// Brings the new set's annotations and minReadySeconds in line with the deployment; its revision only grows.
pub(super) fn sync(deployment: &Value, set: &mut Set, next: i64) {
    for (name, text) in deployment["metadata"]["annotations"].entries() {
        if !OWN.contains(&name.as_str()) {
            set.annotate(name, text.str());
        }
    }
    let current = number(set);
    if current < next {
        if current > 0 {
            let past = set.annotation(HISTORY).unwrap_or("").split(',').filter(|r| !r.is_empty());
            let mut past: Vec<String> = past.map(str::to_string).chain([current.to_string()]).collect();
            while past.join(",").len() > HISTORY_LENGTH {
                past.remove(0);
            }
            set.annotate(HISTORY, &past.join(","));
        }
        set.annotate(REVISION, &next.to_string());
    }
    let wanted = deployment["spec"]["minReadySeconds"].int();
    if set.value["spec"]["minReadySeconds"].int() != wanted {
        std::sync::Arc::make_mut(&mut set.value).set_path(&["spec", "minReadySeconds"], wanted);
        set.changed = true;
    }
}

/// A new set for the deployment's template, with `replicas` to start with.
pub(super) fn make(working: &Working, replicas: i64) -> Value {
    let deployment = working.deployment;
    let (meta, spec) = (&deployment["metadata"], &deployment["spec"]);
    let hash = template_hash(&spec["template"], deployment["status"]["collisionCount"].as_i64());
    let mut template = spec["template"].clone();
    template.set_path(&["metadata", "labels", POD_TEMPLATE_HASH], &hash);
    let mut selector = spec["selector"].clone();
    selector.set_path(&["matchLabels", POD_TEMPLATE_HASH], &hash);
    let mut annotations = Value::object();
    for (name, text) in meta["annotations"].entries().filter(|(name, _)| !OWN.contains(&name.as_str())) {
        annotations.set(name, text);
    }
    annotations.set(REVISION, next(&working.old).to_string());
    annotations.set(DESIRED, working.replicas.to_string());
    annotations.set(MAX, (working.replicas + working.max_surge).to_string());
    // A name has 253 bytes at most.
    let base: String = meta["name"].str().chars().take(252 - hash.len()).collect();
    let mut set = value!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": format!("{base}-{hash}"), "namespace": &meta["namespace"],
            "labels": &template["metadata"]["labels"], "annotations": annotations,
            "ownerReferences": [controller_ref(deployment)]},
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    });
    if spec["minReadySeconds"].int() > 0 {
        set.set_path(&["spec", "minReadySeconds"], &spec["minReadySeconds"]);
    }
    set
}
