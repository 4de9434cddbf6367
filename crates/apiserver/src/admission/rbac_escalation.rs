//! Nobody grants rights they do not have, unless they may `escalate` roles or `bind` that one
//! (upstream `pkg/registry/rbac/*/policybased`).

use super::{Operation, Plugin, Request};
use crate::authz::rbac::Rbac;
use crate::authz::rule::{Rule, quoted};
use crate::authz::{Attributes, Decision};
use crate::server::Server;
use crate::user::MASTERS;
use async_trait::async_trait;
use canopus_api::{Status, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

const GROUP: &str = "rbac.authorization.k8s.io";

pub struct RbacEscalation {
    pub rbac: Arc<Rbac>,
    /// Whether somebody may `escalate` or `bind` is for all authorizers to say.
    pub server: Weak<Server>,
}

impl RbacEscalation {
    async fn may(&self, request: &Request<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let Some(server) = self.server.upgrade() else { return false };
        let attributes = Attributes {
            is_resource: true,
            group: GROUP,
            version: "*",
            resource,
            namespace: scope(request),
            name,
            ..Attributes::path(request.user, verb, "")
        };
        matches!(server.decide(&attributes).await, Ok(Decision::Allow(_)))
    }

    async fn check_role(&self, request: &Request<'_>) -> Result<(), String> {
        let name = request.object["metadata"]["name"].str();
        // Upstream has no name yet when it creates.
        let asked = if request.operation == Operation::Create { "" } else { name };
        if self.may(request, "escalate", request.resource.plural, asked).await {
            return Ok(());
        }
        let rules: Vec<Rule> = request.object["rules"].items().iter().map(Rule::from_value).collect();
        self.confirm(request, &rules)?;
        let aggregates = |role: &Value| !role["aggregationRule"]["clusterRoleSelectors"].is_empty();
        if aggregates(&request.object) || aggregates(request.old) {
            // It can gather anything.
            let urls = Rule { verbs: ["*".into()].into(), non_resource_urls: ["*".into()].into(), ..Rule::default() };
            let all = [Rule::new(&["*"], &["*"], &["*"]), urls];
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return self.confirm(request, &all).map_err(|_| why.to_string());
        }
        Ok(())
    }

    async fn check_binding(&self, request: &Request<'_>) -> Result<(), Status> {
        let role = &request.object["roleRef"];
        let resource = if role["kind"].str() == "Role" { "roles" } else { "clusterroles" };
        if self.may(request, "bind", resource, role["name"].str()).await {
            return Ok(());
        }
        // Upstream takes the missing role for a missing binding.
        let missing = |_| Status::not_found(&request.resource.gvr(), role["name"].str());
        let rules = self.rbac.role_rules(role, scope(request)).map_err(missing)?;
        self.confirm(request, &rules).map_err(|why| request.forbidden(&why))
    }

    /// Whether the user's own rules cover all of `wanted`.
    fn confirm(&self, request: &Request, wanted: &[Rule]) -> Result<(), String> {
        let user = request.user;
        let (own, errors) = self.rbac.rules_for(user, scope(request));
        let parts = wanted.iter().flat_map(Rule::parts);
        let missing: Vec<Rule> = parts.filter(|part| !own.iter().any(|rule| rule.covers(part))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing: BTreeSet<String> = compact(missing).iter().map(Rule::compact).collect();
        let missing: Vec<String> = missing.into_iter().collect();
        let mut why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            quoted(&user.groups),
            missing.join("\n")
        );
        if !errors.is_empty() {
            why += &format!("; resolution errors: [{}]", errors.join(", "));
        }
        Err(why)
    }
}

/// One rule for all verbs on the same resource and name.
fn compact(parts: Vec<Rule>) -> Vec<Rule> {
    let mut by_resource: BTreeMap<String, Rule> = BTreeMap::new();
    for part in parts {
        let key = format!("{:?}", Rule { verbs: Box::default(), ..part.clone() });
        let rule = by_resource.entry(key).or_insert_with(|| Rule { verbs: Box::default(), ..part.clone() });
        if part.non_resource_urls.is_empty() {
            rule.verbs = rule.verbs.iter().chain(&part.verbs).cloned().collect();
        } else {
            // Upstream lists each verb on a path by itself.
            by_resource.insert(part.compact(), part);
        }
    }
    by_resource.into_values().filter(|rule| !rule.verbs.is_empty()).collect()
}

/// The namespace of the role or binding; cluster-wide ones have none.
fn scope<'a>(request: &'a Request) -> &'a str {
    if request.resource.namespaced { request.namespace } else { "" }
}

#[async_trait]
impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, request: &Request) -> bool {
        request.resource.group == GROUP
            && matches!(request.operation, Operation::Create | Operation::Update)
            && !request.user.in_group(MASTERS)
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        // Labels, finalizers and the like grant nothing: garbage collection must be able to change them.
        let same = |field: &str| request.object[field] == request.old[field];
        if request.operation == Operation::Update
            && ["rules", "aggregationRule", "roleRef", "subjects"].iter().all(|f| same(f))
            && same_but_for_collection(&request.object["metadata"], &request.old["metadata"])
        {
            return Ok(());
        }
        match request.resource.plural {
            "roles" | "clusterroles" => self.check_role(request).await.map_err(|why| request.forbidden(&why)),
            "rolebindings" | "clusterrolebindings" => self.check_binding(request).await,
            _ => Ok(()),
        }
    }
}

/// Whether only what garbage collection changes differs (upstream `IsOnlyMutatingGCFields`).
pub(super) fn same_but_for_collection(new: &Value, old: &Value) -> bool {
    let strip = |meta: &Value| {
        let mut meta = meta.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            meta.remove(field);
        }
        meta
    };
    strip(new) == strip(old)
}

#[cfg(test)]
#[path = "rbac_escalation_tests.rs"]
mod tests;
