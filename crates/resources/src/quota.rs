//! What objects cost and which quotas pay for it (upstream `pkg/quota/v1`). Pure; admission and the quota controller
//! both reckon by it, so that they never disagree.

use crate::core::persistentvolume::class;
use crate::core::pod::amounts::{Amounts, HUGEPAGES, amounts, is_native, pod_limits, pod_requests, qos_class};
use canopus_api::{Quantity, Time, Value};
use compact_str::{CompactString, format_compact};

/// Resources that never counted.
const IGNORED: &[(&str, &str)] = &[
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("events.k8s.io", "events"),
];

/// Core resources whose bare names count them, besides `count/…`.
const ALIASES: &[&str] = &["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

const CLASS: &str = ".storageclass.storage.k8s.io/";
const DEVICES: &str = ".deviceclass.resource.k8s.io/devices";
/// Upstream `AllocationResultsMaxSize`: what a request for all devices may get.
const ALL_DEVICES: i64 = 32;
const OF_CLAIMS: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];

/// One write, as quotas see it.
pub struct Change<'a> {
    pub group: &'a str,
    pub plural: &'a str,
    pub subresource: &'a str,
    pub object: &'a Value,
    /// Null for a creation.
    pub old: &'a Value,
    pub now: Time,
}

impl Change<'_> {
    /// Whether it can change what any quota counts.
    pub fn counts(&self) -> bool {
        if IGNORED.contains(&(self.group, self.plural)) {
            return false;
        }
        let creation = self.old.is_null();
        match (self.group, self.plural, self.subresource) {
            ("", "pods", "") => creation || ends(self.object) != ends(self.old),
            ("", "pods", "resize") => !creation,
            ("", "services" | "persistentvolumeclaims", "") => true,
            ("", "persistentvolumeclaims", "status") => {
                let allocated = |claim: &Value| claim["status"]["allocatedResources"]["storage"].clone();
                allocated(self.object) != allocated(self.old)
                    || attribute_classes(self.object) != attribute_classes(self.old)
            }
            (_, _, "") => creation,
            _ => false,
        }
    }

    /// What `quota` (a ResourceQuota) has used once this is done; None when it is not concerned. The error is upstream's
    /// reason for a refusal.
    pub fn charge(&self, quota: &Value) -> Result<Option<Amounts>, String> {
        let (name, status) = (quota["metadata"]["name"].str(), &quota["status"]);
        let (hard, used) = (amounts(&status["hard"]), amounts(&status["used"]));
        let counted: Vec<&str> = hard.keys().map(CompactString::as_str).filter(|n| self.is_counted(n)).collect();
        if counted.is_empty() || !in_scope(self.group, self.plural, &quota["spec"], self.object) {
            return Ok(None);
        }
        if (self.group, self.plural) == ("", "pods") {
            unstated(&counted, self.object).map_or(Ok(()), |why| Err(format!("failed quota: {name}: {why}")))?;
        }
        if counted.iter().any(|resource| !used.contains_key(*resource)) {
            return Err(format!("status unknown for quota: {name}, resources: {}", counted.join(",")));
        }
        let mut asked = usage(self.group, self.plural, self.object, self.now);
        let negative: Vec<&str> = asked.iter().filter(|(_, q)| q.is_negative()).map(|(n, _)| n.as_str()).collect();
        if !negative.is_empty() {
            return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
        }
        if !self.old.is_null() && in_scope(self.group, self.plural, &quota["spec"], self.old) {
            for (resource, before) in usage(self.group, self.plural, self.old, self.now) {
                if let Some(now) = asked.get_mut(&resource) {
                    *now = now.minus(before).max(Quantity::default());
                }
            }
        }
        asked.retain(|resource, quantity| !quantity.is_zero() && hard.contains_key(resource));
        if asked.is_empty() {
            return Ok(None);
        }
        let mut after = used.clone();
        for (resource, quantity) in &asked {
            let total = after.entry(resource.clone()).or_default();
            *total = total.plus(*quantity);
        }
        let exceeded = |resource: &CompactString| after[resource] > hard[resource];
        if self.subresource != "status" && asked.keys().any(exceeded) {
            let show = |list: &Amounts| {
                let shown = asked.keys().filter(|r| exceeded(r)).filter_map(|r| Some((r, list.get(r)?)));
                shown.map(|(resource, quantity)| format!("{resource}={quantity}")).collect::<Vec<_>>().join(",")
            };
            return Err(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                show(&asked),
                show(&used),
                show(&hard)
            ));
        }
        Ok(Some(after))
    }

    fn is_counted(&self, resource: &str) -> bool {
        matches(self.group, self.plural, resource)
    }
}

