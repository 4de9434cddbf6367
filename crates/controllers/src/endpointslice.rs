//! EndpointSlices: where the pods behind a Service are (upstream `pkg/controller/endpointslice`).

mod endpoint;
mod plan;

use crate::backends::{Triggers, annotate, follow_selectors, queue_pods, write_slices};
use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, LabelSelector, Object, Status, Value, View, labels};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use std::sync::Arc;

struct Slices {
    gvr: Gvr,
    api: Arc<dyn Api>,
    recorder: Recorder,
    services: Arc<Informer>,
    pods: Arc<Informer>,
    nodes: Arc<Informer>,
    slices: Arc<Informer>,
    triggers: Triggers,
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
    let triggers = Triggers::default();
    let gvr = Gvr::new("discovery.k8s.io", "v1", "endpointslices");
    context.work(queue, 5, Arc::new(Slices { gvr, api, recorder, services, pods, nodes, slices, triggers })).await;
}

fn is_ours(slice: &Object) -> bool {
    slice.facts.label(labels::MANAGED_BY_SLICE) == Some(plan::MANAGER)
}

#[async_trait]
impl Reconcile for Slices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(service) = self.services.by_key(key) else {
            // Its slices go with it: they are its dependents.
            self.triggers.forget(key);
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
        let trigger = self.triggers.since_last(key, &value, &pods);
        let mut plan = plan::plan(&value, &pods, &existing, &zone);
        plan.create.iter_mut().chain(&mut plan.update).for_each(|slice| annotate(slice, trigger));
        let done = write_slices(&*self.api, &self.gvr, &self.slices, plan.create, plan.update, plan.delete);
        match done.await {
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
