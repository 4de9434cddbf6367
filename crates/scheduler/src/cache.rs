//! The nodes and what is placed on them: kept up to date by the informers, with the pods the scheduler itself has just
//! placed ("assumed") although the API doesn't say so yet (upstream `pkg/scheduler/backend/cache`).

use crate::node::{Node, NodeInfo};
use crate::pod::Pod;
use compact_str::CompactString;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

#[derive(Default)]
pub struct Cache {
    nodes: BTreeMap<CompactString, Entry>,
    /// Placed pods by uid.
    pods: HashMap<CompactString, Placed>,
    /// Names of nodes that changed since the last snapshot.
    dirty: BTreeSet<CompactString>,
    /// How much has changed that was not the scheduler's own doing.
    foreign: u64,
}

#[derive(Default)]
struct Entry {
    info: NodeInfo,
    /// False: pods are there, but the Node object isn't (yet, or any more).
    exists: bool,
}

struct Placed {
    pod: Arc<Pod>,
    /// Of the spec that `pod` was parsed from.
    generation: i64,
    /// The API hasn't confirmed it.
    assumed: bool,
}

impl Cache {
    /// Takes in a new or changed Node; answers its former state.
    pub fn put_node(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        self.foreign += 1;
        let entry = self.nodes.entry(node.name.clone()).or_default();
        let old = entry.exists.then(|| entry.info.node.clone());
        self.dirty.insert(node.name.clone());
        entry.info.node = node;
        entry.exists = true;
        old
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(entry) = self.nodes.get_mut(name) {
            entry.exists = false;
            self.foreign += 1;
            self.dirty.insert(name.into());
            self.drop_if_empty(name);
        }
    }

    /// A pod with a node, as the API has it: a new one, an assumed one confirmed, or one that changed.
    /// Answers what was known of it before.
    pub fn put_pod(&mut self, pod: Arc<Pod>) -> Option<Arc<Pod>> {
        self.foreign += 1;
        self.place(pod, false)
    }

    /// Counts a pod that is about to be bound to `pod.node`.
    pub fn assume(&mut self, pod: Arc<Pod>) {
        self.place(pod, true);
    }

    /// Whether the API's word that this pod is on `node` is nothing new. It confirms an assumed pod.
    pub fn is_current(&mut self, uid: &str, node: &str, generation: i64) -> bool {
        let Some(placed) = self.pods.get_mut(uid).filter(|p| p.pod.node == node) else { return false };
        if placed.assumed {
            // Binding gave the pod a new generation, and nothing else can have changed what it requests.
            (placed.assumed, placed.generation) = (false, generation);
        }
        placed.generation == generation
    }

    /// The binding failed: takes the pod away again, unless the API says that it is there.
    pub fn forget(&mut self, uid: &str) -> Option<Arc<Pod>> {
        if self.pods.get(uid)?.assumed { self.remove_pod(uid) } else { None }
    }

    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<Pod>> {
        let placed = self.pods.remove(uid)?;
        self.foreign += 1;
        let name = &placed.pod.node;
        if let Some(entry) = self.nodes.get_mut(name) {
            entry.info.remove(&placed.pod);
            self.dirty.insert(name.clone());
        }
        self.drop_if_empty(name);
        Some(placed.pod)
    }

    /// What is known of a placed pod.
    pub fn pod(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.pods.get(uid).map(|p| &p.pod)
    }

    fn place(&mut self, pod: Arc<Pod>, assumed: bool) -> Option<Arc<Pod>> {
        let old = self.remove_pod(&pod.uid);
        let entry = self.nodes.entry(pod.node.clone()).or_default();
        entry.info.add(&pod);
        self.dirty.insert(pod.node.clone());
        let generation = pod.generation;
        self.pods.insert(pod.uid.clone(), Placed { pod, generation, assumed });
        old
    }

    fn drop_if_empty(&mut self, name: &str) {
        if self.nodes.get(name).is_some_and(|e| !e.exists && e.info.pods == 0) {
            self.nodes.remove(name);
        }
    }

    /// Brings `snapshot` up to date. Costs what changed, not what there is, unless nodes come or go.
    pub fn update(&mut self, snapshot: &mut Snapshot) {
        snapshot.foreign = self.foreign;
        let mut relist = false;
        for name in std::mem::take(&mut self.dirty) {
            let now = self.nodes.get(&name).filter(|e| e.exists);
            match (snapshot.index.get(&name), now) {
                (Some(at), Some(entry)) => {
                    let old = std::mem::replace(&mut snapshot.nodes[*at], entry.info.clone());
                    if !Arc::ptr_eq(&old.node, &entry.info.node) {
                        snapshot.count_images(&old.node, -1);
                        snapshot.count_images(&entry.info.node, 1);
                    }
                }
                (None, None) => {}
                _ => relist = true,
            }
        }
        if relist {
            *snapshot = Snapshot { foreign: self.foreign, ..Snapshot::default() };
            for (name, entry) in self.nodes.iter().filter(|(_, e)| e.exists) {
                snapshot.index.insert(name.clone(), snapshot.nodes.len());
                snapshot.count_images(&entry.info.node, 1);
                snapshot.nodes.push(entry.info.clone());
            }
        }
    }
}

/// The nodes as they are during one scheduling cycle.
#[derive(Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    index: HashMap<CompactString, usize>,
    /// How many nodes have an image.
    images: HashMap<CompactString, usize>,
    foreign: u64,
}

impl Snapshot {
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// Changes when anything does besides the placements that the scheduler itself has assumed.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&NodeInfo> {
        self.index.get(name).map(|at| &self.nodes[*at])
    }

    /// Where among [`Self::nodes`] one is.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    pub fn having_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    fn count_images(&mut self, node: &Node, by: isize) {
        for image in node.images.keys() {
            let count = self.images.entry(image.clone()).or_default();
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.images.remove(image);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn the_snapshot_follows() {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        cache.put_node(node("a", "{cpu: 4, pods: 10}"));
        cache.put_pod(Arc::new(pod("p", "{containers: [{resources: {requests: {cpu: 1}}}]}").placed("a")));
        cache.put_pod(Arc::new(pod("q", "{containers: [{}]}").placed("b")));
        cache.update(&mut snapshot);
        assert_eq!(snapshot.len(), 1);
        assert_eq!(snapshot.get("a").unwrap().requested.milli_cpu, 1000);

        cache.put_node(node("b", "{cpu: 4, pods: 10}"));
        cache.remove_pod("p");
        cache.update(&mut snapshot);
        let all: Vec<_> = snapshot.nodes().iter().map(|n| (n.node.name.as_str(), n.pods)).collect();
        assert_eq!(all, [("a", 0), ("b", 1)]);

        cache.remove_node("b");
        cache.update(&mut snapshot);
        assert_eq!(snapshot.len(), 1);
        cache.remove_pod("q");
        assert!(!cache.nodes.contains_key("b"));
    }

    #[test]
    fn a_failed_binding_is_forgotten_and_a_confirmed_one_is_not() {
        let mut cache = Cache::default();
        cache.put_node(node("a", "{cpu: 4, pods: 10}"));
        let placed = |name: &str| Arc::new(pod(name, "{containers: [{}]}").placed("a"));
        cache.assume(placed("p"));
        cache.assume(placed("q"));
        assert!(cache.is_current("p", "a", 2) && cache.is_current("p", "a", 2) && !cache.is_current("p", "a", 3));
        assert!(cache.forget("p").is_none());
        assert!(cache.forget("q").is_some());
        assert_eq!(cache.nodes["a"].info.pods, 1);
    }
}
