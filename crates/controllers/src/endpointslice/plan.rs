//! Spreads endpoints over slices, changing as few slices as it can.

use super::endpoint;
use canopus_api::labels::{MANAGED_BY_SLICE, SERVICE_NAME};
use canopus_api::{Value, json, value};
use compact_str::CompactString;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const MAX_ENDPOINTS: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<Value>,
    pub update: Vec<Value>,
    pub delete: Vec<Arc<Value>>,
    /// Families that have a slice after this plan.
    served: BTreeSet<String>,
}

/// Slices have one address family and one list of ports.
type Group = (String, String);

struct Wanted {
    ports: Vec<Value>,
    /// By target uid.
    endpoints: BTreeMap<CompactString, Value>,
}

pub(super) fn plan(
    service: &Value,
    pods: &[Arc<Value>],
    existing: &[Arc<Value>],
    zone: &dyn Fn(&str) -> Option<String>,
) -> Plan {
    let families = families(service);
    let mut groups: BTreeMap<Group, Wanted> = BTreeMap::new();
    for family in &families {
        for pod in pods {
            let zone = zone(pod["spec"]["nodeName"].str());
            let Some(endpoint) = endpoint::of(service, pod, family, zone) else { continue };
            let ports = endpoint::ports(service, pod);
            if ports.is_empty() && !is_headless(service) {
                continue;
            }
            let key = (family.clone(), port_key(&ports));
            let group = groups.entry(key).or_insert_with(|| Wanted { ports, endpoints: BTreeMap::new() });
            group.endpoints.insert(pod["metadata"]["uid"].str().into(), endpoint);
        }
    }
    let mut plan = Plan::default();
    let mut spare: Vec<&Arc<Value>> = existing.iter().collect();
    for (key, wanted) in groups {
        let (mine, rest): (Vec<_>, Vec<_>) = spare.into_iter().partition(|slice| group_of(slice) == key);
        spare = rest;
        fill(&mut plan, service, &key.0, wanted, mine);
    }
    leftovers(&mut plan, service, &families, spare);
    plan
}

/// What is in no group any more goes, but each family keeps one slice, empty if need be, so that consumers can tell
/// "none" from "not known yet".
fn leftovers(plan: &mut Plan, service: &Value, families: &[String], spare: Vec<&Arc<Value>>) {
    let mut spare = spare;
    for family in families {
        if plan.served.contains(family) {
            continue;
        }
        let at = spare.iter().position(|slice| slice["addressType"].str() == family);
        let reuse = at.map(|at| spare.remove(at));
        placeholder(plan, service, family, reuse);
    }
    plan.delete.extend(spare.into_iter().cloned());
}

fn placeholder(plan: &mut Plan, service: &Value, family: &str, reuse: Option<&Arc<Value>>) {
    match reuse {
        Some(slice) => {
            let updated = with(service, slice, &[], Vec::new());
            if updated != **slice {
                plan.update.push(updated);
            }
        }
        None => plan.create.push(make(service, family, &[], Vec::new())),
    }
}

/// Puts a group's endpoints into its slices: those that are there stay where they are, the others fill up the slices
/// that change anyway, then those with the most room left, then new ones.
fn fill(plan: &mut Plan, service: &Value, family: &str, wanted: Wanted, slices: Vec<&Arc<Value>>) {
    let Wanted { ports, mut endpoints } = wanted;
    plan.served.insert(family.to_string());
    let mut kept: Vec<(&Arc<Value>, Vec<Value>, bool)> = Vec::new();
    for slice in slices {
        let before = slice["endpoints"].items();
        let stay = before.iter().filter_map(|e| endpoints.remove(e["targetRef"]["uid"].str()));
        let stay: Vec<Value> = stay.collect();
        let changed = stay != before || with(service, slice, &ports, stay.clone()) != **slice;
        kept.push((slice, stay, changed));
    }
    let mut new: Vec<Value> = endpoints.into_values().collect();
    kept.sort_by_key(|(_, stay, changed)| (!*changed, std::cmp::Reverse(stay.len())));
    for (_, stay, changed) in &mut kept {
        let whole_group_fits = stay.len() + new.len() <= MAX_ENDPOINTS;
        if (*changed || whole_group_fits) && !new.is_empty() {
            let room = MAX_ENDPOINTS.saturating_sub(stay.len()).min(new.len());
            stay.extend(new.drain(..room));
            *changed = true;
        }
    }
    for (slice, stay, changed) in kept {
        match (stay.is_empty(), changed) {
            (true, _) => plan.delete.push(slice.clone()),
            (false, true) => plan.update.push(with(service, slice, &ports, stay)),
            (false, false) => {}
        }
    }
    for chunk in new.chunks(MAX_ENDPOINTS) {
        plan.create.push(make(service, family, &ports, chunk.to_vec()));
    }
}

fn families(service: &Value) -> Vec<String> {
    let listed: Vec<String> = service["spec"]["ipFamilies"].items().iter().map(|f| f.str().to_string()).collect();
    match listed.is_empty() {
        true if service["spec"]["clusterIP"].str().contains(':') => vec!["IPv6".into()],
        true => vec!["IPv4".into()],
        false => listed,
    }
}

fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIP"].str() == "None"
}

fn port_key(ports: &[Value]) -> String {
    let mut keys: Vec<String> = ports.iter().map(|p| json::to_string(p).to_string()).collect();
    keys.sort();
    keys.join(",")
}

fn group_of(slice: &Value) -> Group {
    (slice["addressType"].str().into(), port_key(slice["ports"].items()))
}

fn slice_labels(service: &Value) -> Value {
    let mut labels = service["metadata"]["labels"].clone();
    labels.ensure_object().retain(|key, _| ![HEADLESS, SERVICE_NAME, MANAGED_BY_SLICE].contains(&key));
    if is_headless(service) {
        labels.set(HEADLESS, "");
    }
    labels.set(SERVICE_NAME, &service["metadata"]["name"]);
    labels.set(MANAGED_BY_SLICE, MANAGER);
    labels
}

fn make(service: &Value, family: &str, ports: &[Value], endpoints: Vec<Value>) -> Value {
    let meta = &service["metadata"];
    let prefix = format!("{}-", meta["name"].str());
    value!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"generateName": prefix, "namespace": &meta["namespace"], "labels": slice_labels(service),
            "ownerReferences": [crate::context::controller_ref(service)]},
        "addressType": family, "ports": ports.to_vec(), "endpoints": endpoints,
    })
}

fn with(service: &Value, slice: &Value, ports: &[Value], endpoints: Vec<Value>) -> Value {
    let mut updated = slice.clone();
    updated.set_path(&["metadata", "labels"], slice_labels(service));
    // Absent and null mean the same as empty; leave what is stored.
    for (field, list) in [("endpoints", endpoints), ("ports", ports.to_vec())] {
        if list.as_slice() != slice[field].items() {
            updated.set(field, list);
        }
    }
    updated
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
