//! delete and deletecollection: grace, finalizers, propagation.

use crate::admission::{Operation, Request};
use crate::fresh::Fresh;
use crate::server::{Served, Server};
use crate::user::User;
use canopus_api::api::Propagation;
use canopus_api::{DeleteOptions, ListOptions, Object, Result, Status, Target, Value, labels};
use canopus_store::{Change, Expect};
use std::sync::Arc;
use std::time::Duration;

/// What a deletion came to.
#[derive(Debug)]
pub struct Deleted {
    /// The object as it is now, or was.
    pub object: Arc<Object>,
    /// False while grace or finalizers keep it.
    pub gone: bool,
}

const RETRIES: usize = 5;

impl Server {
    pub async fn delete(&self, user: &User, target: &Target, options: &DeleteOptions) -> Result<Deleted> {
        let served = self.served(&target.gvr)?.clone();
        for attempt in 0.. {
            let old = self.current(&served, &target.namespace, &target.name).await?;
            let old = old.ok_or_else(|| Status::not_found(&target.gvr, &target.name))?;
            match self.delete_once(user, &served, target, &old, options).await {
                Err(raced) if raced.is_conflict() && options.resource_version.is_none() && attempt < RETRIES => {}
                done => return done,
            }
        }
        unreachable!("the loop only ends by returning")
    }

    async fn delete_once(
        &self,
        user: &User,
        served: &Arc<Served>,
        target: &Target,
        old: &Arc<Object>,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        check_preconditions(target, old, options)?;
        let before = old.value();
        let request = Request {
            operation: Operation::Delete,
            resource: served.info,
            subresource: "",
            namespace: &target.namespace,
            name: &target.name,
            object: Value::Null,
            old: &before,
            user,
            dry_run: options.dry_run,
        };
        self.gates.get()?.admission.validate(&request).await?;
        match self.marked(served, &before, options) {
            Some(marked) => {
                if marked == *before {
                    return Ok(Deleted { object: old.clone(), gone: false });
                }
                let object = self.put_marked(served, old, marked, options.dry_run).await?;
                Ok(Deleted { object, gone: false })
            }
            None => {
                let mut object = old.clone();
                if !options.dry_run {
                    let expect = Expect::Revision(old.revision);
                    let revision = self.commit(served, &target.namespace, &target.name, expect, Change::Delete).await?;
                    object = Arc::new(old.at_revision(revision));
                    self.release_deleted(served, &before).await;
                }
                Ok(Deleted { object, gone: true })
            }
        }
    }

    /// The object marked for deletion, when something must happen before it goes; None when it can go now.
    fn marked(&self, served: &Served, before: &Value, options: &DeleteOptions) -> Option<Value> {
        let now = self.surroundings.now();
        let already = !before["metadata"]["deletionTimestamp"].is_null();
        let grace = served.resource.grace_seconds(before, options.grace_period_seconds).unwrap_or(0).max(0);
        let mut marked = before.clone();
        set_propagation_finalizers(&mut marked, options.propagation_policy);
        let held = !marked["metadata"]["finalizers"].items().is_empty() || served.resource.finalizing(before);
        if already {
            let left = before["metadata"]["deletionGracePeriodSeconds"].int();
            if grace >= left && (grace > 0 || held) {
                return Some(marked);
            }
            if grace > 0 || held {
                let meta = marked.obj_mut("metadata");
                meta.insert("deletionTimestamp", now.plus(Duration::from_secs(grace.unsigned_abs())));
                meta.insert("deletionGracePeriodSeconds", grace);
                return Some(marked);
            }
            return None;
        }
        if grace == 0 && !held {
            return None;
        }
        let meta = marked.obj_mut("metadata");
        meta.insert("deletionTimestamp", now.plus(Duration::from_secs(grace.unsigned_abs())));
        meta.insert("deletionGracePeriodSeconds", grace);
        let generation = meta.get("generation").map_or(0, Value::int);
        if generation > 0 {
            meta.insert("generation", generation + 1);
        }
        if served.info.group.is_empty() && served.info.plural == "namespaces" {
            marked.obj_mut("status").insert("phase", "Terminating");
        }
        Some(marked)
    }

    async fn put_marked(
        &self,
        served: &Arc<Served>,
        old: &Arc<Object>,
        mut value: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>> {
        served.resource.convert_to_storage(&mut value);
        let facts = Arc::new(served.facts(&value));
        let bytes = Object::encode(&mut value);
        let revision = if dry_run {
            old.revision
        } else {
            let fresh = Fresh::new(facts.clone(), value);
            let change = Change::Put { value: bytes.clone(), facts: Some(fresh), ttl: None };
            self.commit(served, old.namespace(), old.name(), Expect::Revision(old.revision), change).await?
        };
        let object = Object::from_bytes(bytes, facts, revision);
        object.map(Arc::new).ok_or_else(|| Status::internal("encoded object has no metadata"))
    }

    /// Deletes everything in scope that `list` selects; what is gone already is no error.
    pub async fn delete_collection(
        &self,
        user: &User,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>> {
        let found = self.list(target, list).await?.items;
        let mut deleted = Vec::with_capacity(found.len());
        for object in found {
            let one = Target { namespace: object.namespace().into(), name: object.name().into(), ..target.clone() };
            match self.delete(user, &one, options).await {
                Ok(done) => deleted.push(done.object),
                Err(gone) if gone.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

fn check_preconditions(target: &Target, old: &Object, options: &DeleteOptions) -> Result<()> {
    if let Some(uid) = options.uid.as_ref().filter(|uid| **uid != old.facts.uid) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", old.facts.uid);
        return Err(Status::conflict(&target.gvr, &target.name, &why));
    }
    if let Some(rv) = options.resource_version.as_ref().filter(|rv| **rv != *old.revision.to_string()) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {rv}, ResourceVersion in object meta: {}",
            old.revision
        );
        return Err(Status::conflict(&target.gvr, &target.name, &why));
    }
    Ok(())
}

/// `orphan` and `foregroundDeletion` say to the garbage collector how to treat dependents.
fn set_propagation_finalizers(object: &mut Value, policy: Option<Propagation>) {
    let Some(policy) = policy else { return };
    let meta = object.obj_mut("metadata");
    let mut finalizers: Vec<Value> = meta.get("finalizers").map(|f| f.items().to_vec()).unwrap_or_default();
    finalizers.retain(|f| ![labels::FINALIZER_ORPHAN, labels::FINALIZER_FOREGROUND].contains(&f.str()));
    match policy {
        Propagation::Orphan => finalizers.push(labels::FINALIZER_ORPHAN.into()),
        Propagation::Foreground => finalizers.push(labels::FINALIZER_FOREGROUND.into()),
        Propagation::Background => {}
    }
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers", Value::Array(finalizers));
    }
}
