//! Placing pods that are alike on the nodes that one search has found.

use crate::cache::Snapshot;
use crate::cycle::{Checks, Turn};
use crate::framework::{Normalize, Score};
use crate::node::NodeInfo;
use crate::plugins::PLUGINS;
use crate::pod::Pod;
use compact_str::CompactString;
use std::collections::BinaryHeap;

/// The nodes that were found for one pod, by their scores: more pods like it are placed on them without another search
/// (KEP-5598). A node that was taken is judged anew before it is taken again, so that each pod goes to the best of them.
pub(crate) struct Batch {
    like: Pod,
    /// What the snapshot said when they were found: everything that happens besides ends it.
    foreign: u64,
    candidates: BinaryHeap<Candidate>,
    /// How many more pods may be placed on this choice of nodes, before others have their turn.
    left: usize,
}

/// In the order in which nodes are taken: by score; among equals any.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    total: i64,
    chance: u64,
    /// Its part of the score that placing pods does not change.
    fixed: i64,
    taken: bool,
    /// Its place in the snapshot.
    at: usize,
}

impl Batch {
    pub fn of(pod: &Pod, nodes: &Snapshot, feasible: &[&NodeInfo], turn: &mut Turn) -> Batch {
        let mut fixed = vec![0i64; feasible.len()];
        let mut scores = vec![0i64; feasible.len()];
        for plugin in PLUGINS {
            let Some(Score { of, normalize }) = plugin.score(pod, nodes) else { continue };
            if matches!(normalize, Normalize::None) {
                continue;
            }
            for (score, info) in scores.iter_mut().zip(feasible) {
                *score = of(info);
            }
            normalize.apply(&mut scores);
            for (total, score) in fixed.iter_mut().zip(&scores) {
                *total += score * plugin.weight();
            }
        }
        let changing = changing(pod, nodes);
        let candidates = feasible.iter().zip(fixed).filter_map(|(info, fixed)| {
            let total = fixed + changing.iter().map(|(weight, of)| of(info) * weight).sum::<i64>();
            let at = nodes.position(&info.node.name)?;
            Some(Candidate { total, chance: turn.chance(), fixed, taken: false, at })
        });
        let candidates = candidates.collect();
        Batch { like: pod.clone(), foreign: nodes.foreign(), candidates, left: feasible.len() }
    }

    /// The best of the nodes for `pod`; None when there is to be a new search.
    pub fn next(&mut self, pod: &Pod, nodes: &Snapshot, turn: &mut Turn) -> Option<CompactString> {
        if self.left == 0 || self.foreign != nodes.foreign() || !self.like.is_like(pod) {
            return None;
        }
        self.left -= 1;
        let checks = Checks::of(pod).ok()?;
        loop {
            let mut best = self.candidates.pop()?;
            let info = &nodes.nodes()[best.at];
            if best.taken {
                let now = changing(pod, nodes).iter().map(|(weight, of)| of(info) * weight).sum::<i64>();
                (best.total, best.chance, best.taken) = (best.fixed + now, turn.chance(), false);
                self.candidates.push(best);
                continue;
            }
            if checks.rejection(info).is_some() {
                continue;
            }
            best.taken = true;
            self.candidates.push(best);
            return Some(info.node.name.clone());
        }
    }
}

type Weighted<'a> = (i64, Box<dyn Fn(&NodeInfo) -> i64 + 'a>);

/// The scores that are what they are on each node by itself, with their weights.
fn changing<'a>(pod: &'a Pod, nodes: &'a Snapshot) -> Vec<Weighted<'a>> {
    let scores = PLUGINS.iter().filter_map(|plugin| Some((plugin.weight(), plugin.score(pod, nodes)?)));
    let alone = scores.filter(|(_, score)| matches!(score.normalize, Normalize::None));
    alone.map(|(weight, score)| (weight, score.of)).collect()
}

#[cfg(test)]
mod tests {
    use crate::cache::{Cache, Snapshot};
    use crate::cycle::{Turn, schedule};
    use crate::testing::{node, pod};
    use std::sync::Arc;

    const ONE: &str = "{containers: [{resources: {requests: {cpu: 1}}}]}";

    struct World {
        cache: Cache,
        snapshot: Snapshot,
        turn: Turn,
        placed: usize,
    }

    impl World {
        fn new(nodes: &[(&str, u32)]) -> World {
            let mut cache = Cache::default();
            for (name, cpus) in nodes {
                cache.put_node(node(name, &format!("{{cpu: {cpus}, memory: 8Gi, pods: 10}}")));
            }
            World { cache, snapshot: Snapshot::default(), turn: Turn::new(3), placed: 0 }
        }

        fn place(&mut self, spec: &str) -> Option<String> {
            self.cache.update(&mut self.snapshot);
            self.placed += 1;
            let pod = pod(&format!("p{}", self.placed), spec);
            let node = schedule(&pod, &self.snapshot, &mut self.turn).ok()?;
            self.cache.assume(Arc::new(pod.placed(&node)));
            Some(node.to_string())
        }
    }

    #[test]
    fn pods_that_are_alike_go_where_each_alone_would_have_gone() {
        let mut world = World::new(&[("large", 8), ("small", 4)]);
        // The emptier by share: large from 8 down to 4 free, small only while it is the emptier.
        let nodes: Vec<_> = (0..12).map(|_| world.place(ONE).unwrap()).collect();
        assert_eq!(nodes.iter().filter(|n| *n == "large").count(), 8);
        assert_eq!(nodes[..2], ["large", "large"]);
        assert_eq!(world.place(ONE), None, "all is full");
    }

    #[test]
    fn what_happens_meanwhile_counts() {
        let mut world = World::new(&[("a", 4), ("b", 4), ("c", 4)]);
        world.place(ONE);
        world.cache.put_node(node("d", "{cpu: 64, memory: 64Gi, pods: 10}"));
        assert_eq!(world.place(ONE).as_deref(), Some("d"), "a new node is seen");
        assert_eq!(world.place("{containers: [{resources: {requests: {cpu: 60}}}]}").as_deref(), Some("d"));
        world.cache.remove_node("d");
        assert_ne!(world.place(ONE).as_deref(), Some("d"), "a lost one is not");
    }
}
