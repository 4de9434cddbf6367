//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: the cluster's own rules as expressions (upstream `plugin/policy`,
//! KEP-3488, KEP-3962). Policies are compiled when they change; without any the plugins cost a look at two numbers.

pub mod authorize;
pub mod conditions;
pub mod metrics;
pub mod mutating;
pub mod params;
pub mod scope;
pub mod validating;

#[cfg(test)]
mod tests;

pub use authorize::PolicyParams;
pub use mutating::MutatingPolicies;
pub use validating::ValidatingPolicies;

use super::Request;
use super::fresh::Fresh;
use super::matching::{Matcher, Version, exempt};
use crate::authz::changes::Changes;
use crate::server::Server;
use canopus_api::{Object, Status, Value, View};
use canopus_resources::admissionregistration::expressions::{Expressions, Uses};
use conditions::Conditions;
use parking_lot::RwLock;
use scope::Variable;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// A compiled policy; `R` is what it does.
pub(super) struct Policy<R> {
    pub name: String,
    revision: u64,
    matcher: Matcher,
    pub conditions: Conditions,
    pub variables: Vec<Variable>,
    /// (apiVersion, kind) of its parameters.
    pub param_kind: Option<(String, String)>,
    /// `failurePolicy: Ignore`.
    pub ignore: bool,
    pub rules: R,
}

/// Where and with what a policy holds.
pub(super) struct Binding {
    pub name: String,
    matcher: Option<Matcher>,
    pub param_ref: Value,
    pub actions: Vec<String>,
}

pub(super) type Hook<R> = (Arc<Policy<R>>, Vec<Binding>);

/// The policies of a kind, compiled, as of the last changes of them and of their bindings.
struct Compiled<R> {
    changes: (u64, u64),
    hooks: Arc<[Hook<R>]>,
}

/// What both plugins share.
pub(super) struct Policies<R> {
    server: Weak<Server>,
    policies: Arc<dyn Changes>,
    bindings: Arc<dyn Changes>,
    namespaces: Fresh,
    compiled: RwLock<Option<Compiled<R>>>,
    /// Reads what a policy does from its spec.
    rules: fn(&Value, &Expressions, Uses) -> R,
}

impl<R: Send + Sync> Policies<R> {
    fn new(
        server: &Arc<Server>,
        kind: &str,
        rules: fn(&Value, &Expressions, Uses) -> R,
    ) -> Result<Policies<R>, Status> {
        let cache = |plural: &str| server.cache("admissionregistration.k8s.io", "v1", plural);
        Ok(Policies {
            server: Arc::downgrade(server),
            policies: cache(&format!("{kind}admissionpolicies"))?,
            bindings: cache(&format!("{kind}admissionpolicybindings"))?,
            namespaces: Fresh::of(server, "", "v1", "namespaces")?,
            compiled: RwLock::default(),
            rules,
        })
    }

    pub fn server(&self) -> Result<Arc<Server>, Status> {
        self.server.upgrade().ok_or_else(|| Status::unavailable("the server is stopping"))
    }

    /// All policies that are bound, by name. Those that did not change are not compiled again.
    fn hooks(&self) -> Arc<[Hook<R>]> {
        let changes = (self.policies.last_change(), self.bindings.last_change());
        if let Some(compiled) = &*self.compiled.read()
            && compiled.changes == changes
        {
            return compiled.hooks.clone();
        }
        let known: HashMap<String, Arc<Policy<R>>> = match &*self.compiled.read() {
            Some(compiled) => compiled.hooks.iter().map(|(p, _)| (p.name.clone(), p.clone())).collect(),
            None => HashMap::new(),
        };
        let mut bindings: HashMap<String, Vec<Binding>> = HashMap::new();
        for object in View::list(&*self.bindings, "") {
            let tree = object.value();
            bindings.entry(tree["spec"]["policyName"].str().into()).or_default().push(Binding::of(&object, &tree));
        }
        let policies = View::list(&*self.policies, "");
        let hooks = policies.iter().filter_map(|object| {
            let bindings = bindings.remove(object.name())?;
            let policy = match known.get(object.name()).filter(|p| p.revision == object.revision) {
                Some(known) => known.clone(),
                None => Arc::new(Policy::of(object, self.rules)),
            };
            Some((policy, bindings))
        });
        let hooks: Arc<[Hook<R>]> = hooks.collect();
        *self.compiled.write() = Some(Compiled { changes, hooks: hooks.clone() });
        hooks
    }

    /// Whether there is any policy for such requests.
    fn wants(&self, request: &Request) -> bool {
        !self.hooks().is_empty() && !exempt(request)
    }

    /// In which version the request is the policy's business, if it is.
    async fn concerned(&self, policy: &Policy<R>, request: &Request<'_>) -> Result<Option<Version>, Status> {
        let server = self.server()?;
        policy.matcher.matches(request, &self.namespaces, || Version::equivalents(&server, request)).await
    }

    async fn bound(&self, binding: &Binding, request: &Request<'_>) -> Result<bool, Status> {
        let Some(matcher) = &binding.matcher else { return Ok(true) };
        let server = self.server()?;
        let found = matcher.matches(request, &self.namespaces, || Version::equivalents(&server, request)).await?;
        Ok(found.is_some())
    }

    /// What `namespaceObject` is for this request.
    async fn namespace(&self, request: &Request<'_>) -> Result<Option<Value>, Status> {
        let itself = request.resource.group.is_empty() && request.resource.plural == "namespaces";
        if request.namespace.is_empty() || itself {
            return Ok(None);
        }
        let found = self.namespaces.get("", request.namespace).await?;
        let gvr = canopus_api::Gvr::new("", "v1", "namespaces");
        let found = found.ok_or_else(|| Status::not_found(&gvr, request.namespace))?;
        Ok(Some((*found.value()).clone()))
    }
}

impl<R> Policy<R> {
    fn of(object: &Object, rules: fn(&Value, &Expressions, Uses) -> R) -> Policy<R> {
        let tree = object.value();
        let spec = &tree["spec"];
        let kind = &spec["paramKind"];
        let uses = Uses { params: !kind.is_null(), authorizer: true, patches: false };
        let mut expressions = Expressions::composed();
        let variables = spec["variables"].items().iter().map(|v| {
            let name = v["name"].str();
            let program = expressions.compile_variable(name, v["expression"].str(), uses);
            Variable { name: name.into(), program }
        });
        let variables = variables.collect();
        Policy {
            name: object.name().into(),
            revision: object.revision,
            matcher: Matcher::of_policy(&spec["matchConstraints"]),
            conditions: Conditions::of(&spec["matchConditions"], uses.params),
            variables,
            param_kind: (!kind.is_null()).then(|| (kind["apiVersion"].str().into(), kind["kind"].str().into())),
            ignore: spec["failurePolicy"].str() == "Ignore",
            rules: rules(spec, &expressions, uses),
        }
    }
}

impl Binding {
    fn of(object: &Object, tree: &Value) -> Binding {
        let spec = &tree["spec"];
        let resources = &spec["matchResources"];
        Binding {
            name: object.name().into(),
            matcher: (!resources.is_null()).then(|| Matcher::of_policy(resources)),
            param_ref: spec["paramRef"].clone(),
            actions: spec["validationActions"].items().iter().map(|a| a.str().to_string()).collect(),
        }
    }
}
