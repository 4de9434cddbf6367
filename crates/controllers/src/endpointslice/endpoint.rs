//! One pod as an endpoint.

use crate::backends::{address, hostname, is_ready, target_port};
use canopus_api::{Value, value};

/// The pod's endpoint in an address family; None when it has no address there, is over or not yet anywhere.
pub(super) fn of(service: &Value, pod: &Value, family: &str, zone: Option<String>) -> Option<Value> {
    if matches!(pod["status"]["phase"].str(), "Succeeded" | "Failed") {
        return None;
    }
    let address = address(pod, family)?;
    let publish = service["spec"]["publishNotReadyAddresses"].bool();
    let (ready, terminating) = (is_ready(pod), !pod["metadata"]["deletionTimestamp"].is_null());
    let (meta, spec) = (&pod["metadata"], &pod["spec"]);
    let mut endpoint = value!({
        "addresses": [address],
        "conditions": {"ready": publish || (ready && !terminating), "serving": ready, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": &meta["namespace"], "name": &meta["name"], "uid": &meta["uid"]},
    });
    if !spec["nodeName"].str().is_empty() {
        endpoint.set("nodeName", &spec["nodeName"]);
    }
    if let Some(zone) = zone {
        endpoint.set("zone", zone);
    }
    if let Some(hostname) = hostname(service, pod) {
        endpoint.set("hostname", hostname);
    }
    Some(endpoint)
}

/// The ports this pod serves the Service on: a named target port may be another number in each pod.
pub(super) fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let ports = service["spec"]["ports"].items().iter();
    ports.filter_map(|port| Some(slice_port(port, target_port(port, pod)?))).collect()
}

fn slice_port(port: &Value, number: i64) -> Value {
    let protocol = if port["protocol"].is_empty() { "TCP" } else { port["protocol"].str() };
    let mut out = value!({"name": port["name"].str(), "port": number, "protocol": protocol});
    if !port["appProtocol"].is_null() {
        out.set("appProtocol", &port["appProtocol"]);
    }
    out
}
