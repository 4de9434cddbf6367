//! What a service gets that its author left out, and loses when its type changes.

use super::{externally_accessible, is_a, needs_cluster_ip, needs_health_check, needs_node_ports};
use canopus_api::{Value, value};
use std::collections::{BTreeMap, BTreeSet};

/// How long a client sticks to an endpoint when `ClientIP` affinity doesn't say: three hours.
const AFFINITY_SECONDS: i64 = 10800;

pub fn default(object: &mut Value) {
    let mut spec = object.remove("spec").unwrap_or_default();
    spec.ensure_object();
    affinity(&mut spec);
    if spec["type"].is_empty() {
        spec.set("type", "ClusterIP");
    }
    for port in items(&mut spec, "ports") {
        if port["protocol"].is_empty() {
            port.set("protocol", "TCP");
        }
        if port["targetPort"].is_empty() {
            let number = port["port"].int();
            port.set("targetPort", number);
        }
    }
    if externally_accessible(&spec) && spec["externalTrafficPolicy"].is_empty() {
        spec.set("externalTrafficPolicy", "Cluster");
    }
    if matches!(spec["type"].str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        spec.set_default("internalTrafficPolicy", "Cluster");
    }
    if is_a(&spec, "LoadBalancer") {
        spec.set_default("allocateLoadBalancerNodePorts", true);
        let balancer = object.get_mut("status").and_then(|status| status.get_mut("loadBalancer"));
        for point in balancer.into_iter().flat_map(|balancer| items(balancer, "ingress")) {
            if !point["ip"].is_empty() {
                point.set_default("ipMode", "VIP");
            }
        }
    }
    object.set("spec", spec);
}

fn items<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn affinity(spec: &mut Value) {
    if spec["sessionAffinity"].is_empty() {
        spec.set("sessionAffinity", "None");
    }
    match spec["sessionAffinity"].str() {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() => {
            spec.set("sessionAffinityConfig", value!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
        }
        _ => {}
    }
}

/// A client that only knows `clusterIP` has its `clusterIPs` filled in.
pub fn create(spec: &mut Value) {
    if !spec["clusterIP"].is_empty() && spec["clusterIPs"].is_empty() {
        spec.set("clusterIPs", value!([(&spec["clusterIP"])]));
    }
    drop_internal_policy(spec);
}

/// `internalTrafficPolicy` means nothing for external names.
fn drop_internal_policy(spec: &mut Value) {
    if is_a(spec, "ExternalName") {
        spec.remove("internalTrafficPolicy");
    }
}

/// An update that leaves out what was allocated keeps it; one that changes the type loses what the new type hasn't got,
/// as long as it didn't change that too.
pub fn update(new: &mut Value, old: &Value) {
    let mut spec = new.remove("spec").unwrap_or_default();
    let before = &old["spec"];
    keep_allocated(&mut spec, before);
    pair_addresses(&mut spec, before);
    drop_by_type(&mut spec, before);
    drop_internal_policy(&mut spec);
    if !is_a(&spec, "LoadBalancer") {
        new.set_path(&["status", "loadBalancer"], Value::object());
    }
    new.set("spec", spec);
}

fn keep_allocated(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        for key in ["clusterIP", "clusterIPs"] {
            if spec[key].is_empty() && !old[key].is_empty() {
                spec.set(key, &old[key]);
            }
        }
    }
    if needs_node_ports(old) && needs_node_ports(spec) {
        let used: BTreeSet<i64> = node_ports(old).intersection(&node_ports(spec)).copied().collect();
        let named: BTreeMap<&str, i64> =
            old["ports"].items().iter().map(|port| (port["name"].str(), port["nodePort"].int())).collect();
        for port in items(spec, "ports").filter(|port| port["nodePort"].int() == 0) {
            match named.get(port["name"].str()) {
                Some(number) if *number != 0 && !used.contains(number) => port.set("nodePort", *number),
                _ => {}
            }
        }
    }
    let key = "healthCheckNodePort";
    if needs_health_check(old) && needs_health_check(spec) && spec[key].is_empty() && !old[key].is_empty() {
        spec.set(key, &old[key]);
    }
}

fn node_ports(spec: &Value) -> BTreeSet<i64> {
    spec["ports"].items().iter().map(|port| port["nodePort"].int()).filter(|number| *number != 0).collect()
}

/// Two fields that count as one: unset and empty are the same.
fn same(spec: &Value, old: &Value, key: &str) -> bool {
    spec[key] == old[key] || spec[key].is_empty() && old[key].is_empty()
}

/// Keeps `clusterIP` and the first of `clusterIPs` in step for clients that change only the former.
fn pair_addresses(spec: &mut Value, old: &Value) {
    let (same_one, same_all) = (same(spec, old, "clusterIP"), same(spec, old, "clusterIPs"));
    if !old["clusterIPs"].is_empty() && spec["clusterIPs"].is_empty() && same_one {
        spec.set("clusterIPs", &old["clusterIPs"]);
    }
    if same_one || !same_all {
        return;
    }
    if spec["clusterIP"].is_empty() {
        spec.remove("clusterIPs");
    } else {
        spec.set("clusterIPs", value!([(&spec["clusterIP"])]));
    }
}

/// Whether a spec has use for a field.
type Has = fn(&Value) -> bool;

fn drop_by_type(spec: &mut Value, old: &Value) {
    let drop = |spec: &mut Value, keys: &[&str]| keys.iter().for_each(|key| drop(spec.remove(key)));
    let lost = |spec: &Value, has: Has| has(old) && !has(spec);
    if lost(spec, needs_cluster_ip) {
        if same(spec, old, "clusterIP") && same(spec, old, "clusterIPs") {
            drop(spec, &["clusterIP", "clusterIPs"]);
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if same(spec, old, key) {
                drop(spec, &[key]);
            }
        }
    }
    let typed_for_ports: Has = |spec| is_a(spec, "NodePort") || is_a(spec, "LoadBalancer");
    if lost(spec, typed_for_ports) && node_ports(spec).is_subset(&node_ports(old)) {
        items(spec, "ports").for_each(|port| drop(port, &["nodePort"]));
    }
    let balanced: Has = |spec| is_a(spec, "LoadBalancer");
    let dependents: [(Has, &str); 4] = [
        (needs_health_check, "healthCheckNodePort"),
        (balanced, "allocateLoadBalancerNodePorts"),
        (balanced, "loadBalancerClass"),
        (externally_accessible, "externalTrafficPolicy"),
    ];
    for (has, key) in dependents {
        if lost(spec, has) && same(spec, old, key) {
            drop(spec, &[key]);
        }
    }
}
