//! Pods and nodes from a few words, for tests.

use crate::node::Node;
use crate::pod::Pod;
use canopus_api::{Object, value, yaml};
use std::sync::Arc;

/// A pod `default/<name>` with uid `<name>` and this spec in YAML.
pub fn pod(name: &str, spec: &str) -> Pod {
    let spec = yaml::parse(spec).expect("a spec in YAML").value;
    let meta = value!({"name": name, "namespace": "default", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"});
    Pod::of(&Object::from_value(value!({"metadata": meta, "spec": spec}), &[], 1))
}

pub fn node(name: &str, allocatable: &str) -> Arc<Node> {
    node_with(name, "{}", "{}", allocatable)
}

/// A node with labels, spec and allocatable resources in YAML.
pub fn node_with(name: &str, labels: &str, spec: &str, allocatable: &str) -> Arc<Node> {
    let parse = |text| yaml::parse(text).expect("YAML").value;
    Arc::new(Node::of(&value!({
        "metadata": {"name": name, "labels": parse(labels)}, "spec": parse(spec),
        "status": {"allocatable": parse(allocatable)},
    })))
}
