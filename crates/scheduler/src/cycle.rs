//! One scheduling cycle as a pure function: pod and nodes in, a node or the reasons why there is none out
//! (upstream `schedulePod`).

use crate::batch::Batch;
use crate::cache::Snapshot;
use crate::framework::{Check, Filter, Reason, Verdict};
use crate::node::NodeInfo;
use crate::plugins::PLUGINS;
use crate::pod::Pod;
use compact_str::CompactString;
use std::collections::BTreeSet;
use std::fmt;

/// With fewer nodes than this all are looked at.
const MIN_NODES_TO_FIND: usize = 100;
const MIN_PERCENTAGE: usize = 5;

/// What goes on from cycle to cycle, so that every node has its turn.
pub struct Turn {
    /// Where in the list of nodes the next cycle begins.
    next: usize,
    /// State of the generator that chooses among equals.
    random: u64,
    /// What the last cycle found, for more pods of the kind.
    batch: Option<Batch>,
}

impl Turn {
    pub fn new(seed: u64) -> Turn {
        Turn { next: 0, random: seed | 1, batch: None }
    }

    /// A number (xorshift64*).
    pub(crate) fn chance(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }
}

/// Why a pod fits on no node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitError {
    pub nodes: usize,
    /// What ruled out all nodes at once.
    whole: Option<Reason>,
    /// How many nodes have each reason.
    reasons: Vec<(Reason, usize)>,
    /// The plugins that rejected it: whose hints are asked when something changes. Empty: there are no nodes.
    pub rejected_by: BTreeSet<&'static str>,
}

impl FitError {
    fn count(&mut self, reason: Reason, nodes: usize) {
        match self.reasons.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, count)) => *count += nodes,
            None => self.reasons.push((reason, nodes)),
        }
    }
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if let Some(reason) = &self.whole {
            return write!(f, " {reason}.");
        }
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        reasons.sort();
        write!(f, " {}.", reasons.join(", "))
    }
}

/// How many fitting nodes are enough to choose from, of `all`.
fn nodes_to_find(all: usize) -> usize {
    if all < MIN_NODES_TO_FIND {
        return all;
    }
    let percentage = 50usize.saturating_sub(all / 125).max(MIN_PERCENTAGE);
    (all * percentage / 100).max(MIN_NODES_TO_FIND)
}

/// The best node for `pod`.
pub fn schedule(pod: &Pod, nodes: &Snapshot, turn: &mut Turn) -> Result<CompactString, FitError> {
    if let Some(mut batch) = turn.batch.take()
        && let Some(node) = batch.next(pod, nodes, turn)
    {
        turn.batch = Some(batch);
        return Ok(node);
    }
    let feasible = find(pod, nodes, turn)?;
    let mut batch = Batch::of(pod, nodes, &feasible, turn);
    let node = batch.next(pod, nodes, turn).unwrap_or_else(|| feasible[0].node.name.clone());
    turn.batch = Some(batch);
    Ok(node)
}

pub(crate) type Named<T> = (&'static str, T);

/// What the filters have to ask of each node, and the only nodes that come into question, if there is such a choice.
pub(crate) struct Checks<'a> {
    checks: Vec<Named<Check<'a>>>,
    among: Option<(BTreeSet<&'a str>, &'static str)>,
}

