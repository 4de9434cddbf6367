//! Endpoints of Services with a selector, for clients that don't know EndpointSlices (upstream
//! `pkg/controller/endpoint`).

mod plan;
pub(crate) mod subsets;

use crate::backends::{Triggers, follow_selectors, queue_pods};
use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, DeleteOptions, Gvr, LabelSelector, Status, Target, Value, View};
use canopus_client::runner::{Key, split_key};
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use std::sync::Arc;

/// Endpoints that were once used to elect leaders have no Service.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

struct Endpoints {
    gvr: Gvr,
    api: Arc<dyn Api>,
    recorder: Recorder,
    services: Arc<Informer>,
    pods: Arc<Informer>,
    endpoints: Arc<Informer>,
    triggers: Triggers,
}

pub(crate) async fn run(context: Arc<Context>) {
    let services = context.informer("", "v1", "services");
    let pods = context.informer("", "v1", "pods");
    let endpoints = context.informer("", "v1", "endpoints");
    let queue = Arc::new(Queue::default());
    queue_changes(&services, &queue);
    queue_pods(&pods, follow_selectors(&services), &queue);
    let deleted = queue.clone();
    endpoints.on_change(move |change| {
        if change.new.is_none() {
            deleted.add(change.object().key());
        }
    });
    tokio::select! {
        () = endpoints.synced() => queue_leftovers(&endpoints, &queue),
        () = context.shutdown.cancelled() => return,
    }
    let api = context.api("endpoint-controller");
    let recorder = context.recorder(&api, plan::MANAGER);
    let triggers = Triggers::default();
    let gvr = Gvr::new("", "v1", "endpoints");
    context.work(queue, 5, Arc::new(Endpoints { gvr, api, recorder, services, pods, endpoints, triggers })).await;
}

/// Services may have gone while nobody watched.
fn queue_leftovers(endpoints: &Informer, queue: &Queue<Key>) {
    let all = View::list(endpoints, "");
    let ordinary = all.iter().filter(|object| object.value()["metadata"]["annotations"][LEADER].is_null());
    ordinary.for_each(|object| queue.add(object.key()));
}

#[async_trait]
impl Reconcile for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(service) = self.services.by_key(key) else {
            self.triggers.forget(key);
            let (namespace, name) = split_key(key);
            let target = Target::new(&self.gvr, namespace, name);
            if let Some(deleted) = gone(self.api.delete(&target, &DeleteOptions::default()).await)? {
                self.endpoints.reached(deleted.revision).await;
            }
            return Ok(Outcome::Done);
        };
        let value = service.value();
        let spec = &value["spec"];
        // Without a selector somebody else keeps the endpoints; an ExternalName has none.
        if spec["selector"].is_empty() || spec["type"].str() == "ExternalName" {
            return Ok(Outcome::Done);
        }
        let selector = LabelSelector::from_map(&spec["selector"]);
        let pods = self.pods.list(service.namespace()).into_iter().filter(|pod| selector.matches(&pod.facts));
        let pods: Vec<Arc<Value>> = pods.map(|pod| pod.value()).collect();
        let trigger = self.triggers.since_last(key, &value, &pods);
        let current = self.endpoints.by_key(key).map(|object| object.value());
        if let Some(wanted) = plan::plan(&value, &pods, current.as_deref(), trigger) {
            self.write(wanted, current.is_none()).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Endpoints {
    async fn write(&self, wanted: Value, create: bool) -> Result<(), Status> {
        let target = target(&self.gvr, &wanted);
        let written = match create {
            true => self.api.create(&target, wanted.clone(), &writes()).await,
            false => self.api.update(&target, wanted.clone(), &writes()).await,
        };
        match written {
            Ok(written) => self.endpoints.reached(written.revision).await,
            Err(error) if create && is_namespace_terminating(&error) => {}
            Err(error) => {
                let name = format!("{}/{}", target.namespace, target.name);
                let (reason, what) = match create {
                    true => ("FailedToCreateEndpoint", format!("Failed to create endpoint for service {name}")),
                    false => ("FailedToUpdateEndpoint", format!("Failed to update endpoint {name}")),
                };
                self.recorder.warning(&wanted, reason, format!("{what}: {}", error.message));
                return Err(error);
            }
        }
        Ok(())
    }
}
