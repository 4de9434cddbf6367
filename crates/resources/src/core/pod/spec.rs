//! A `PodSpec`, in a Pod or in a template.

use super::containers::{self, Shared};
use super::{CONTAINER_LISTS, Scope, requirements, scheduling, security, volumes, windows};
use crate::checks::{self, check, in_range, required_one_of};
use canopus_api::{Errors, Field, Value, names};

pub const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];

/// All that is wrong with a pod spec (upstream `ValidatePodSpec`). Defaults must have been set.
pub fn validate(spec: &Field, scope: &Scope, errors: &mut Errors) {
    let grace = spec.at("terminationGracePeriodSeconds");
    if grace.is_unset() {
        errors.required(&grace, "");
    }
    let (list, claims) = (spec.at("volumes"), spec.at("resourceClaims"));
    let good_volumes = volumes::volumes(&list, scope, errors);
    resource_claims(&claims, scope, errors);
    let shared = Shared {
        volumes: &good_volumes,
        claims: claims.value.items().iter().map(|c| c["name"].str()).filter(|n| !n.is_empty()).collect(),
        grace: grace.value.as_i64(),
        restart_policy: spec.value["restartPolicy"].str(),
        host_users: host_users(spec.value),
    };
    let (regular, init) = (spec.at("containers"), spec.at("initContainers"));
    containers::regular(&regular, &shared, errors);
    containers::init(&init, &regular, &shared, errors);
    containers::ephemeral(spec, &shared, errors);
    requirements::pod(spec, errors);
    host_network_ports(spec, scope, errors);
    required_one_of(&spec.at("restartPolicy"), RESTART_POLICIES, errors);
    let dns_policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    required_one_of(&spec.at("dnsPolicy"), &dns_policies, errors);
    checks::labels(&spec.at("nodeSelector"), errors);
    security::pod(spec, errors);
    pull_secrets(&spec.at("imagePullSecrets"), errors);
    scheduling::affinity(&spec.at("affinity"), errors);
    dns_config(spec, errors);
    for gate in spec.at("readinessGates").items() {
        let condition = gate.at("conditionType");
        check(&condition.with(&condition.str().into()), names::qualified_name, errors);
    }
    scheduling::gates(&spec.at("schedulingGates"), errors);
    scheduling::spread(&spec.at("topologySpreadConstraints"), errors);
    windows::host_process(spec, errors);
    user_namespace(spec, errors);
    host_name(spec, errors);
    small_fields(spec, errors);
    windows::os(spec, errors);
    file_key_volumes(spec, errors);
}

/// Whether the pod has the host's user namespace, which is the default.
pub fn host_users(spec: &Value) -> bool {
    spec["hostUsers"].as_bool() != Some(false)
}

fn small_fields(spec: &Field, errors: &mut Errors) {
    let mut text = |name: &str, why_bad: checks::Check| {
        let field = spec.at(name);
        if !field.str().is_empty() {
            check(&field, why_bad, errors);
        }
    };
    text("serviceAccountName", names::dns1123_subdomain);
    text("nodeName", names::dns1123_subdomain);
    let deadline = spec.at("activeDeadlineSeconds");
    if deadline.is_set() {
        in_range(&deadline, 1, i64::from(i32::MAX), errors);
    }
    let mut text = |name: &str, why_bad: checks::Check| {
        let field = spec.at(name);
        if !field.str().is_empty() {
            check(&field, why_bad, errors);
        }
    };
    text("hostname", names::dns1123_label);
    text("subdomain", names::dns1123_label);
    scheduling::tolerations(&spec.at("tolerations"), errors);
    host_aliases(&spec.at("hostAliases"), errors);
    let priority = spec.at("priorityClassName");
    if !priority.str().is_empty() {
        check(&priority, names::dns1123_subdomain, errors);
    }
    let runtime = spec.at("runtimeClassName");
    if runtime.is_set() {
        check(&runtime, names::dns1123_subdomain, errors);
    }
    let preemption = spec.at("preemptionPolicy");
    if preemption.is_set() {
        required_one_of(&preemption, &["PreemptLowerPriority", "Never"], errors);
    }
    let overhead = spec.at("overhead");
    if overhead.is_set() {
        requirements::overhead(&overhead, errors);
    }
}

