//! How much a pod asks for: aggregation over its containers (KEP-753, KEP-2837) and the QoS class that follows.

use canopus_api::{Quantity, Value};
use compact_str::CompactString;
use std::collections::BTreeMap;

/// Quantities by resource name.
pub type Amounts = BTreeMap<CompactString, Quantity>;

pub const HUGEPAGES: &str = "hugepages-";

/// Reads a resource list; what is no quantity is left out.
pub fn amounts(list: &Value) -> Amounts {
    list.entries().filter_map(|(name, v)| Some((name.clone(), Quantity::from_value(v)?))).collect()
}

/// Whether it may be set for the pod as a whole.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGEPAGES)
}

/// Named without a domain, or in a `kubernetes.io/` one.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A request may be less than its limit.
pub fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGEPAGES)
}

/// An init container that keeps running beside the others.
pub fn is_sidecar(init_container: &Value) -> bool {
    init_container["restartPolicy"].str() == "Always"
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = sum.plus(*quantity);
    }
}

fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, quantity) in least {
        let highest = to.entry(name.clone()).or_insert(*quantity);
        *highest = (*highest).max(*quantity);
    }
}

/// The sum of all containers' `requests` or `limits`: sidecars count beside containers, and each other init container
/// sets a minimum together with the sidecars started before it.
pub fn of_containers(spec: &Value, list: &str) -> Amounts {
    let of = |container: &Value| amounts(&container["resources"][list]);
    let mut total = Amounts::new();
    for container in spec["containers"].items() {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut least) = (Amounts::new(), Amounts::new());
    for container in spec["initContainers"].items() {
        let mut own = of(container);
        if is_sidecar(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut least, &sidecars);
        } else {
            add(&mut own, &sidecars);
            raise(&mut least, &own);
        }
    }
    raise(&mut total, &least);
    total
}

/// What the whole pod requests, overhead included (upstream `resourcehelper.PodRequests`).
pub fn pod_requests(spec: &Value) -> Amounts {
    let mut total = with_pod_level(spec, "requests");
    add(&mut total, &amounts(&spec["overhead"]));
    total
}

/// What the whole pod may use, overhead added where there is a limit (upstream `resourcehelper.PodLimits`).
pub fn pod_limits(spec: &Value) -> Amounts {
    let mut total = with_pod_level(spec, "limits");
    for (name, overhead) in amounts(&spec["overhead"]) {
        if let Some(limit) = total.get_mut(&name).filter(|limit| !limit.is_zero()) {
            *limit = limit.plus(overhead);
        }
    }
    total
}

fn with_pod_level(spec: &Value, list: &str) -> Amounts {
    let mut total = of_containers(spec, list);
    total.extend(amounts(&spec["resources"][list]).into_iter().filter(|(name, _)| is_pod_level(name)));
    total
}

/// Guaranteed, Burstable or BestEffort (upstream `ComputePodQOS`).
pub fn qos_class(spec: &Value) -> &'static str {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut guaranteed = true;
    let positive = |list: &Value| -> Amounts {
        let counts = |(name, q): &(CompactString, Quantity)| {
            matches!(name.as_str(), "cpu" | "memory") && *q > Quantity::default()
        };
        amounts(list).into_iter().filter(counts).collect()
    };
    let mut count = |resources: &Value, limits_matter: bool| {
        let limited = positive(&resources["limits"]);
        guaranteed &= limited.len() == 2 || !limits_matter;
        add(&mut requests, &positive(&resources["requests"]));
        add(&mut limits, &limited);
    };
    if spec["resources"].is_null() {
        let containers = spec["containers"].items().iter().chain(spec["initContainers"].items());
        containers.for_each(|c| count(&c["resources"], true));
    } else {
        count(&spec["resources"], !spec["resources"]["limits"].is_empty());
    }
    match () {
        _ if requests.is_empty() && limits.is_empty() => "BestEffort",
        _ if guaranteed && requests == limits => "Guaranteed",
        _ => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn qos() {
        let both = value!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}});
        let cases = [
            (value!({"containers": [{}]}), "BestEffort"),
            (value!({"containers": [{"resources": {"requests": {"cpu": "0"}}}]}), "BestEffort"),
            (value!({"containers": [{"resources": &both}]}), "Guaranteed"),
            (value!({"containers": [{"resources": &both}], "initContainers": [{}]}), "Burstable"),
            (value!({"containers": [{"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}]}), "Burstable"),
            (value!({"containers": [{}], "resources": &both}), "Guaranteed"),
            (value!({"containers": [{"resources": {"requests": {"example.com/gpu": "1"}}}]}), "BestEffort"),
        ];
        for (spec, class) in cases {
            assert_eq!(qos_class(&spec), class, "{spec:?}");
        }
    }

    #[test]
    fn init_containers_set_a_minimum() {
        let cpu = |n: &str| value!({"requests": {"cpu": n}});
        let spec = value!({
            "containers": [{"resources": cpu("1")}, {"resources": cpu("500m")}],
            "initContainers": [{"resources": cpu("2")}, {"resources": cpu("1"), "restartPolicy": "Always"}, {"resources": cpu("3")}],
            "overhead": {"cpu": "100m"},
        });
        assert_eq!(pod_requests(&spec)["cpu"].to_string(), "4100m");
    }
}
