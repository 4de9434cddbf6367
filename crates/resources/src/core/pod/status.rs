//! A pod's status: what its writers may say (upstream `ValidatePodStatusUpdate`).

use super::template;
use crate::checks::{self, check, id, required};
use canopus_api::{Errors, Field, Value, names};

const LISTS: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
];

/// Keeps what status writers may not touch, and what old ones forget.
pub fn prepare(new: &mut Value, old: &Value) {
    let mut set = |path: &[&str]| match old.path(path) {
        Value::Null => drop(new.remove_path(path)),
        value => new.set_path(path, value),
    };
    set(&["spec"]);
    set(&["metadata", "deletionTimestamp"]);
    set(&["metadata", "deletionGracePeriodSeconds"]);
    set(&["metadata", "ownerReferences"]);
    let status = new.obj_mut("status");
    for field in ["qosClass", "observedGeneration"] {
        let before = &old["status"][field];
        if !before.is_null() && status.get(field).is_none_or(Value::is_empty) {
            status.insert(field, before);
        }
    }
    let mut used = vec![false; old["status"]["conditions"].items().len()];
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let earlier = old["status"]["conditions"].items().iter().enumerate();
        let Some((i, before)) = earlier.into_iter().find(|(i, c)| !used[*i] && c["type"] == condition["type"]) else {
            continue;
        };
        used[i] = true;
        if condition["observedGeneration"].is_empty() && !before["observedGeneration"].is_empty() {
            condition.set("observedGeneration", &before["observedGeneration"]);
        }
    }
    addresses(new);
}

/// `podIP` is the first of `podIPs`, whichever of the two was written.
pub fn addresses(pod: &mut Value) {
    let Some(status) = pod.get_mut("status") else { return };
    let (one, first) = (status["podIP"].clone(), status["podIPs"][0]["ip"].clone());
    if one.str().is_empty() {
        if !first.str().is_empty() {
            status.set("podIP", first);
        }
    } else if one != first {
        status.set("podIPs", canopus_api::value!([{"ip": one}]));
    }
}

/// Checks a change through `status`.
pub fn validate(new: &Field, old: &Value, errors: &mut Errors) {
    let (meta, status, before) = (new.at("metadata"), new.at("status"), &old["status"]);
    template::annotation_update(&meta.at("annotations"), &old["metadata"]["annotations"], errors);
    conditions(&status.at("conditions"), errors);
    let nominated = status.at("nominatedNodeName");
    if !nominated.str().is_empty() && nominated.str() != before["nominatedNodeName"].str() {
        check(&nominated, names::dns1123_subdomain, errors);
        if !old["spec"]["nodeName"].str().is_empty() {
            errors.forbidden(&nominated, "may not be set on pods that are already bound to a node");
        }
    }
    generation(&status, errors);
    checks::immutable(&status.at("qosClass"), &before["qosClass"], errors);
    for (list, containers) in LISTS {
        transitions(&status.at(list), before, list, containers, &old["spec"], errors);
    }
    claim_statuses(&status, &new.value["spec"]["resourceClaims"], errors);
    extended_claim(&status.at("extendedResourceClaimStatus"), &new.value["spec"], errors);
    ips(&status.at("podIPs"), &before["podIPs"], errors);
    let hosts = status.at("hostIPs");
    if !hosts.value.is_empty() && hosts.value[0]["ip"] != status.value["hostIP"] {
        errors.invalid(&hosts.index(0).at("ip"), "must be equal to `hostIP`");
    }
    ips(&hosts, &before["hostIPs"], errors);
    for (list, containers) in LISTS {
        users(&status.at(list), new.value, errors);
        allocated(&status.at(list), &new.value["spec"][containers], list, errors);
    }
}

fn generation(place: &Field, errors: &mut Errors) {
    let generation = place.at("observedGeneration");
    if generation.int() < 0 {
        errors.invalid(&generation, "must be a non-negative integer");
    }
}

fn conditions(list: &Field, errors: &mut Errors) {
    for condition in list.items() {
        generation(&condition, errors);
        let kind = condition.value["type"].str();
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            check(&condition.at("Type").with(&kind.into()), names::qualified_name, errors);
        }
    }
}

