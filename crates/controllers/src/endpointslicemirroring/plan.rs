//! The slices that Endpoints written by hand should have: one for each subset and family.

use crate::context::controller_ref;
use crate::endpoints::subsets::repack;
use canopus_api::labels::{MANAGED_BY_SLICE, SERVICE_NAME};
use canopus_api::{Value, json, value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// What is for readers of the Endpoints only.
const OWN_ANNOTATIONS: [&str; 2] = [crate::backends::TRIGGER_TIME, "kubectl.kubernetes.io/last-applied-configuration"];
/// Addresses of a subset that are mirrored.
const MAX_ADDRESSES: usize = 1000;
const MAX_NAME: usize = 253;

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<Value>,
    pub update: Vec<Value>,
    pub delete: Vec<Arc<Value>>,
    invalid: usize,
    skipped: usize,
}

impl Plan {
    pub fn to_delete(slices: Vec<Arc<Value>>) -> Plan {
        Plan { delete: slices, ..Plan::default() }
    }

    /// Reasons and messages of the Events that say what is not mirrored.
    pub fn complaints(&self) -> Vec<(&'static str, String)> {
        let mut complaints = Vec::new();
        if self.invalid > 0 {
            let message = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", self.invalid);
            complaints.push(("InvalidIPAddress", message));
        }
        if self.skipped > self.invalid {
            let message = format!(
                "A max of {MAX_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
                self.skipped
            );
            complaints.push(("TooManyAddressesToMirror", message));
        }
        complaints
    }
}

/// Slices have one family and one list of ports.
type Group = (&'static str, String);
/// By which ports, in the order of the subsets.
type Wanted = BTreeMap<Group, (Vec<Value>, Vec<Value>)>;

pub(super) fn plan(endpoints: &Value, existing: &[Arc<Value>]) -> Plan {
    let mut plan = Plan::default();
    let mut groups: BTreeMap<(String, String), Vec<&Arc<Value>>> = BTreeMap::new();
    for slice in existing {
        let key = (slice["addressType"].str().to_string(), port_key(slice["ports"].items()));
        groups.entry(key).or_default().push(slice);
    }
    for ((family, key), (ports, mirrored)) in wanted(endpoints, &mut plan) {
        let mut slices = groups.remove(&(family.to_string(), key)).unwrap_or_default().into_iter();
        let slice = make(endpoints, family, ports, mirrored);
        match slices.next() {
            Some(first) if same(&slice, first) => {}
            Some(first) => plan.update.push(take_over(slice, first)),
            None => plan.create.push(slice),
        }
        plan.delete.extend(slices.cloned());
    }
    plan.delete.extend(groups.into_values().flatten().cloned());
    recycle(&mut plan);
    if !endpoints["metadata"]["deletionTimestamp"].is_null() {
        plan.create.clear();
    }
    plan
}

fn wanted(endpoints: &Value, plan: &mut Plan) -> Wanted {
    let mut wanted = Wanted::new();
    for subset in repack(endpoints["subsets"].items()) {
        let ports: Vec<Value> = subset["ports"].items().iter().map(slice_port).collect();
        let key = port_key(&ports);
        let ready = subset["addresses"].items().iter().map(|address| (address, true));
        let all = ready.chain(subset["notReadyAddresses"].items().iter().map(|address| (address, false)));
        let (mut count, mut added) = (0, 0);
        for (address, ready) in all {
            count += 1;
            if added == MAX_ADDRESSES {
                continue;
            }
            let Ok(ip) = address["ip"].str().parse::<IpAddr>() else {
                plan.invalid += 1;
                continue;
            };
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let (_, group) = wanted.entry((family, key.clone())).or_insert_with(|| (ports.clone(), Vec::new()));
            group.push(endpoint(address, ip, ready));
            added += 1;
        }
        plan.skipped += count - added;
    }
    wanted
}

fn endpoint(address: &Value, ip: IpAddr, ready: bool) -> Value {
    let mut endpoint = value!({"addresses": [ip.to_string()], "conditions": {"ready": ready}});
    for field in ["targetRef", "nodeName", "hostname"] {
        if !address[field].is_empty() {
            endpoint.set(field, &address[field]);
        }
    }
    endpoint
}

fn slice_port(port: &Value) -> Value {
    let mut out = value!({"name": port["name"].str(), "port": &port["port"], "protocol": &port["protocol"]});
    if !port["appProtocol"].is_null() {
        out.set("appProtocol", &port["appProtocol"]);
    }
    out
}

fn port_key(ports: &[Value]) -> String {
    let mut keys: Vec<String> = ports.iter().map(|port| json::to_string(port).to_string()).collect();
    keys.sort();
    keys.join(",")
}

fn make(endpoints: &Value, family: &str, ports: Vec<Value>, mirrored: Vec<Value>) -> Value {
    let meta = &endpoints["metadata"];
    let name = meta["name"].str();
    let mut labels = meta["labels"].clone();
    labels.set(SERVICE_NAME, name);
    labels.set(MANAGED_BY_SLICE, MANAGER);
    let prefix = if name.len() < MAX_NAME { format!("{name}-") } else { name.to_string() };
    let mut slice = value!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"generateName": prefix, "namespace": &meta["namespace"], "labels": labels,
            "ownerReferences": [controller_ref(endpoints)]},
        "addressType": family, "ports": ports, "endpoints": mirrored,
    });
    let mut annotations = meta["annotations"].clone();
    OWN_ANNOTATIONS.iter().for_each(|name| drop(annotations.remove(name)));
    if !annotations.is_empty() {
        slice.set_path(&["metadata", "annotations"], annotations);
    }
    slice
}

