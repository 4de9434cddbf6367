//! Which pods are on which node and what they name: kept up to date by the watch cache's events, read when a node asks.

use super::pod_references::References;
use crate::cache::{Cache, CacheEvent, Subscription};
use canopus_api::{ListOptions, Object, Result};
use compact_str::{CompactString, format_compact};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc::error::TryRecvError;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub struct PlacedPods {
    cache: Arc<Cache>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subscription: Option<Subscription>,
    nodes: HashMap<CompactString, Pods>,
}

type Pods = BTreeMap<CompactString, Placed>;

struct Placed {
    pod: Arc<Object>,
    /// As of this revision; worked out when first needed.
    references: Option<(u64, Arc<References>)>,
}

impl PlacedPods {
    pub fn of(cache: Arc<Cache>) -> PlacedPods {
        PlacedPods { cache, state: Mutex::default() }
    }

    /// Whether a pod on `node` in `namespace` ("": in any) names what `wanted` looks for.
    pub fn any(&self, node: &str, namespace: &str, wanted: impl Fn(&str, &References) -> bool) -> Result<bool> {
        let mut state = self.state.lock();
        self.catch_up(&mut state)?;
        let Some(pods) = state.nodes.get_mut(node) else { return Ok(false) };
        let prefix = if namespace.is_empty() { CompactString::default() } else { format_compact!("{namespace}/") };
        // What a pod names hardly ever changes: look at what is known first.
        for fresh in [false, true] {
            let here = pods.range_mut(prefix.clone()..).take_while(|(key, _)| key.starts_with(prefix.as_str()));
            for (_, placed) in here {
                let namespace = placed.pod.facts.clone();
                if wanted(&namespace.namespace, &placed.references(fresh)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether the pod is on `node`.
    pub fn has(&self, node: &str, namespace: &str, name: &str) -> Result<bool> {
        let mut state = self.state.lock();
        self.catch_up(&mut state)?;
        Ok(state.nodes.get(node).is_some_and(|pods| pods.contains_key(&Cache::object_key(namespace, name))))
    }

    /// Takes in what has happened since the last question. Whoever was asked too seldom, and was cut off, starts again.
    fn catch_up(&self, state: &mut State) -> Result<()> {
        loop {
            let Some(subscription) = &mut state.subscription else {
                let mut subscription = self.cache.subscribe("", &ListOptions::default(), None)?;
                state.nodes.clear();
                for pod in std::mem::take(&mut subscription.initial) {
                    put(&mut state.nodes, &pod);
                }
                state.subscription = Some(subscription);
                continue;
            };
            match subscription.events.try_recv() {
                Ok(event) => apply(&mut state.nodes, &event),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => state.subscription = None,
            }
        }
    }
}

impl Placed {
    fn references(&mut self, fresh: bool) -> Arc<References> {
        match &self.references {
            Some((revision, known)) if !fresh || *revision == self.pod.revision => known.clone(),
            _ => {
                let value = self.pod.value();
                // A mirror pod is its node's own doing and must not give it any rights.
                let mirror = value["metadata"]["annotations"].get(MIRROR).is_some();
                let found = Arc::new(if mirror { References::default() } else { References::of(&value) });
                self.references = Some((self.pod.revision, found.clone()));
                found
            }
        }
    }
}

fn node_of(pod: &Object) -> Option<&str> {
    pod.facts.field("spec.nodeName").filter(|node| !node.is_empty())
}

fn put(nodes: &mut HashMap<CompactString, Pods>, pod: &Arc<Object>) {
    let Some(node) = node_of(pod) else { return };
    if !nodes.contains_key(node) {
        nodes.insert(node.into(), Pods::new());
    }
    let Some(pods) = nodes.get_mut(node) else { return };
    let before = pods.remove(&pod.key());
    let references = before.filter(|b| b.pod.facts.uid == pod.facts.uid).and_then(|b| b.references);
    pods.insert(pod.key(), Placed { pod: pod.clone(), references });
}

fn apply(nodes: &mut HashMap<CompactString, Pods>, event: &CacheEvent) {
    if let Some(old) = &event.previous
        && let Some(node) = node_of(old)
        && event.object.as_deref().and_then(node_of) != Some(node)
        && let Some(pods) = nodes.get_mut(node)
    {
        pods.remove(&old.key());
        if pods.is_empty() {
            nodes.remove(node);
        }
    }
    if let Some(pod) = &event.object {
        put(nodes, pod);
    }
}
