//! Keeps pods off nodes that are cordoned, unless they tolerate the taint that says so.

use crate::framework::{ClusterEvent, Filter, Plugin, Verdict};
use crate::node::{Node, Taint};
use crate::pod::Pod;

pub struct NodeUnschedulable;

fn fits(node: &Node, tolerated: bool) -> bool {
    !node.unschedulable || tolerated
}

fn tolerated(pod: &Pod) -> bool {
    let taint = Taint { key: "node.kubernetes.io/unschedulable".into(), value: "".into(), effect: "NoSchedule".into() };
    pod.tolerates(&taint)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&self, pod: &'a Pod) -> Filter<'a> {
        let tolerated = tolerated(pod);
        Filter::Check(Box::new(move |info| match fits(&info.node, tolerated) {
            true => Verdict::Fits,
            false => Verdict::reject("node(s) were unschedulable"),
        }))
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => fits(node, tolerated(pod)),
            ClusterEvent::NodeChanged { old, new } => old.unschedulable && !new.unschedulable,
            ClusterEvent::PodChanged(changed) => changed.uid == pod.uid && tolerated(changed),
            _ => false,
        }
    }
}
