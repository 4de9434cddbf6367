//! One pod as an endpoint.

use crate::context::condition;
use canopus_api::{Object, Value, value};

/// Whether nothing changed that the endpoint of a pod depends on, besides labels.
pub(super) fn same(old: &Object, new: &Object) -> bool {
    const PATHS: [&[&str]; 4] =
        [&["status", "podIPs"], &["spec", "hostname"], &["spec", "subdomain"], &["spec", "containers"]];
    let (before, after) = (&old.facts, &new.facts);
    let facts = before.ready.is_some() == after.ready.is_some()
        && before.deleting == after.deleting
        && before.uid == after.uid
        && ["status.phase", "spec.nodeName"].iter().all(|field| before.field(field) == after.field(field));
    if !facts {
        return false;
    }
    let (old, new) = (old.value(), new.value());
    PATHS.iter().all(|path| old.path(path) == new.path(path))
}

fn is_ready(pod: &Value) -> bool {
    condition(&pod["status"], "Ready")["status"].str() == "True"
}

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
    let (hostname, subdomain) = (spec["hostname"].str(), spec["subdomain"].str());
    let named = !hostname.is_empty() && subdomain == service["metadata"]["name"].str();
    if named && meta["namespace"] == service["metadata"]["namespace"] {
        endpoint.set("hostname", hostname);
    }
    Some(endpoint)
}

fn address<'a>(pod: &'a Value, family: &str) -> Option<&'a str> {
    let all = pod["status"]["podIPs"].items().iter().map(|ip| ip["ip"].str());
    let mut all = all.chain([pod["status"]["podIP"].str()]);
    all.find(|ip| !ip.is_empty() && ip.contains(':') == (family == "IPv6"))
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

fn target_port(port: &Value, pod: &Value) -> Option<i64> {
    let wanted = &port["targetPort"];
    if let Some(name) = wanted.as_str().filter(|name| !name.is_empty()) {
        let restartable = |c: &&Value| c["restartPolicy"].str() == "Always";
        let sidecars = pod["spec"]["initContainers"].items().iter().filter(restartable);
        let protocol = if port["protocol"].is_empty() { "TCP" } else { port["protocol"].str() };
        let all = pod["spec"]["containers"].items().iter().chain(sidecars);
        let same = |p: &&Value| {
            let of = if p["protocol"].is_empty() { "TCP" } else { p["protocol"].str() };
            p["name"].str() == name && of == protocol
        };
        return all.flat_map(|c| c["ports"].items()).find(same).map(|p| p["containerPort"].int());
    }
    match wanted.int() {
        0 => Some(port["port"].int()),
        number => Some(number),
    }
}
