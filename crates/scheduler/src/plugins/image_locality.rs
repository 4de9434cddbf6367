//! Prefers nodes that already have the pod's images, the more the larger they are.

use crate::cache::Snapshot;
use crate::framework::{MAX_NODE_SCORE, Normalize, Plugin, Score};
use crate::node::NodeInfo;
use crate::pod::Pod;

pub struct ImageLocality;

const MB: i64 = 1024 * 1024;
/// Less than this counts for nothing.
const MIN: i64 = 23 * MB;
/// More than this for each container doesn't count.
const MAX_PER_CONTAINER: i64 = 1000 * MB;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score<'a>(&self, pod: &'a Pod, nodes: &'a Snapshot) -> Option<Score<'a>> {
        // An image that many nodes have counts in full, one that few have less, so that pods don't all go there.
        let spread = |image| nodes.having_image(image) as f64 / nodes.len().max(1) as f64;
        let images: Vec<_> = pod.images.iter().map(|i| (i, spread(i))).filter(|(_, s)| *s > 0.0).collect();
        if images.is_empty() {
            return None;
        }
        let max = MAX_PER_CONTAINER * i64::try_from(pod.containers).unwrap_or(1).max(1);
        let of = move |info: &NodeInfo| {
            let size = |(name, spread): &(&compact_str::CompactString, f64)| {
                info.node.images.get(*name).map_or(0, |size| (*size as f64 * spread) as i64)
            };
            let sum: i64 = images.iter().map(size).sum();
            MAX_NODE_SCORE * (sum.clamp(MIN, max) - MIN) / (max - MIN)
        };
        Some(Score { of: Box::new(of), normalize: Normalize::None })
    }
}
