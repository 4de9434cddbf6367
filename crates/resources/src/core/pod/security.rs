//! Security contexts of pods and containers, and the annotations that came before them.

use super::paths::local_descending;
use super::{each_container, windows};
use crate::checks::{self, id, optional_one_of};
use canopus_api::{Errors, Field, Value};

pub const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

/// A container's `securityContext`.
pub fn container(context: &Field, host_users: bool, errors: &mut Errors) {
    if context.is_unset() {
        return;
    }
    id(&context.at("runAsUser"), errors);
    id(&context.at("runAsGroup"), errors);
    let proc_mount = context.at("procMount");
    optional_one_of(&proc_mount, &["Default", "Unmasked"], errors);
    if host_users && proc_mount.str() == "Unmasked" {
        errors.invalid(&proc_mount, "`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(&context.at("seccompProfile"), errors);
    escalation(context, errors);
    windows::options(&context.at("windowsOptions"), errors);
    apparmor(&context.at("appArmorProfile"), errors);
}

fn escalation(context: &Field, errors: &mut Errors) {
    if context.value["allowPrivilegeEscalation"].as_bool() != Some(false) {
        return;
    }
    if context.value["privileged"].bool() {
        errors.invalid(context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    }
    let added = context.value.path(&["capabilities", "add"]);
    for _ in added.items().iter().filter(|c| c.str() == "CAP_SYS_ADMIN") {
        let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.invalid(context, why);
    }
}

/// The pod's `securityContext`; `spec` is what it belongs to.
pub fn pod(spec: &Field, errors: &mut Errors) {
    let context = spec.at("securityContext");
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&context.at(name), errors);
    }
    for group in context.at("supplementalGroups").items() {
        id(&group, errors);
    }
    let share = spec.at("shareProcessNamespace");
    if share.bool() && spec.value["hostPID"].bool() {
        // Upstream's internal type has it inside the security context.
        let place = context.at("shareProcessNamespace");
        errors.invalid(&place.with(share.value), "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(spec.value, &context.at("sysctls"), errors);
    optional_one_of(&context.at("fsGroupChangePolicy"), &["Always", "OnRootMismatch"], errors);
    seccomp(&context.at("seccompProfile"), errors);
    windows::options(&context.at("windowsOptions"), errors);
    apparmor(&context.at("appArmorProfile"), errors);
    optional_one_of(&context.at("supplementalGroupsPolicy"), &["Merge", "Strict"], errors);
    // MountOption needs the gate SELinuxMount, which is off by default.
    optional_one_of(&context.at("seLinuxChangePolicy"), &["Recursive"], errors);
}

fn is_sysctl(name: &str) -> bool {
    let segment = |s: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        edge(s.as_bytes().first()) && edge(s.as_bytes().last()) && s.bytes().all(inner)
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn sysctls(spec: &Value, list: &Field, errors: &mut Errors) {
    let mut seen = checks::Seen::new();
    for sysctl in list.items() {
        let name = sysctl.at("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else if !is_sysctl(name.str()) {
            let why = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.invalid(&name, why);
        } else if seen.contains(name.str()) {
            errors.duplicate(&name);
        }
        let normal = name.str().replace('/', ".");
        if spec["hostNetwork"].bool() && normal.starts_with("net.") {
            errors.invalid(&name, "may not be specified when 'hostNetwork' is true");
        } else if spec["hostIPC"].bool() && is_ipc_sysctl(&normal) {
            errors.invalid(&name, "may not be specified when 'hostIPC' is true");
        }
        seen.insert(name.str().into());
    }
}

/// Sysctls that belong to an IPC namespace.
fn is_ipc_sysctl(name: &str) -> bool {
    const NAMED: &[&str] = &[
        "kernel.msg",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shm",
        "kernel.shm_rmid_forced",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
    ];
    name.starts_with("fs.mqueue.") || NAMED.contains(&name)
}

fn seccomp(profile: &Field, errors: &mut Errors) {
    if profile.is_unset() {
        return;
    }
    let (kind, local) = (profile.at("type"), profile.at("localhostProfile"));
    if kind.str().is_empty() {
        errors.required(&kind, "type is required when seccompProfile is set");
    } else {
        checks::one_of(&kind, PROFILE_TYPES, errors);
    }
    match (kind.str() == "Localhost", local.is_set()) {
        (true, false) => errors.required(&local, "must be set when seccomp type is Localhost"),
        (true, true) => local_descending(&local, errors),
        (false, true) => errors.invalid(&local.with(profile.value), "can only be set when seccomp type is Localhost"),
        (false, false) => {}
    }
}

fn apparmor(profile: &Field, errors: &mut Errors) {
    if profile.is_unset() {
        return;
    }
    const LONGEST: usize = 4095;
    let (kind, local) = (profile.at("type"), profile.at("localhostProfile"));
    match kind.str() {
        "Localhost" if local.is_unset() || local.str().is_empty() => {
            errors.required(&local, "must be set when AppArmor type is Localhost");
        }
        "Localhost" => {
            if local.str().trim() != local.str() {
                errors.invalid(&local, "must not be padded with whitespace");
            }
            if local.str().len() > LONGEST {
                errors.too_long(&local, LONGEST);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.is_set() {
                errors.invalid(&local, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => errors.required(&kind, "type is required when appArmorProfile is set"),
        _ => errors.not_supported(&kind, PROFILE_TYPES),
    }
}

/// Annotations about seccomp and AppArmor of a pod or template: shape only.
pub fn annotations(annotations: &Field, spec: &Value, errors: &mut Errors) {
    for (key, profile) in annotations.value.entries() {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp_annotation(&annotations.at(key).with(profile), errors);
        }
    }
    for (key, profile) in annotations.entries() {
        let Some(container) = key.strip_prefix(APPARMOR) else { continue };
        if !each_container(spec).any(|c| c["name"].str() == container) {
            errors.invalid(&profile.with(&container.into()), "container not found");
        }
        let text = profile.str();
        if !matches!(text, "" | "runtime/default" | "unconfined") && !text.starts_with("localhost/") {
            errors.invalid(&profile, format!("invalid AppArmor profile name: {text:?}"));
        }
    }
}

fn seccomp_annotation(profile: &Field, errors: &mut Errors) {
    match profile.str() {
        "runtime/default" | "docker/default" | "unconfined" => {}
        text => match text.strip_prefix("localhost/") {
            Some(path) => local_descending(&profile.with(&path.into()), errors),
            None => errors.invalid(profile, "must be a valid seccomp profile"),
        },
    }
}

/// What is wrong with a profile that both an annotation and a field give.
enum Mismatch {
    Type,
    Path,
}

fn mismatch(annotation: &str, profile: &Value, defaults: &[&str]) -> Option<Mismatch> {
    let local = profile["localhostProfile"].as_str();
    match profile["type"].str() {
        "Unconfined" if annotation != "unconfined" => Some(Mismatch::Type),
        "RuntimeDefault" if !defaults.contains(&annotation) => Some(Mismatch::Type),
        "Localhost" => match annotation.strip_prefix("localhost/") {
            None => Some(Mismatch::Type),
            path if path != local => Some(Mismatch::Path),
            _ => None,
        },
        _ => None,
    }
}

fn same(profile: &Field, annotation: &Value, kind: &str, defaults: &[&str], errors: &mut Errors) {
    let Some(annotation) = annotation.as_str() else { return };
    match mismatch(annotation, profile.value, defaults) {
        Some(Mismatch::Type) => {
            errors.forbidden(&profile.at("type"), format!("{kind} type in annotation and field must match"));
        }
        Some(Mismatch::Path) => {
            let why = format!("{kind} profile in annotation and field must match");
            errors.forbidden(&profile.at("localhostProfile"), why);
        }
        None => {}
    }
}

/// Fields and annotations must agree when a pod or template is made.
pub fn annotations_match(spec: &Field, annotations: &Value, errors: &mut Errors) {
    let context = spec.at("securityContext");
    const SECCOMP_DEFAULTS: &[&str] = &["runtime/default", "docker/default"];
    let profile = context.at("seccompProfile");
    if profile.is_set() {
        same(&profile, &annotations[SECCOMP_POD], "seccomp", SECCOMP_DEFAULTS, errors);
    }
    for list in super::CONTAINER_LISTS {
        for container in spec.at(list).items() {
            let own = container.at("securityContext");
            let profile = own.at("seccompProfile");
            let key = format!("{SECCOMP_CONTAINER}{}", container.value["name"].str());
            if profile.is_set() {
                same(&profile, &annotations[key.as_str()], "seccomp", SECCOMP_DEFAULTS, errors);
            }
        }
    }
    if spec.value.path(&["os", "name"]).str() == "windows" {
        return;
    }
    for list in super::CONTAINER_LISTS {
        for container in spec.at(list).items() {
            let own = container.at("securityContext");
            let profile = own.at("appArmorProfile");
            let effective = if profile.is_set() { profile.value } else { &context.value["appArmorProfile"] };
            let key = format!("{APPARMOR}{}", container.value["name"].str());
            same(&profile.with(effective), &annotations[key.as_str()], "apparmor", &["runtime/default"], errors);
        }
    }
}

/// Copies AppArmor annotations of a new pod into the fields that replaced them (KEP-24).
pub fn apparmor_fields_from_annotations(pod: &mut Value) {
    if pod.path(&["spec", "os", "name"]).str() == "windows" {
        return;
    }
    let annotations = pod["metadata"]["annotations"].clone();
    if !annotations.entries().any(|(key, _)| key.starts_with(APPARMOR)) {
        return;
    }
    let of_pod = pod.path(&["spec", "securityContext", "appArmorProfile"]).clone();
    let Some(spec) = pod.get_mut("spec") else { return };
    super::each_container_mut(spec, |container| {
        let key = format!("{APPARMOR}{}", container["name"].str());
        let Some(profile) = annotations[key.as_str()].as_str().and_then(profile_of_annotation) else { return };
        if container.path(&["securityContext", "appArmorProfile"]).is_null() && profile != of_pod {
            container.set_path(&["securityContext", "appArmorProfile"], profile);
        }
    });
}

fn profile_of_annotation(annotation: &str) -> Option<Value> {
    use canopus_api::value;
    match annotation {
        "unconfined" => Some(value!({"type": "Unconfined"})),
        "runtime/default" => Some(value!({"type": "RuntimeDefault"})),
        _ => {
            let path = annotation.strip_prefix("localhost/").filter(|p| !p.is_empty() && p.trim() == *p)?;
            Some(value!({"type": "Localhost", "localhostProfile": path}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::texts;
    use canopus_api::value;

    #[test]
    fn of_containers() {
        let cases: Vec<(Value, &[&str])> = vec![
            (value!({"runAsUser": 0, "privileged": true}), &[]),
            (
                value!({"runAsUser": -1}),
                &["sc.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
            ),
            (
                value!({"procMount": "Unmasked"}),
                &[r#"sc.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`"#],
            ),
            (
                value!({"seccompProfile": {"type": "Localhost"}}),
                &["sc.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"],
            ),
            (
                value!({"appArmorProfile": {"type": "X"}}),
                &[
                    r#"sc.appArmorProfile.type: Unsupported value: "X": supported values: "Localhost", "RuntimeDefault", "Unconfined""#,
                ],
            ),
            (
                value!({"allowPrivilegeEscalation": false, "privileged": true}),
                &[
                    r#"sc: Invalid value: {"allowPrivilegeEscalation":false,"privileged":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"#,
                ],
            ),
        ];
        for (context, expected) in cases {
            let root = value!({"sc": context});
            let mut errors = Errors::new();
            container(&Field::root(&root).at("sc"), true, &mut errors);
            assert_eq!(texts(&errors), expected);
        }
    }

    #[test]
    fn of_pods() {
        let root = value!({"spec": {"hostNetwork": true, "hostPID": true, "shareProcessNamespace": true, "securityContext": {
            "fsGroup": -5, "sysctls": [{"name": "net.core.x"}, {"name": "A"}, {"name": ""}], "seLinuxChangePolicy": "MountOption"}}});
        let mut errors = Errors::new();
        pod(&Field::root(&root).at("spec"), &mut errors);
        let found: Vec<_> =
            errors.iter().map(|e| (e.field.trim_start_matches("spec.securityContext."), e.detail.as_str())).collect();
        assert_eq!(
            found[..3],
            [
                ("fsGroup", "must be between 0 and 2147483647, inclusive"),
                ("shareProcessNamespace", "ShareProcessNamespace and HostPID cannot both be enabled"),
                ("sysctls[0].name", "may not be specified when 'hostNetwork' is true"),
            ]
        );
        assert_eq!(found[3].0, "sysctls[1].name");
        assert_eq!(found[4..], [("sysctls[2].name", ""), ("seLinuxChangePolicy", r#"supported values: "Recursive""#)]);
    }

    #[test]
    fn annotations_become_fields() {
        let mut pod = value!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "localhost/x"}},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        apparmor_fields_from_annotations(&mut pod);
        let expected = value!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}});
        assert_eq!(pod["spec"]["containers"][0]["securityContext"], expected);
        assert!(pod["spec"]["containers"][1]["securityContext"].is_null());
    }
}
