//! What expressions see of a request, and who answers when they ask for authorization.

use crate::admission::Request;
use crate::admission::matching::Version;
use crate::admission::webhook::review::{about, typed};
use crate::authz::{self, Attributes};
use crate::server::Server;
use crate::user::User;
use canopus_api::{FieldSelector, Gvr, LabelSelector, Status, Target, Value};
use canopus_cel::{Asked, Bindings, Check, Decision, EvalError, PER_CALL_LIMIT, Program, ResourceCheck, Val};
use canopus_resources::admissionregistration::expressions::{namespace_type, request_type};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// The values of the variables that all expressions have.
pub struct Inputs {
    object: Value,
    old: Value,
    request: Value,
    /// Null for what is in no namespace, and for match conditions.
    namespace: Value,
    pub params: Value,
    resource: ResourceCheck,
}

impl Inputs {
    /// The request as `version` shows it.
    pub async fn of(
        server: &Server,
        request: &Request<'_>,
        version: &Version,
        namespace: Option<Value>,
    ) -> Result<Inputs, Status> {
        let object = typed(&version.shown(server, &request.object, request).await?, &version.kind);
        let old = typed(&version.shown(server, request.old, request).await?, &version.kind);
        let own = request.resource.gvr();
        let meta = &request.object["metadata"];
        let name = if request.name.is_empty() { meta["name"].str() } else { request.name };
        let resource = ResourceCheck {
            group: own.group.to_string(),
            resource: own.resource.to_string(),
            subresource: request.subresource.into(),
            namespace: request.namespace.into(),
            name: name.into(),
            ..ResourceCheck::default()
        };
        Ok(Inputs {
            object,
            old,
            request: about(version, request),
            namespace: namespace.unwrap_or_default(),
            params: Value::Null,
            resource,
        })
    }

    /// The object as a mutation made it.
    pub fn set_object(&mut self, object: Value) {
        self.object = object;
    }

    pub fn object(&self) -> &Value {
        &self.object
    }

    /// With the variables of a policy.
    pub fn scope<'a>(&'a self, check: &'a dyn Check, variables: &'a [Variable]) -> Scope<'a> {
        Scope { inputs: self, check, variables, known: RefCell::default(), spent: Cell::default(), no_namespace: false }
    }
}

/// A variable of a policy; the error is why it does not compile.
pub struct Variable {
    pub name: String,
    pub program: Result<Program, String>,
}

/// The bindings of one round of evaluation. Variables are evaluated when they are first asked for.
pub struct Scope<'a> {
    inputs: &'a Inputs,
    check: &'a dyn Check,
    variables: &'a [Variable],
    known: RefCell<BTreeMap<String, Result<Val<'a>, EvalError>>>,
    /// What variables cost since it was last asked for.
    spent: Cell<u64>,
    no_namespace: bool,
}

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl<'a> Scope<'a> {
    /// As match conditions see it: they know no namespace and no variables.
    pub fn of_conditions(&self) -> Scope<'a> {
        let (known, spent) = (RefCell::default(), Cell::default());
        Scope { inputs: self.inputs, check: self.check, variables: &[], known, spent, no_namespace: true }
    }

    /// Evaluates one expression, paid from `budget`. Ok(Err) is its error, Err that nothing more can be evaluated.
    pub fn run(&self, program: &Result<Program, String>, budget: &mut u64) -> Result<Result<Val<'a>, String>, String> {
        let program = match program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let done = program.eval(self, PER_CALL_LIMIT);
        let cost = self.spent.take().saturating_add(done.cost);
        *budget = budget.checked_sub(cost).ok_or(OUT_OF_BUDGET)?;
        Ok(done.value.map_err(|e| format!("expression '{}' resulted in error: {e}", program.source())))
    }
}

impl<'a> Bindings<'a> for Scope<'a> {
    fn get(&self, name: &str) -> Option<Val<'a>> {
        let inputs = self.inputs;
        Some(match name {
            "object" => Val::json(&inputs.object),
            "oldObject" => Val::json(&inputs.old),
            "request" => Val::declared(&inputs.request, request_type()),
            "namespaceObject" if self.no_namespace => Val::Null,
            "namespaceObject" => Val::declared(&inputs.namespace, namespace_type()),
            "params" => Val::json(&inputs.params),
            "authorizer" => Val::authorizer(self.check),
            "authorizer.requestResource" => {
                Val::resource_check(self.check, &inputs.resource.group, inputs.resource.clone())
            }
            "variables" => Val::Lazy("variables"),
            _ => return None,
        })
    }

    fn has_field(&self, _variable: &str, field: &str) -> bool {
        self.variables.iter().any(|v| v.name == field)
    }

    fn field(&self, _variable: &str, field: &str, _limit: u64) -> Option<(Result<Val<'a>, EvalError>, u64)> {
        let known = self.known.borrow().get(field).cloned();
        if let Some(value) = known {
            return Some((value, 0));
        }
        // Of two with one name the later counts.
        let variable = self.variables.iter().rev().find(|v| v.name == field)?;
        let value = match &variable.program {
            Ok(program) => {
                let done = program.eval(self, PER_CALL_LIMIT);
                self.spent.set(self.spent.get().saturating_add(done.cost));
                done.value.map_err(|e| EvalError::new(format!("composited variable {field:?} fails to evaluate: {e}")))
            }
            Err(why) => Err(EvalError::new(format!("composited variable {field:?} fails to compile: {why}"))),
        };
        self.known.borrow_mut().insert(field.into(), value.clone());
        Some((value, 0))
    }
}

/// Asks the server's own authorizers.
pub struct Asks<'a> {
    pub server: &'a Server,
    pub user: &'a User,
}

impl Check for Asks<'_> {
    fn check(&self, account: Option<(&str, &str)>, asked: &Asked) -> Decision {
        let account = account.map(|(namespace, name)| {
            let groups = ["system:serviceaccounts".to_string(), format!("system:serviceaccounts:{namespace}")];
            let name = format!("system:serviceaccount:{namespace}:{name}");
            User::new(&name, &[&groups[0], &groups[1]])
        });
        let user = account.as_deref().unwrap_or(self.user);
        let decided = match asked {
            Asked::Path { path, verb } => self.server.verdict_now(&Attributes::path(user, verb, path)),
            Asked::Resource { resource, verb } => {
                let mut target = Target::new(
                    &Gvr::new(&resource.group, "*", &resource.resource),
                    &resource.namespace,
                    &resource.name,
                );
                target.subresource = resource.subresource.as_str().into();
                // A selector that cannot be read restricts nothing.
                let fields = FieldSelector::parse(&resource.field_selector).unwrap_or_default();
                let labels = LabelSelector::parse(&resource.label_selector).unwrap_or_default();
                self.server.verdict_now(&Attributes {
                    fields: &fields.terms,
                    labels: labels.requirements(),
                    ..Attributes::target(user, verb, &target)
                })
            }
        };
        match decided {
            Ok(verdict) => {
                let allowed = matches!(verdict.decision, authz::Decision::Allow(_));
                Decision { allowed, reason: verdict.decision.into_reason(), error: verdict.error }
            }
            Err(e) => Decision { allowed: false, reason: String::new(), error: Some(e.message) },
        }
    }
}
