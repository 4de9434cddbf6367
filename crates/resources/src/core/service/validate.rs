//! The rules for a service's spec, but for its addresses.

use super::{
    SOURCE_RANGES, TOPOLOGY_HINTS, TOPOLOGY_MODE, addresses, externally_accessible, is_a, is_headless, legacy_ip,
    needs_health_check,
};
use crate::checks;
use crate::core::endpoints::{PROTOCOLS, endpoint_ip};
use canopus_api::{Errors, Field, Value, names, value};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
/// A day: the longest that a client may stick to an endpoint.
const MAX_AFFINITY_SECONDS: i64 = 86400;
const BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const NOT_EXTERNAL: &str = "may not be set for ExternalName services";

/// All that is wrong with a service, given what it was (Null for a new one).
pub fn service(object: &Field, old: &Value, errors: &mut Errors) {
    topology(&object.at("metadata"), errors);
    let spec = object.at("spec");
    by_type(&spec, errors);
    ports(&spec, errors);
    checks::labels(&spec.at("selector"), errors);
    affinity(&spec, errors);
    addresses::validate(&spec, &old["spec"], errors);
    external_ips(&spec.at("externalIPs"), &old["spec"]["externalIPs"], errors);
    checks::required_one_of(&spec.at("type"), TYPES, errors);
    node_ports(&spec, errors);
    duplicate_ports(&spec.at("ports"), errors);
    source_ranges(object, old, errors);
    balancer(&spec, errors);
    traffic_policies(&spec, errors);
}

/// What may not change, but for addresses.
pub fn changes(spec: &Field, old: &Value, errors: &mut Errors) {
    let class = spec.at("loadBalancerClass");
    if is_a(spec.value, "LoadBalancer") && is_a(old, "LoadBalancer") && *class.value != old["loadBalancerClass"] {
        errors.invalid(&class, "may not change once set");
    }
    let port = spec.at("healthCheckNodePort");
    if needs_health_check(old) && needs_health_check(spec.value) && port.int() != old["healthCheckNodePort"].int() {
        errors.forbidden(&port, checks::IMMUTABLE);
    }
}

fn topology(meta: &Field, errors: &mut Errors) {
    let annotations = meta.at("annotations");
    let (mode, hints) = (annotations.key(TOPOLOGY_MODE), annotations.value.get(TOPOLOGY_HINTS));
    if mode.is_set() && hints.is_some_and(|hints| hints != mode.value) {
        errors.invalid(&mode, format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified"));
    }
}

fn by_type(spec: &Field, errors: &mut Errors) {
    let (kind, headless) = (spec.value["type"].str(), is_headless(spec.value));
    if spec.value["ports"].is_empty() && !headless && kind != "ExternalName" {
        errors.required(&spec.at("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            errors.invalid(&spec.at("clusterIPs").index(0), format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.value[key].is_empty() {
                    errors.forbidden(&spec.at(key), NOT_EXTERNAL);
                }
            }
            let name = spec.at("externalName");
            let bare: Value = name.str().strip_suffix('.').unwrap_or(name.str()).into();
            checks::required_check(&name.with(&bare), names::dns1123_subdomain, errors);
        }
        _ => {}
    }
}

fn ports(spec: &Field, errors: &mut Errors) {
    let list = spec.at("ports");
    let all = list.value.items();
    for (i, port) in list.items().enumerate() {
        let name = port.at("name");
        if name.str().is_empty() {
            if all.len() > 1 {
                errors.required(&name, "");
            }
        } else {
            checks::check(&name, names::dns1123_label, errors);
            if all[..i].iter().any(|other| other["name"] == *name.value) {
                errors.duplicate(&name);
            }
        }
        let number = port.at("port");
        checks::in_range(&number.with(&number.int().into()), 1, 65535, errors);
        checks::required_one_of(&port.at("protocol"), PROTOCOLS, errors);
        checks::port_number_or_name(&port.at("targetPort"), errors);
        let app = port.at("appProtocol");
        if app.is_set() {
            checks::check(&app, names::qualified_name, errors);
        }
    }
}

