//! From a Service and its EndpointSlices to what the proxy does for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use canopus_api::Value;

use crate::feed::{addresses, cluster_ips, is_fqdn, port, protocol};
use crate::proxy::state::{Endpoint, Protocol, ServicePort, ServicePortKey};

/// Services with this label are another proxy's.
const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// The time-out of ClientIP affinity where none is given.
const AFFINITY_SECONDS: i64 = 10_800;

/// The ports of a Service as the proxy serves them on this node; none for headless Services, aliases and those that
/// another proxy serves.
pub fn translate(service: &Value, slices: &[Arc<Value>], node_name: &str) -> Vec<(ServicePortKey, ServicePort)> {
    let spec = &service["spec"];
    let cluster_ips = cluster_ips(spec);
    let foreign = service["metadata"]["labels"].get(SERVICE_PROXY_NAME).is_some();
    if cluster_ips.is_empty() || foreign || spec["type"].str() == "ExternalName" {
        return vec![];
    }
    let common = ServicePort { cluster_ips, ..common(service) };
    let endpoints = endpoints(slices, node_name);
    let mut ports = Vec::new();
    for entry in spec["ports"].items() {
        let (Some(protocol), Some(number)) = (protocol(&entry["protocol"]), port(&entry["port"])) else { continue };
        let port_name = entry["name"].str();
        let key = ServicePortKey {
            namespace: service["metadata"]["namespace"].str().into(),
            name: service["metadata"]["name"].str().into(),
            port_name: port_name.into(),
            protocol,
        };
        let endpoints = endpoints.get(&(port_name, protocol)).into_iter().flat_map(BTreeMap::values).cloned();
        let value = ServicePort {
            port: number,
            node_port: port(&entry["nodePort"]).unwrap_or(0),
            endpoints: endpoints.collect(),
            ..common.clone()
        };
        ports.push((key, value));
    }
    ports
}

/// What all ports of a Service have in common.
fn common(service: &Value) -> ServicePort {
    let spec = &service["spec"];
    let timeout = spec.path(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).as_i64();
    let sticky = spec["sessionAffinity"].str() == "ClientIP";
    let is_vip = |ingress: &&Value| matches!(ingress["ipMode"].str(), "" | "VIP");
    let ingress = service["status"]["loadBalancer"]["ingress"].items().iter().filter(is_vip);
    // Validation lets spaces around a range pass.
    let ranges = spec["loadBalancerSourceRanges"].items().iter();
    ServicePort {
        cluster_ips: vec![],
        port: 0,
        node_port: 0,
        external_ips: addresses(&spec["externalIPs"]),
        load_balancer_ips: ingress.filter_map(|ingress| ingress["ip"].str().parse().ok()).collect(),
        load_balancer_source_ranges: ranges.filter_map(|range| range.str().trim().parse().ok()).collect(),
        affinity_seconds: sticky.then(|| u32::try_from(timeout.unwrap_or(AFFINITY_SECONDS)).unwrap_or(0)),
        internal_local: spec["internalTrafficPolicy"].str() == "Local",
        external_local: spec["externalTrafficPolicy"].str() == "Local",
        endpoints: vec![],
    }
}

type Endpoints<'a> = BTreeMap<(&'a str, Protocol), BTreeMap<(IpAddr, u16), Endpoint>>;

/// The endpoints by the name and protocol of their port, each address once.
fn endpoints<'a>(slices: &'a [Arc<Value>], node_name: &str) -> Endpoints<'a> {
    let mut all = Endpoints::new();
    for slice in slices.iter().filter(|slice| !is_fqdn(slice)) {
        for entry in slice["ports"].items() {
            let (Some(protocol), Some(port)) = (protocol(&entry["protocol"]), port(&entry["port"])) else { continue };
            let found = all.entry((entry["name"].str(), protocol)).or_default();
            for endpoint in slice["endpoints"].items().iter().filter_map(|e| read_endpoint(e, port, node_name)) {
                // A pod may have got the address of one that is on its way out: the one that stays counts.
                if !endpoint.terminating || !found.contains_key(&(endpoint.ip, port)) {
                    found.insert((endpoint.ip, port), endpoint);
                }
            }
        }
    }
    all
}

fn read_endpoint(endpoint: &Value, port: u16, node_name: &str) -> Option<Endpoint> {
    let conditions = &endpoint["conditions"];
    let names = |list: &Value| -> BTreeSet<String> { list.items().iter().map(|e| e["name"].str().into()).collect() };
    Some(Endpoint {
        // The addresses of one endpoint are the same to clients; only the first is used.
        ip: endpoint["addresses"][0].str().parse().ok()?,
        port,
        ready: conditions["ready"].as_bool().unwrap_or(true),
        serving: conditions["serving"].as_bool().unwrap_or(true),
        terminating: conditions["terminating"].bool(),
        local: !node_name.is_empty() && endpoint["nodeName"].str() == node_name,
        zone_hints: names(&endpoint["hints"]["forZones"]),
        node_hints: names(&endpoint["hints"]["forNodes"]),
    })
}
