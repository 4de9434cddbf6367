//! The garbage collector: deletes what has lost its owners, and carries out foreground and orphaning deletions
//! (upstream `pkg/controller/garbagecollector`). The graph is the owner index of each resource's view.

use crate::context::*;
use async_trait::async_trait;
use canopus_api::api::{Propagation, split_api_version};
use canopus_api::labels::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};
use canopus_api::{Api, DeleteOptions, Gvr, Object, Patch, Status, Target, Value, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use compact_str::{CompactString, format_compact};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

struct Resource {
    info: ResourceInfo,
    view: Arc<Informer>,
}

struct Collector {
    api: Arc<dyn Api>,
    resources: Arc<Vec<Resource>>,
    /// Resources by API group and kind, as ownerReferences name them.
    kinds: HashMap<(CompactString, CompactString), usize>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let collected = context.config.resources.iter().filter(|r| r.gvr.resource != "events");
    let resources: Vec<Resource> = collected
        .map(|info| {
            let view = context.informer(&info.gvr.group, &info.gvr.version, &info.gvr.resource);
            Resource { info: info.clone(), view }
        })
        .collect();
    let resources = Arc::new(resources);
    let queue = Arc::new(Queue::default());
    for at in 0..resources.len() {
        watch(&resources, at, &queue);
    }
    let key = |(at, r): (usize, &Resource)| ((r.info.gvr.group.clone(), r.info.kind.clone()), at);
    let kinds = resources.iter().enumerate().map(key).collect();
    let api = context.api("generic-garbage-collector");
    context.work(queue, 10, Arc::new(Collector { api, resources, kinds })).await;
}

/// Queues objects that have owners or are being deleted, and the dependents and owners of those that go.
fn watch(resources: &Arc<Vec<Resource>>, at: usize, queue: &Arc<Queue<Key>>) {
    // The list holds the views and the views their handlers: a weak reference lets both go.
    let (all, queue) = (Arc::downgrade(resources), queue.clone());
    resources[at].view.on_change(move |change| {
        let object = change.object();
        if change.new.is_some() {
            let owners_changed = change.old.is_none_or(|old| old.facts.owners != object.facts.owners);
            if object.facts.deleting || (!object.facts.owners.is_empty() && owners_changed) {
                queue.add(work_key(at, object));
            }
        }
        let started = object.facts.deleting && change.old.is_some_and(|old| !old.facts.deleting);
        let Some(all) = all.upgrade().filter(|_| change.new.is_none() || started) else {
            return;
        };
        for (dependent_at, resource) in all.iter().enumerate() {
            for dependent in resource.view.owned_by(&object.facts.uid) {
                queue.add(work_key(dependent_at, &dependent));
            }
        }
        if change.new.is_none() && !object.facts.owners.is_empty() {
            queue_deleting_owners(&all, object, &queue);
        }
    });
}

/// An owner in foreground deletion may have waited for just this dependent.
fn queue_deleting_owners(all: &[Resource], object: &Object, queue: &Queue<Key>) {
    for reference in object.value()["metadata"]["ownerReferences"].items() {
        let (group, _) = split_api_version(reference["apiVersion"].str());
        let kind = reference["kind"].str();
        let owner = all.iter().position(|r| r.info.gvr.group == group && r.info.kind == kind);
        let Some(at) = owner else { continue };
        let key = owner_key(&all[at].info, object.namespace(), reference["name"].str());
        if let Some(owner) = all[at].view.by_key(&key).filter(|o| o.facts.deleting) {
            queue.add(work_key(at, &owner));
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
        let Some(resource) = self.resources.get(at) else {
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
    fn dependents(&self, object: &Object) -> Vec<(&Resource, Arc<Object>)> {
        let of = |r| std::iter::repeat(r);
        let owned = self.resources.iter().flat_map(|r| of(r).zip(r.view.owned_by(&object.facts.uid)));
        owned.collect()
    }

    /// Looks every owner up, in the view first; an absence counts only when the server confirms it.
    async fn owners(&self, object: &Object, value: &Value) -> Result<Owners, Status> {
        let mut owners = Owners::default();
        for reference in value["metadata"]["ownerReferences"].items() {
            let uid = CompactString::from(reference["uid"].str());
            let (group, _) = split_api_version(reference["apiVersion"].str());
            let kind = (CompactString::from(group), CompactString::from(reference["kind"].str()));
            let Some(owner) = self.kinds.get(&kind).map(|at| &self.resources[*at]) else {
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
                self.carry_out(dependent_of, &dependent, verdict).await?;
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