/// A container that is not to be restarted stays terminated.
fn transitions(new: &Field, before: &Value, list: &str, containers: &str, spec: &Value, errors: &mut Errors) {
    let restarts_all = ["containers", "initContainers"].into_iter().flat_map(|l| spec[l].items()).any(|container| {
        container["restartPolicyRules"].items().iter().any(|rule| rule["action"].str() == "RestartAllContainers")
    });
    let ephemeral = containers == "ephemeralContainers";
    if restarts_all && !ephemeral {
        return;
    }
    for (i, old) in before[list].items().iter().enumerate().filter(|(_, s)| !s["state"]["terminated"].is_null()) {
        let Some(now) = new.value.items().iter().find(|s| s["name"] == old["name"]) else { continue };
        if !now["state"]["terminated"].is_null() {
            continue;
        }
        let container = spec[containers].items().iter().find(|c| c["name"] == old["name"]);
        let code = old["state"]["terminated"]["exitCode"].int();
        if ephemeral || !container.is_some_and(|c| should_restart(c, spec, code)) {
            errors.forbidden(&new.index(i).at("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// Whether a container that ended with this code is started again (KEP-5307).
pub fn should_restart(container: &Value, spec: &Value, code: i64) -> bool {
    let by_policy = |policy: &str| match policy {
        "Never" => Some(false),
        "OnFailure" => Some(code != 0),
        "Always" => Some(true),
        _ => None,
    };
    let own = container["restartPolicy"].str();
    let matches = |rule: &&Value| {
        let codes = &rule["exitCodes"];
        let listed = codes["values"].items().iter().any(|c| c.as_i64() == Some(code));
        match codes["operator"].str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    let rule = container["restartPolicyRules"].items().iter().find(matches).filter(|_| !own.is_empty());
    let by_rule = rule.filter(|r| matches!(r["action"].str(), "Restart" | "RestartAllContainers")).map(|_| true);
    by_rule.or_else(|| by_policy(own)).or_else(|| by_policy(spec["restartPolicy"].str())).unwrap_or(true)
}

fn claim_statuses(status: &Field, claims: &Value, errors: &mut Errors) {
    let mut seen = checks::Seen::new();
    for claim in status.at("resourceClaimStatuses").items() {
        let (name, object) = (claim.at("name"), claim.at("resourceClaimName"));
        if !claims.items().iter().any(|c| c["name"].str() == name.str()) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.invalid(&name.with(&name.str().into()), why);
        }
        if !seen.insert(name.str().into()) {
            errors.duplicate(&name);
        }
        if object.is_set() {
            check(&object, names::dns1123_subdomain, errors);
        }
    }
}

/// New addresses must be good ones, and at most one of each family.
fn ips(list: &Field, before: &Value, errors: &mut Errors) {
    for (i, address) in list.value.items().iter().map(|a| a["ip"].clone()).enumerate() {
        if !before.items().iter().any(|old| old["ip"] == address) {
            checks::ip(&list.index(i).with(&address), errors);
        }
    }
    let addresses = list.value.items();
    let parsed = addresses.iter().filter_map(|a| checks::parse_ip(a["ip"].str())).map(|(ip, _)| ip);
    if addresses.len() > 1 && (addresses.len() > 2 || !checks::dual_stack(parsed)) {
        errors.invalid(list, "may specify no more than one IP for each IP family");
    }
}

fn users(list: &Field, pod: &Value, errors: &mut Errors) {
    let windows = pod.path(&["spec", "os", "name"]).str() == "windows";
    for status in list.items() {
        let user = status.at("user");
        let linux = user.at("linux");
        if linux.is_unset() {
            continue;
        }
        if windows {
            errors.forbidden(&linux, "cannot be set for a windows pod");
            continue;
        }
        id(&linux.at("uid"), errors);
        id(&linux.at("gid"), errors);
        linux.at("supplementalGroups").items().for_each(|group| id(&group, errors));
    }
}

/// Health of devices (KEP-4680).
fn allocated(list: &Field, containers: &Value, name: &str, errors: &mut Errors) {
    for status in list.items() {
        let allocated = status.at("allocatedResourcesStatus");
        if name == "ephemeralContainerStatuses" {
            if !allocated.value.is_empty() {
                errors.forbidden(&allocated, "must not be specified in container status");
            }
            continue;
        }
        let container = containers.items().iter().find(|c| c["name"] == status.value["name"]);
        for resource in allocated.items() {
            if let Some(container) = container {
                known_resource(&resource.at("name"), &container["resources"], errors);
            }
            health(&resource.at("resources"), errors);
        }
    }
}

fn known_resource(name: &Field, resources: &Value, errors: &mut Errors) {
    let (known, why) = match name.str().strip_prefix("claim:") {
        Some(claim) => {
            let full = |c: &Value| match c["request"].str() {
                "" => c["name"].str().to_owned(),
                request => format!("{}/{request}", c["name"].str()),
            };
            let why = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";
            (resources["claims"].items().iter().any(|c| full(c) == claim), why)
        }
        None => {
            (resources["requests"].get(name.str()).is_some(), "must match one of the container's resource requests")
        }
    };
    if !known {
        errors.invalid(name, why);
    }
}

fn health(list: &Field, errors: &mut Errors) {
    const LONGEST: usize = 1024;
    let mut seen = checks::Seen::new();
    for device in list.items() {
        checks::one_of(&device.at("health"), &["Healthy", "Unhealthy", "Unknown"], errors);
        let (message, id) = (device.at("message"), device.at("resourceID"));
        if message.is_set() {
            if message.str().is_empty() {
                errors.required(&message, "must be non-empty if specified");
            } else if message.str().len() > LONGEST {
                errors.too_long(&message, LONGEST);
            }
        }
        if !seen.insert(id.str().into()) {
            errors.duplicate(&id);
        }
    }
}

/// Checks `status.extendedResourceClaimStatus` (KEP-5004).
fn extended_claim(status: &Field, spec: &Value, errors: &mut Errors) {
    if status.is_unset() {
        return;
    }
    let mappings = status.at("requestMappings");
    if mappings.value.is_empty() {
        errors.required(&mappings, "at least one request mapping is required");
    }
    let mut seen = checks::Seen::new();
    for mapping in mappings.items() {
        let (container, resource, request) =
            (mapping.at("containerName"), mapping.at("resourceName"), mapping.at("requestName"));
        let mut all = ["initContainers", "containers"].into_iter().flat_map(|l| spec[l].items());
        match all.find(|c| c["name"].str() == container.str()) {
            None => {
                let why = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                errors.invalid(&container, why);
            }
            Some(c) if c["resources"]["requests"].get(resource.str()).is_none() => {
                let why = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                errors.invalid(&resource, why);
            }
            Some(_) => {}
        }
        check(&status.at("requestName").with(request.value), names::dns1123_label, errors);
        if !seen.insert([&container, &resource, &request].map(|f| f.str()).join("\0").into()) {
            [&container, &resource, &request].into_iter().for_each(|f| errors.duplicate(f));
        }
    }
    let name = status.at("resourceClaimName");
    if required(&name, errors) {
        check(&name, names::dns1123_subdomain, errors);
    }
}
