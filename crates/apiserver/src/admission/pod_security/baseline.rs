//! What even the level `baseline` refuses: known ways out of a container.

use super::checks::{Finding, Pod, containers, plural, quoted, quoted_set, setters};
use canopus_api::Value;
use std::collections::BTreeSet;

type Names = BTreeSet<String>;

fn finding(reason: &'static str, detail: String) -> Option<Finding> {
    Some(Finding { reason, detail })
}

fn security(of: &Value) -> &Value {
    &of["securityContext"]
}

/// A profile of the type that a security context may choose: not none.
pub(super) fn known_profile(profile: &Value) -> bool {
    matches!(profile["type"].str(), "RuntimeDefault" | "Localhost")
}

pub fn app_armor(pod: &Pod, _: u32) -> Option<Finding> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut values = Names::new();
    let mut bad = |of: &Value| {
        let profile = &security(of)["appArmorProfile"];
        let bad = !profile.is_null() && !known_profile(profile);
        if bad {
            values.insert(profile["type"].str().into());
        }
        bad
    };
    let on_pod = bad(pod.spec);
    let names = pod.containers_with(bad);
    let allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let annotations: Vec<String> = pod.metadata["annotations"]
        .entries()
        .filter(|(key, value)| key.starts_with(ANNOTATION) && !allowed(value.str()))
        .map(|(key, value)| format!("{key}={:?}", value.str()))
        .collect();
    let mut who: Vec<String> = setters(on_pod, &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).into());
    }
    if who.is_empty() {
        return None;
    }
    let all: Vec<&str> = values.iter().chain(&annotations).map(String::as_str).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", all.len());
    let detail = format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(all.iter().copied()));
    finding(if reason.ends_with('s') { "forbidden AppArmor profiles" } else { "forbidden AppArmor profile" }, detail)
}

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub fn capabilities(pod: &Pod, _: u32) -> Option<Finding> {
    let (names, added) = adding(pod, CAPABILITIES);
    let who = if names.is_empty() { return None } else { containers(&names) };
    let detail = format!("{who} must not include {} in securityContext.capabilities.add", quoted_set(&added));
    finding("non-default capabilities", detail)
}

/// The containers that add capabilities that are not among these, and which.
pub(super) fn adding<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, Names) {
    let mut added = Names::new();
    let names = pod.containers_with(|c| {
        let before = security(c)["capabilities"]["add"].items().iter().map(Value::str);
        let bad: Vec<&str> = before.filter(|name| !allowed.contains(name)).collect();
        added.extend(bad.iter().map(|name| name.to_string()));
        !bad.is_empty()
    });
    (names, added)
}

pub fn host_namespaces(pod: &Pod, _: u32) -> Option<Finding> {
    let fields = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec[*field].bool());
    let set: Vec<String> = fields.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { finding("host namespaces", set.join(", ")) }
}

pub fn host_paths(pod: &Pod, _: u32) -> Option<Finding> {
    let volumes = pod.spec["volumes"].items().iter().filter(|v| !v["hostPath"].is_null());
    let names: Vec<&str> = volumes.map(|v| v["name"].str()).collect();
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} {}", plural("volume", "volumes", names.len()), quoted(names.iter().copied()));
    finding("hostPath volumes", detail)
}

