//! The door: what components ask of the cluster, whether the server is in this process or across the network.

use crate::object::Object;
use crate::selectors::{FieldSelector, LabelSelector};
use crate::status::Result;
use crate::value::Value;
use async_trait::async_trait;
use compact_str::{CompactString, format_compact};
use futures::stream::BoxStream;
use std::fmt;
use std::sync::Arc;

/// Group, version and plural resource name: `apps/v1 deployments`. The core group is "".
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    pub group: CompactString,
    pub version: CompactString,
    pub resource: CompactString,
}

impl Gvr {
    pub fn new(group: &str, version: &str, resource: &str) -> Gvr {
        Gvr { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// `deployments.apps`, or `pods` for the core group.
    pub fn group_resource(&self) -> CompactString {
        if self.group.is_empty() { self.resource.clone() } else { format_compact!("{}.{}", self.resource, self.group) }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> CompactString {
        api_version(&self.group, &self.version)
    }
}

/// Group, version and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    pub group: CompactString,
    pub version: CompactString,
    pub kind: CompactString,
}

impl Gvk {
    pub fn new(group: &str, version: &str, kind: &str) -> Gvk {
        Gvk { group: group.into(), version: version.into(), kind: kind.into() }
    }

    pub fn api_version(&self) -> CompactString {
        api_version(&self.group, &self.version)
    }

    /// The apiVersion and kind that an object says it has.
    pub fn of(object: &Value) -> Gvk {
        let (group, version) = split_api_version(object["apiVersion"].str());
        Gvk::new(group, version, object["kind"].str())
    }
}

impl fmt::Display for Gvk {
    /// `apps/v1, Kind=Deployment`, as Go prints a schema.GroupVersionKind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

fn api_version(group: &str, version: &str) -> CompactString {
    if group.is_empty() { version.into() } else { format_compact!("{group}/{version}") }
}

/// `("apps", "v1")` of `apps/v1`; `("", "v1")` of `v1`.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// What a request is about. For collections `name` is "".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub gvr: Gvr,
    /// "" for cluster-scoped resources, or for all namespaces.
    pub namespace: CompactString,
    pub name: CompactString,
    /// "" for the object itself.
    pub subresource: CompactString,
}

impl Target {
    pub fn new(gvr: &Gvr, namespace: &str, name: &str) -> Target {
        Target { gvr: gvr.clone(), namespace: namespace.into(), name: name.into(), subresource: "".into() }
    }

    pub fn subresource(mut self, name: &str) -> Target {
        self.subresource = name.into();
        self
    }

    /// The URL path of this target.
    pub fn url_path(&self) -> String {
        let mut path = match self.gvr.group.as_str() {
            "" => format!("/api/{}", self.gvr.version),
            group => format!("/apis/{group}/{}", self.gvr.version),
        };
        if !self.namespace.is_empty() {
            path += &format!("/namespaces/{}", self.namespace);
        }
        path += &format!("/{}", self.gvr.resource);
        for part in [&self.name, &self.subresource] {
            if !part.is_empty() {
                path += &format!("/{part}");
            }
        }
        path
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// None: not given (most recent for lists, "start with synthetic events" for watches).
    pub resource_version: Option<u64>,
    pub resource_version_match: Option<ResourceVersionMatch>,
    /// 0: no limit.
    pub limit: usize,
    pub continue_token: CompactString,
    pub timeout_seconds: Option<u32>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceVersionMatch {
    NotOlderThan,
    Exact,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteOptions {
    pub field_manager: CompactString,
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// Server-side apply only: take fields from other managers.
    pub force: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<Propagation>,
    pub uid: Option<CompactString>,
    pub resource_version: Option<CompactString>,
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// The four patch types.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct List {
    pub revision: u64,
    pub items: Vec<Arc<Object>>,
    /// "" when this is the last page.
    pub continue_token: String,
    /// How many are left after this page, when known.
    pub remaining: Option<u64>,
}

#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The object's last state, at the revision of its deletion.
    Deleted(Arc<Object>),
    Bookmark {
        revision: u64,
        initial_events_end: bool,
    },
}

pub type Watch = BoxStream<'static, Result<WatchEvent>>;

/// The cluster's API. In one process it is a call under a fixed identity; across the network it is HTTPS.
/// Both go through the same authorization and admission. Errors are what the server answered, or
/// `ServiceUnavailable`/`Timeout` statuses for a transport that failed.
#[async_trait]
pub trait Api: Send + Sync + 'static {
    async fn get(&self, target: &Target) -> Result<Arc<Object>>;
    /// Lists `target.gvr` in `target.namespace` ("" = all).
    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List>;
    async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Watch>;
    async fn create(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Arc<Object>>;
    async fn update(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Arc<Object>>;
    async fn patch(&self, target: &Target, patch: Patch, options: &WriteOptions) -> Result<Arc<Object>>;
    /// Answers the object as it now is (still there, with a deletionTimestamp) or was.
    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Arc<Object>>;
    async fn delete_collection(&self, target: &Target, list: &ListOptions, options: &DeleteOptions) -> Result<()>;
}

/// A local, eventually consistent copy of one resource. Cheap to read from any thread.
pub trait View: Send + Sync + 'static {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>>;
    /// All objects of `namespace` ("" = all), in order.
    fn list(&self, namespace: &str) -> Vec<Arc<Object>>;
    /// The revision up to which this copy is complete.
    fn revision(&self) -> u64;
}
