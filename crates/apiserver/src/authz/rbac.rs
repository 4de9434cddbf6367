//! Role-based access control: roles say what may be done, bindings say who has them (upstream `plugin/pkg/auth/authorizer/rbac`).
//!
//! Policy is compiled into an index by subject when it has changed, so that a decision is a few look-ups.

use super::changes::Changes;
use super::rule::Rule;
use super::{Attributes, Authorizer, Decision, Rules};
use crate::server::Server;
use crate::user::User;
use canopus_api::{LabelSelector, Result, Value};
use compact_str::{CompactString, format_compact};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Where policy is read.
pub struct Policy {
    pub roles: Arc<dyn Changes>,
    pub role_bindings: Arc<dyn Changes>,
    pub cluster_roles: Arc<dyn Changes>,
    pub cluster_role_bindings: Arc<dyn Changes>,
}

pub struct Rbac {
    policy: Policy,
    compiled: RwLock<Arc<Compiled>>,
}

/// What one binding grants to one subject. `rules` is an error's text when its role does not exist.
#[derive(Debug)]
struct Grant {
    source: String,
    rules: Arc<Resolved>,
}

type Resolved = std::result::Result<Vec<Rule>, String>;

/// Grants by subject: `u:name` for users (service accounts too), `g:name` for groups.
type BySubject = HashMap<CompactString, Vec<Grant>>;

#[derive(Default)]
struct Compiled {
    at: Option<[u64; 4]>,
    cluster: BySubject,
    namespaces: HashMap<CompactString, BySubject>,
}

impl Rbac {
    pub fn new(policy: Policy) -> Arc<Rbac> {
        Arc::new(Rbac { policy, compiled: RwLock::default() })
    }

    /// Over the server's own caches.
    pub fn of(server: &Server) -> Result<Arc<Rbac>> {
        let view = |plural| server.cache(GROUP, "v1", plural).map(|cache| cache as Arc<dyn Changes>);
        Ok(Rbac::new(Policy {
            roles: view("roles")?,
            role_bindings: view("rolebindings")?,
            cluster_roles: view("clusterroles")?,
            cluster_role_bindings: view("clusterrolebindings")?,
        }))
    }

    fn compiled(&self) -> Arc<Compiled> {
        let p = &self.policy;
        let at = [&p.roles, &p.role_bindings, &p.cluster_roles, &p.cluster_role_bindings].map(|v| v.last_change());
        let current = self.compiled.read().clone();
        if current.at == Some(at) {
            return current;
        }
        let compiled = Arc::new(compile(p, at));
        *self.compiled.write() = compiled.clone();
        compiled
    }

    /// All rules that hold for `user` in `namespace` ("": cluster-wide only), and what could not be resolved.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let compiled = self.compiled();
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        compiled.visit(user, namespace, |grant| {
            match &*grant.rules {
                Ok(granted) => rules.extend(granted.iter().cloned()),
                Err(why) => errors.push(why.clone()),
            }
            true
        });
        (rules, errors)
    }

    /// The rules of a `roleRef`, as a binding in `namespace` ("" for a ClusterRoleBinding) would grant them.
    pub fn role_rules(&self, role: &Value, namespace: &str) -> std::result::Result<Vec<Rule>, String> {
        resolve(&self.policy, role["kind"].str(), role["name"].str(), namespace)
    }
}

impl Compiled {
    /// Shows every grant of `user` in `namespace`, until `visit` says false.
    fn visit<'a>(&'a self, user: &User, namespace: &str, mut visit: impl FnMut(&'a Grant) -> bool) {
        let local = self.namespaces.get(namespace).filter(|_| !namespace.is_empty());
        for index in [Some(&self.cluster), local].into_iter().flatten() {
            let groups = user.groups.iter().map(|group| format_compact!("g:{group}"));
            for subject in [format_compact!("u:{}", user.name)].into_iter().chain(groups) {
                for grant in index.get(&subject).into_iter().flatten() {
                    if !visit(grant) {
                        return;
                    }
                }
            }
        }
    }
}

fn compile(policy: &Policy, at: [u64; 4]) -> Compiled {
    let mut compiled = Compiled { at: Some(at), ..Compiled::default() };
    let mut resolved: HashMap<(CompactString, CompactString, CompactString), Arc<Resolved>> = HashMap::new();
    let mut rules = |role: &Value, namespace: &str| {
        let (kind, name) = (role["kind"].str(), role["name"].str());
        let namespace = if kind == "Role" { namespace } else { "" };
        let key = (CompactString::from(kind), CompactString::from(name), CompactString::from(namespace));
        resolved.entry(key).or_insert_with(|| Arc::new(resolve(policy, kind, name, namespace))).clone()
    };
    for binding in policy.cluster_role_bindings.list("") {
        let value = binding.value();
        let rules = rules(&value["roleRef"], "");
        add(&mut compiled.cluster, "ClusterRoleBinding", binding.name(), &value, "", &rules);
    }
    for binding in policy.role_bindings.list("") {
        let (value, namespace) = (binding.value(), binding.namespace());
        let rules = rules(&value["roleRef"], namespace);
        let index = compiled.namespaces.entry(namespace.into()).or_default();
        let name = format!("{}/{namespace}", binding.name());
        add(index, "RoleBinding", &name, &value, namespace, &rules);
    }
    compiled
}