/// `count/deployments.apps`.
pub fn count_name(group: &str, plural: &str) -> CompactString {
    if group.is_empty() { format_compact!("count/{plural}") } else { format_compact!("count/{plural}.{group}") }
}

/// Whether a quota's limit of this name is about objects of this resource.
pub fn matches(group: &str, plural: &str, resource: &str) -> bool {
    if resource == count_name(group, plural) {
        return true;
    }
    match (group, plural) {
        ("", "pods") => {
            let bare = resource.strip_prefix("requests.").or(resource.strip_prefix("limits.")).unwrap_or(resource);
            let device = resource
                .strip_prefix("requests.")
                .is_some_and(|r| !is_native(r) || r.starts_with("deviceclass.resource.kubernetes.io/"));
            matches!(bare, "cpu" | "memory" | "ephemeral-storage")
                || resource == "pods"
                || resource.starts_with(HUGEPAGES)
                || resource.starts_with("requests.hugepages-")
                || device
        }
        ("", "services") => matches!(resource, "services" | "services.loadbalancers" | "services.nodeports"),
        ("", "persistentvolumeclaims") => {
            let of_class = |what: &str| resource.strip_suffix(what).is_some_and(|rest| rest.ends_with(CLASS));
            OF_CLAIMS.contains(&resource) || OF_CLAIMS.iter().any(|what| of_class(what))
        }
        ("resource.k8s.io", "resourceclaims") => resource.ends_with(DEVICES),
        ("", plural) => ALIASES.contains(&plural) && resource == plural,
        _ => false,
    }
}

/// What one object uses.
pub fn usage(group: &str, plural: &str, object: &Value, now: Time) -> Amounts {
    let mut used = Amounts::from([(count_name(group, plural), Quantity::from_int(1))]);
    match (group, plural) {
        ("", "pods") => pod(object, now, &mut used),
        ("", "services") => service(&object["spec"], &mut used),
        ("", "persistentvolumeclaims") => claim(object, &mut used),
        ("resource.k8s.io", "resourceclaims") => devices(&object["spec"]["devices"], &mut used),
        ("", plural) if ALIASES.contains(&plural) => {
            used.insert(plural.into(), Quantity::from_int(1));
        }
        _ => {}
    }
    used
}

/// Pods that have ended, or should have by now, use nothing more.
fn pod(pod: &Value, now: Time, used: &mut Amounts) {
    let meta = &pod["metadata"];
    let overdue = Time::parse(meta["deletionTimestamp"].str()).is_some_and(|when| {
        let grace = std::time::Duration::from_secs(meta["deletionGracePeriodSeconds"].int().max(0).unsigned_abs());
        now > when.plus(grace)
    });
    if matches!(pod["status"]["phase"].str(), "Failed" | "Succeeded") || overdue {
        return;
    }
    compute(&pod_requests(&pod["spec"]), &pod_limits(&pod["spec"]), used);
}

fn compute(requests: &Amounts, limits: &Amounts, used: &mut Amounts) {
    used.insert("pods".into(), Quantity::from_int(1));
    for (resource, quantity) in requests {
        let plain = matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if plain || resource.starts_with(HUGEPAGES) {
            used.insert(resource.clone(), *quantity);
        }
        if plain || resource.starts_with(HUGEPAGES) || !is_native(resource) {
            used.insert(format_compact!("requests.{resource}"), *quantity);
        }
    }
    for (resource, quantity) in limits {
        if matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format_compact!("limits.{resource}"), *quantity);
        }
    }
}

