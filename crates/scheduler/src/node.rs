//! What the scheduler knows of a node: what it offers, and what the pods placed on it take.

use crate::pod::{HostPort, Pod};
use crate::resources::Resources;
use canopus_api::{Quantity, Value};
use compact_str::{CompactString, format_compact};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taint {
    pub key: CompactString,
    pub value: CompactString,
    pub effect: CompactString,
}

/// A Node object, parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub name: CompactString,
    /// Sorted by key.
    pub labels: Vec<(CompactString, CompactString)>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub allowed_pods: i64,
    /// Names of the images it has, with their sizes in bytes.
    pub images: BTreeMap<CompactString, i64>,
}

impl Node {
    pub fn of(node: &Value) -> Node {
        let (meta, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
        let taint = |t: &Value| Taint {
            key: t["key"].str().into(),
            value: t["value"].str().into(),
            effect: t["effect"].str().into(),
        };
        let images = status["images"].items().iter();
        let named = |i: &Value| -> Vec<_> {
            i["names"].items().iter().map(|name| (CompactString::from(name.str()), i["sizeBytes"].int())).collect()
        };
        Node {
            name: meta["name"].str().into(),
            labels: meta["labels"].entries().map(|(k, v)| (k.clone(), v.str().into())).collect(),
            taints: spec["taints"].items().iter().map(taint).collect(),
            unschedulable: spec["unschedulable"].bool(),
            allocatable: Resources::of(&status["allocatable"]),
            allowed_pods: Quantity::from_value(&status["allocatable"]["pods"]).map_or(0, |q| q.value()),
            images: images.flat_map(named).collect(),
        }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.binary_search_by(|(k, _)| k.as_str().cmp(key));
        found.ok().map(|at| self.labels[at].1.as_str())
    }
}

/// A node and the sum of what its pods take. Cheap to clone: the snapshot's copy is made when a pod comes or goes.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub requested: Resources,
    /// With defaults for containers that don't say: (thousandths of a core, bytes).
    pub non_zero: (i64, i64),
    pub pods: i64,
    pub ports: Vec<HostPort>,
}

impl NodeInfo {
    pub fn add(&mut self, pod: &Pod) {
        self.requested.add(&pod.requests.exact);
        self.non_zero.0 += pod.requests.non_zero.0;
        self.non_zero.1 += pod.requests.non_zero.1;
        self.pods += 1;
        self.ports.extend(pod.ports.iter().cloned());
    }

    pub fn remove(&mut self, pod: &Pod) {
        self.requested.subtract(&pod.requests.exact);
        self.non_zero.0 -= pod.requests.non_zero.0;
        self.non_zero.1 -= pod.requests.non_zero.1;
        self.pods -= 1;
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}

/// An image's name with the tag that is meant when it says none.
pub fn normalized_image(name: &str) -> CompactString {
    let tagged = name.rfind(':').is_some_and(|colon| name.rfind('/').is_none_or(|slash| colon > slash));
    if tagged { name.into() } else { format_compact!("{name}:latest") }
}
