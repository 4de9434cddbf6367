//! MutatingAdmissionPolicy: changes of what is about to be stored, one policy after the other.

use super::params;
use super::scope::{Asks, Inputs};
use super::{Binding, Policies, Policy};
use crate::admission::matching::Version;
use crate::admission::{Operation, Plugin, Request};
use crate::server::Server;
use async_trait::async_trait;
use canopus_api::{Status, Value, managed, patch, value};
use canopus_cel::{List, Program, RUNTIME_BUDGET, Struct, Val};
use canopus_resources::admissionregistration::expressions::{Expressions, Uses, apply_configuration, json_patch};
use std::sync::Arc;
use std::time::Instant;

const NAME: &str = "MutatingAdmissionPolicy";

pub struct MutatingPolicies(Policies<Mutations>);

/// What a mutating policy does.
pub(super) struct Mutations {
    steps: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`.
    reinvoke: bool,
}

struct Mutation {
    apply: bool,
    program: Result<Program, String>,
}

fn mutations(spec: &Value, expressions: &Expressions, uses: Uses) -> Mutations {
    let uses = Uses { patches: true, ..uses };
    let steps = spec["mutations"].items().iter().map(|m| {
        let apply = m["patchType"].str() == "ApplyConfiguration";
        let (part, returns) =
            if apply { ("applyConfiguration", apply_configuration()) } else { ("jsonPatch", json_patch()) };
        Mutation { apply, program: expressions.compile(m[part]["expression"].str().trim(), uses, &[returns]) }
    });
    Mutations { steps: steps.collect(), reinvoke: spec["reinvocationPolicy"].str() == "IfNeeded" }
}

/// What went wrong, for the failure policy to judge.
struct Failure {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: &'static str,
}

impl Mutation {
    /// The object as this changes it; None if it stays as it is.
    fn result(
        &self,
        server: &Server,
        policy: &Policy<Mutations>,
        inputs: &Inputs,
        asks: &Asks,
        version: &Version,
    ) -> Result<Option<Value>, String> {
        let mut budget = RUNTIME_BUDGET;
        let scope = inputs.scope(asks, &policy.variables);
        // What does not compile is said as it is, not as the error of an evaluation.
        if let Err(why) = &self.program {
            return Err(why.clone());
        }
        let value = scope.run(&self.program, &mut budget)??;
        if self.apply {
            applied(server, version, inputs.object(), &value).map(Some)
        } else {
            patched(inputs.object(), &value)
        }
    }
}

fn applied(server: &Server, version: &Version, object: &Value, value: &Val) -> Result<Value, String> {
    let Val::Struct(made) = value else {
        return Err(format!("unsupported return type from ApplyConfiguration expression: {}", value.ty()));
    };
    named_as_placed(made)?;
    let mut config = value.to_json().map_err(|e| e.message)?;
    config.set("apiVersion", version.kind.api_version());
    config.set("kind", &version.kind.kind);
    let served = server.served(&version.gvr).map_err(|e| e.message)?;
    managed::merge(served.schema(), object, &config).map_err(|why| format!("error applying patch: {why}"))
}

/// Each `Object.a.b{…}` must stand in the field `b` of the field `a`.
fn named_as_placed(made: &Struct) -> Result<(), String> {
    let mut wrong = Vec::new();
    check_names(made, "Object", &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(format!("type mismatch: {}", wrong.join("\n"))) }
}

fn check_names(made: &Struct, path: &str, wrong: &mut Vec<String>) {
    if *made.name != *path {
        wrong.push(format!(
            "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
            &*made.name
        ));
    }
    for (field, value) in &made.fields {
        check_value(value, &format!("{path}.{field}"), wrong);
    }
}

fn check_value(value: &Val, path: &str, wrong: &mut Vec<String>) {
    match value {
        Val::Struct(inner) => check_names(inner, path, wrong),
        Val::List(List::Made(items)) => items.iter().for_each(|item| check_value(item, path, wrong)),
        _ => {}
    }
}

fn patched(object: &Value, value: &Val) -> Result<Option<Value>, String> {
    let Val::List(operations) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
    };
    for operation in operations.iter() {
        let Val::Struct(operation) = &operation else { continue };
        if let Some((_, Val::Struct(made))) = operation.fields.iter().find(|(name, _)| **name == *"value") {
            named_as_placed(made)?;
        }
    }
    let operations = value.to_json().map_err(|e| {
        format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {}", e.message)
    })?;
    let mut done = object.clone();
    for operation in operations.items() {
        match patch::json_patch(&done, &value!([operation])) {
            Ok(next) => done = next,
            // A test that fails means that there is nothing to do.
            Err(_) if operation["op"].str() == "test" => return Ok(None),
            Err(e) => return Err(format!("JSON Patch: {}", e.message)),
        }
    }
    Ok(Some(done))
}

impl MutatingPolicies {
    pub fn new(server: &Arc<Server>) -> Result<MutatingPolicies, Status> {
        Policies::new(server, "mutating", mutations).map(MutatingPolicies)
    }

    /// Lets one policy change the request's object.
    async fn one(
        &self,
        policy: &Policy<Mutations>,
        bindings: &[Binding],
        request: &mut Request<'_>,
        failures: &mut Vec<Failure>,
    ) -> Result<(), Status> {
        let mut fail = |binding: Option<&Binding>, message: String, reason: &'static str| {
            if !policy.ignore {
                let binding = binding.map(|b| b.name.clone());
                failures.push(Failure { policy: policy.name.clone(), binding, message, reason });
            }
        };
        let configure = "failed to configure policy: ";
        let version = match self.0.concerned(policy, request).await {
            Ok(Some(version)) => version,
            Ok(None) => return Ok(()),
            Err(why) => {
                fail(None, format!("{configure}{}", why.message), "");
                return Ok(());
            }
        };
        let server = self.0.server()?;
        if let Some(why) = params::misconfigured(&server, policy) {
            fail(None, format!("{configure}{why}"), "");
            return Ok(());
        }
        for binding in bindings {
            let found = match self.0.bound(binding, request).await {
                Ok(false) => continue,
                Ok(true) => params::collect(&server, policy, binding, request).await,
                Err(why) => Err(why.message),
            };
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    fail(Some(binding), format!("failed to configure binding: {why}"), "");
                    continue;
                }
            };
            for param in found {
                let done = self.with(&server, policy, binding, &version, param, request).await?;
                done.into_iter().for_each(|why| fail(Some(binding), why, "Invalid"));
            }
        }
        Ok(())
    }

    /// Makes the mutations of a policy with one set of parameters. What is wrong with them.
    async fn with(
        &self,
        server: &Server,
        policy: &Policy<Mutations>,
        binding: &Binding,
        version: &Version,
        param: Value,
        request: &mut Request<'_>,
    ) -> Result<Vec<String>, Status> {
        let meta = &param["metadata"];
        let id = format!("{}/{}/{}/{}", policy.name, binding.name, meta["namespace"].str(), meta["name"].str());
        let namespace = self.0.namespace(request).await?;
        let mut inputs = Inputs::of(server, request, version, namespace).await?;
        inputs.params = param;
        let asks = Asks { server, user: request.user };
        if !policy.conditions.is_empty() {
            match policy.conditions.hold(&inputs.scope(&asks, &policy.variables)) {
                Ok(true) => {}
                Ok(false) => return Ok(Vec::new()),
                Err(why) => return Ok(vec![why]),
            }
        }
        if request.reinvocation.round > 0 && !request.reinvocation.due(NAME, &id) {
            return Ok(Vec::new());
        }
        let mut wrong = Vec::new();
        let before = inputs.object().clone();
        for mutation in &policy.rules.steps {
            let started = Instant::now();
            let result = mutation.result(server, policy, &inputs, &asks, version);
            let error = result.as_ref().err().map(String::as_str);
            server.metrics.policies.mutated(&policy.name, &binding.name, error, started.elapsed());
            match result {
                Ok(Some(object)) => inputs.set_object(object),
                Ok(None) => {}
                Err(why) => wrong.push(why),
            }
        }
        if *inputs.object() != before {
            let object = version.taken_back(server, inputs.object().clone(), request).await?;
            if object != request.object {
                request.object = object;
                request.reinvocation.changed(NAME);
            }
        }
        if policy.rules.reinvoke {
            request.reinvocation.invoked(NAME, &id);
        }
        Ok(wrong)
    }
}

fn refusal(request: &Request, failures: &[Failure]) -> Option<Status> {
    let first = failures.first()?;
    let text = |f: &Failure| match &f.binding {
        Some(binding) => format!("policy '{}' with binding '{binding}' denied request: {}", f.policy, f.message),
        None => format!("policy {:?} denied request: {}", f.policy, f.message),
    };
    let mut status = request.forbidden("admission request denied by policy");
    status.message = text(first);
    if !first.reason.is_empty() {
        status.reason = first.reason.into();
    }
    Some(failures.iter().fold(status, |status, f| status.with_cause("", text(f), "")))
}

#[async_trait]
impl Plugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, request: &Request) -> bool {
        // What is deleted cannot be changed.
        request.operation != Operation::Delete && self.0.wants(request)
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        if request.reinvocation.round > 0 {
            request.reinvocation.begin(NAME, &request.object);
        }
        let mut failures = Vec::new();
        for (policy, bindings) in self.0.hooks().iter() {
            self.one(policy, bindings, request, &mut failures).await?;
        }
        request.reinvocation.end(NAME, &request.object);
        refusal(request, &failures).map_or(Ok(()), Err)
    }
}
