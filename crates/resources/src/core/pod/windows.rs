//! What differs between pods for Windows and for Linux. Canopus' own nodes run Linux, but a Windows node may join.

use super::CONTAINER_LISTS;
use canopus_api::{Errors, Field, Value, names};

/// `windowsOptions` of a security context.
pub fn options(options: &Field, errors: &mut Errors) {
    const MAX_SPEC: usize = 64 * 1024;
    let (name, spec, user) =
        (options.at("gmsaCredentialSpecName"), options.at("gmsaCredentialSpec"), options.at("runAsUserName"));
    if name.is_set() {
        crate::checks::check(&name, names::dns1123_subdomain, errors);
    }
    if spec.is_set() {
        match spec.str().len() {
            0 => errors.invalid(&spec, "gmsaCredentialSpec cannot be an empty string"),
            n if n > MAX_SPEC => errors.invalid(&spec, "gmsaCredentialSpec size must be under 64 KiB"),
            _ => {}
        }
    }
    if user.is_set() {
        for why in bad_user(user.str()) {
            errors.invalid(&user, format!("runAsUserName{why}"));
        }
    }
}

/// `[DOMAIN\]USER`: what is wrong with it, each to follow the field's name.
fn bad_user(text: &str) -> Vec<&'static str> {
    if text.is_empty() {
        return vec![" cannot be an empty string"];
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return vec![" cannot contain control characters"];
    }
    let (domain, user) = match text.split('\\').collect::<Vec<_>>()[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec![" cannot contain more than one backslash"],
    };
    let mut why = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            why.push("'s Domain length must be under 256 characters");
        }
        if !is_netbios(domain) && !is_dns(domain) {
            why.push("'s Domain doesn't match the NetBios nor the DNS format");
        }
    }
    match user.len() {
        0 => why.push("'s User cannot be empty"),
        n if n > 104 => why.push("'s User length must not be longer than 104 characters"),
        _ => {}
    }
    if !user.is_empty() && user.bytes().all(|b| b == b'.' || b == b' ') {
        why.push("'s User cannot contain only periods or spaces");
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        why.push("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    why
}

fn is_netbios(domain: &str) -> bool {
    let good = |c: char| !"\\/:*?\"<>|".contains(c);
    (1..=15).contains(&domain.chars().count()) && !domain.starts_with('.') && domain.chars().all(good)
}

fn is_dns(domain: &str) -> bool {
    let label = |l: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = l.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && l.len() <= 63
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    domain.split('.').all(label)
}

/// HostProcess containers: all or none, and only with the host's network.
pub fn host_process(spec: &Field, errors: &mut Errors) {
    let of = |owner: &Value| owner.path(&["securityContext", "windowsOptions", "hostProcess"]).as_bool();
    let of_pod = of(spec.value);
    let (mut all, mut with) = (0, 0);
    for list in CONTAINER_LISTS {
        for container in spec.at(list).items() {
            all += 1;
            let own = of(container.value);
            with += usize::from(own.or(of_pod) == Some(true));
            if let (Some(pod), Some(own)) = (of_pod, own)
                && pod != own
            {
                let context = container.at("securityContext");
                let options = context.at("windowsOptions");
                let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
                errors.invalid(&options.at("hostProcess"), why);
            }
        }
    }
    if with == 0 {
        return;
    }
    if with != all {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(&spec.with(&"".into()), why);
    }
    let network = spec.at("hostNetwork");
    if !network.bool() {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&network.with(&false.into()), why);
    }
}

/// `spec.os`, and what the system it names does not have.
pub fn os(spec: &Field, errors: &mut Errors) {
    let os = spec.at("os");
    if os.is_unset() {
        return;
    }
    let name = os.at("name");
    match name.str() {
        "" => errors.required(&name, ""),
        "linux" => on_linux(spec, errors),
        "windows" => on_windows(spec, errors),
        other => errors.not_supported(&os.with(&other.into()), &["linux", "windows"]),
    }
}

fn on_linux(spec: &Field, errors: &mut Errors) {
    let mut check = |context: &Field| {
        let options = context.at("windowsOptions");
        if options.is_set() {
            errors.forbidden(&options, "windows options cannot be set for a linux pod");
        }
    };
    check(&spec.at("securityContext"));
    for list in CONTAINER_LISTS {
        for container in spec.at(list).items() {
            check(&container.at("securityContext"));
        }
    }
}

fn on_windows(spec: &Field, errors: &mut Errors) {
    let mut forbid = |place: &Field, names: &[&str]| {
        for name in names {
            let field = place.at(name);
            // Plain booleans and lists count only when they are not empty.
            let plain = matches!(*name, "hostPID" | "hostIPC" | "sysctls");
            if field.is_set() && !(plain && field.value.is_empty()) {
                errors.forbidden(&field, "cannot be set for a windows pod");
            }
        }
    };
    let context = spec.at("securityContext");
    forbid(&context, &["appArmorProfile", "seLinuxOptions"]);
    forbid(spec, &["hostUsers", "hostPID", "hostIPC"]);
    forbid(&context, &["seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls"]);
    forbid(spec, &["shareProcessNamespace"]);
    let ids = ["runAsUser", "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy"];
    forbid(&context, &ids);
    const OF_CONTAINERS: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    for list in CONTAINER_LISTS {
        for container in spec.at(list).items() {
            forbid(&container.at("securityContext"), OF_CONTAINERS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::texts;
    use canopus_api::value;

    #[test]
    fn users() {
        let cases: &[(&str, &[&str])] = &[
            ("ContainerUser", &[]),
            ("NT AUTHORITY\\NETWORK SERVICE", &[]),
            ("", &[" cannot be an empty string"]),
            ("a\\b\\c", &[" cannot contain more than one backslash"]),
            (".x\\", &["'s Domain doesn't match the NetBios nor the DNS format", "'s User cannot be empty"]),
            ("..", &["'s User cannot contain only periods or spaces"]),
        ];
        for (user, why) in cases {
            assert_eq!(bad_user(user), *why, "{user}");
        }
    }

    #[test]
    fn systems() {
        let root = value!({"spec": {"os": {"name": "windows"}, "hostIPC": false, "hostUsers": true, "securityContext": {"fsGroup": 1},
            "containers": [{"securityContext": {"privileged": false, "windowsOptions": {"hostProcess": true}}}, {}]}});
        let mut errors = Errors::new();
        let root = Field::root(&root);
        os(&root.at("spec"), &mut errors);
        host_process(&root.at("spec"), &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "spec.hostUsers: Forbidden: cannot be set for a windows pod",
                "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod",
                "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
                r#"spec: Invalid value: "": If pod contains any hostProcess containers then all containers must be HostProcess containers"#,
                "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
            ]
        );
    }
}
