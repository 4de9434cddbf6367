//! Authorization: may this user do this? Asked in order; the first opinion decides (upstream `authorizer.Authorizer`).

pub mod abac;
pub mod always;
pub mod chain;
pub mod changes;
pub mod config;
pub mod node;
pub mod placed;
pub mod pod_references;
pub mod privileged;
pub mod rbac;
pub mod rule;
pub mod webhook;

pub use chain::{RemoteAuthorizer, Step, Union, Verdict};

use crate::request_info::RequestInfo;
use crate::user::User;
use canopus_api::selectors::{FieldTerm, Requirement};
use canopus_api::{Status, Target, Value};

/// What is to be decided. For requests that are not about resources only `user`, `verb` and `path` count.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// What the selectors of a list, watch or deletecollection demand: it asks for no more than they match.
    pub fields: &'a [FieldTerm],
    pub labels: &'a [Requirement],
}

impl<'a> Attributes<'a> {
    pub fn of(user: &'a User, info: &'a RequestInfo) -> Attributes<'a> {
        if !info.is_resource {
            return Attributes::path(user, &info.verb, &info.path);
        }
        Attributes {
            path: &info.path,
            fields: &info.fields.terms,
            labels: info.labels.requirements(),
            ..Attributes::target(user, &info.verb, &info.target)
        }
    }

    /// A request that is not about a resource.
    pub fn path(user: &'a User, verb: &'a str, path: &'a str) -> Attributes<'a> {
        let (group, version, resource, subresource, namespace, name) = ("", "", "", "", "", "");
        let is_resource = false;
        Attributes {
            user,
            verb,
            is_resource,
            group,
            version,
            resource,
            subresource,
            namespace,
            name,
            path,
            fields: &[],
            labels: &[],
        }
    }

    pub fn target(user: &'a User, verb: &'a str, target: &'a Target) -> Attributes<'a> {
        Attributes {
            is_resource: true,
            group: &target.gvr.group,
            version: &target.gvr.version,
            resource: &target.gvr.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            ..Attributes::path(user, verb, "")
        }
    }

    /// Whether the selectors demand that `field` is `value`.
    pub fn selects(&self, field: &str, value: &str) -> bool {
        self.fields.iter().any(|(f, equal, v)| *equal && f == field && v == value)
    }

    /// `pods/log`, or `pods`.
    pub fn resource_and_subresource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.into()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Allow(String),
    Deny(String),
    NoOpinion(String),
}

impl Decision {
    pub fn into_reason(self) -> String {
        let (Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason)) = self;
        reason
    }
}

pub trait Authorizer: Send + Sync + 'static {
    fn authorize(&self, attributes: &Attributes) -> Decision;

    /// The rules that hold for `user` in `namespace`, as SelfSubjectRulesReview lists them.
    fn rules(&self, _user: &User, _namespace: &str) -> Rules {
        Rules::default()
    }
}

impl<A: Authorizer + ?Sized> Authorizer for std::sync::Arc<A> {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        A::authorize(self, attributes)
    }

    fn rules(&self, user: &User, namespace: &str) -> Rules {
        A::rules(self, user, namespace)
    }
}

/// `ResourceRule` and `NonResourceRule` trees.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub resource: Vec<Value>,
    pub non_resource: Vec<Value>,
    /// Why these are not all, or may not be.
    pub errors: Vec<String>,
    pub incomplete: bool,
}

/// The 403 that upstream answers (`responsewriters.forbiddenMessage`).
pub fn forbidden(a: &Attributes, reason: &str) -> Status {
    let user = &a.user.name;
    if !a.is_resource {
        let why = with_reason(format!("User {user:?} cannot {} path {:?}", a.verb, a.path), reason);
        return Status::forbidden(&canopus_api::Gvr::default(), "", &why);
    }
    let resource = a.resource_and_subresource();
    let scope = if a.namespace.is_empty() {
        " at the cluster scope".to_string()
    } else {
        format!(" in the namespace {:?}", a.namespace)
    };
    let why = format!("User {user:?} cannot {} resource {resource:?} in API group {:?}{scope}", a.verb, a.group);
    let gvr = canopus_api::Gvr::new(a.group, a.version, a.resource);
    Status::forbidden(&gvr, a.name, &with_reason(why, reason))
}

fn with_reason(why: String, reason: &str) -> String {
    if reason.is_empty() { why } else { format!("{why}: {reason}") }
}
