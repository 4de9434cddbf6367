//! Keeps a pod that names its node to that node.

use crate::framework::{ClusterEvent, Filter, Plugin, Verdict};
use crate::pod::Pod;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&self, pod: &'a Pod) -> Filter<'a> {
        if pod.node.is_empty() {
            return Filter::Skip;
        }
        Filter::Check(Box::new(|info| match info.node.name == pod.node {
            true => Verdict::Fits,
            false => Verdict::reject("node(s) didn't match the requested node name"),
        }))
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded(node) if node.name == pod.node)
    }
}
