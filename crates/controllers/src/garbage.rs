//! The garbage collector: deletes what has lost its owners, and carries out foreground and orphaning deletions
//! (upstream `pkg/controller/garbagecollector`). The graph is the owner index of each resource's view.

use crate::context::*;
use crate::custom;
use async_trait::async_trait;
use canopus_api::api::{Propagation, split_api_version};
use canopus_api::labels::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};
use canopus_api::{Api, DeleteOptions, Gvr, ListOptions, Object, Patch, Status, Target, Value, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use compact_str::{CompactString, format_compact};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::DropGuard;

struct Resource {
    /// Tells work of different resources apart.
    id: usize,
    info: ResourceInfo,
    view: Arc<Informer>,
    /// Stops the view of a custom resource.
    _stop: Option<DropGuard>,
}

/// The resources that are followed: custom ones come and go.
#[derive(Default)]
struct Graph {
    resources: RwLock<Arc<Vec<Arc<Resource>>>>,
    last_id: AtomicUsize,
}

impl Graph {
    fn all(&self) -> Arc<Vec<Arc<Resource>>> {
        self.resources.read().clone()
    }

    fn add(
        self: &Arc<Graph>,
        info: ResourceInfo,
        view: Arc<Informer>,
        stop: Option<DropGuard>,
        queue: &Arc<Queue<Key>>,
    ) {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let resource = Arc::new(Resource { id, info, view, _stop: stop });
        let mut all = self.resources.write();
        let next = all.iter().cloned().chain([resource.clone()]).collect();
        *all = Arc::new(next);
        drop(all);
        watch(self, &resource, queue);
    }

    fn remove(&self, wanted: impl Fn(&Resource) -> bool) {
        let mut all = self.resources.write();
        let next = all.iter().filter(|r| !wanted(r)).cloned().collect();
        *all = Arc::new(next);
    }
}

struct Collector {
    api: Arc<dyn Api>,
    graph: Arc<Graph>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let collected = context.config.resources.iter().filter(|r| r.gvr.resource != "events");
    let graph = Arc::new(Graph::default());
    let queue = Arc::new(Queue::default());
    for info in collected {
        let view = context.informer(&info.gvr.group, &info.gvr.version, &info.gvr.resource);
        graph.add(info.clone(), view, None, &queue);
    }
    let api = context.api("generic-garbage-collector");
    follow_definitions(&context, &api, &graph, &queue);
    context.work(queue, 10, Arc::new(Collector { api, graph })).await;
}

/// Follows custom resources for as long as they are served.
fn follow_definitions(context: &Context, api: &Arc<dyn Api>, graph: &Arc<Graph>, queue: &Arc<Queue<Key>>) {
    let definitions = context.informer("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let (graph, queue, api, shutdown) = (Arc::downgrade(graph), queue.clone(), api.clone(), context.shutdown.clone());
    definitions.on_change(move |change| {
        let Some(graph) = graph.upgrade() else { return };
        let resource = |object: Option<&Arc<Object>>| object.and_then(|o| custom::resource(&o.value()));
        let (old, new) = (resource(change.old), resource(change.new));
        if old == new {
            return;
        }
        if let Some(old) = old {
            graph.remove(|r| r._stop.is_some() && r.info == old);
        }
        if let Some(new) = new {
            let stop = shutdown.child_token();
            let target = Target::new(&new.gvr, "", "");
            let view = Informer::start(api.clone(), target, ListOptions::default(), stop.clone());
            graph.add(new, view, Some(stop.drop_guard()), &queue);
        }
    });
}

/// Queues objects that have owners or are being deleted, and the dependents and owners of those that go.
fn watch(graph: &Arc<Graph>, resource: &Arc<Resource>, queue: &Arc<Queue<Key>>) {
    // The graph holds the views and the views their handlers: a weak reference lets both go.
    let (graph, queue, id) = (Arc::downgrade(graph), queue.clone(), resource.id);
    resource.view.on_change(move |change| {
        let object = change.object();
        if change.new.is_some() {
            let owners_changed = change.old.is_none_or(|old| old.facts.owners != object.facts.owners);
            if object.facts.deleting || (!object.facts.owners.is_empty() && owners_changed) {
                queue.add(work_key(id, object));
            }
        }
        let started = object.facts.deleting && change.old.is_some_and(|old| !old.facts.deleting);
        let Some(all) = graph.upgrade().filter(|_| change.new.is_none() || started).map(|graph| graph.all()) else {
            return;
        };
        for resource in all.iter() {
            for dependent in resource.view.owned_by(&object.facts.uid) {
                queue.add(work_key(resource.id, &dependent));
            }
        }
        if change.new.is_none() && !object.facts.owners.is_empty() {
            queue_deleting_owners(&all, object, &queue);
        }
    });
}

/// An owner in foreground deletion may have waited for just this dependent.
fn queue_deleting_owners(all: &[Arc<Resource>], object: &Object, queue: &Queue<Key>) {
    for reference in object.value()["metadata"]["ownerReferences"].items() {
        let (group, _) = split_api_version(reference["apiVersion"].str());
        let kind = reference["kind"].str();
        let Some(resource) = all.iter().find(|r| r.info.gvr.group == group && r.info.kind == kind) else { continue };
        let key = owner_key(&resource.info, object.namespace(), reference["name"].str());
        if let Some(owner) = resource.view.by_key(&key).filter(|o| o.facts.deleting) {
            queue.add(work_key(resource.id, &owner));
        }
    }
}

fn owner_key(info: &ResourceInfo, namespace: &str, name: &str) -> CompactString {
    if info.namespaced { format_compact!("{namespace}/{name}") } else { name.into() }
}

/// Resource and object in one key.
fn work_key(at: usize, object: &Object) -> Key {
    format_compact!("{at}|{}", object.key())
}

/// What is known of an object's owners.
#[derive(Debug, Default, PartialEq)]
struct Owners {
    /// There, and not waiting for dependents.
    solid: usize,
    /// Uids of those that are gone.
    dangling: Vec<CompactString>,
    /// Uids of those in foreground deletion.
    waiting: Vec<CompactString>,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Keep,
    /// Take these owners' references out.
    Drop(Vec<CompactString>),
    Delete(Propagation),
}

/// Judges an object that has owners (upstream `attemptToDeleteItem`).
fn judge(owners: Owners, object: &Value, has_dependents: bool) -> Verdict {
    let Owners { solid, dangling, waiting } = owners;
    if solid > 0 {
        let lost: Vec<CompactString> = dangling.into_iter().chain(waiting).collect();
        return if lost.is_empty() { Verdict::Keep } else { Verdict::Drop(lost) };
    }
    if !waiting.is_empty() && has_dependents {
        return Verdict::Delete(Propagation::Foreground);
    }
    let finalizers = object["metadata"]["finalizers"].items();
    if finalizers.iter().any(|f| f.str() == FINALIZER_ORPHAN) {
        Verdict::Delete(Propagation::Orphan)
    } else if finalizers.iter().any(|f| f.str() == FINALIZER_FOREGROUND) {
        Verdict::Delete(Propagation::Foreground)
    } else {
        Verdict::Delete(Propagation::Background)
    }
}

#[async_trait]
impl Reconcile for Collector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some((at, key)) = key.split_once('|').and_then(|(at, key)| Some((at.parse::<usize>().ok()?, key))) else {
            return Ok(Outcome::Done);
        };
        let all = self.graph.all();
        let Some(resource) = all.iter().find(|r| r.id == at) else {
            return Ok(Outcome::Done);
        };
        let Some(object) = resource.view.by_key(key) else {
            return Ok(Outcome::Done);
        };
        let value = object.value();
        if object.facts.deleting {
            let finalizers = value["metadata"]["finalizers"].items();
            if finalizers.iter().any(|f| f.str() == FINALIZER_ORPHAN) {
                return self.orphan(resource, &object).await;
            }
            if finalizers.iter().any(|f| f.str() == FINALIZER_FOREGROUND) {
                return self.foreground(resource, &object).await;
            }
            return Ok(Outcome::Done);
        }
        if object.facts.owners.is_empty() {
            return Ok(Outcome::Done);
        }
        let owners = self.owners(&object, &value).await?;
        let verdict = judge(owners, &value, !self.dependents(&object).is_empty());
        self.carry_out(resource, &object, verdict).await
    }
}

