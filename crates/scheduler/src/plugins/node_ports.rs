//! Keeps pods off nodes on which a host port they want is taken.

use crate::framework::{ClusterEvent, Filter, Plugin, Verdict};
use crate::pod::Pod;

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&self, pod: &'a Pod) -> Filter<'a> {
        if pod.ports.is_empty() {
            return Filter::Skip;
        }
        Filter::Check(Box::new(|info| {
            match pod.ports.iter().any(|wanted| info.ports.iter().any(|taken| taken.conflicts(wanted))) {
                false => Verdict::Fits,
                true => Verdict::reject("node(s) didn't have free ports for the requested pod ports"),
            }
        }))
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::PodRemoved(gone) => gone.ports.iter().any(|p| pod.ports.iter().any(|w| w.conflicts(p))),
            _ => false,
        }
    }
}