fn add(index: &mut BySubject, kind: &str, name: &str, binding: &Value, namespace: &str, rules: &Arc<Resolved>) {
    let role = &binding["roleRef"];
    for subject in binding["subjects"].items() {
        let who = subject["name"].str();
        let own = subject["namespace"].str();
        let of = if own.is_empty() { namespace } else { own };
        let (key, described) = match subject["kind"].str() {
            "User" => (format_compact!("u:{who}"), format!("User {who:?}")),
            "Group" => (format_compact!("g:{who}"), format!("Group {who:?}")),
            "ServiceAccount" if !of.is_empty() => {
                let both = format!("{who}/{of}");
                (format_compact!("u:system:serviceaccount:{of}:{who}"), format!("ServiceAccount {both:?}"))
            }
            _ => continue,
        };
        let source = format!("{kind} {name:?} of {} {:?} to {described}", role["kind"].str(), role["name"].str());
        index.entry(key).or_default().push(Grant { source, rules: rules.clone() });
    }
}

fn resolve(policy: &Policy, kind: &str, name: &str, namespace: &str) -> Resolved {
    match kind {
        "Role" => match policy.roles.get(namespace, name) {
            Some(role) => Ok(own_rules(&role.value())),
            None => Err(format!("role.{GROUP} {name:?} not found")),
        },
        "ClusterRole" => {
            let mut rules = Vec::new();
            if !aggregate(policy, name, &mut HashSet::new(), &mut rules) {
                return Err(format!("clusterrole.{GROUP} {name:?} not found"));
            }
            Ok(rules)
        }
        _ => Err(format!("unsupported role reference kind: {kind:?}")),
    }
}

fn own_rules(role: &Value) -> Vec<Rule> {
    role["rules"].items().iter().map(Rule::from_value).collect()
}

/// Collects a cluster role's rules, and those of the roles its aggregationRule selects, whose labels may lead further.
/// Resolved here, so that policy holds from the first request, before any controller has written the union down.
fn aggregate(policy: &Policy, name: &str, seen: &mut HashSet<CompactString>, rules: &mut Vec<Rule>) -> bool {
    if !seen.insert(name.into()) {
        return true;
    }
    let Some(role) = policy.cluster_roles.get("", name) else { return false };
    let role = role.value();
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].items();
    if selectors.is_empty() {
        rules.extend(own_rules(&role));
        return true;
    }
    // A selector that cannot be read selects nothing.
    let selectors: Vec<LabelSelector> = selectors.iter().filter_map(|s| LabelSelector::from_value(s).ok()).collect();
    for other in policy.cluster_roles.list("") {
        if selectors.iter().any(|s| s.matches(&other.facts)) {
            aggregate(policy, other.name(), seen, rules);
        }
    }
    true
}

impl Authorizer for Rbac {
    fn authorize(&self, a: &Attributes) -> Decision {
        let compiled = self.compiled();
        let (mut allowed, mut errors) = (None, Vec::new());
        compiled.visit(a.user, a.namespace, |grant| {
            match &*grant.rules {
                Ok(rules) if rules.iter().any(|r| r.allows(a)) => {
                    allowed = Some(grant);
                    return false;
                }
                Ok(_) => {}
                Err(why) if errors.contains(&why) => {}
                Err(why) => errors.push(why),
            }
            true
        });
        match (allowed, errors.as_slice()) {
            (Some(grant), _) => Decision::Allow(format!("RBAC: allowed by {}", grant.source)),
            (None, []) => Decision::NoOpinion(String::new()),
            (None, [one]) => Decision::NoOpinion(format!("RBAC: {one}")),
            (None, many) => {
                let many: Vec<&str> = many.iter().map(|why| why.as_str()).collect();
                Decision::NoOpinion(format!("RBAC: [{}]", many.join(", ")))
            }
        }
    }

    fn rules(&self, user: &User, namespace: &str) -> Rules {
        let (rules, errors) = self.rules_for(user, namespace);
        let errors = super::chain::aggregate(&errors).into_iter().collect();
        let mut listed = Rules { errors, ..Rules::default() };
        for rule in rules {
            let (resource, other) = rule.review();
            listed.resource.extend((!resource.is_null()).then_some(resource));
            listed.non_resource.extend((!other.is_null()).then_some(other));
        }
        listed
    }
}

#[cfg(test)]
#[path = "rbac_tests.rs"]
mod tests;
