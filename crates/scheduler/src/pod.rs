//! What the scheduler needs to know of a pod, parsed once per change of its spec.

use crate::node::{Taint, normalized_image};
use crate::resources::Requests;
use crate::selector::{Preferred, Required};
use canopus_api::{Object, Time, Value};
use compact_str::CompactString;
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toleration {
    pub key: CompactString,
    pub operator: CompactString,
    pub value: CompactString,
    pub effect: CompactString,
}

impl Toleration {
    fn of(t: &Value) -> Toleration {
        Toleration {
            key: t["key"].str().into(),
            operator: t["operator"].str().into(),
            value: t["value"].str().into(),
            effect: t["effect"].str().into(),
        }
    }

    pub fn tolerates(&self, taint: &Taint) -> bool {
        if !self.effect.is_empty() && self.effect != taint.effect || !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        match self.operator.as_str() {
            "" | "Equal" => self.value == taint.value,
            "Exists" => true,
            // Lt and Gt belong to an alpha feature (TaintTolerationComparisonOperators).
            _ => false,
        }
    }
}

/// A port of the node that a container wants for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// "0.0.0.0" for all addresses.
    pub ip: CompactString,
    pub protocol: CompactString,
    pub port: i64,
}

impl HostPort {
    fn of(port: &Value) -> Option<HostPort> {
        let or = |v: &Value, default: &str| CompactString::from(if v.str().is_empty() { default } else { v.str() });
        let number = port["hostPort"].int();
        (number > 0).then(|| HostPort {
            ip: or(&port["hostIP"], "0.0.0.0"),
            protocol: or(&port["protocol"], "TCP"),
            port: number,
        })
    }

    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |p: &HostPort| p.ip == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && (any(self) || any(other) || self.ip == other.ip)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Pod {
    pub namespace: CompactString,
    pub name: CompactString,
    pub uid: CompactString,
    pub generation: i64,
    /// "" while it has none.
    pub node: CompactString,
    pub priority: i64,
    pub created: Time,
    pub requests: Requests,
    pub ports: Vec<HostPort>,
    pub tolerations: Vec<Toleration>,
    pub required: Option<Required>,
    pub preferred: Option<Preferred>,
    /// Names of the scheduling gates that still hold it back (KEP-3521).
    pub gates: Vec<CompactString>,
    pub images: Vec<CompactString>,
    /// How many containers it has, init containers too.
    pub containers: usize,
}

impl Pod {
    pub fn of(object: &Object) -> Pod {
        let value = object.value();
        let spec = &value["spec"];
        let containers = || spec["initContainers"].items().iter().chain(spec["containers"].items());
        let volumes = spec["volumes"].items().iter().map(|v| &v["image"]["reference"]).filter(|r| !r.is_null());
        // A port of a container that ends before the others start is free again.
        let keeps = |c: &&Value| c["restartPolicy"].str() == "Always";
        let lasting = spec["initContainers"].items().iter().filter(keeps).chain(spec["containers"].items());
        Pod {
            namespace: object.facts.namespace.clone(),
            name: object.facts.name.clone(),
            uid: object.facts.uid.clone(),
            generation: object.facts.generation,
            node: spec["nodeName"].str().into(),
            priority: spec["priority"].int(),
            created: Time::parse(value["metadata"]["creationTimestamp"].str()).unwrap_or_default(),
            requests: Requests::of(&value),
            ports: lasting.flat_map(|c| c["ports"].items()).filter_map(HostPort::of).collect(),
            tolerations: spec["tolerations"].items().iter().map(Toleration::of).collect(),
            required: Required::of(spec),
            preferred: Preferred::of(spec),
            gates: spec["schedulingGates"].items().iter().map(|g| g["name"].str().into()).collect(),
            images: containers().map(|c| &c["image"]).chain(volumes).map(|i| normalized_image(i.str())).collect(),
            containers: containers().count(),
        }
    }

    /// Whether the two are the same to every plugin: what suits one suits the other (KEP-5598's signature).
    pub fn is_like(&self, other: &Pod) -> bool {
        self.requests == other.requests
            && self.ports == other.ports
            && self.tolerations == other.tolerations
            && self.required == other.required
            && self.preferred == other.preferred
            && self.gates == other.gates
            && self.images == other.images
            && self.containers == other.containers
            && self.node == other.node
    }

    /// `namespace/name`
    pub fn key(&self) -> CompactString {
        compact_str::format_compact!("{}/{}", self.namespace, self.name)
    }

    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|t| t.tolerates(taint))
    }

    /// The same pod placed on `node`.
    pub fn placed(&self, node: &str) -> Pod {
        Pod { node: node.into(), ..self.clone() }
    }

    /// The first taint of `taints` that keeps it off a node.
    pub fn untolerated<'a>(&self, taints: &'a [Taint]) -> Option<&'a Taint> {
        taints.iter().find(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute") && !self.tolerates(t))
    }
}

pub type SharedPod = Arc<Pod>;