fn service(spec: &Value, used: &mut Amounts) {
    let ports = spec["ports"].items();
    let explicit = ports.iter().filter(|port| port["nodePort"].int() != 0).count();
    let (node_ports, balancers) = match spec["type"].str() {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"].as_bool() == Some(false) => (explicit, 1),
        "LoadBalancer" => (ports.len(), 1),
        _ => (0, 0),
    };
    used.insert("services".into(), Quantity::from_int(1));
    used.insert("services.loadbalancers".into(), Quantity::from_int(balancers));
    used.insert("services.nodeports".into(), Quantity::from_int(i64::try_from(node_ports).unwrap_or(i64::MAX)));
}

fn claim(claim: &Value, used: &mut Amounts) {
    let amount = |list: &Value| Quantity::from_value(&list["storage"]);
    let requested = amount(&claim["spec"]["resources"]["requests"]);
    let storage = requested.map(|requested| {
        let most = amount(&claim["status"]["allocatedResources"]).map_or(requested, |a| a.max(requested));
        if most.is_integer() { most } else { Quantity::from_int(most.value()) }
    });
    let class = class(claim);
    for (what, quantity) in OF_CLAIMS.iter().zip([Some(Quantity::from_int(1)), storage]) {
        let Some(quantity) = quantity else { continue };
        used.insert((*what).into(), quantity);
        if !class.is_empty() {
            used.insert(format_compact!("{class}{CLASS}{what}"), quantity);
        }
    }
}

/// Devices by class; of a request with alternatives, the most that each class may give.
fn devices(devices: &Value, used: &mut Amounts) {
    for request in devices["requests"].items() {
        let mut most: std::collections::BTreeMap<&str, i64> = Default::default();
        let exactly = std::slice::from_ref(&request["exactly"]);
        let choices = request["firstAvailable"].items();
        for choice in if choices.is_empty() { exactly } else { choices }.iter().filter(|c| !c.is_null()) {
            let number = match choice["allocationMode"].str() {
                "ExactCount" => choice["count"].int(),
                "All" => ALL_DEVICES,
                _ => 0,
            };
            let known = most.entry(choice["deviceClassName"].str()).or_default();
            *known = number.max(*known);
        }
        for (class, number) in most {
            let sum = used.entry(format_compact!("{class}{DEVICES}")).or_insert(Quantity::from_int(0));
            *sum = sum.plus(Quantity::from_int(number));
        }
    }
}

/// A quota of processors or memory wants every container to say what it needs.
fn unstated(counted: &[&str], pod: &Value) -> Option<String> {
    const STATED: &[&str] = &["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
    let spec = &pod["spec"];
    let whole_pod = &spec["resources"];
    if !whole_pod["requests"].is_empty() || !whole_pod["limits"].is_empty() {
        return None;
    }
    let mut missing = Vec::new();
    for resource in STATED.iter().filter(|r| counted.contains(r)) {
        let mut containers = std::collections::BTreeSet::new();
        for container in ["containers", "initContainers"].iter().flat_map(|list| spec[*list].items()) {
            let mut own = Amounts::new();
            let resources = &container["resources"];
            compute(&amounts(&resources["requests"]), &amounts(&resources["limits"]), &mut own);
            if !own.contains_key(*resource) {
                containers.insert(container["name"].str());
            }
        }
        if !containers.is_empty() {
            missing.push(format!("{resource} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")));
        }
    }
    (!missing.is_empty()).then(|| format!("must specify {}", missing.join("; ")))
}

/// Whether the object is one of those that a quota with this spec is for.
pub fn in_scope(group: &str, plural: &str, spec: &Value, object: &Value) -> bool {
    let scopes = spec["scopes"].items().iter().map(|scope| (scope.str(), "Exists", &Value::Null));
    let selectors = spec["scopeSelector"]["matchExpressions"].items().iter();
    let selectors = selectors.map(|s| (s["scopeName"].str(), s["operator"].str(), &s["values"]));
    scopes.chain(selectors).all(|(scope, operator, values)| match (group, plural) {
        ("", "pods") => pod_in(scope, operator, values, object),
        ("", "persistentvolumeclaims") if scope == "VolumeAttributesClass" => {
            let classes = attribute_classes(object);
            match classes.is_empty() {
                true => selects(operator, values, None),
                false => classes.iter().any(|class| selects(operator, values, Some(class))),
            }
        }
        _ => false,
    })
}

