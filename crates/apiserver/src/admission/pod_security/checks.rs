//! The Pod Security Standards: what each level refuses, by version (KEP-2579).

use super::policy::{Level, Rules};
use super::{baseline, restricted};
use canopus_api::Value;
use std::collections::BTreeSet;

/// A pod or the template of one.
#[derive(Clone, Copy)]
pub struct Pod<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

/// Why a check refuses a pod.
#[derive(Debug, PartialEq)]
pub struct Finding {
    pub reason: &'static str,
    pub detail: String,
}

/// One rule. What it says may depend on the version, given as its minor number.
pub struct Check {
    pub id: &'static str,
    pub level: Level,
    /// The minor version that began with it.
    pub since: u32,
    /// The milder check that this one stands in for.
    pub instead_of: &'static str,
    pub run: fn(&Pod, u32) -> Option<Finding>,
}

const fn check(id: &'static str, run: fn(&Pod, u32) -> Option<Finding>) -> Check {
    Check { id, level: Level::Baseline, since: 0, instead_of: "", run }
}

const fn strict(
    id: &'static str,
    since: u32,
    instead_of: &'static str,
    run: fn(&Pod, u32) -> Option<Finding>,
) -> Check {
    Check { id, level: Level::Restricted, since, instead_of, run }
}

/// All checks in the order in which their findings are told: by level, then by name.
pub static CHECKS: &[Check] = &[
    check("appArmorProfile", baseline::app_armor),
    check("capabilities_baseline", baseline::capabilities),
    check("hostNamespaces", baseline::host_namespaces),
    check("hostPathVolumes", baseline::host_paths),
    check("hostPorts", baseline::host_ports),
    Check { since: 34, ..check("hostProbesAndHostLifecycle", baseline::probe_hosts) },
    check("privileged", baseline::privileged),
    check("procMount", baseline::proc_mount),
    check("seLinuxOptions", baseline::se_linux),
    check("seccompProfile_baseline", baseline::seccomp),
    check("sysctls", baseline::sysctls),
    check("windowsHostProcess", baseline::host_process),
    strict("allowPrivilegeEscalation", 8, "", restricted::privilege_escalation),
    strict("capabilities_restricted", 22, "capabilities_baseline", restricted::capabilities),
    strict("procMount_restricted", 35, "procMount", restricted::proc_mount),
    strict("restrictedVolumes", 0, "hostPathVolumes", restricted::volumes),
    strict("runAsNonRoot", 0, "", restricted::non_root),
    strict("runAsUser", 23, "", restricted::user),
    strict("seccompProfile_restricted", 19, "seccompProfile_baseline", restricted::seccomp),
];

/// All that the rules have against a pod.
pub fn evaluate(rules: Rules, pod: &Pod) -> Vec<Finding> {
    let minor = rules.version.minor();
    let active = |check: &&Check| check.level <= rules.level && check.since <= minor;
    let replaced: Vec<&str> = CHECKS.iter().filter(active).map(|c| c.instead_of).filter(|id| !id.is_empty()).collect();
    let all = CHECKS.iter().filter(|_| rules.level != Level::Privileged).filter(active);
    all.filter(|check| !replaced.contains(&check.id)).filter_map(|check| (check.run)(pod, minor)).collect()
}

/// `host namespaces (hostNetwork=true), privileged`
pub fn details(findings: &[Finding]) -> String {
    let text = |f: &Finding| if f.detail.is_empty() { f.reason.into() } else { format!("{} ({})", f.reason, f.detail) };
    findings.iter().map(text).collect::<Vec<String>>().join(", ")
}

/// `host namespaces, privileged`
pub fn reasons(findings: &[Finding]) -> String {
    findings.iter().map(|f| f.reason).collect::<Vec<_>>().join(", ")
}

impl<'a> Pod<'a> {
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| spec[list].items())
    }

    /// The names of the containers of which `bad` is true.
    pub fn containers_with(&self, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|c| bad(c)).map(|c| c["name"].str()).collect()
    }

    pub fn is_windows(&self) -> bool {
        self.spec.path(&["os", "name"]).str() == "windows"
    }

    /// Runs in a user namespace, where root is nobody.
    pub fn has_own_users(&self) -> bool {
        self.spec["hostUsers"].as_bool() == Some(false)
    }
}

/// `"a", "b"`
pub fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

pub fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
pub fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

/// `pod and container "a"`: who says something; nothing when nobody does.
pub fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names) {
        (false, []) => None,
        (true, []) => Some("pod".into()),
        (false, names) => Some(containers(names)),
        (true, names) => Some(format!("pod and {}", containers(names))),
    }
}

pub fn quoted_set(values: &BTreeSet<String>) -> String {
    quoted(values.iter().map(String::as_str))
}