impl<'a> Checks<'a> {
    /// # Errors
    /// Why no node comes into question, and who says so.
    pub(crate) fn of(pod: &'a Pod) -> Result<Checks<'a>, Named<Reason>> {
        let (mut checks, mut among) = (Vec::new(), None);
        for plugin in PLUGINS {
            match plugin.filter(pod) {
                Filter::Skip => {}
                Filter::Check(check) => checks.push((plugin.name(), check)),
                Filter::Among(names, check) => {
                    checks.push((plugin.name(), check));
                    among = Some((names, plugin.name()));
                }
                Filter::Reject(reason) => return Err((plugin.name(), reason)),
            }
        }
        Ok(Checks { checks, among })
    }

    pub(crate) fn rejection(&self, info: &NodeInfo) -> Option<Named<Vec<Reason>>> {
        self.checks.iter().find_map(|(plugin, check)| match check(info) {
            Verdict::Fits => None,
            Verdict::Rejected(reasons) => Some((*plugin, reasons)),
        })
    }
}

/// Enough nodes that pass all filters; never none.
fn find<'n>(pod: &Pod, nodes: &'n Snapshot, turn: &mut Turn) -> Result<Vec<&'n NodeInfo>, FitError> {
    let mut failed = FitError { nodes: nodes.len(), ..FitError::default() };
    let checks = match Checks::of(pod) {
        Ok(checks) => checks,
        Err((plugin, reason)) => {
            failed.whole = Some(reason);
            failed.rejected_by.insert(plugin);
            return Err(failed);
        }
    };
    let named: Option<Vec<&NodeInfo>> =
        checks.among.as_ref().map(|(names, _)| names.iter().filter_map(|name| nodes.get(name)).collect());
    let count = named.as_ref().map_or(nodes.len(), Vec::len);
    let enough = nodes_to_find(count);
    let mut feasible = Vec::with_capacity(enough);
    let mut looked_at = 0;
    for step in 0..count {
        if feasible.len() == enough {
            break;
        }
        let at = (turn.next + step) % count;
        let info = named.as_ref().map_or_else(|| &nodes.nodes()[at], |named| named[at]);
        looked_at += 1;
        match checks.rejection(info) {
            None => feasible.push(info),
            Some((plugin, reasons)) => {
                failed.rejected_by.insert(plugin);
                reasons.into_iter().for_each(|reason| failed.count(reason, 1));
            }
        }
    }
    turn.next = (turn.next + looked_at) % nodes.len().max(1);
    if !feasible.is_empty() {
        return Ok(feasible);
    }
    if let Some((_, plugin)) = checks.among.filter(|_| count < nodes.len()) {
        failed.rejected_by.insert(plugin);
        failed.count(format!("node(s) didn't satisfy plugin(s) [{plugin}]").into(), nodes.len() - count);
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::testing::{node_with, pod};
    use std::sync::Arc;

    /// Name, labels, spec, cpu in cores, memory in Gi, and the specs of the pods placed on it.
    type Host<'a> = (&'a str, &'a str, &'a str, u32, u32, &'a [&'a str]);

    fn cluster(nodes: &[Host]) -> Snapshot {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        for (name, labels, spec, cpu, memory, pods) in nodes {
            let allocatable = format!("{{cpu: {cpu}, memory: {memory}Gi, pods: 3}}");
            cache.put_node(node_with(name, labels, spec, &allocatable));
            for (i, spec) in pods.iter().enumerate() {
                cache.put_pod(Arc::new(pod(&format!("{name}-{i}"), spec).placed(name)));
            }
        }
        cache.update(&mut snapshot);
        snapshot
    }

    fn place(spec: &str, nodes: &Snapshot) -> String {
        match schedule(&pod("p", spec), nodes, &mut Turn::new(1)) {
            Ok(node) => node.to_string(),
            Err(error) => error.to_string(),
        }
    }

    const ONE_CPU: &str = "{containers: [{resources: {requests: {cpu: 1, memory: 1Gi}}}]}";

    #[test]
    fn filters_and_their_reasons() {
        let nodes = cluster(&[
            ("big", "{disk: ssd, zone: a}", "{}", 8, 8, &["{containers: [{ports: [{hostPort: 80}]}]}"]),
            ("cordoned", "{}", "{unschedulable: true}", 8, 8, &[]),
            ("full", "{}", "{}", 8, 8, &["{containers: [{}]}", "{containers: [{}]}", "{containers: [{}]}"]),
            ("small", "{disk: hdd, cores: '1'}", "{}", 1, 1, &[]),
            ("tainted", "{}", "{taints: [{key: only, value: db, effect: NoSchedule}]}", 8, 8, &[]),
        ]);
        let affinity = |terms: &str| {
            format!(
                "{{containers: [{{}}], affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: {terms}}}}}}}}}"
            )
        };
        let cases = [
            ("{containers: [{resources: {requests: {cpu: 2}}}]}".to_string(), "big"),
            ("{containers: [{resources: {requests: {memory: 2Gi}}}], nodeSelector: {disk: hdd}}".into(),
             "0/5 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector."),
            ("{containers: [{resources: {requests: {cpu: 100, example.com/gpu: 1}}}]}".into(),
             "0/5 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 3 Insufficient cpu, 3 Insufficient example.com/gpu."),
            ("{containers: [{}], nodeSelector: {disk: hdd}}".into(), "small"),
            ("{containers: [{ports: [{hostPort: 80, hostIP: 10.0.0.1}]}], nodeSelector: {zone: a}}".into(),
             "0/5 nodes are available: 1 node(s) didn't have free ports for the requested pod ports, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector."),
            ("{containers: [{ports: [{hostPort: 80, protocol: UDP}]}], nodeSelector: {zone: a}}".into(), "big"),
            (affinity("[{matchExpressions: [{key: disk, operator: In, values: [hdd]}]}, {matchExpressions: [{key: none, operator: Exists}]}]"), "small"),
            (affinity("[{matchExpressions: [{key: cores, operator: Gt, values: ['0']}]}]"), "small"),
            (affinity("[{matchFields: [{key: metadata.name, operator: In, values: [big]}]}]"), "big"),
            (affinity("[{matchFields: [{key: metadata.name, operator: In, values: [full]}]}]"),
             "0/5 nodes are available: 1 Too many pods, 4 node(s) didn't satisfy plugin(s) [NodeAffinity]."),
            (affinity("[{matchFields: [{key: metadata.name, operator: In, values: [a]}, {key: metadata.name, operator: In, values: [b]}]}]"),
             "0/5 nodes are available: pod affinity terms conflict."),
            (affinity("[{}]"), "0/5 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 3 node(s) didn't match Pod's node affinity/selector."),
            ("{containers: [{resources: {requests: {cpu: 8}}}], tolerations: [{key: only, operator: Exists}]}".into(), "tainted"),
            ("{containers: [{resources: {requests: {cpu: 8, memory: 5Gi}}}], tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}, {key: only, value: web}]}".into(),
             "cordoned"),
        ];
        for (spec, expected) in cases {
            // Of two that fit, `big` has a pod and loses.
            let got = place(&spec, &nodes);
            assert_eq!(got, expected, "{spec}");
        }
        assert_eq!(place(ONE_CPU, &Snapshot::default()), "no nodes available to schedule pods");
    }

    #[test]
    fn scores() {
        let loaded = "{containers: [{resources: {requests: {cpu: 2, memory: 2Gi}}}]}";
        let least = cluster(&[("busy", "{}", "{}", 8, 8, &[loaded]), ("idle", "{}", "{}", 8, 8, &[])]);
        assert_eq!(place(ONE_CPU, &least), "idle");

        let lopsided = "{containers: [{resources: {requests: {cpu: 4, memory: 1Mi}}}]}";
        let opposite = "{containers: [{resources: {requests: {cpu: 1m, memory: 4Gi}}}]}";
        let balance = cluster(&[("cpu", "{}", "{}", 8, 8, &[lopsided]), ("memory", "{}", "{}", 8, 8, &[opposite])]);
        assert_eq!(place("{containers: [{resources: {requests: {cpu: 2, memory: 1Mi}}}]}", &balance), "memory");

        let avoid = "{taints: [{key: k, effect: PreferNoSchedule}]}";
        let taints = cluster(&[("avoided", "{}", avoid, 16, 16, &[]), ("plain", "{}", "{}", 8, 8, &[])]);
        assert_eq!(place(ONE_CPU, &taints), "plain");

        let preferred = "{containers: [{}], affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 5, preference: {matchExpressions: [{key: zone, operator: In, values: [b]}]}}]}}}";
        let zones = cluster(&[("a", "{zone: a}", "{}", 8, 8, &[]), ("b", "{zone: b}", "{}", 8, 8, &[])]);
        assert_eq!(place(preferred, &zones), "b");
    }

    #[test]
    fn images_draw_pods() {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        for name in ["a", "b"] {
            let mut node = (*node_with(name, "{}", "{}", "{cpu: 8, memory: 8Gi, pods: 10}")).clone();
            if name == "b" {
                node.images.insert("web:latest".into(), 800 << 20);
            }
            cache.put_node(Arc::new(node));
        }
        cache.update(&mut snapshot);
        assert_eq!(place("{containers: [{image: web}]}", &snapshot), "b");
    }

    #[test]
    fn every_node_has_its_turn_and_equals_share() {
        let names: Vec<String> = (0..4).map(|i| format!("n{i}")).collect();
        let nodes: Vec<_> = names.iter().map(|n| (n.as_str(), "{}", "{}", 8, 8, &[] as &[&str])).collect();
        let snapshot = cluster(&nodes);
        let mut turn = Turn::new(7);
        let mut seen = std::collections::BTreeMap::<_, usize>::new();
        for _ in 0..400 {
            *seen.entry(schedule(&pod("p", ONE_CPU), &snapshot, &mut turn).unwrap()).or_default() += 1;
        }
        assert!(seen.len() == 4 && seen.values().all(|n| *n > 50), "{seen:?}");
        assert_eq!([50, 100, 1000, 5000, 10_000].map(nodes_to_find), [50, 100, 420, 500, 500]);
    }
}
