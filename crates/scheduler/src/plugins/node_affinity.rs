//! Keeps pods to the nodes that their nodeSelector and required node affinity name; prefers the preferred ones.

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, Filter, Normalize, Plugin, Score, Verdict};
use crate::pod::Pod;

pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter<'a>(&self, pod: &'a Pod) -> Filter<'a> {
        let Some(required) = &pod.required else { return Filter::Skip };
        let check = Box::new(|info: &crate::node::NodeInfo| match required.matches(&info.node) {
            true => Verdict::Fits,
            false => Verdict::reject("node(s) didn't match Pod's node affinity/selector"),
        });
        match required.node_names() {
            None => Filter::Check(check),
            Some(names) if names.is_empty() => Filter::Reject("pod affinity terms conflict".into()),
            Some(names) => Filter::Among(names, check),
        }
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score<'a>(&self, pod: &'a Pod, _nodes: &'a Snapshot) -> Option<Score<'a>> {
        let preferred = pod.preferred.as_ref()?;
        Some(Score { of: Box::new(|info| preferred.score(&info.node)), normalize: Normalize::Proportional })
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        let matches = |node| pod.required.as_ref().is_none_or(|r| r.matches(node));
        match event {
            ClusterEvent::NodeAdded(node) => matches(node),
            ClusterEvent::NodeChanged { old, new } => !matches(old) && matches(new),
            ClusterEvent::PodChanged(changed) => changed.uid == pod.uid,
            _ => false,
        }
    }
}
