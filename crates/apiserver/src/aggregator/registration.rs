//! APIServices of this server's own group versions, made and unmade by itself (upstream `autoregister`): those built in
//! when they are missing at start, those of CustomResourceDefinitions for as long as there are any.

use canopus_api::{Value, value};

/// Says that an APIService comes and goes by itself: `onstart` or `true`.
pub const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Of a group, and of its versions where those are not 15.
struct Priority {
    group: &'static str,
    minimum: i64,
    versions: &'static [(&'static str, i64)],
}

const fn priority(group: &'static str, minimum: i64, versions: &'static [(&'static str, i64)]) -> Priority {
    Priority { group, minimum, versions }
}

/// Upstream's priorities of its own group versions.
const PRIORITIES: &[Priority] = &[
    priority("", 18000, &[("v1", 1)]),
    priority("apps", 17800, &[("v1", 15)]),
    priority("events.k8s.io", 17750, &[("v1", 15), ("v1beta1", 5)]),
    priority("authentication.k8s.io", 17700, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    priority("authorization.k8s.io", 17600, &[("v1", 15)]),
    priority("autoscaling", 17500, &[("v1", 15), ("v2", 30)]),
    priority("batch", 17400, &[("v1", 15), ("v1beta1", 9)]),
    priority("certificates.k8s.io", 17300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    priority("networking.k8s.io", 17200, &[("v1", 15), ("v1beta1", 9)]),
    priority("policy", 17100, &[("v1", 15)]),
    priority("rbac.authorization.k8s.io", 17000, &[("v1", 15)]),
    priority("storage.k8s.io", 16800, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    priority("apiextensions.k8s.io", 16700, &[("v1", 15)]),
    priority("admissionregistration.k8s.io", 16700, &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)]),
    priority("scheduling.k8s.io", 16600, &[("v1", 15), ("v1alpha2", 2)]),
    priority("coordination.k8s.io", 16500, &[("v1", 15), ("v1beta1", 13), ("v1alpha2", 12)]),
    priority("node.k8s.io", 16300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    priority("discovery.k8s.io", 16200, &[("v1", 15), ("v1beta1", 12)]),
    priority("resource.k8s.io", 16200, &[("v1", 21), ("v1beta2", 15), ("v1beta1", 9), ("v1alpha3", 1)]),
    priority("flowcontrol.apiserver.k8s.io", 16100, &[("v1", 21), ("v1beta3", 18)]),
    priority("internal.apiserver.k8s.io", 16000, &[("v1alpha1", 9)]),
    priority("storagemigration.k8s.io", 15800, &[("v1beta1", 9)]),
];

/// The APIService of a built-in group version; None for one that upstream does not list (`apiregistration.k8s.io`).
pub fn built_in(group: &str, version: &str) -> Option<Value> {
    let of_group = PRIORITIES.iter().find(|p| p.group == group)?;
    let (_, priority) = of_group.versions.iter().find(|(v, _)| *v == version)?;
    Some(service(group, version, "onstart", of_group.minimum, *priority))
}

/// The APIService of a group version that CustomResourceDefinitions made.
pub fn custom(group: &str, version: &str) -> Value {
    service(group, version, "true", 1000, 100)
}

fn service(group: &str, version: &str, managed: &str, minimum: i64, priority: i64) -> Value {
    let mut spec = value!({"version": version, "groupPriorityMinimum": minimum, "versionPriority": priority});
    if !group.is_empty() {
        spec.set("group", group);
    }
    let labels: canopus_api::Map = [(AUTOMANAGED, managed)].into_iter().collect();
    value!({"metadata": {"name": format!("{version}.{group}"), "labels": Value::Object(labels)}, "spec": spec})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_priorities() {
        assert_eq!(built_in("", "v1").unwrap()["metadata"]["name"].str(), "v1.");
        assert_eq!(built_in("autoscaling", "v2").unwrap()["spec"]["versionPriority"].int(), 30);
        assert!(built_in("apiregistration.k8s.io", "v1").is_none());
        assert_eq!(custom("example.com", "v1")["metadata"]["labels"][AUTOMANAGED].str(), "true");
    }
}
