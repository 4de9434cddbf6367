//! Gives every node its range of pod addresses: a /24 of the cluster's (upstream `pkg/controller/nodeipam`).

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Patch, Status, Target, View, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A node's share (upstream `--node-cidr-mask-size-ipv4`).
const NODE_MASK: u32 = 24;

struct Allocator {
    api: Arc<dyn Api>,
    recorder: Recorder,
    nodes: Arc<Informer>,
    cluster: (Ipv4Addr, u32),
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
    // One worker: what is taken is read off the view, so each allocation must be seen before the next.
    context.work(queue, 1, Arc::new(Allocator { api, recorder, nodes, cluster })).await;
}

fn parse(cidr: &str) -> Option<(Ipv4Addr, u32)> {
    let (address, mask) = cidr.split_once('/')?;
    let (address, mask) = (address.parse::<Ipv4Addr>().ok()?, mask.parse::<u32>().ok()?);
    (mask <= NODE_MASK).then_some((address, mask))
}

/// The first free range of the cluster's; None when all are taken.
fn plan((address, mask): (Ipv4Addr, u32), taken: &BTreeSet<String>) -> Option<String> {
    let network = u64::from(u32::from(address)) >> (32 - mask) << (32 - mask);
    let ranges = (0..1u64 << (NODE_MASK - mask)).map(|i| network + (i << (32 - NODE_MASK)));
    let mut ranges = ranges.map(|at| format!("{}/{NODE_MASK}", Ipv4Addr::from(u32::try_from(at).unwrap_or(u32::MAX))));
    ranges.find(|range| !taken.contains(range))
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
        let all = View::list(&*self.nodes, "");
        let taken = all.iter().map(|n| n.value()["spec"]["podCIDR"].str().to_string()).collect();
        let Some(range) = plan(self.cluster, &taken) else {
            self.recorder.normal(&node, "CIDRNotAvailable", format!("Node {key} status is now: CIDRNotAvailable"));
            return Err(Status::internal("there are no remaining CIDRs left to allocate in the accepted range"));
        };
        let meta = value!({"uid": &node["metadata"]["uid"]});
        let patch = value!({"metadata": meta, "spec": {"podCIDR": &range, "podCIDRs": [&range]}});
        let at = Target::new(&Gvr::new("", "v1", "nodes"), "", key);
        let written = self.api.patch(&at, Patch::Strategic(patch), &writes()).await?;
        self.nodes.reached(written.revision).await;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_range() {
        let cluster = parse("10.244.3.4/23").expect("a range");
        let mut taken = BTreeSet::new();
        for expected in [Some("10.244.2.0/24"), Some("10.244.3.0/24"), None] {
            let range = plan(cluster, &taken);
            assert_eq!(range.as_deref(), expected);
            taken.extend(range);
        }
        assert_eq!(parse("10.0.0.0/25"), None);
        assert_eq!(plan(parse("0.0.0.0/0").expect("a range"), &taken).as_deref(), Some("0.0.0.0/24"));
    }
}
