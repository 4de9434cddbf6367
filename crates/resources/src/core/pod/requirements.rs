//! Resource requests and limits, of containers and of whole pods.

use super::amounts::{self, HUGEPAGES, is_native, is_overcommit_allowed, is_pod_level};
use crate::checks;
use canopus_api::{Errors, Field, Quantity, Value, names};
use std::collections::BTreeSet;

/// A container's `resources`.
pub fn container(resources: &Field, claims: &BTreeSet<&str>, errors: &mut Errors) {
    requirements(resources, container_resource, claims, errors);
}

/// `spec.overhead`, with upstream's path: it is checked as if it were limits.
pub fn overhead(overhead: &Field, errors: &mut Errors) {
    let limits = canopus_api::value!({"limits": overhead.value});
    requirements(&overhead.with(&limits), container_resource, &BTreeSet::new(), errors);
}

/// `spec.resources` (KEP-2837).
pub fn pod(spec: &Field, errors: &mut Errors) {
    let resources = spec.at("resources");
    if resources.is_unset() {
        return;
    }
    if spec.value.path(&["os", "name"]).str() == "windows" {
        return errors.forbidden(&resources, "may not be set for a windows pod");
    }
    if resources.at("claims").is_set() {
        errors.forbidden(&resources.at("claims"), "claims may not be set for Resources at pod-level");
    }
    requirements(&resources, pod_resource, &BTreeSet::new(), errors);
    consistency(spec.value, &resources, errors);
}