fn resource_claims(list: &Field, scope: &Scope, errors: &mut Errors) {
    let mut seen = checks::Seen::new();
    for claim in list.items() {
        if scope.is_mirror {
            errors.forbidden(&Field::root(&Value::Null).at(""), "static pods do not support resource claims");
            continue;
        }
        let (name, direct, template) =
            (claim.at("name"), claim.at("resourceClaimName"), claim.at("resourceClaimTemplateName"));
        if name.str().is_empty() {
            errors.required(&name, "");
        } else if !seen.insert(name.str().into()) {
            errors.duplicate(&name);
        } else {
            check(&name, names::dns1123_label, errors);
        }
        match (direct.is_set(), template.is_set()) {
            (true, true) => {
                let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&claim, why);
            }
            (false, false) => {
                errors.invalid(&claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
        for field in [direct, template].into_iter().filter(Field::is_set) {
            check(&field, names::dns1123_subdomain, errors);
        }
    }
}

/// A port of a container on the host's network is the host's port.
fn host_network_ports(spec: &Field, scope: &Scope, errors: &mut Errors) {
    if !spec.value["hostNetwork"].bool() {
        return;
    }
    for container in spec.at("containers").items() {
        for port in container.at("ports").items() {
            let (host, own) = (port.at("hostPort"), port.value["containerPort"].int());
            if (scope.is_pod || host.int() != 0) && host.int() != own {
                errors.invalid(&host.with(&host.int().into()), "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn pull_secrets(list: &Field, errors: &mut Errors) {
    for secret in list.items() {
        if secret.value.entries().any(|(key, _)| key != "name") {
            errors.invalid(&secret, "only name may be set");
        }
    }
}

fn dns_config(spec: &Field, errors: &mut Errors) {
    let config = spec.at("dnsConfig");
    let (servers, searches) = (config.at("nameservers"), config.at("searches"));
    if spec.value["dnsPolicy"].str() == "None" {
        if config.is_unset() {
            return errors.required(&config, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.value.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&servers, why);
        }
    }
    const MAX_SERVERS: usize = 3;
    const MAX_SEARCHES: usize = 32;
    const MAX_CHARACTERS: usize = 2048;
    if servers.value.items().len() > MAX_SERVERS {
        errors.invalid(&servers, format!("must not have more than {MAX_SERVERS} nameservers"));
    }
    servers.items().for_each(|server| checks::ip(&server, errors));
    let paths = searches.value.items();
    if paths.len() > MAX_SEARCHES {
        errors.invalid(&searches, format!("must not have more than {MAX_SEARCHES} search paths"));
    }
    let spaces = paths.len().saturating_sub(1);
    if paths.iter().map(|s| s.str().len()).sum::<usize>() + spaces > MAX_CHARACTERS {
        let why = format!("must not have more than {MAX_CHARACTERS} characters (including spaces) in the search list");
        errors.invalid(&searches, why);
    }
    for search in searches.items().filter(|s| s.str() != ".") {
        let name = search.str().strip_suffix('.').unwrap_or(search.str());
        check(&search.with(&name.into()), subdomain_with_underscores, errors);
    }
    for option in config.at("options").items() {
        if option.value["name"].str().is_empty() {
            errors.required(&option, "must not be empty");
        }
    }
}

fn subdomain_with_underscores(name: &str) -> Vec<String> {
    let mut why = Vec::new();
    if name.len() > 253 {
        why.push(names::max_length(253));
    }
    let segment = |s: &str| {
        let bytes = s.strip_prefix('_').unwrap_or(s).as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let edge = |b: Option<&u8>| b.is_some_and(plain);
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| plain(b) || b"-_".contains(b))
    };
    if !name.split('.').all(segment) {
        why.push("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')".into());
    }
    why
}

fn host_aliases(list: &Field, errors: &mut Errors) {
    for alias in list.items() {
        checks::ip(&alias.at("ip"), errors);
        for name in alias.at("hostnames").items() {
            check(&name, names::dns1123_subdomain, errors);
        }
    }
}

/// A user namespace of its own excludes the host's other namespaces (KEP-127).
fn user_namespace(spec: &Field, errors: &mut Errors) {
    if host_users(spec.value) {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.value[field].bool() {
            errors.forbidden(&spec.at(shown), "when `hostUsers` is false");
        }
    }
    for list in CONTAINER_LISTS {
        for container in spec.at(list).items() {
            let devices = container.at("volumeDevices");
            if !devices.value.is_empty() {
                errors.forbidden(&devices, "when `hostUsers` is false");
            }
        }
    }
}

fn host_name(spec: &Field, errors: &mut Errors) {
    let name = spec.at("hostnameOverride");
    if name.is_unset() {
        return;
    }
    if spec.value["setHostnameAsFQDN"].bool() {
        errors.forbidden(&name, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.value["hostNetwork"].bool() {
        errors.forbidden(&name, "may not be specified when hostNetwork is true");
    }
    if name.str().len() > 64 {
        errors.too_long(&name, 64);
    }
    check(&name, names::dns1123_subdomain, errors);
}

/// Files of variables live in emptyDir volumes (KEP-3721).
fn file_key_volumes(spec: &Field, errors: &mut Errors) {
    let volumes = spec.value["volumes"].items();
    for list in CONTAINER_LISTS {
        for container in spec.at(list).items() {
            for variable in container.at("env").items() {
                let source = variable.at("valueFrom");
                let file = source.at("fileKeyRef");
                if file.is_unset() {
                    continue;
                }
                let name = file.at("volumeName");
                match volumes.iter().find(|v| v["name"].str() == name.str()) {
                    None => errors.not_found(&name.with(&name.str().into())),
                    Some(volume) if volume["emptyDir"].is_null() => {
                        errors.invalid(&name, "referenced volume must be of type emptyDir");
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