fn same(wanted: &Value, slice: &Value) -> bool {
    let list = |name: &str| wanted[name].items() == slice[name].items();
    let meta = |name: &str| {
        let (wanted, is) = (&wanted["metadata"][name], &slice["metadata"][name]);
        wanted == is || (wanted.is_empty() && is.is_empty())
    };
    list("endpoints") && ["labels", "annotations", "ownerReferences"].into_iter().all(meta)
}

/// The same content under the name of a slice that is there.
fn take_over(mut slice: Value, existing: &Value) -> Value {
    slice.remove_path(&["metadata", "generateName"]);
    slice.set_path(&["metadata", "name"], &existing["metadata"]["name"]);
    slice
}

/// What would go takes the place of what would come.
fn recycle(plan: &mut Plan) {
    for slice in std::mem::take(&mut plan.create) {
        let family = slice["addressType"].str();
        match plan.delete.iter().position(|old| old["addressType"].str() == family) {
            Some(at) => plan.update.push(take_over(slice, &plan.delete.remove(at))),
            None => plan.create.push(slice),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(subsets: Value) -> Value {
        value!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "web", "namespace": "ns", "uid": "e", "labels": {"a": "b"},
                "annotations": {"x": "y", "endpoints.kubernetes.io/last-change-trigger-time": "t"}},
            "subsets": subsets,
        })
    }

    fn stored(plan: &Plan) -> Vec<Arc<Value>> {
        let named = |(n, slice): (usize, &Value)| {
            let mut slice = slice.clone();
            slice.set_path(&["metadata", "name"], format!("web-{n}"));
            Arc::new(slice)
        };
        plan.create.iter().enumerate().map(named).collect()
    }

    fn counts(plan: &Plan) -> (usize, usize, usize) {
        (plan.create.len(), plan.update.len(), plan.delete.len())
    }

    #[test]
    fn mirrored_and_followed() {
        let http = value!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        let first = endpoints(value!([{
            "addresses": [{"ip": "10.1.2.3", "nodeName": "n"}, {"ip": "fd00:0::1"}],
            "notReadyAddresses": [{"ip": "10.1.2.4", "hostname": "h"}], "ports": &http,
        }]));
        let made = plan(&first, &[]);
        assert_eq!(counts(&made), (2, 0, 0));
        let expected = value!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"generateName": "web-", "namespace": "ns", "annotations": {"x": "y"},
                "labels": {"a": "b", "kubernetes.io/service-name": "web",
                    "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Endpoints", "name": "web", "uid": "e",
                    "controller": true, "blockOwnerDeletion": true}]},
            "addressType": "IPv4", "ports": &http,
            "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": true}, "nodeName": "n"},
                {"addresses": ["10.1.2.4"], "conditions": {"ready": false}, "hostname": "h"}],
        });
        assert_eq!(made.create[0], expected);
        assert_eq!(made.create[1]["endpoints"][0]["addresses"], value!(["fd00::1"]));
        let slices = stored(&made);
        assert_eq!(counts(&plan(&first, &slices)), (0, 0, 0));

        // Other ports: the slice of the family is used again; the other family's goes.
        let other =
            endpoints(value!([{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 81, "protocol": "TCP"}]}]));
        let changed = plan(&other, &slices);
        assert_eq!(counts(&changed), (0, 1, 1));
        assert_eq!(changed.update[0]["metadata"]["name"].str(), "web-0");
        // Another object of the same name.
        let mut again = first.clone();
        again.set_path(&["metadata", "uid"], "f");
        assert_eq!(counts(&plan(&again, &slices)), (0, 2, 0));
        assert_eq!(counts(&plan(&endpoints(value!([])), &slices)), (0, 0, 2));
    }

    #[test]
    fn complaints() {
        let many: Vec<Value> = (0..1002).map(|n| value!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
        let made = plan(&endpoints(value!([{"addresses": many, "ports": [{"port": 1}]}])), &[]);
        assert_eq!(made.create[0]["endpoints"].items().len(), 1000);
        let reasons = |plan: &Plan| plan.complaints().iter().map(|(reason, _)| *reason).collect::<Vec<_>>();
        assert_eq!(reasons(&made), ["TooManyAddressesToMirror"]);
        let made = plan(&endpoints(value!([{"addresses": [{"ip": "x"}, {"ip": "10.0.0.1"}]}])), &[]);
        assert_eq!(reasons(&made), ["InvalidIPAddress"]);
        assert_eq!(made.create[0]["endpoints"].items().len(), 1);
    }
}
