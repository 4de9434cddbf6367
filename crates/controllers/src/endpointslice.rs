//! EndpointSlices: where the pods behind a Service are (upstream `pkg/controller/endpointslice`).

mod endpoint;
mod plan;

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, LabelSelector, Object, Status, Value, View, labels};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

struct Slices {
    gvr: Gvr,
    api: Arc<dyn Api>,
    recorder: Recorder,
    services: Arc<Informer>,
    pods: Arc<Informer>,
    nodes: Arc<Informer>,
    slices: Arc<Informer>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let services = context.informer("", "v1", "services");
    let pods = context.informer("", "v1", "pods");
    let nodes = context.informer("", "v1", "nodes");
    let slices = context.informer("discovery.k8s.io", "v1", "endpointslices");
    let queue = Arc::new(Queue::default());
    queue_changes(&services, &queue);
    queue_pods(&pods, follow_selectors(&services), &queue);
    let changed = queue.clone();
    slices.on_change(move |change| {
        let slice = change.object();
        if let Some(service) = slice.facts.label(labels::SERVICE_NAME).filter(|_| is_ours(slice)) {
            changed.add(compact_str::format_compact!("{}/{service}", slice.namespace()));
        }
    });
    let api = context.api("endpointslice-controller");
    let recorder = context.recorder(&api, "endpoint-slice-controller");
    let gvr = Gvr::new("discovery.k8s.io", "v1", "endpointslices");
    context.work(queue, 5, Arc::new(Slices { gvr, api, recorder, services, pods, nodes, slices })).await;
}

fn is_ours(slice: &Object) -> bool {
    slice.facts.label(labels::MANAGED_BY_SLICE) == Some(plan::MANAGER)
}

/// The selectors of the Services that have one, by the key of the Service, in each namespace.
type Selectors = Arc<Mutex<HashMap<CompactString, BTreeMap<Key, LabelSelector>>>>;

fn follow_selectors(services: &Informer) -> Selectors {
    let selectors = Selectors::default();
    let known = selectors.clone();
    services.on_change(move |change| {
        let service = change.object();
        let mut known = known.lock();
        let known = known.entry(service.namespace().into()).or_default();
        known.remove(&service.key());
        let value = change.new.map(|service| service.value());
        if let Some(selector) = value.as_ref().map(|v| &v["spec"]["selector"]).filter(|s| !s.is_empty()) {
            known.insert(service.key(), LabelSelector::from_map(selector));
        }
    });
    selectors
}

/// Queues the Services that select a pod now or did before. Most changes of a pod don't matter to its endpoints.
fn queue_pods(pods: &Informer, selectors: Selectors, queue: &Arc<Queue<Key>>) {
    let queue = queue.clone();
    pods.on_change(move |change| {
        let sides: Vec<&Arc<Object>> = [change.old, change.new].into_iter().flatten().collect();
        let selects = |selector: &LabelSelector| sides.iter().any(|pod| selector.matches(&pod.facts));
        let selectors = selectors.lock();
        let here = selectors.get(change.object().namespace()).into_iter().flatten();
        let mut keys = here.filter(|(_, selector)| selects(selector)).map(|(key, _)| key.clone()).peekable();
        if keys.peek().is_none() {
            return;
        }
        if let (Some(old), Some(new)) = (change.old, change.new) {
            let same_labels = old.facts.labels == new.facts.labels;
            if same_labels && endpoint::same(old, new) {
                return;
            }
        }
        keys.for_each(|key| queue.add(key));
    });
}

#[async_trait]
impl Reconcile for Slices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(service) = self.services.by_key(key) else {
            // Its slices go with it: they are its dependents.
            return Ok(Outcome::Done);
        };
        let value = service.value();
        let spec = &value["spec"];
        // Without a selector somebody else keeps the endpoints; an ExternalName has none.
        if service.facts.deleting || spec["selector"].is_empty() || spec["type"].str() == "ExternalName" {
            return Ok(Outcome::Done);
        }
        let selector = LabelSelector::from_map(&spec["selector"]);
        let namespace = service.namespace();
        let pods = self.pods.list(namespace).into_iter().filter(|pod| selector.matches(&pod.facts));
        let pods: Vec<Arc<Value>> = pods.map(|pod| pod.value()).collect();
        let existing = self.slices.list(namespace).into_iter().filter(|slice| {
            is_ours(slice) && !slice.facts.deleting && slice.facts.label(labels::SERVICE_NAME) == Some(service.name())
        });
        let existing: Vec<Arc<Value>> = existing.map(|slice| slice.value()).collect();
        let zone = |node: &str| {
            let node = self.nodes.by_key(node)?;
            node.facts.label("topology.kubernetes.io/zone").map(str::to_string)
        };
        let plan = plan::plan(&value, &pods, &existing, &zone);
        match self.execute(plan).await {
            Err(error) if is_namespace_terminating(&error) => Ok(Outcome::Done),
            Err(error) => {
                let name = format!("{namespace}/{}", service.name());
                let message = format!("Error updating Endpoint Slices for Service {name}: {}", error.message);
                if !error.is_conflict() {
                    self.recorder.warning(&value, "FailedToUpdateEndpointSlices", message);
                }
                Err(error)
            }
            Ok(()) => Ok(Outcome::Done),
        }
    }
}

impl Slices {
    async fn execute(&self, plan: plan::Plan) -> Result<(), Status> {
        let mut newest = 0;
        for slice in plan.create {
            newest = self.api.create(&target(&self.gvr, &slice), slice, &writes()).await?.revision.max(newest);
        }
        for slice in plan.update {
            newest = self.api.update(&target(&self.gvr, &slice), slice, &writes()).await?.revision.max(newest);
        }
        for slice in plan.delete {
            let options = delete_uid(slice["metadata"]["uid"].str());
            if let Some(deleted) = gone(self.api.delete(&target(&self.gvr, &slice), &options).await)? {
                newest = deleted.revision.max(newest);
            }
        }
        self.slices.reached(newest).await;
        Ok(())
    }
}
