//! Keeps pods off nodes with taints they don't tolerate, and prefers nodes with fewer PreferNoSchedule ones.

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, Filter, Normalize, Plugin, Score, Verdict};
use crate::pod::Pod;

pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter<'a>(&self, pod: &'a Pod) -> Filter<'a> {
        Filter::Check(Box::new(|info| match pod.untolerated(&info.node.taints) {
            None => Verdict::Fits,
            Some(_) => Verdict::reject("node(s) had untolerated taint(s)"),
        }))
    }

    fn weight(&self) -> i64 {
        3
    }

    fn score<'a>(&self, pod: &'a Pod, _nodes: &'a Snapshot) -> Option<Score<'a>> {
        let of = |info: &crate::node::NodeInfo| {
            let disliked = info.node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
            i64::try_from(disliked.filter(|t| !pod.tolerates(t)).count()).unwrap_or(i64::MAX)
        };
        Some(Score { of: Box::new(of), normalize: Normalize::Reversed })
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => pod.untolerated(&node.taints).is_none(),
            ClusterEvent::NodeChanged { old, new } => {
                pod.untolerated(&old.taints).is_some() && pod.untolerated(&new.taints).is_none()
            }
            ClusterEvent::PodChanged(changed) => changed.uid == pod.uid,
            _ => false,
        }
    }
}
