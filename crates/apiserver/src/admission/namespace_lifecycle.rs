//! NamespaceLifecycle: nothing is created in a namespace that is missing or on its way out; some namespaces stay forever.

use super::fresh::Fresh;
use super::{Operation, Plugin, Request};
use crate::surroundings::Surroundings;
use async_trait::async_trait;
use canopus_api::{Gvr, Status, Time};
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// How long after its deletion a namespace that still looks active is looked up again.
const SUSPICION: Duration = Duration::from_secs(30);

pub struct NamespaceLifecycle {
    namespaces: Fresh,
    clock: Arc<dyn Surroundings>,
    deleted: Mutex<HashMap<CompactString, Time>>,
}

impl NamespaceLifecycle {
    pub fn new(namespaces: Fresh, clock: Arc<dyn Surroundings>) -> NamespaceLifecycle {
        NamespaceLifecycle { namespaces, clock, deleted: Mutex::default() }
    }

    fn deleted_lately(&self, namespace: &str) -> bool {
        let now = self.clock.now();
        let mut deleted = self.deleted.lock();
        deleted.retain(|_, at| now.since(*at) < SUSPICION);
        deleted.contains_key(namespace)
    }
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, request: &Request) -> bool {
        let namespace = request.resource.group.is_empty() && request.resource.plural == "namespaces";
        match request.operation {
            Operation::Connect => false,
            Operation::Delete => namespace,
            // Answers to access reviews must not depend on what exists.
            _ => !namespace && !request.namespace.is_empty() && request.resource.plural != "localsubjectaccessreviews",
        }
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        if request.operation == Operation::Delete {
            return Ok(());
        }
        let name = request.namespace;
        let found = match self.namespaces.get("", name).await? {
            Some(namespace) if !terminating(&namespace) && self.deleted_lately(name) => {
                self.namespaces.newest("", name).await?
            }
            found => found,
        };
        let namespace = found.ok_or_else(|| Status::not_found(&Gvr::new("", "v1", "namespaces"), name))?;
        if request.operation == Operation::Create && terminating(&namespace) {
            let why = format!("unable to create new content in namespace {name} because it is being terminated");
            let cause = format!("namespace {name} is being terminated");
            return Err(request.forbidden(&why).with_cause("NamespaceTerminating", cause, "metadata.namespace"));
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        if request.operation != Operation::Delete {
            return Ok(());
        }
        if IMMORTAL.contains(&request.name) {
            return Err(request.forbidden("this namespace may not be deleted"));
        }
        self.deleted.lock().insert(request.name.into(), self.clock.now());
        Ok(())
    }
}

/// The phase is set by the very write that sets the deletionTimestamp.
fn terminating(namespace: &canopus_api::Object) -> bool {
    namespace.facts.deleting
}
