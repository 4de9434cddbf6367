//! A cluster's API in memory: as much of it as informers and the publishing of a Service need.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use canopus_api::api::{Api, DeleteOptions, List, ListOptions, Patch, Target, Watch, WatchEvent, WriteOptions};
use canopus_api::{Gvr, Object, Status, Value};
use futures::StreamExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

#[derive(Default)]
pub struct Cluster(Mutex<State>);

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<(Gvr, String, String), Arc<Object>>,
    watches: Vec<(Gvr, UnboundedSender<WatchEvent>)>,
}

impl Cluster {
    pub fn new() -> Arc<Cluster> {
        Arc::default()
    }

    /// Creates or replaces an object.
    pub fn put(&self, gvr: &Gvr, value: Value) -> Arc<Object> {
        let mut state = self.0.lock().unwrap();
        state.revision += 1;
        let object = Arc::new(Object::from_value(value, &[], state.revision));
        let key = (gvr.clone(), object.namespace().to_string(), object.name().to_string());
        let event = match state.objects.insert(key, object.clone()) {
            Some(_) => WatchEvent::Modified(object.clone()),
            None => WatchEvent::Added(object.clone()),
        };
        state.watches.retain(|(of, watch)| of != gvr || watch.send(event.clone()).is_ok());
        object
    }
}

fn receive(receiver: UnboundedReceiver<WatchEvent>) -> Watch {
    futures::stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((Ok(event), receiver))
    })
    .boxed()
}

fn unsupported() -> Status {
    Status::internal("not needed by these tests")
}

#[async_trait]
impl Api for Cluster {
    async fn get(&self, target: &Target) -> Result<Arc<Object>, Status> {
        let key = (target.gvr.clone(), target.namespace.to_string(), target.name.to_string());
        let found = self.0.lock().unwrap().objects.get(&key).cloned();
        found.ok_or_else(|| Status::not_found(&target.gvr, &target.name))
    }

    async fn list(&self, target: &Target, _: &ListOptions) -> Result<List, Status> {
        let state = self.0.lock().unwrap();
        let items = state.objects.iter().filter(|((gvr, ..), _)| *gvr == target.gvr).map(|(_, object)| object.clone());
        Ok(List { revision: state.revision.max(1), items: items.collect(), ..List::default() })
    }

    async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Watch, Status> {
        let mut state = self.0.lock().unwrap();
        let (sender, receiver) = unbounded_channel();
        let since = options.resource_version.unwrap_or(0);
        for ((gvr, ..), object) in &state.objects {
            if *gvr == target.gvr && object.revision > since {
                let _ = sender.send(WatchEvent::Modified(object.clone()));
            }
        }
        state.watches.push((target.gvr.clone(), sender));
        Ok(receive(receiver))
    }

    async fn create(&self, _: &Target, _: Value, _: &WriteOptions) -> Result<Arc<Object>, Status> {
        Err(unsupported())
    }

    async fn update(&self, _: &Target, _: Value, _: &WriteOptions) -> Result<Arc<Object>, Status> {
        Err(unsupported())
    }

    async fn patch(&self, target: &Target, patch: Patch, _: &WriteOptions) -> Result<Arc<Object>, Status> {
        match patch {
            Patch::Apply(value) => Ok(self.put(&target.gvr, value)),
            _ => Err(unsupported()),
        }
    }

    async fn delete(&self, _: &Target, _: &DeleteOptions) -> Result<Arc<Object>, Status> {
        Err(unsupported())
    }

    async fn delete_collection(&self, _: &Target, _: &ListOptions, _: &DeleteOptions) -> Result<(), Status> {
        Err(unsupported())
    }
}