impl Collector {
    fn dependents(&self, object: &Object) -> Vec<(Arc<Resource>, Arc<Object>)> {
        let all = self.graph.all();
        let owned = |r: &Arc<Resource>| {
            let r = r.clone();
            r.view.owned_by(&object.facts.uid).into_iter().map(move |o| (r.clone(), o)).collect::<Vec<_>>()
        };
        all.iter().flat_map(owned).collect()
    }

    /// Looks every owner up, in the view first; an absence counts only when the server confirms it.
    async fn owners(&self, object: &Object, value: &Value) -> Result<Owners, Status> {
        let mut owners = Owners::default();
        for reference in value["metadata"]["ownerReferences"].items() {
            let uid = CompactString::from(reference["uid"].str());
            let (group, _) = split_api_version(reference["apiVersion"].str());
            let kind = reference["kind"].str();
            let known = self.graph.all();
            let Some(owner) = known.iter().find(|r| r.info.gvr.group == group && r.info.kind == kind) else {
                // A kind we don't know is no reason to delete.
                owners.solid += 1;
                continue;
            };
            if owner.info.namespaced && object.namespace().is_empty() {
                // A cluster-scoped object can't have a namespaced owner: leave it alone.
                owners.solid += 1;
                continue;
            }
            match self.find_owner(owner, object.namespace(), reference["name"].str(), &uid).await? {
                None => owners.dangling.push(uid),
                Some(found) if is_waiting(&found) => owners.waiting.push(uid),
                Some(_) => owners.solid += 1,
            }
        }
        Ok(owners)
    }

