//! What the Endpoints of a Service should be.

use super::subsets::{Packer, repack};
use crate::backends::{address, annotate, hostname, is_ready, target_port};
use canopus_api::{Time, Value, value};
use std::sync::Arc;

pub(super) const MANAGER: &str = "endpoint-controller";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses that one object has at most.
const MAX_ADDRESSES: usize = 1000;

/// The object to write; None when it is as it should be.
pub(super) fn plan(
    service: &Value,
    pods: &[Arc<Value>],
    current: Option<&Value>,
    trigger: Option<Time>,
) -> Option<Value> {
    let mut subsets = subsets(service, pods);
    let truncated = truncate(&mut subsets);
    let (meta, labels) = (&service["metadata"], labels(service));
    if let Some(current) = current {
        let capacity = &current["metadata"]["annotations"][OVER_CAPACITY];
        let same = current["metadata"]["labels"] == labels
            && capacity.is_null() != truncated
            && repack(current["subsets"].items()) == subsets;
        if same {
            return None;
        }
    }
    let make = || {
        value!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": &meta["name"], "namespace": &meta["namespace"]},
        })
    };
    let mut wanted = current.cloned().unwrap_or_else(make);
    wanted.set_path(&["metadata", "labels"], labels);
    match subsets.is_empty() {
        true => drop(wanted.remove("subsets")),
        false => wanted.set("subsets", subsets),
    }
    if truncated {
        wanted.set_path(&["metadata", "annotations", OVER_CAPACITY], "truncated");
    } else {
        wanted.remove_path(&["metadata", "annotations", OVER_CAPACITY]);
    }
    annotate(&mut wanted, trigger);
    Some(wanted)
}

fn labels(service: &Value) -> Value {
    let mut labels = service["metadata"]["labels"].clone();
    labels.ensure_object().remove(HEADLESS);
    if matches!(service["spec"]["clusterIP"].str(), "" | "None") {
        labels.set(HEADLESS, "");
    }
    labels.set(MANAGED_BY, MANAGER);
    labels
}

fn subsets(service: &Value, pods: &[Arc<Value>]) -> Vec<Value> {
    let spec = &service["spec"];
    let publish = spec["publishNotReadyAddresses"].bool();
    let mut packer = Packer::default();
    for pod in pods {
        let over = matches!(pod["status"]["phase"].str(), "Succeeded" | "Failed");
        let leaving = !pod["metadata"]["deletionTimestamp"].is_null() && !publish;
        let Some(endpoint) = endpoint(service, pod).filter(|_| !over && !leaving) else { continue };
        let ready = publish || is_ready(pod);
        match spec["ports"].items() {
            [] if spec["clusterIP"].str() == "None" => packer.add(&endpoint, &Value::Null, ready),
            ports => {
                for port in ports {
                    if let Some(number) = target_port(port, pod) {
                        packer.add(&endpoint, &port_of(port, number), ready);
                    }
                }
            }
        }
    }
    packer.pack()
}

fn endpoint(service: &Value, pod: &Value) -> Option<Value> {
    let (meta, node) = (&pod["metadata"], &pod["spec"]["nodeName"]);
    let mut endpoint = value!({
        "ip": address(pod, family(service, pod))?,
        "targetRef": {"kind": "Pod", "namespace": &meta["namespace"], "name": &meta["name"], "uid": &meta["uid"]},
    });
    if !node.is_empty() {
        endpoint.set("nodeName", node);
    }
    if let Some(hostname) = hostname(service, pod) {
        endpoint.set("hostname", hostname);
    }
    Some(endpoint)
}

/// Endpoints are of one family, the Service's first.
fn family<'a>(service: &'a Value, pod: &Value) -> &'a str {
    let (first, own) = (service["spec"]["ipFamilies"][0].str(), service["spec"]["clusterIP"].str());
    match (first, own) {
        ("", "" | "None") if pod["status"]["podIP"].str().contains(':') => "IPv6",
        ("", own) if own.contains(':') => "IPv6",
        ("", _) => "IPv4",
        (first, _) => first,
    }
}

fn port_of(port: &Value, number: i64) -> Value {
    let protocol = if port["protocol"].is_empty() { "TCP" } else { port["protocol"].str() };
    let mut out = value!({"port": number, "protocol": protocol});
    for field in ["name", "appProtocol"] {
        if !port[field].is_empty() {
            out.set(field, &port[field]);
        }
    }
    out
}

/// Cuts what is too much, of those that are not ready first, of each subset its share. True when there was too much.
fn truncate(subsets: &mut [Value]) -> bool {
    let count = |list: &str| subsets.iter().map(|subset| subset[list].items().len()).sum::<usize>();
    let (ready, unready) = (count("addresses"), count("notReadyAddresses"));
    if ready + unready <= MAX_ADDRESSES {
        return false;
    }
    let (list, total, room) = match ready > MAX_ADDRESSES {
        true => ("addresses", ready, MAX_ADDRESSES),
        false => ("notReadyAddresses", unready, MAX_ADDRESSES - ready),
    };
    let mut left = room;
    for subset in subsets {
        let share = (subset[list].items().len() * room).div_ceil(total).min(left);
        let kept: Vec<Value> = subset[list].items().iter().take(share).cloned().collect();
        left -= kept.len();
        if list == "addresses" {
            subset.remove("notReadyAddresses");
        }
        match kept.is_empty() {
            true => drop(subset.remove(list)),
            false => subset.set(list, kept),
        }
    }
    true
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
