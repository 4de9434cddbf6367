//! From a Service and its EndpointSlices to what DNS says about it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use canopus_api::Value;

use crate::dns::zone::{Endpoint, Port, Service};
use crate::feed::{cluster_ips, is_fqdn, port, protocol};

/// What DNS says about a Service; `None` while it has neither cluster IP nor is headless nor an alias.
pub fn translate(service: &Value, slices: &[Arc<Value>]) -> Option<Service> {
    let spec = &service["spec"];
    if spec["type"].str() == "ExternalName" {
        return Some(Service::External { name: spec["externalName"].str().into() });
    }
    if spec["clusterIP"].str() == "None" {
        let all = spec["publishNotReadyAddresses"].bool();
        return Some(Service::Headless { endpoints: endpoints(slices, all) });
    }
    let ips = cluster_ips(spec);
    (!ips.is_empty()).then(|| Service::Cluster { ips, ports: ports(&spec["ports"]) })
}

/// The ports of a Service or slice.
fn ports(list: &Value) -> Vec<Port> {
    let one = |entry: &Value| {
        let (protocol, port) = (protocol(&entry["protocol"])?, port(&entry["port"])?);
        Some(Port { name: entry["name"].str().into(), protocol, port })
    };
    list.items().iter().filter_map(one).collect()
}

/// The endpoints that may be published, each address and name once, with its ports of all slices.
fn endpoints(slices: &[Arc<Value>], all: bool) -> Vec<Endpoint> {
    let mut found: BTreeMap<(IpAddr, Option<String>), BTreeSet<Port>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| !is_fqdn(slice)) {
        let ports = ports(&slice["ports"]);
        let ready = |e: &&Value| all || e["conditions"]["ready"].as_bool().unwrap_or(true);
        for endpoint in slice["endpoints"].items().iter().filter(ready) {
            let hostname = endpoint["hostname"].as_str().filter(|name| !name.is_empty()).map(String::from);
            for ip in crate::feed::addresses(&endpoint["addresses"]) {
                found.entry((ip, hostname.clone())).or_default().extend(ports.iter().cloned());
            }
        }
    }
    found
        .into_iter()
        .map(|((ip, hostname), ports)| Endpoint { ip, hostname, ports: ports.into_iter().collect() })
        .collect()
}
