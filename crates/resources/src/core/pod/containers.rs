//! The three lists of containers.

use super::amounts::is_sidecar;
use super::volumes::Volumes;
use super::{env, mounts, probes, requirements, security};
use crate::checks::{self, in_range, required_check, required_one_of};
use canopus_api::{Errors, Field, Value, names};
use std::collections::BTreeSet;

pub const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// What the containers of one pod have in common.
pub struct Shared<'a> {
    pub volumes: &'a Volumes<'a>,
    pub claims: BTreeSet<&'a str>,
    pub grace: Option<i64>,
    pub restart_policy: &'a str,
    pub host_users: bool,
}

/// Checks `spec.containers`.
pub fn regular(list: &Field, shared: &Shared, errors: &mut Errors) {
    if list.value.is_empty() {
        return errors.required(list, "");
    }
    let mut names = checks::Seen::new();
    for container in list.items() {
        common(&container, shared, errors);
        let name = container.at("name");
        if !names.insert(name.str().into()) {
            errors.duplicate(&name.with(&name.str().into()));
        }
        running(&container, shared, errors);
        restart_policy(&container, errors);
    }
    host_ports(list, list.value.items(), errors);
}

/// Lifecycle and probes, for containers that are meant to keep running.
fn running(container: &Field, shared: &Shared, errors: &mut Errors) {
    probes::lifecycle(&container.at("lifecycle"), shared.grace, errors);
    probes::probes(container, shared.grace, errors);
}

