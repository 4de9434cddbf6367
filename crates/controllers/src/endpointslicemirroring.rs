//! Endpoints that somebody writes by hand, for a Service without a selector, as EndpointSlices (upstream
//! `pkg/controller/endpointslicemirroring`).

mod plan;

use crate::backends::write_slices;
use crate::context::*;
use crate::endpoints::LEADER;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Object, Status, Value, labels};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use compact_str::format_compact;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

/// The keys of the slices that mirror the Endpoints of a key: most Endpoints have none.
type Mirrors = Arc<Mutex<HashMap<Key, BTreeSet<Key>>>>;

struct Mirror {
    gvr: Gvr,
    api: Arc<dyn Api>,
    recorder: Recorder,
    services: Arc<Informer>,
    endpoints: Arc<Informer>,
    slices: Arc<Informer>,
    mirrors: Mirrors,
}

pub(crate) async fn run(context: Arc<Context>) {
    let services = context.informer("", "v1", "services");
    let endpoints = context.informer("", "v1", "endpoints");
    let slices = context.informer("discovery.k8s.io", "v1", "endpointslices");
    let queue = Arc::new(Queue::default());
    let changed = queue.clone();
    endpoints.on_change(move |change| {
        if [change.old, change.new].into_iter().flatten().any(|object| is_mirrored(object)) {
            changed.add(change.object().key());
        }
    });
    let changed = queue.clone();
    services.on_change(move |change| {
        let selects = |side: Option<&Arc<Object>>| side.map(|service| has_selector(service));
        let matters = match (selects(change.old), selects(change.new)) {
            (Some(old), Some(new)) => old != new,
            (old, new) => old.or(new) == Some(false),
        };
        if matters {
            changed.add(change.object().key());
        }
    });
    let mirrors = follow(&slices, &queue);
    let api = context.api("endpointslicemirroring-controller");
    let recorder = context.recorder(&api, "endpoint-slice-mirroring-controller");
    let gvr = Gvr::new("discovery.k8s.io", "v1", "endpointslices");
    let mirror = Mirror { gvr, api, recorder, services, endpoints, slices, mirrors };
    context.work(queue, 5, Arc::new(mirror)).await;
}

fn has_selector(service: &Object) -> bool {
    !service.value()["spec"]["selector"].is_empty()
}

fn is_mirrored(endpoints: &Object) -> bool {
    let leads = || !endpoints.value()["metadata"]["annotations"][LEADER].is_null();
    endpoints.facts.label(SKIP) != Some("true") && !leads()
}

/// Of which Endpoints a slice is a mirror.
fn mirrored(slice: &Arc<Object>) -> Option<Key> {
    let ours = slice.facts.label(labels::MANAGED_BY_SLICE) == Some(plan::MANAGER);
    let service = slice.facts.label(labels::SERVICE_NAME).filter(|service| ours && !service.is_empty())?;
    Some(format_compact!("{}/{service}", slice.namespace()))
}

fn follow(slices: &Informer, queue: &Arc<Queue<Key>>) -> Mirrors {
    let mirrors = Mirrors::default();
    let (known, queue) = (mirrors.clone(), queue.clone());
    slices.on_change(move |change| {
        let slice = change.object().key();
        let (old, new) = (change.old.and_then(mirrored), change.new.and_then(mirrored));
        if let Some(key) = &old {
            let mut known = known.lock();
            let left = known.get_mut(key).is_some_and(|slices| slices.remove(&slice) && !slices.is_empty());
            if !left {
                known.remove(key);
            }
        }
        if let Some(key) = &new {
            known.lock().entry(key.clone()).or_default().insert(slice);
        }
        [old, new].into_iter().flatten().for_each(|key| queue.add(key));
    });
    mirrors
}

#[async_trait]
impl Reconcile for Mirror {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let keys = self.mirrors.lock().get(key).cloned().unwrap_or_default();
        let existing: Vec<Arc<Value>> =
            keys.iter().filter_map(|slice| self.slices.by_key(slice)).map(|slice| slice.value()).collect();
        let endpoints = self.endpoints.by_key(key).filter(|endpoints| is_mirrored(endpoints));
        let plan = match endpoints.filter(|_| self.services.by_key(key).is_some_and(|s| !has_selector(&s))) {
            Some(endpoints) => {
                let value = endpoints.value();
                let plan = plan::plan(&value, &existing);
                for (reason, message) in plan.complaints() {
                    self.recorder.warning(&value, reason, message);
                }
                plan
            }
            None => plan::Plan::to_delete(existing),
        };
        let done = write_slices(&*self.api, &self.gvr, &self.slices, plan.create, plan.update, plan.delete);
        match done.await {
            Err(error) if is_namespace_terminating(&error) => {}
            done => done?,
        }
        Ok(Outcome::Done)
    }
}