fn is_quota_name(name: &str) -> bool {
    let name = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

/// Known to the system without a domain.
fn is_standard(name: &str) -> bool {
    const OTHERS: &[&str] = &[
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "requests.storage",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
        "storage",
    ];
    is_quota_name(name)
        || OTHERS.contains(&name)
        || name.starts_with(HUGEPAGES)
        || name.starts_with("requests.hugepages-")
}

/// Known to quotas without a domain (upstream `IsStandardQuotaResourceName`).
pub fn is_standard_quota(name: &str) -> bool {
    is_standard(name) && name != "storage"
}

/// A device or the like: a domain of its own, and nameable in a quota.
pub fn is_extended(name: &str) -> bool {
    let in_quota = || names::qualified_name(&format!("requests.{name}")).is_empty();
    !is_native(name) && !name.starts_with("requests.") && in_quota()
}

/// The name of a resource; whether it is a good one (upstream `validateResourceName`).
pub fn resource_name(field: &Field, name: &str, errors: &mut Errors) -> bool {
    let before = errors.len();
    let place = field.with(&Value::Null);
    let shown: Value = name.into();
    let place = place.with(&shown);
    for why in names::qualified_name(name) {
        errors.invalid(&place, why);
    }
    if errors.len() == before && !name.contains('/') && !is_standard(name) {
        errors.invalid(&place, "must be a standard resource type or fully qualified");
    }
    errors.len() == before
}

/// The name of what a container may ask for (upstream `validateContainerResourceName`).
pub fn container_resource(field: &Field, name: &str, errors: &mut Errors) {
    resource_name(field, name, errors);
    let shown: Value = name.into();
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with(HUGEPAGES);
    if !name.contains('/') {
        if !standard {
            errors.invalid(&field.with(&shown), "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(&field.with(&shown), "doesn't follow extended resource name standard");
    }
}

fn pod_resource(field: &Field, name: &str, errors: &mut Errors) {
    if resource_name(field, name, errors) && !is_pod_level(name) {
        errors.not_supported(&field.with(&name.into()), &["cpu", HUGEPAGES, "memory"]);
    }
}

/// A quantity of this resource: not negative, and whole where only whole ones make sense
/// (upstream `ValidateResourceQuantityValue`).
pub fn resource_quantity(field: &Field, name: &str, errors: &mut Errors) -> Option<Quantity> {
    const COUNTED: &[&str] = &[
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    ];
    let quantity = checks::quantity(field, errors)?;
    if (COUNTED.contains(&name) || is_extended(name)) && quantity.milli_value() % 1000 != 0 {
        errors.invalid(&field.with(&quantity.into()), "must be an integer");
    }
    Some(quantity)
}

type NameCheck = fn(&Field, &str, &mut Errors);

fn requirements(resources: &Field, check_name: NameCheck, claims: &BTreeSet<&str>, errors: &mut Errors) {
    let (limits, requests) = (resources.at("limits"), resources.at("requests"));
    for (name, limit) in limits.entries() {
        check_name(&limit, name, errors);
        if let Some(quantity) = resource_quantity(&limit, name, errors) {
            huge_pages(&limit, name, quantity, errors);
        }
    }
    for (name, request) in requests.entries() {
        check_name(&request, name, errors);
        let Some(quantity) = resource_quantity(&request, name, errors) else { continue };
        match limits.value.get(name) {
            Some(limit) => within(&requests, name, quantity, limit, errors),
            None if !is_overcommit_allowed(name) => {
                errors.required(&limits, "Limit must be set for non overcommitable resources");
            }
            None => {}
        }
        huge_pages(&request, name, quantity, errors);
    }
    let any = |wanted: fn(&str) -> bool| [&limits, &requests].iter().any(|l| l.value.entries().any(|(n, _)| wanted(n)));
    if any(|n| n.starts_with(HUGEPAGES)) && !any(|n| matches!(n, "cpu" | "memory")) {
        errors.forbidden(resources, "HugePages require cpu or memory");
    }
    claim_names(&resources.at("claims"), claims, errors);
}

fn within(requests: &Field, name: &str, request: Quantity, limit: &Value, errors: &mut Errors) {
    let Some(limit) = Quantity::from_value(limit) else { return };
    let shown: Value = request.into();
    if request != limit && !is_overcommit_allowed(name) {
        errors.invalid(&requests.with(&shown), format!("must be equal to {name} limit of {limit}"));
    } else if request > limit {
        errors.invalid(&requests.with(&shown), format!("must be less than or equal to {name} limit of {limit}"));
    }
}

fn huge_pages(field: &Field, name: &str, quantity: Quantity, errors: &mut Errors) {
    let Some(size) = name.strip_prefix(HUGEPAGES) else { return };
    let size = Quantity::parse(size).ok().filter(|s| s.is_integer() && s.value() > 0);
    if size.is_none_or(|size| quantity.value() % size.value() != 0) {
        errors.invalid(&field.with(&quantity.into()), format!("{quantity} is not positive integer multiple of {name}"));
    }
}

fn claim_names(list: &Field, known: &BTreeSet<&str>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for claim in list.items() {
        let (name, request) = (claim.at("name"), claim.at("request"));
        if name.str().is_empty() {
            errors.required(&claim, "");
            continue;
        }
        if seen.contains(name.str()) {
            errors.duplicate(&claim.with(name.value));
        } else {
            let key = match request.str() {
                "" => name.str().to_owned(),
                request => format!("{}/{request}", name.str()),
            };
            if !request.str().is_empty() {
                checks::check(&request, names::dns1123_label, errors);
            }
            if seen.contains(&key) {
                errors.duplicate(&claim.with(&key.as_str().into()));
            } else if request.str().is_empty() {
                let part = |k: &&String| k.split_once('/').is_some_and(|(n, _)| n == name.str());
                seen.iter().filter(part).for_each(|_| errors.duplicate(&claim.with(name.value)));
            }
            seen.insert(key);
        }
        if !known.contains(name.str()) {
            let known: Vec<&str> = known.iter().copied().collect();
            let which = if known.is_empty() { " which is empty".into() } else { format!(": {}", known.join(", ")) };
            let why = format!("must be one of the names in pod.spec.resourceClaims{which}");
            errors.push(canopus_api::field::Kind::NotFound, &claim.with(name.value), why);
        }
    }
}

/// What the containers ask for must fit into what the pod asks for.
fn consistency(spec: &Value, resources: &Field, errors: &mut Errors) {
    let of_pod = |list: &str| amounts::amounts(&resources.value[list]);
    let (requests, limits) = (of_pod("requests"), of_pod("limits"));
    let too_small = |list: &Field, name: &str, have: Quantity, why: String, errors: &mut Errors| {
        errors.invalid(&list.key(name).with(&have.into()), why);
    };
    for (name, sum) in amounts::of_containers(spec, "requests") {
        if let Some(have) = requests.get(&name).filter(|have| sum > **have) {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            too_small(&resources.at("requests"), &name, *have, why, errors);
        }
    }
    for (name, sum) in amounts::of_containers(spec, "limits").into_iter().filter(|(n, _)| n.starts_with(HUGEPAGES)) {
        if let Some(have) = limits.get(&name).filter(|have| sum > **have) {
            let why = format!("must be greater than or equal to aggregate container limits of {sum}");
            too_small(&resources.at("limits"), &name, *have, why, errors);
        }
    }
    let containers = resources.at("containers");
    let containers = containers.with(&spec["containers"]);
    for container in containers.items() {
        for (name, limit) in amounts::amounts(&container.value["resources"]["limits"]) {
            if let Some(have) = limits.get(&name).filter(|have| limit > **have) {
                let place = container.key(&name);
                let why = format!("must be less than or equal to pod limits of {have}");
                errors.invalid(&place.at("limits").with(&limit.into()), why);
            }
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
            (
                value!({"limits": {"cpu": "1", "example.com/gpu": "1"}, "requests": {"cpu": "500m", "example.com/gpu": "1"}}),
                &[],
            ),
            (
                value!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
                &[r#"r.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#],
            ),
            (
                value!({"limits": {"memory": "-1"}}),
                &[r#"r.limits[memory]: Invalid value: "-1": must be greater than or equal to 0"#],
            ),
            (
                value!({"limits": {"disk": "1"}}),
                &[
                    r#"r.limits[disk]: Invalid value: "disk": must be a standard resource type or fully qualified"#,
                    r#"r.limits[disk]: Invalid value: "disk": must be a standard resource for containers"#,
                ],
            ),
            (
                value!({"limits": {"example.com/gpu": "500m"}}),
                &[r#"r.limits[example.com/gpu]: Invalid value: "500m": must be an integer"#],
            ),
            (
                value!({"requests": {"hugepages-2Mi": "3Mi"}}),
                &[
                    "r.limits: Required value: Limit must be set for non overcommitable resources",
                    r#"r.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi"#,
                    "r: Forbidden: HugePages require cpu or memory",
                ],
            ),
            (
                value!({"claims": [{"name": "x"}]}),
                &[r#"r.claims[0]: Not found: "x": must be one of the names in pod.spec.resourceClaims which is empty"#],
            ),
        ];
        for (resources, expected) in cases {
            let root = value!({"r": resources});
            let mut errors = Errors::new();
            container(&Field::root(&root).at("r"), &BTreeSet::new(), &mut errors);
            assert_eq!(texts(&errors), expected);
        }
    }

    #[test]
    fn of_pods() {
        let root = value!({"spec": {"resources": {"requests": {"cpu": "1", "ephemeral-storage": "1"}, "limits": {"cpu": "2"}},
            "containers": [{"resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": "3"}}}]}});
        let mut errors = Errors::new();
        pod(&Field::root(&root).at("spec"), &mut errors);
        assert_eq!(
            texts(&errors),
            [
                r#"spec.resources.requests[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory""#,
                r#"spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 1500m"#,
                r#"spec.resources.containers[0][cpu].limits: Invalid value: "3": must be less than or equal to pod limits of 2"#,
            ]
        );
    }
}
