//! Admission: plugins that change (admit) or refuse (validate) a write after authorization (upstream `admission.Interface`).

pub mod admin_access;
pub mod certificates;
pub mod config;
pub mod default_ingress_class;
pub mod default_storage_class;
pub mod default_toleration_seconds;
pub mod fresh;
pub mod limit_ranger;
pub mod matching;
pub mod namespace_lifecycle;
pub mod node_declared_features;
pub mod node_restriction;
pub mod persistent_volume_claim_resize;
pub mod plugins;
pub mod pod_resize_validator;
pub mod pod_security;
pub mod pod_topology_labels;
pub mod policy;
pub mod priority;
pub mod rbac_escalation;
pub mod reinvocation;
pub mod resource_quota;
pub mod runtime_class;
pub mod service_account;
pub mod storage_object_in_use_protection;
pub mod taint_nodes_by_condition;
pub mod times;
pub mod webhook;

use crate::user::User;
use async_trait::async_trait;
use canopus_api::{DeleteOptions, Gvk, Status, Value, WriteOptions};
use canopus_resources::InfoOf;
use reinvocation::Reinvocation;
use std::time::Instant;
use times::Times;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As rules of webhooks and policies name it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// One write on its way in. `object` is Null for deletions, `old` Null for creations.
pub struct Request<'a> {
    pub operation: Operation,
    pub resource: &'a InfoOf<'a>,
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// "" when the server is to generate it.
    pub name: &'a str,
    pub object: Value,
    pub old: &'a Value,
    pub user: &'a User,
    pub dry_run: bool,
    /// What the client asked for besides, as webhooks are told.
    pub options: Options<'a>,
    pub reinvocation: Reinvocation,
}

/// The options of a request.
#[derive(Clone, Copy, Default)]
pub enum Options<'a> {
    #[default]
    None,
    Write(&'a WriteOptions),
    Delete(&'a DeleteOptions),
}

impl Request<'_> {
    /// Whether this is about `group/plural` itself or, with `subresource`, a part of it.
    pub fn is(&self, group: &str, plural: &str, subresource: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural && self.subresource == subresource
    }

    /// The kind of the object: that of the resource, or what its subresource takes.
    pub fn kind(&self) -> Gvk {
        let part = self.resource.subresource(self.subresource);
        part.map_or_else(|| self.resource.gvk(), |s| Gvk::new(s.kind.0, s.kind.1, s.kind.2))
    }

    /// Upstream's refusal: 403 with this reason.
    pub fn forbidden(&self, why: &str) -> Status {
        let meta = &self.object["metadata"];
        let given = [self.name, meta["name"].str(), meta["generateName"].str()];
        let name = given.into_iter().find(|name| !name.is_empty()).unwrap_or("Unknown");
        Status::forbidden(&self.resource.gvr(), name, why)
    }
}

#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    /// Whether the plugin wants to see this request.
    fn handles(&self, request: &Request) -> bool;
    async fn admit(&self, _request: &mut Request<'_>) -> Result<(), Status> {
        Ok(())
    }
    async fn validate(&self, _request: &Request<'_>) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins in upstream's order.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    /// Of each plugin, and of all together.
    times: Vec<Times>,
    steps: Times,
}

impl Chain {
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Chain {
        let times = plugins.iter().map(|_| Times::default()).collect();
        Chain { plugins, times, steps: Times::default() }
    }

    pub async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        let (started, operation) = (Instant::now(), request.operation);
        let done = self.admit_all(request).await;
        self.steps.took(false, operation, done.is_err(), started.elapsed());
        done
    }

    async fn admit_all(&self, request: &mut Request<'_>) -> Result<(), Status> {
        let mut since = Instant::now();
        loop {
            for (plugin, times) in self.plugins.iter().zip(&self.times) {
                if plugin.handles(request) {
                    let done = plugin.admit(request).await;
                    let now = Instant::now();
                    times.took(false, request.operation, done.is_err(), now - since);
                    since = now;
                    done?;
                }
            }
            if !request.reinvocation.again() {
                return Ok(());
            }
        }
    }

    pub async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let started = Instant::now();
        let done = self.validate_all(request, started).await;
        self.steps.took(true, request.operation, done.is_err(), started.elapsed());
        done
    }

    async fn validate_all(&self, request: &Request<'_>, mut since: Instant) -> Result<(), Status> {
        for (plugin, times) in self.plugins.iter().zip(&self.times) {
            if plugin.handles(request) {
                let done = plugin.validate(request).await;
                let now = Instant::now();
                times.took(true, request.operation, done.is_err(), now - since);
                since = now;
                done?;
            }
        }
        Ok(())
    }
}
