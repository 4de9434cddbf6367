//! What the level `restricted` refuses besides: all that a pod does not need to do its work.

use super::baseline::{adding, bad_seccomp, known_profile, masked_proc};
use super::checks::{Finding, Pod, containers, plural, quoted, quoted_set, setters};
use canopus_api::Value;
use std::collections::BTreeSet;

fn finding(reason: &'static str, detail: String) -> Option<Finding> {
    Some(Finding { reason, detail })
}

fn security(of: &Value) -> &Value {
    &of["securityContext"]
}

/// Windows has no such thing, and its pods say so from v1.25.
fn spared(pod: &Pod, minor: u32) -> bool {
    minor >= 25 && pod.is_windows()
}

pub fn privilege_escalation(pod: &Pod, minor: u32) -> Option<Finding> {
    let names = pod.containers_with(|c| security(c)["allowPrivilegeEscalation"].as_bool() != Some(false));
    if names.is_empty() || spared(pod, minor) {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    finding("allowPrivilegeEscalation != false", detail)
}

pub fn capabilities(pod: &Pod, minor: u32) -> Option<Finding> {
    if spared(pod, minor) {
        return None;
    }
    let drops_all = |c: &Value| security(c)["capabilities"]["drop"].items().iter().any(|name| name.str() == "ALL");
    let keeping = pod.containers_with(|c| !drops_all(c));
    let (names, added) = adding(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !names.is_empty() {
        let what = quoted_set(&added);
        details.push(format!("{} must not include {what} in securityContext.capabilities.add", containers(&names)));
    }
    if details.is_empty() { None } else { finding("unrestricted capabilities", details.join("; ")) }
}

/// From v1.35, when `baseline` began to allow it to pods with users of their own.
pub fn proc_mount(pod: &Pod, _: u32) -> Option<Finding> {
    masked_proc(pod)
}

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// In the order in which they are looked for.
const RESTRICTED_VOLUMES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub fn volumes(pod: &Pod, _: u32) -> Option<Finding> {
    let has = |volume: &Value, kind: &&str| !volume[*kind].is_null();
    let allowed = |volume: &Value| VOLUMES.iter().any(|kind| has(volume, kind));
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in pod.spec["volumes"].items().iter().filter(|v| !allowed(v)) {
        names.push(volume["name"].str());
        kinds.insert(RESTRICTED_VOLUMES.iter().find(|kind| has(volume, kind)).unwrap_or(&"unknown").to_string());
    }
    if names.is_empty() {
        return None;
    }
    let (volumes, uses) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
    let what = plural("restricted volume type", "restricted volume types", kinds.len());
    let names = quoted(names.iter().copied());
    finding("restricted volume types", format!("{volumes} {names} {uses} {what} {}", quoted_set(&kinds)))
}

/// A pod with users of its own may be root from v1.35.
fn may_be_root(pod: &Pod, minor: u32) -> bool {
    minor >= 35 && pod.has_own_users()
}

pub fn non_root(pod: &Pod, minor: u32) -> Option<Finding> {
    if may_be_root(pod, minor) {
        return None;
    }
    let said = |of: &Value| security(of)["runAsNonRoot"].as_bool();
    let root = pod.containers_with(|c| said(c) == Some(false));
    if let Some(who) = setters(said(pod.spec) == Some(false), &root) {
        return finding("runAsNonRoot != true", format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.containers_with(|c| said(c).is_none());
    if said(pod.spec) == Some(true) || silent.is_empty() {
        return None;
    }
    let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent));
    finding("runAsNonRoot != true", detail)
}

pub fn user(pod: &Pod, minor: u32) -> Option<Finding> {
    if may_be_root(pod, minor) {
        return None;
    }
    let root = |of: &Value| security(of)["runAsUser"].as_i64() == Some(0);
    let who = setters(root(pod.spec), &pod.containers_with(root))?;
    finding("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

pub fn seccomp(pod: &Pod, minor: u32) -> Option<Finding> {
    if spared(pod, minor) {
        return None;
    }
    let (on_pod, names, values) = bad_seccomp(pod);
    if let Some(who) = setters(on_pod, &names) {
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted_set(&values));
        return finding("seccompProfile", detail);
    }
    let profile = |of: &'_ Value| -> bool { !security(of)["seccompProfile"].is_null() };
    let silent = pod.containers_with(|c| !profile(c));
    if known_profile(&security(pod.spec)["seccompProfile"]) || silent.is_empty() {
        return None;
    }
    let who = containers(&silent);
    let detail =
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"");
    finding("seccompProfile", detail)
}
