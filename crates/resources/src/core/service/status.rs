//! The load balancer's part of a service's status, and the warnings that writers of services get.

use super::{TOPOLOGY_HINTS, TOPOLOGY_MODE, is_a, legacy_ip};
use crate::checks;
use canopus_api::{Errors, Field, Value, names};

pub fn validate(new: &Field, old: &Value, errors: &mut Errors) {
    let status = new.at("status");
    let balancer = status.at("loadBalancer");
    load_balancer(&balancer, &old["status"]["loadBalancer"], is_a(&new.value["spec"], "LoadBalancer"), errors);
}

fn load_balancer(balancer: &Field, old: &Value, allowed: bool, errors: &mut Errors) {
    let ingress = balancer.at("ingress");
    if !allowed {
        if !ingress.value.is_empty() {
            errors.forbidden(&ingress, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        return;
    }
    let known: Value = old["ingress"].items().iter().map(|point| &point["ip"]).collect();
    for point in ingress.items() {
        let (ip, mode, host) = (point.at("ip"), point.at("ipMode"), point.at("hostname"));
        let has_ip = !ip.str().is_empty();
        if has_ip {
            legacy_ip(&ip, &known, errors);
        }
        match (mode.is_set(), has_ip) {
            (false, true) => errors.required(&mode, "must be specified when `ip` is set"),
            (true, false) => errors.forbidden(&mode, "may not be specified when `ip` is not set"),
            _ => checks::optional_one_of(&mode, &["Proxy", "VIP"], errors),
        }
        if !host.str().is_empty() {
            checks::check(&host, names::dns1123_subdomain, errors);
            if checks::parse_ip(host.str()).is_some() {
                errors.invalid(&host, "must be a DNS name, not an IP address");
            }
        }
    }
}

pub fn warnings(service: &Value) -> Vec<String> {
    let (spec, mut warnings) = (&service["spec"], Vec::new());
    if !service["metadata"]["annotations"][TOPOLOGY_HINTS].is_null() {
        warnings.push(format!("annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    let each = |list: &str| {
        let warn = move |(i, ip): (usize, &Value)| checks::ip_warning(&format!("spec.{list}[{i}]"), ip.str());
        spec[list].items().iter().enumerate().filter_map(warn).collect::<Vec<_>>()
    };
    warnings.extend(each("clusterIPs"));
    let headless = is_a(spec, "ClusterIP") && spec["clusterIP"].str() == "None";
    let external = is_a(spec, "ExternalName");
    let outside = !spec["externalIPs"].is_empty();
    let mut ignored = |is: bool, text: &str| {
        if is {
            warnings.push(text.to_string());
        }
    };
    ignored(headless && !spec["loadBalancerIP"].is_empty(), "spec.loadBalancerIP is ignored for headless services");
    ignored(headless && outside, "spec.externalIPs is ignored for headless services");
    let sticky = spec["sessionAffinity"].str() != "None";
    ignored(headless && sticky, "spec.SessionAffinity is ignored for headless services");
    warnings.extend(each("externalIPs"));
    let mut say = |is: bool, text: &str| {
        if is {
            warnings.push(text.to_string());
        }
    };
    let deprecated = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
    say(outside && !headless && !external, deprecated);
    let address = checks::ip_warning("spec.loadBalancerIP", spec["loadBalancerIP"].str());
    say(address.is_some(), address.as_deref().unwrap_or_default());
    say(external && outside, "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    let named = !spec["externalName"].is_empty();
    say(!external && named, "spec.externalName is ignored when spec.type is not \"ExternalName\"");
    let close = spec["trafficDistribution"].str() == "PreferClose";
    say(close, "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
    warnings
}