fn affinity(spec: &Field, errors: &mut Errors) {
    let (kind, config) = (spec.at("sessionAffinity"), spec.at("sessionAffinityConfig"));
    checks::required_one_of(&kind, &["ClientIP", "None"], errors);
    if kind.str() == "None" && config.is_set() {
        errors.forbidden(&config, "must not be set when session affinity is None");
    }
    if kind.str() != "ClientIP" {
        return;
    }
    let client = config.at("clientIP");
    let timeout = client.at("timeoutSeconds");
    if let Some(missing) = [&config, &client, &timeout].into_iter().find(|field| field.is_unset()) {
        errors.required(missing, "when session affinity type is ClientIP");
    } else if !(1..=MAX_AFFINITY_SECONDS).contains(&timeout.int()) {
        errors.invalid(&timeout, format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"));
    }
}

fn external_ips(list: &Field, old: &Value, errors: &mut Errors) {
    for ip in list.items() {
        if legacy_ip(&ip, old, errors) {
            endpoint_ip(&ip, errors);
        }
    }
}

fn node_ports(spec: &Field, errors: &mut Errors) {
    let list = spec.at("ports");
    if is_a(spec.value, "ClusterIP") {
        for port in list.items().filter(|port| port.value["nodePort"].int() != 0) {
            errors.forbidden(&port.at("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let key = |port: &Value| (port["protocol"].str().to_string(), port["nodePort"].int());
    for (i, port) in list.items().enumerate() {
        let earlier = &list.value.items()[..i];
        if port.value["nodePort"].int() != 0 && earlier.iter().any(|other| key(other) == key(port.value)) {
            errors.duplicate(&port.at("nodePort"));
        }
    }
}

fn duplicate_ports(list: &Field, errors: &mut Errors) {
    let key = |port: &Value| value!({"port": (&port["port"]), "protocol": (&port["protocol"])});
    for (i, port) in list.items().enumerate() {
        let this = key(port.value);
        if list.value.items()[..i].iter().any(|other| key(other) == this) {
            errors.duplicate(&port.with(&this));
        }
    }
}

/// Of the field, or else of the annotation that came before it. Spaces around blocks are allowed.
fn source_ranges(object: &Field, old: &Value, errors: &mut Errors) {
    let (spec, meta) = (object.at("spec"), object.at("metadata"));
    let balanced = is_a(spec.value, "LoadBalancer");
    // Upstream's path is in capitals.
    let list = spec.at("LoadBalancerSourceRanges");
    let list = list.with(&spec.value["loadBalancerSourceRanges"]);
    if !list.value.is_empty() {
        if !balanced {
            errors.forbidden(&list, BALANCER_ONLY);
        }
        let known = old["spec"]["loadBalancerSourceRanges"].items();
        for block in list.items() {
            let text = block.str().trim();
            if !known.iter().any(|old| old.str().trim() == text) {
                checks::cidr(&block.with(&text.into()), errors);
            }
        }
        return;
    }
    let annotations = meta.at("annotations");
    let annotation = annotations.key(SOURCE_RANGES);
    if annotation.is_unset() {
        return;
    }
    if !balanced {
        errors.forbidden(&annotation, BALANCER_ONLY);
    }
    if old["metadata"]["annotations"][SOURCE_RANGES] != *annotation.value && !annotation.str().trim().is_empty() {
        for block in annotation.str().split(',') {
            checks::cidr(&annotation.with(&block.trim().into()), errors);
        }
    }
}

fn balancer(spec: &Field, errors: &mut Errors) {
    let (allocate, class) = (spec.at("allocateLoadBalancerNodePorts"), spec.at("loadBalancerClass"));
    if is_a(spec.value, "LoadBalancer") {
        if allocate.is_unset() {
            errors.required(&allocate, "");
        }
        if class.is_set() {
            checks::check(&class, names::qualified_name, errors);
        }
        return;
    }
    for field in [&allocate, &class].into_iter().filter(|field| field.is_set()) {
        errors.forbidden(field, BALANCER_ONLY);
    }
}

fn traffic_policies(spec: &Field, errors: &mut Errors) {
    let (external, internal) = (spec.at("externalTrafficPolicy"), spec.at("internalTrafficPolicy"));
    if externally_accessible(spec.value) {
        checks::required_one_of(&external, POLICIES, errors);
    } else if !external.str().is_empty() {
        errors.invalid(&external, "may only be set for externally-accessible services");
    }
    let port = spec.at("healthCheckNodePort");
    if needs_health_check(spec.value) {
        if checks::required(&port, errors) {
            checks::in_range(&port, 1, 65535, errors);
        }
    } else if port.int() != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&port, why);
    }
    if internal.is_unset() && matches!(spec.value["type"].str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        errors.required(&internal, "");
    }
    checks::optional_one_of(&internal, POLICIES, errors);
    checks::optional_one_of(&spec.at("trafficDistribution"), DISTRIBUTIONS, errors);
}
