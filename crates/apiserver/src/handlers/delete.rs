//! delete and deletecollection: grace, finalizers, propagation.

use super::deletion::{self, Plan};
use crate::admission::{Operation, Options, Request};
use crate::fresh::Fresh;
use crate::served::Served;
use crate::server::Server;
use crate::user::User;
use canopus_api::{DeleteOptions, Gvr, ListOptions, Object, Result, Status, Target, Value};
use canopus_store::{Change, Expect};
use std::sync::Arc;

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
        check_preconditions(served, old, options)?;
        let before = old.value();
        let mut request = Request {
            operation: Operation::Delete,
            resource: served.info(),
            subresource: "",
            namespace: &target.namespace,
            name: &target.name,
            object: Value::Null,
            old: &before,
            user,
            dry_run: options.dry_run,
            options: Options::Delete(options),
            reinvocation: Default::default(),
        };
        let gates = self.gates.get()?;
        gates.admission.admit(&mut request).await?;
        gates.admission.validate(&request).await?;
        self.delete_admitted(served, old, options).await
    }

    /// Deletes what admission has let pass.
    pub(crate) async fn delete_admitted(
        &self,
        served: &Arc<Served>,
        old: &Arc<Object>,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        check_preconditions(served, old, options)?;
        let before = old.value();
        match deletion::plan(&*served.resource, &before, options, self.surroundings.now()) {
            Plan::Pending => Ok(Deleted { object: old.clone(), gone: false }),
            Plan::Mark(marked) if marked == *before => Ok(Deleted { object: old.clone(), gone: false }),
            Plan::Mark(marked) => {
                let object = self.put_marked(served, old, marked, options.dry_run).await?;
                Ok(Deleted { object, gone: false })
            }
            Plan::Delete(last) => {
                let mut revision = old.revision;
                if !options.dry_run {
                    let expect = Expect::Revision(old.revision);
                    revision = self.commit(served, old.namespace(), old.name(), expect, Change::Delete).await?;
                    self.release_deleted(served, &before).await;
                }
                let object = if last == *before {
                    old.at_revision(revision)
                } else {
                    Object::from_value(last, served.info().selectable_fields, revision)
                };
                Ok(Deleted { object: Arc::new(object), gone: true })
            }
        }
    }

    async fn put_marked(
        &self,
        served: &Arc<Served>,
        old: &Arc<Object>,
        mut value: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>> {
        served.to_storage(&mut value).await?;
        let facts = Arc::new(served.facts(&value));
        let bytes = Object::encode(&mut value);
        let revision = if dry_run {
            old.revision
        } else {
            let fresh = Fresh::new(facts.clone(), value);
            let change = Change::Put { value: bytes.clone(), facts: Some(fresh), ttl: None };
            self.commit(served, old.namespace(), old.name(), Expect::Revision(old.revision), change).await?
        };
        let object = Object::from_bytes(bytes, facts, revision).map(Arc::new);
        served.present(object.ok_or_else(|| Status::internal("encoded object has no metadata"))?).await
    }

    /// Deletes everything in scope that `list` selects, and answers what that was; what is gone already is no error.
    pub async fn delete_collection(
        &self,
        user: &User,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>> {
        let found = self.list(target, list).await?.items;
        for object in &found {
            let one = Target { namespace: object.namespace().into(), name: object.name().into(), ..target.clone() };
            match self.delete(user, &one, options).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(found)
    }
}

pub(super) fn check_preconditions(served: &Served, old: &Object, options: &DeleteOptions) -> Result<()> {
    let (info, namespaces) = (served.info(), served.info().group.is_empty() && served.info().plural == "namespaces");
    // Upstream speaks of the kind here, but for namespaces.
    let about = Gvr::new(info.group, info.version, if namespaces { info.plural } else { info.kind });
    let refused = |what: &str, wanted: &str, actual: &str, how: &str| {
        let why = if namespaces {
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}")
        } else {
            format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({actual}). The object might have been {how}"
            )
        };
        Err(Status::conflict(&about, old.name(), &why))
    };
    if let Some(uid) = options.uid.as_ref().filter(|uid| **uid != old.facts.uid) {
        return refused("UID", uid, &old.facts.uid, "deleted and then recreated");
    }
    let revision = old.revision.to_string();
    if let Some(wanted) = options.resource_version.as_ref().filter(|rv| **rv != *revision) {
        return refused("ResourceVersion", wanted, &revision, "modified");
    }
    Ok(())
}