/// Checks `spec.initContainers`.
pub fn init(list: &Field, regular: &Field, shared: &Shared, errors: &mut Errors) {
    let mut names: checks::Seen = regular.value.items().iter().map(|c| c["name"].str().into()).collect();
    for (i, container) in list.items().enumerate() {
        common(&container, shared, errors);
        if container.at("restartPolicy").is_set() {
            restart_policy(&container, errors);
        } else if !container.at("restartPolicyRules").value.is_empty() {
            errors.required(&container.at("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        let name = container.at("name");
        if names.contains(name.str()) {
            errors.duplicate(&name.with(&name.str().into()));
        } else if !name.str().is_empty() {
            names.insert(name.str().into());
        }
        // They run one by one, so ports only collide within one, which upstream counts as a list of its own.
        host_ports(list, &list.value.items()[i..=i], errors);
        if is_sidecar(container.value) {
            running(&container, shared, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            let field = container.at(field);
            if field.is_set() {
                errors.forbidden(&field, "may not be set for init containers without restartPolicy=Always");
            }
        }
        for policy in container.at("resizePolicy").items() {
            let restart = policy.at("restartPolicy");
            if restart.str() == "RestartContainer" {
                let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.invalid(&restart, why);
            }
        }
    }
}

/// Checks `spec.ephemeralContainers`.
pub fn ephemeral(spec: &Field, shared: &Shared, errors: &mut Errors) {
    let others = || ["containers", "initContainers"].into_iter().flat_map(|list| spec.value[list].items());
    let mut names: checks::Seen = others().map(|c| c["name"].str().into()).collect();
    let targets = names.clone();
    for container in spec.at("ephemeralContainers").items() {
        common(&container, shared, errors);
        image_padding(&container, errors);
        let (name, target) = (container.at("name"), container.at("targetContainerName"));
        if !names.insert(name.str().into()) {
            errors.duplicate(&name.with(&name.str().into()));
        }
        if !target.str().is_empty() && !targets.contains(target.str()) {
            errors.not_found(&target);
        }
        only_ephemeral(&container, errors);
    }
}

/// What a passing visitor may not have.
fn only_ephemeral(container: &Field, errors: &mut Errors) {
    const NEVER: &[&str] = &[
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    for field in NEVER {
        let field = container.at(field);
        if !field.value.is_empty() {
            errors.forbidden(&field, "cannot be set for an Ephemeral Container");
        }
    }
    for mount in container.at("volumeMounts").items() {
        for field in ["subPath", "subPathExpr"] {
            let field = mount.at(field);
            if !field.str().is_empty() {
                errors.forbidden(&field, "cannot be set for an Ephemeral Container");
            }
        }
    }
}

/// What all containers have.
fn common(container: &Field, shared: &Shared, errors: &mut Errors) {
    required_check(&container.at("name"), names::dns1123_label, errors);
    checks::required(&container.at("image"), errors);
    let message_policy = container.at("terminationMessagePolicy");
    required_one_of(&message_policy, &["File", "FallbackToLogsOnError"], errors);
    ports(&container.at("ports"), errors);
    env::env(&container.at("env"), errors);
    env::env_from(&container.at("envFrom"), errors);
    mounts::mounts(container, shared.volumes, errors);
    required_one_of(&container.at("imagePullPolicy"), PULL_POLICIES, errors);
    requirements::container(&container.at("resources"), &shared.claims, errors);
    resize_policy(&container.at("resizePolicy"), shared.restart_policy, errors);
    security::container(&container.at("securityContext"), shared.host_users, errors);
}

/// Upstream is more patient with templates than with pods here.
pub fn image_padding(container: &Field, errors: &mut Errors) {
    let image = container.at("image");
    if image.str().trim() != image.str() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
}

fn ports(list: &Field, errors: &mut Errors) {
    let mut seen = checks::Seen::new();
    for port in list.items() {
        let (name, number, host) = (port.at("name"), port.at("containerPort"), port.at("hostPort"));
        if !name.str().is_empty() {
            let why = names::port_name(name.str());
            if why.is_empty() && !seen.insert(name.str().into()) {
                errors.duplicate(&name);
            }
            why.into_iter().for_each(|why| errors.invalid(&name, why));
        }
        if number.int() == 0 {
            errors.required(&number, "");
        } else {
            in_range(&number, 1, 65535, errors);
        }
        if host.int() != 0 {
            in_range(&host, 1, 65535, errors);
        }
        required_one_of(&port.at("protocol"), &["SCTP", "TCP", "UDP"], errors);
    }
}

/// No two of these containers may have the same port of the host.
fn host_ports(list: &Field, containers: &[Value], errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container["ports"].items().iter().enumerate().filter(|(_, p)| p["hostPort"].int() != 0) {
            let (protocol, ip, number) = (port["protocol"].str(), port["hostIP"].str(), port["hostPort"].int());
            if !seen.insert((protocol, ip, number)) {
                let shown = format!("{protocol}/{ip}/{number}").into();
                let place = list.index(i);
                let place = place.at("ports");
                let place = place.index(j);
                errors.duplicate(&place.at("hostPort").with(&shown));
            }
        }
    }
}

fn resize_policy(list: &Field, pod_restart_policy: &str, errors: &mut Errors) {
    let mut seen = checks::Seen::new();
    for policy in list.items() {
        let (resource, restart) = (policy.value["resourceName"].str(), policy.value["restartPolicy"].str());
        if !seen.insert(resource.into()) {
            errors.duplicate(&policy.with(&resource.into()));
        }
        required_one_of(&list.with(&resource.into()), &["cpu", "memory"], errors);
        required_one_of(&list.with(&restart.into()), &["NotRequired", "RestartContainer"], errors);
        if pod_restart_policy == "Never" && restart != "NotRequired" {
            errors.invalid(&list.with(&restart.into()), "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

/// A container's own `restartPolicy` and its rules (KEP-5307).
fn restart_policy(container: &Field, errors: &mut Errors) {
    let (policy, rules) = (container.at("restartPolicy"), container.at("restartPolicyRules"));
    let count = rules.value.items().len();
    if policy.is_unset() {
        if count == 0 {
            return;
        }
        errors.required(&policy, "must specify restartPolicy when restart rules are used");
    }
    checks::optional_one_of(&policy, &["Always", "Never", "OnFailure"], errors);
    if count > 20 {
        errors.too_many(&rules, count, 20);
    }
    for rule in rules.items() {
        let codes = rule.at("exitCodes");
        checks::one_of(&rule.at("action"), &["Restart", "RestartAllContainers"], errors);
        if codes.is_unset() {
            errors.required(&codes, "must be specified");
            continue;
        }
        checks::one_of(&codes.at("operator"), &["In", "NotIn"], errors);
        let values = codes.at("values");
        let count = values.value.items().len();
        if count > 255 {
            errors.too_many(&values, count, 255);
        }
    }
}
