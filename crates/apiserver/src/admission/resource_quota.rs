//! ResourceQuota: a write that its namespace's quotas do not pay for is refused; what they pay is written into their
//! status before the write itself, by compare-and-swap.

use super::{Operation, Plugin, Request};
use crate::cache::Cache;
use crate::handlers::write::Ownership;
use crate::served::Served;
use crate::server::Server;
use crate::user::{MASTERS, User};
use async_trait::async_trait;
use canopus_api::{Gvr, Object, Status, Target, Value, View, WriteOptions};
use canopus_resources::quota::{Change, list};
use std::sync::{Arc, Weak};
use tokio::sync::Mutex;

/// How often a quota that somebody else has changed meanwhile is looked at again.
const RETRIES: usize = 8;
/// Writes of one namespace take turns, or they would only fail each other's compare-and-swap.
const TURNS: usize = 64;

pub struct ResourceQuota {
    server: Weak<Server>,
    quotas: Arc<Cache>,
    turns: Vec<Mutex<()>>,
    own: Arc<User>,
}

impl ResourceQuota {
    pub fn new(server: &Arc<Server>) -> canopus_api::Result<ResourceQuota> {
        Ok(ResourceQuota {
            server: Arc::downgrade(server),
            quotas: server.cache("", "v1", "resourcequotas")?,
            turns: std::iter::repeat_with(|| Mutex::new(())).take(TURNS).collect(),
            own: User::new("system:apiserver", &[MASTERS]),
        })
    }

    fn turn(&self, namespace: &str) -> &Mutex<()> {
        let hash = namespace.bytes().fold(0usize, |hash, b| hash.wrapping_mul(31).wrapping_add(b.into()));
        &self.turns[hash % TURNS]
    }

    /// Makes one quota pay, unless it need not.
    async fn charge(
        &self,
        server: &Server,
        served: &Arc<Served>,
        name: &str,
        request: &Request<'_>,
    ) -> Result<(), Status> {
        let target = Target::new(&served.info().gvr(), request.namespace, name).subresource("status");
        for attempt in 0.. {
            // A quota that has just been deleted asks for nothing.
            let Some(quota) = server.current(served, request.namespace, name).await? else { return Ok(()) };
            let change = change(request, server);
            let charged = change.charge(&quota.value()).map_err(|why| request.forbidden(&why))?;
            let Some(used) = charged.filter(|_| !request.dry_run) else { return Ok(()) };
            match self.write(server, served, &target, &quota, list(&used)).await {
                Err(raced) if raced.is_conflict() && attempt < RETRIES => {}
                done => return done,
            }
        }
        unreachable!("the loop only ends by returning")
    }

    async fn write(
        &self,
        server: &Server,
        served: &Arc<Served>,
        target: &Target,
        quota: &Arc<Object>,
        used: Value,
    ) -> Result<(), Status> {
        let mut body = (*quota.value()).clone();
        body.set_path(&["status", "used"], used);
        let options = WriteOptions { field_manager: "kube-apiserver".into(), ..WriteOptions::default() };
        server.replace(&self.own, served, target, quota, body, &options, Ownership::Update).await.map(|_| ())
    }
}

fn change<'a>(request: &'a Request<'_>, server: &Server) -> Change<'a> {
    Change {
        group: request.resource.group,
        plural: request.resource.plural,
        subresource: request.subresource,
        object: &request.object,
        old: request.old,
        now: server.surroundings.now(),
    }
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, request: &Request) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && !request.namespace.is_empty()
            && !request.is("", "namespaces", "")
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let quotas = self.quotas.list(request.namespace);
        if quotas.is_empty() {
            return Ok(());
        }
        let server = self.server.upgrade().ok_or_else(|| Status::unavailable("the server is stopping"))?;
        if !change(request, &server).counts() {
            return Ok(());
        }
        let served = server.served(&Gvr::new("", "v1", "resourcequotas"))?.clone();
        let _turn = self.turn(request.namespace).lock().await;
        // All must agree before the first one pays.
        if quotas.len() > 1 {
            for quota in &quotas {
                let Some(quota) = server.current(&served, request.namespace, quota.name()).await? else { continue };
                change(request, &server).charge(&quota.value()).map_err(|why| request.forbidden(&why))?;
            }
        }
        for quota in &quotas {
            self.charge(&server, &served, quota.name(), request).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "resource_quota_tests.rs"]
mod tests;