pub fn host_ports(pod: &Pod, _: u32) -> Option<Finding> {
    let mut ports = Names::new();
    let names = pod.containers_with(|c| {
        let used = c["ports"].items().iter().map(|p| p["hostPort"].int()).filter(|port| *port != 0);
        let used: Vec<String> = used.map(|port| port.to_string()).collect();
        ports.extend(used.iter().cloned());
        !used.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let (uses, what) = (plural("uses", "use", names.len()), plural("hostPort", "hostPorts", ports.len()));
    let list = ports.into_iter().collect::<Vec<_>>().join(", ");
    finding("hostPort", format!("{} {uses} {what} {list}", containers(&names)))
}

/// Probes and hooks that go to other hosts than the pod. From v1.34.
pub fn probe_hosts(pod: &Pod, _: u32) -> Option<Finding> {
    const HANDLERS: &[&[&str]] = &[
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let (mut names, mut hosts) = (Names::new(), Names::new());
    for container in pod.containers() {
        for handler in HANDLERS.iter().map(|path| container.path(path)) {
            for host in ["httpGet", "tcpSocket"].map(|action| handler[action]["host"].str()) {
                if !host.is_empty() {
                    names.insert(container["name"].str().into());
                    hosts.insert(host.into());
                }
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    let who: Vec<&str> = names.iter().map(String::as_str).collect();
    let uses = plural("uses", "use", names.len());
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    finding("probe or lifecycle host", format!("{} {uses} {what} {}", containers(&who), quoted_set(&hosts)))
}

pub fn privileged(pod: &Pod, _: u32) -> Option<Finding> {
    let names = pod.containers_with(|c| security(c)["privileged"].bool());
    if names.is_empty() {
        return None;
    }
    finding("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

/// Whatever the version; a pod with users of its own may do so from v1.35.
pub fn proc_mount(pod: &Pod, minor: u32) -> Option<Finding> {
    if minor >= 35 && pod.has_own_users() { None } else { masked_proc(pod) }
}

pub(super) fn masked_proc(pod: &Pod) -> Option<Finding> {
    let mut kinds = Names::new();
    let names = pod.containers_with(|c| {
        let bad = security(c)["procMount"].as_str().filter(|kind| *kind != "Default");
        kinds.extend(bad.map(String::from));
        bad.is_some()
    });
    let who = if names.is_empty() { return None } else { containers(&names) };
    finding("procMount", format!("{who} must not set securityContext.procMount to {}", quoted_set(&kinds)))
}

pub fn se_linux(pod: &Pod, minor: u32) -> Option<Finding> {
    const TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let allowed = if minor >= 31 { TYPES } else { &TYPES[..4] };
    let (mut types, mut user, mut role) = (Names::new(), false, false);
    let mut bad = |of: &Value| {
        let options = &security(of)["seLinuxOptions"];
        let kind = options["type"].str();
        if !allowed.contains(&kind) {
            types.insert(kind.into());
        }
        let (has_user, has_role) = (!options["user"].is_empty(), !options["role"].is_empty());
        user |= has_user;
        role |= has_role;
        has_user || has_role || !allowed.contains(&kind)
    };
    let on_pod = bad(pod.spec);
    let names = pod.containers_with(bad);
    let who = setters(on_pod, &names)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted_set(&types)));
    }
    what.extend(user.then(|| "user may not be set".to_string()));
    what.extend(role.then(|| "role may not be set".to_string()));
    finding("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")))
}

/// By annotation until v1.18, then by field.
pub fn seccomp(pod: &Pod, minor: u32) -> Option<Finding> {
    if minor < 19 {
        return seccomp_annotations(pod);
    }
    let (on_pod, names, values) = bad_seccomp(pod);
    let who = setters(on_pod, &names)?;
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted_set(&values));
    finding("seccompProfile", detail)
}

/// Whether the pod, and which containers, choose a profile that is none, and what they choose.
pub(super) fn bad_seccomp<'a>(pod: &Pod<'a>) -> (bool, Vec<&'a str>, Names) {
    let mut values = Names::new();
    let mut bad = |of: &Value| {
        let profile = &security(of)["seccompProfile"];
        let bad = !profile.is_null() && !known_profile(profile);
        if bad {
            values.insert(profile["type"].str().into());
        }
        bad
    };
    let on_pod = bad(pod.spec);
    let names = pod.containers_with(bad);
    (on_pod, names, values)
}

fn seccomp_annotations(pod: &Pod) -> Option<Finding> {
    let allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let of_container = |c: &Value| format!("container.seccomp.security.alpha.kubernetes.io/{}", c["name"].str());
    let keys = ["seccomp.security.alpha.kubernetes.io/pod".to_string()].into_iter();
    let annotations = &pod.metadata["annotations"];
    let bad: Names = keys
        .chain(pod.containers().map(of_container))
        .filter_map(|key| annotations.get(&key).map(|value| (key, value.str())))
        .filter(|(_, value)| !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let what = plural("annotation", "annotations", bad.len());
    finding("seccompProfile", format!("forbidden {what} {}", bad.into_iter().collect::<Vec<_>>().join(", ")))
}

/// Sysctls that are a pod's own and safe, and the minor version since which they are.
const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

pub fn sysctls(pod: &Pod, minor: u32) -> Option<Finding> {
    let safe = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= minor);
    let names = security(pod.spec)["sysctls"].items().iter().map(|s| s["name"].str());
    let bad: Vec<&str> = names.filter(|name| !safe(name)).collect();
    if bad.is_empty() { None } else { finding("forbidden sysctls", bad.join(", ")) }
}

pub fn host_process(pod: &Pod, _: u32) -> Option<Finding> {
    let bad = |of: &Value| security(of)["windowsOptions"]["hostProcess"].bool();
    let who = setters(bad(pod.spec), &pod.containers_with(bad))?;
    finding("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
