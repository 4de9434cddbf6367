//! Prefers nodes on which the pod leaves cpu and memory used in like measure.

use crate::cache::Snapshot;
use crate::framework::{MAX_NODE_SCORE, Normalize, Plugin, Score};
use crate::node::NodeInfo;
use crate::pod::Pod;

pub struct NodeResourcesBalancedAllocation;

/// 100 when cpu and memory are used in the same proportion, less the further they are apart.
fn balance(info: &NodeInfo, milli_cpu: i64, memory: i64) -> i64 {
    let total = &info.node.allocatable;
    if total.milli_cpu == 0 || total.memory == 0 {
        return MAX_NODE_SCORE;
    }
    let share = |taken: i64, total: i64| (taken as f64 / total as f64).min(1.0);
    let deviation = ((share(milli_cpu, total.milli_cpu) - share(memory, total.memory)) / 2.0).abs();
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score<'a>(&self, pod: &'a Pod, _nodes: &'a Snapshot) -> Option<Score<'a>> {
        let wanted = &pod.requests.exact;
        // Pods that ask for nothing would all gather on one node.
        if wanted.milli_cpu == 0 && wanted.memory == 0 {
            return None;
        }
        let of = |info: &NodeInfo| {
            let (cpu, memory) = (info.requested.milli_cpu, info.requested.memory);
            let with = balance(info, cpu + wanted.milli_cpu, memory + wanted.memory);
            let without = balance(info, cpu, memory);
            MAX_NODE_SCORE / 2 + (MAX_NODE_SCORE / 2 + with - without) / 2
        };
        Some(Score { of: Box::new(of), normalize: Normalize::None })
    }
}
