//! An API in memory: objects, merge patches, deletion with grace, watches. No defaults, no admission, no versions of
//! anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use canopus_api::patch::merge_patch;
use canopus_api::{
    Api, DeleteOptions, FieldSelector, Gvr, List, ListOptions, Object, Patch, Result, Status, Target, Value, Watch,
    WatchEvent, WriteOptions, value,
};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::broadcast;

#[derive(Default)]
struct Inner {
    revision: u64,
    objects: BTreeMap<(Gvr, String, String), Arc<Object>>,
}

pub struct Memory {
    inner: Mutex<Inner>,
    events: broadcast::Sender<(Gvr, WatchEvent)>,
}

impl Memory {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), events: broadcast::Sender::new(1000) })
    }

    fn put(&self, target: &Target, mut value: Value) -> Arc<Object> {
        let mut inner = self.inner.lock();
        inner.revision += 1;
        value.set_path(&["metadata", "namespace"], target.namespace.as_str());
        if &*target.gvr.resource == "nodes" {
            // As the address controller does.
            value.set_path(&["spec", "podCIDRs"], value!(["10.244.9.0/24"]));
        }
        let object = Arc::new(Object::from_value(value, &["spec.nodeName"], inner.revision));
        let key = (target.gvr.clone(), target.namespace.to_string(), object.facts.name.to_string());
        let event = match inner.objects.insert(key, object.clone()) {
            Some(_) => WatchEvent::Modified(object.clone()),
            None => WatchEvent::Added(object.clone()),
        };
        // Nobody may be watching.
        let _ = self.events.send((target.gvr.clone(), event));
        object
    }
}

/// The token "good" is the API server's, "reader" is of somebody who may list pods.
fn review(spec: &Value) -> Value {
    let user = match spec["token"].str() {
        "good" => "api-server",
        "reader" => "reader",
        _ => "",
    };
    let asked = &spec["resourceAttributes"];
    let reads = asked["subresource"].str() == "pods" && asked["verb"].str() == "get";
    let allowed = match spec["user"].str() {
        "api-server" => asked["name"].str() == "n1",
        user => user == "reader" && reads,
    };
    value!({"allowed": allowed, "authenticated": !user.is_empty(), "user": {"username": user, "groups": ["g"]}})
}

fn selected(target: &Target, fields: &FieldSelector, object: &Object) -> bool {
    (target.namespace.is_empty() || target.namespace == object.facts.namespace) && fields.matches(&object.facts)
}

#[async_trait::async_trait]
impl Api for Memory {
    async fn get(&self, target: &Target) -> Result<Arc<Object>> {
        let key = (target.gvr.clone(), target.namespace.to_string(), target.name.to_string());
        let found = self.inner.lock().objects.get(&key).cloned();
        found.ok_or_else(|| Status::not_found(&target.gvr, &target.name))
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let inner = self.inner.lock();
        let all = inner.objects.iter().filter(|(k, o)| k.0 == target.gvr && selected(target, &options.fields, o));
        Ok(List { revision: inner.revision, items: all.map(|(_, o)| o.clone()).collect(), ..List::default() })
    }

    async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Watch> {
        let receiver = self.events.subscribe();
        let since = options.resource_version.unwrap_or(0);
        let (gvr, target, fields) = (target.gvr.clone(), target.clone(), options.fields.clone());
        let missed: Vec<WatchEvent> = {
            let inner = self.inner.lock();
            let newer = inner.objects.iter().filter(|(k, o)| k.0 == gvr && o.revision > since);
            newer.map(|(_, o)| WatchEvent::Modified(o.clone())).collect()
        };
        let keep = move |event: &WatchEvent| match event {
            WatchEvent::Added(o) | WatchEvent::Modified(o) | WatchEvent::Deleted(o) => selected(&target, &fields, o),
            WatchEvent::Bookmark { .. } => false,
        };
        let live = futures::stream::unfold(receiver, |mut r| async move { Some((r.recv().await.ok()?, r)) });
        let live = live.filter_map(move |(of, event)| std::future::ready((of == gvr).then_some(event)));
        let all = futures::stream::iter(missed).chain(live);
        Ok(all.filter(move |e| std::future::ready(keep(e))).map(Ok).boxed())
    }

    async fn create(&self, target: &Target, mut body: Value, _: &WriteOptions) -> Result<Arc<Object>> {
        if target.subresource == "token" {
            let expires = canopus_client::now().plus(std::time::Duration::from_secs(3600));
            body.set("status", value!({"token": "a-token", "expirationTimestamp": expires}));
            return Ok(Arc::new(Object::from_value(body, &[], 0)));
        }
        if let "tokenreviews" | "subjectaccessreviews" = &*target.gvr.resource {
            body.set("status", review(&body["spec"]));
            return Ok(Arc::new(Object::from_value(body, &[], 0)));
        }
        Ok(self.put(target, body))
    }

    async fn update(&self, target: &Target, body: Value, _: &WriteOptions) -> Result<Arc<Object>> {
        Ok(self.put(target, body))
    }

    async fn patch(&self, target: &Target, patch: Patch, _: &WriteOptions) -> Result<Arc<Object>> {
        let old = self.get(target).await?;
        let Patch::Merge(patch) = patch else { return Err(Status::bad_request("only merge patches")) };
        Ok(self.put(target, merge_patch(&old.value(), &patch)?))
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Arc<Object>> {
        let old = self.get(target).await?;
        let grace = options.grace_period_seconds.unwrap_or(30);
        if grace > 0 && target.gvr.resource == "pods" {
            let marks = value!({"deletionTimestamp": canopus_client::now(), "deletionGracePeriodSeconds": grace});
            return Ok(self.put(target, merge_patch(&old.value(), &value!({"metadata": marks}))?));
        }
        let mut inner = self.inner.lock();
        inner.revision += 1;
        let gone = Arc::new(old.at_revision(inner.revision));
        inner.objects.remove(&(target.gvr.clone(), target.namespace.to_string(), target.name.to_string()));
        let _ = self.events.send((target.gvr.clone(), WatchEvent::Deleted(gone.clone())));
        Ok(gone)
    }

    async fn delete_collection(&self, _: &Target, _: &ListOptions, _: &DeleteOptions) -> Result<()> {
        Err(Status::bad_request("not needed here"))
    }
}