    async fn find_owner(
        &self,
        owner: &Resource,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        let seen = owner.view.by_key(&owner_key(&owner.info, namespace, name));
        if let Some(seen) = seen.filter(|o| o.facts.uid == uid) {
            return Ok(Some(seen));
        }
        let namespace = if owner.info.namespaced { namespace } else { "" };
        let live = gone(self.api.get(&Target::new(&owner.info.gvr, namespace, name)).await)?;
        Ok(live.filter(|o| o.facts.uid == uid))
    }

    async fn carry_out(&self, resource: &Resource, object: &Object, verdict: Verdict) -> Result<Outcome, Status> {
        match verdict {
            Verdict::Keep => {}
            Verdict::Drop(uids) => {
                for uid in uids {
                    self.drop_owner(&resource.info.gvr, object, &uid).await?;
                }
            }
            Verdict::Delete(Propagation::Foreground) if self.unblock(resource, object).await? => {
                return Ok(Outcome::After(Duration::from_millis(50)));
            }
            Verdict::Delete(policy) => {
                let options = DeleteOptions {
                    uid: Some(object.facts.uid.clone()),
                    resource_version: Some(format_compact!("{}", object.revision)),
                    propagation_policy: Some(policy),
                    ..DeleteOptions::default()
                };
                let target = Target::new(&resource.info.gvr, object.namespace(), object.name());
                match gone(self.api.delete(&target, &options).await) {
                    Ok(_) => {}
                    // It changed since: judge it anew when its view shows how.
                    Err(error) if error.is_conflict() => return Ok(Outcome::After(Duration::from_millis(50))),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Outcome::Done)
    }

    /// Where a dependent is in foreground deletion itself, owners go round in a circle, or did: the object then no longer
    /// blocks its owners, lest each wait for the next for ever. Answers whether that changed it.
    async fn unblock(&self, resource: &Resource, object: &Object) -> Result<bool, Status> {
        if !self.dependents(object).iter().any(|(_, dependent)| is_waiting(dependent)) {
            return Ok(false);
        }
        let Some(references) = unblocking(&object.value()["metadata"]["ownerReferences"]) else {
            return Ok(false);
        };
        self.patch_metadata(&resource.info.gvr, object, "ownerReferences", references).await?;
        Ok(true)
    }

    async fn drop_owner(&self, gvr: &Gvr, object: &Object, uid: &str) -> Result<(), Status> {
        let live = gone(self.api.get(&Target::new(gvr, object.namespace(), object.name())).await)?;
        let Some(live) = live.filter(|o| o.facts.uid == object.facts.uid && o.facts.owners.iter().any(|o| o == uid))
        else {
            return Ok(());
        };
        let value = live.value();
        let kept = value["metadata"]["ownerReferences"].items().iter().filter(|o| o["uid"].str() != uid).cloned();
        self.patch_metadata(gvr, &live, "ownerReferences", kept.collect()).await
    }

    /// Replaces a metadata list, unless the object changed since `object` was read.
    async fn patch_metadata(&self, gvr: &Gvr, object: &Object, field: &str, list: Vec<Value>) -> Result<(), Status> {
        let mut meta = value!({"uid": &object.facts.uid, "resourceVersion": object.revision.to_string()});
        meta.set(field, if list.is_empty() { Value::Null } else { list.into() });
        let target = Target::new(gvr, object.namespace(), object.name());
        gone(self.api.patch(&target, Patch::Merge(value!({"metadata": meta})), &writes()).await)?;
        Ok(())
    }

    async fn remove_finalizer(&self, resource: &Resource, object: &Object, name: &str) -> Result<Outcome, Status> {
        let value = object.value();
        let kept = value["metadata"]["finalizers"].items().iter().filter(|f| f.str() != name).cloned();
        self.patch_metadata(&resource.info.gvr, object, "finalizers", kept.collect()).await?;
        Ok(Outcome::Done)
    }

    /// Takes the owner out of all its dependents, then lets it go.
    async fn orphan(&self, resource: &Resource, object: &Object) -> Result<Outcome, Status> {
        for (dependent_of, dependent) in self.dependents(object) {
            self.drop_owner(&dependent_of.info.gvr, &dependent, &object.facts.uid).await?;
        }
        self.remove_finalizer(resource, object, FINALIZER_ORPHAN).await
    }

    /// Deletes the dependents; the owner goes when none that blocks it is left.
    async fn foreground(&self, resource: &Resource, object: &Object) -> Result<Outcome, Status> {
        let mut blocked = false;
        for (dependent_of, dependent) in self.dependents(object) {
            let value = dependent.value();
            let blocks = |o: &Value| o["uid"].str() == object.facts.uid && o["blockOwnerDeletion"].bool();
            if !value["metadata"]["ownerReferences"].items().iter().any(blocks) {
                continue;
            }
            blocked = true;
            if !dependent.facts.deleting {
                let owners = self.owners(&dependent, &value).await?;
                let verdict = judge(owners, &value, !self.dependents(&dependent).is_empty());
                self.carry_out(&dependent_of, &dependent, verdict).await?;
            }
        }
        // The disappearance of a dependent queues its owners again; this is for one that no longer names us.
        match blocked {
            true => Ok(Outcome::After(Duration::from_secs(1))),
            false => self.remove_finalizer(resource, object, FINALIZER_FOREGROUND).await,
        }
    }
}

/// The references with none that blocks; None when that is so already.
fn unblocking(references: &Value) -> Option<Vec<Value>> {
    let blocks = |reference: &Value| reference["blockOwnerDeletion"].bool();
    references.items().iter().any(blocks).then(|| {
        let unblocked = |reference: &Value| {
            let mut reference = reference.clone();
            if blocks(&reference) {
                reference.set("blockOwnerDeletion", false);
            }
            reference
        };
        references.items().iter().map(unblocked).collect()
    })
}

fn is_waiting(owner: &Object) -> bool {
    let waits = |value: &Value| value["metadata"]["finalizers"].items().iter().any(|f| f.str() == FINALIZER_FOREGROUND);
    owner.facts.deleting && waits(&owner.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unblocking_is_done_once() {
        let references = value!([{"uid": "a", "blockOwnerDeletion": true}, {"uid": "b"}]);
        let unblocked: Value = unblocking(&references).unwrap().into();
        assert_eq!(unblocked, value!([{"uid": "a", "blockOwnerDeletion": false}, {"uid": "b"}]));
        assert_eq!(unblocking(&unblocked), None);
    }

    #[test]
    fn verdicts() {
        let plain = value!({"metadata": {}});
        let orphaning = value!({"metadata": {"finalizers": ["orphan"]}});
        let owners = |solid, dangling: &[&str], waiting: &[&str]| Owners {
            solid,
            dangling: dangling.iter().map(|s| (*s).into()).collect(),
            waiting: waiting.iter().map(|s| (*s).into()).collect(),
        };
        let table = [
            (owners(1, &[], &[]), &plain, false, Verdict::Keep),
            (owners(1, &["a"], &["b"]), &plain, false, Verdict::Drop(vec!["a".into(), "b".into()])),
            (owners(0, &["a"], &[]), &plain, true, Verdict::Delete(Propagation::Background)),
            (owners(0, &["a"], &[]), &orphaning, true, Verdict::Delete(Propagation::Orphan)),
            (owners(0, &[], &["a"]), &plain, true, Verdict::Delete(Propagation::Foreground)),
            (owners(0, &[], &["a"]), &plain, false, Verdict::Delete(Propagation::Background)),
        ];
        for (owners, object, dependents, verdict) in table {
            assert_eq!(judge(owners, object, dependents), verdict);
        }
    }
}
