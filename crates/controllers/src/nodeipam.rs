//! Gives every node its range of pod addresses: a /24 of the cluster's (upstream `pkg/controller/nodeipam`).

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Object, Patch, Status, Target, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A node's share (upstream `--node-cidr-mask-size-ipv4`).
const NODE_MASK: u32 = 24;

struct Allocator {
    api: Arc<dyn Api>,
    recorder: Recorder,
    nodes: Arc<Informer>,
    taken: Arc<Mutex<BTreeSet<u32>>>,
    cluster: (Ipv4Addr, u32),
    /// The range given out last: the search for the next starts behind it (as upstream).
    last: AtomicU64,
}

/// The first addresses of the ranges that nodes have, kept as nodes come and go.
fn taken(nodes: &Informer) -> Arc<Mutex<BTreeSet<u32>>> {
    let taken = Arc::<Mutex<BTreeSet<u32>>>::default();
    let kept = taken.clone();
    let range = |node: &Arc<Object>| Some(u32::from(parse(node.value()["spec"]["podCIDR"].str())?.0));
    nodes.on_change(move |change| match (change.old, change.new) {
        (_, Some(node)) => kept.lock().extend(range(node)),
        // A node keeps its range for as long as it is there.
        (Some(node), None) => drop(range(node).map(|range| kept.lock().remove(&range))),
        (None, None) => {}
    });
    taken
}

pub(crate) async fn run(context: Arc<Context>) {
    let Some(cluster) = parse(&context.config.cluster_cidr) else {
        if !context.config.cluster_cidr.is_empty() {
            tracing::error!(cidr = %context.config.cluster_cidr, "the cluster CIDR is no IPv4 range of /24 or larger");
        }
        return;
    };
    let nodes = context.informer("", "v1", "nodes");
    let queue = Arc::new(Queue::default());
    queue_changes(&nodes, &queue);
    let api = context.api("node-controller");
    let recorder = context.recorder(&api, "cidrAllocator");
    let taken = taken(&nodes);
    let last = AtomicU64::new(ranges(cluster) - 1);
    // One worker: what is taken is read off the view, so each allocation must be seen before the next.
    context.work(queue, 1, Arc::new(Allocator { api, recorder, nodes, taken, cluster, last })).await;
}

fn parse(cidr: &str) -> Option<(Ipv4Addr, u32)> {
    let (address, mask) = cidr.split_once('/')?;
    let (address, mask) = (address.parse::<Ipv4Addr>().ok()?, mask.parse::<u32>().ok()?);
    (mask <= NODE_MASK).then_some((address, mask))
}

/// How many ranges the cluster's holds.
fn ranges((_, mask): (Ipv4Addr, u32)) -> u64 {
    1 << (NODE_MASK - mask)
}

/// The number of the first range behind number `last` that is free; None when all are taken.
fn plan(cluster: (Ipv4Addr, u32), taken: &BTreeSet<u32>, last: u64) -> Option<u64> {
    let count = ranges(cluster);
    (1..=count).map(|step| (last + step) % count).find(|number| !taken.contains(&start(cluster, *number)))
}

/// The first address of a range.
fn start((address, mask): (Ipv4Addr, u32), number: u64) -> u32 {
    let network = u64::from(u32::from(address)) >> (32 - mask) << (32 - mask);
    u32::try_from(network + (number << (32 - NODE_MASK))).unwrap_or(u32::MAX)
}

#[async_trait]
impl Reconcile for Allocator {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(node) = self.nodes.by_key(key).filter(|node| !node.facts.deleting).map(|node| node.value()) else {
            return Ok(Outcome::Done);
        };
        if !node["spec"]["podCIDR"].is_empty() {
            return Ok(Outcome::Done);
        }
        let Some(number) = plan(self.cluster, &self.taken.lock(), self.last.load(Ordering::Relaxed)) else {
            self.recorder.normal(&node, "CIDRNotAvailable", format!("Node {key} status is now: CIDRNotAvailable"));
            return Err(Status::internal("there are no remaining CIDRs left to allocate in the accepted range"));
        };
        let range = format!("{}/{NODE_MASK}", Ipv4Addr::from(start(self.cluster, number)));
        let meta = value!({"uid": &node["metadata"]["uid"]});
        let patch = value!({"metadata": meta, "spec": {"podCIDR": &range, "podCIDRs": [&range]}});
        let at = Target::new(&Gvr::new("", "v1", "nodes"), "", key);
        let written = self.api.patch(&at, Patch::Strategic(patch), &writes()).await?;
        self.last.store(number, Ordering::Relaxed);
        self.nodes.reached(written.revision).await;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_free_range() {
        let cluster = parse("10.244.3.4/22").expect("a range");
        let mut taken = BTreeSet::new();
        let mut last = ranges(cluster) - 1;
        for expected in ["10.244.0.0", "10.244.1.0", "10.244.2.0", "10.244.3.0"] {
            last = plan(cluster, &taken, last).expect("a free range");
            let first = start(cluster, last);
            assert_eq!(Ipv4Addr::from(first).to_string(), expected);
            taken.insert(first);
        }
        assert_eq!(plan(cluster, &taken, last), None);
        taken.remove(&start(cluster, 1));
        assert_eq!(plan(cluster, &taken, last), Some(1));
        assert_eq!(parse("10.0.0.0/25"), None);
        assert_eq!(start(parse("0.0.0.0/0").expect("a range"), (1 << 24) - 1), u32::MAX - 255);
    }
}