fn pod_in(scope: &str, operator: &str, values: &Value, pod: &Value) -> bool {
    let class = pod["spec"]["priorityClassName"].str();
    let best_effort = || match pod["status"]["qosClass"].str() {
        "" => qos_class(&pod["spec"]) == "BestEffort",
        known => known == "BestEffort",
    };
    match scope {
        "Terminating" => ends(pod),
        "NotTerminating" => !ends(pod),
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => selects(operator, values, Some(class).filter(|c| !c.is_empty())),
        "CrossNamespacePodAffinity" => crosses_namespaces(&pod["spec"]["affinity"]),
        _ => false,
    }
}

fn selects(operator: &str, values: &Value, value: Option<&str>) -> bool {
    let listed = |value: &str| values.items().iter().any(|v| v.str() == value);
    match operator {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// A pod that will not run for ever.
fn ends(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| !term["namespaces"].is_empty() || !term["namespaceSelector"].is_null();
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = &affinity[*kind];
        terms["requiredDuringSchedulingIgnoredDuringExecution"].items().iter().any(crosses)
            || terms["preferredDuringSchedulingIgnoredDuringExecution"]
                .items()
                .iter()
                .any(|term| crosses(&term["podAffinityTerm"]))
    })
}

fn attribute_classes(claim: &Value) -> Vec<&str> {
    let status = &claim["status"];
    let names = [
        claim["spec"]["volumeAttributesClassName"].str(),
        status["currentVolumeAttributesClassName"].str(),
        status["modifyVolumeStatus"]["targetVolumeAttributesClassName"].str(),
    ];
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

/// A list of quantities as `status.used` has it.
pub fn list(amounts: &Amounts) -> Value {
    let mut list = Value::object();
    amounts.iter().for_each(|(name, quantity)| list.set(name, *quantity));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    fn quota(spec: Value, hard: Value, used: Value) -> Value {
        value!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}})
    }

    fn pod_of(resources: Value) -> Value {
        value!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    fn charge(plural: &str, object: &Value, quota: &Value) -> Result<Option<Value>, String> {
        let change = Change { group: "", plural, subresource: "", object, old: &Value::Null, now: Time(0) };
        change.charge(quota).map(|after| after.map(|a| list(&a)))
    }

    #[test]
    fn pods_pay_for_what_they_ask() {
        let both = pod_of(value!({"requests": {"cpu": "500m", "memory": "1Gi", "x.y/gpu": 2}, "limits": {"cpu": "1"}}));
        let none = value!({});
        let cases = [
            (
                &both,
                quota(
                    none.clone(),
                    value!({"cpu": "1", "requests.x.y/gpu": "3", "limits.cpu": "2"}),
                    value!({"cpu": "250m", "requests.x.y/gpu": "0", "limits.cpu": "0"}),
                ),
                Ok(Some(value!({"cpu": "750m", "requests.x.y/gpu": "2", "limits.cpu": "1"}))),
            ),
            (
                &both,
                quota(none.clone(), value!({"cpu": "1", "pods": "5"}), value!({"cpu": "600m", "pods": "1"})),
                Err("exceeded quota: q, requested: cpu=500m, used: cpu=600m, limited: cpu=1".to_string()),
            ),
            (
                &pod_of(Value::Null),
                quota(none.clone(), value!({"cpu": "1", "memory": "1"}), value!({"cpu": "0", "memory": "0"})),
                Err("failed quota: q: must specify cpu for: c; memory for: c".to_string()),
            ),
            (
                &both,
                quota(none.clone(), value!({"pods": "1"}), value!({})),
                Err("status unknown for quota: q, resources: pods".to_string()),
            ),
            (&both, quota(value!({"scopes": ["BestEffort"]}), value!({"pods": "1"}), value!({"pods": "1"})), Ok(None)),
            (&both, quota(none, value!({"services": "1"}), value!({"services": "1"})), Ok(None)),
        ];
        for (pod, quota, expected) in cases {
            assert_eq!(charge("pods", pod, &quota), expected, "{quota:?}");
        }
    }

    #[test]
    fn claims_pay_for_devices_by_class() {
        let of = |class: &str, mode: &str, count: i64| value!({"deviceClassName": class, "allocationMode": mode, "count": count});
        let claim = value!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": (of("gold", "ExactCount", 2))},
            {"name": "b", "firstAvailable": [(of("gold", "ExactCount", 1)), (of("gold", "ExactCount", 3)), (of("tin", "All", 0))]},
        ]}}});
        let expected = value!({
            "count/resourceclaims.resource.k8s.io": "1",
            "gold.deviceclass.resource.k8s.io/devices": "5", "tin.deviceclass.resource.k8s.io/devices": "32",
        });
        assert_eq!(list(&usage("resource.k8s.io", "resourceclaims", &claim, Time(0))), expected);
        for (plural, limit, about) in [("resourceclaims", "gold", true), ("devices", "gold", false)] {
            assert_eq!(matches("resource.k8s.io", plural, &format!("{limit}{DEVICES}")), about, "{plural}");
        }
    }

    #[test]
    fn others_are_counted() {
        let used = |group: &str, plural: &str, object: Value| list(&usage(group, plural, &object, Time(0)));
        assert_eq!(used("apps", "deployments", value!({})), value!({"count/deployments.apps": "1"}));
        assert_eq!(used("", "secrets", value!({})), value!({"count/secrets": "1", "secrets": "1"}));
        assert_eq!(
            used(
                "",
                "services",
                value!({"spec": {"type": "LoadBalancer", "ports": [{}, {"nodePort": 1}], "allocateLoadBalancerNodePorts": false}})
            ),
            value!({"count/services": "1", "services": "1", "services.loadbalancers": "1", "services.nodeports": "1"})
        );
        assert_eq!(
            used(
                "",
                "persistentvolumeclaims",
                value!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}})
            ),
            value!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "1Gi",
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"})
        );
        assert!(matches("", "persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage"));
        assert!(!matches("", "persistentvolumeclaims", "requests.cpu") && !matches("", "pods", "secrets"));
        let ended = value!({"spec": {"containers": []}, "status": {"phase": "Succeeded"}});
        assert_eq!(used("", "pods", ended), value!({"count/pods": "1"}));
    }

    #[test]
    fn updates_pay_the_difference() {
        let service = |kind: &str| value!({"spec": {"type": kind, "ports": [{}]}});
        let (old, new) = (service("ClusterIP"), service("NodePort"));
        let change = Change { group: "", plural: "services", subresource: "", object: &new, old: &old, now: Time(0) };
        let quota = quota(
            value!({}),
            value!({"services.nodeports": "1", "services": "1"}),
            value!({"services.nodeports": "0", "services": "1"}),
        );
        let after = change.charge(&quota).map(|after| list(&after.unwrap()));
        assert_eq!(after, Ok(value!({"services.nodeports": "1", "services": "1"})));
    }

    #[test]
    fn scopes() {
        let priority = |operator: &str, values: Value| value!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
        let pod = value!({"spec": {"priorityClassName": "high", "activeDeadlineSeconds": 5, "containers": [{}],
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["a"]}]}}}});
        let cases = [
            (value!({"scopes": ["Terminating", "BestEffort", "CrossNamespacePodAffinity"]}), true),
            (value!({"scopes": ["NotTerminating"]}), false),
            (priority("In", value!(["high"])), true),
            (priority("NotIn", value!(["high"])), false),
            (priority("Exists", Value::Null), true),
            (priority("DoesNotExist", Value::Null), false),
        ];
        for (spec, expected) in cases {
            assert_eq!(in_scope("", "pods", &spec, &pod), expected, "{spec:?}");
        }
        assert!(!in_scope("", "secrets", &value!({"scopes": ["Terminating"]}), &value!({})));
    }
}
