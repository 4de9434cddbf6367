//! ValidatingAdmissionPolicy: what is about to be stored must satisfy the expressions of all policies bound to it.

use super::params;
use super::scope::{Asks, Inputs, Scope};
use super::{Binding, Policies, Policy};
use crate::admission::{Plugin, Request};
use crate::notes;
use crate::server::Server;
use async_trait::async_trait;
use canopus_api::{Status, Value, json, value};
use canopus_cel::{Program, RUNTIME_BUDGET, Val};
use canopus_resources::admissionregistration::expressions::{ANNOTATION, CONDITION, Expressions, MESSAGE, Uses};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NAME: &str = "ValidatingAdmissionPolicy";
/// A longer message is not used.
const LONGEST_MESSAGE: usize = 5 * 1024;
/// A longer annotation is cut.
const LONGEST_ANNOTATION: usize = 10 * 1024;
const FAILURE_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

pub struct ValidatingPolicies(Policies<Rules>);

/// What a validating policy does.
pub(super) struct Rules {
    validations: Vec<Validation>,
    annotations: Vec<(String, Result<Program, String>)>,
}

struct Validation {
    expression: String,
    program: Result<Program, String>,
    message: String,
    message_program: Option<Result<Program, String>>,
    reason: String,
}

fn rules(spec: &Value, expressions: &Expressions, uses: Uses) -> Rules {
    let validations = spec["validations"].items().iter().map(|v| {
        let message = v["messageExpression"].str();
        let without = Uses { authorizer: false, ..uses };
        Validation {
            expression: v["expression"].str().into(),
            program: expressions.compile(v["expression"].str(), uses, CONDITION),
            message: v["message"].str().trim().into(),
            message_program: (!message.is_empty()).then(|| expressions.compile(message, without, MESSAGE)),
            reason: v["reason"].str().into(),
        }
    });
    let annotations = spec["auditAnnotations"].items().iter().map(|a| {
        (a["key"].str().to_string(), expressions.compile(a["valueExpression"].str().trim(), uses, ANNOTATION))
    });
    Rules { validations: validations.collect(), annotations: annotations.collect() }
}

/// Why a policy says no.
struct Denial {
    message: String,
    /// "" for what went wrong before an expression was false.
    reason: String,
    /// Of the validation.
    place: usize,
    /// How long it took to find out.
    took: Duration,
}

/// Something is wrong before an expression was false.
fn broken(why: String) -> Denial {
    Denial { message: why, reason: String::new(), place: 0, took: Duration::ZERO }
}

/// What came of one policy for one set of parameters.
#[derive(Default)]
struct Outcome {
    denials: Vec<Denial>,
    /// Errors that the failure policy lets pass.
    ignored: Vec<(String, Duration)>,
    /// Denies, whatever the binding's actions are.
    broken: Vec<(String, Duration)>,
    annotations: Vec<(String, String)>,
}

impl Policy<Rules> {
    fn evaluate(&self, scope: &Scope) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err(why) = self.evaluate_into(scope, &mut outcome) {
            if self.ignore {
                outcome.ignored.push((why, Duration::ZERO));
            } else {
                outcome.denials = vec![broken(why)];
            }
        }
        outcome
    }

    fn evaluate_into(&self, scope: &Scope, outcome: &mut Outcome) -> Result<(), String> {
        if !self.conditions.is_empty() && !self.conditions.hold(scope)? {
            return Ok(());
        }
        let mut budget = RUNTIME_BUDGET;
        let mut results = Vec::with_capacity(self.rules.validations.len());
        for validation in &self.rules.validations {
            let started = Instant::now();
            let result = scope.run(&validation.program, &mut budget)?;
            results.push((result, started.elapsed()));
        }
        for (place, ((result, took), validation)) in results.into_iter().zip(&self.rules.validations).enumerate() {
            match result {
                Ok(Val::Bool(true)) => {}
                Ok(_) => {
                    let message = validation.message(scope, &mut budget);
                    let reason = if validation.reason.is_empty() { "Invalid" } else { &validation.reason };
                    outcome.denials.push(Denial { message, reason: reason.into(), place, took });
                }
                Err(why) if self.ignore => outcome.ignored.push((why, took)),
                Err(message) => outcome.denials.push(Denial { message, reason: String::new(), place, took }),
            }
        }
        let mut budget = RUNTIME_BUDGET;
        for (key, program) in &self.rules.annotations {
            let started = Instant::now();
            match scope.run(program, &mut budget)? {
                Ok(Val::Str(text)) if !text.trim().is_empty() => {
                    outcome.annotations.push((key.clone(), text.trim().to_string()));
                }
                Ok(_) => {}
                Err(_) if self.ignore => {}
                Err(why) => outcome.broken.push((why, started.elapsed())),
            }
        }
        Ok(())
    }
}

impl Validation {
    /// What its expression says, or its message, or the expression.
    fn message(&self, scope: &Scope, budget: &mut u64) -> String {
        let said = self.message_program.as_ref().and_then(|program| match scope.run(program, budget) {
            Ok(Ok(Val::Str(text))) => Some(text.trim().to_string()),
            _ => None,
        });
        let usable = |text: &String| !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n');
        match said.filter(usable) {
            Some(said) => said,
            None if !self.message.is_empty() => self.message.clone(),
            None => format!("failed expression: {}", self.expression.trim()),
        }
    }
}

impl ValidatingPolicies {
    pub fn new(server: &Arc<Server>) -> Result<ValidatingPolicies, Status> {
        Policies::new(server, "validating", rules).map(ValidatingPolicies)
    }

    /// Why the policy refuses the request, with the binding that says so; warnings and annotations are noted.
    async fn one(
        &self,
        policy: &Policy<Rules>,
        bindings: &[Binding],
        request: &Request<'_>,
    ) -> Result<Vec<(Option<String>, Denial)>, Status> {
        let mut denied = Vec::new();
        let version = match self.0.concerned(policy, request).await {
            Ok(Some(version)) => version,
            Ok(None) => return Ok(denied),
            Err(_) if policy.ignore => return Ok(denied),
            Err(why) => return Ok(vec![(None, broken(format!("failed to configure policy: {}", why.message)))]),
        };
        let server = self.0.server()?;
        if let Some(why) = params::misconfigured(&server, policy) {
            if !policy.ignore {
                denied.push((None, broken(format!("failed to configure policy: {why}"))));
            }
            return Ok(denied);
        }
        let asks = Asks { server: &server, user: request.user };
        let mut inputs: Option<Inputs> = None;
        let mut annotations: Vec<(String, Vec<String>)> = Vec::new();
        for binding in bindings {
            let found = match self.0.bound(binding, request).await {
                Ok(false) => continue,
                Ok(true) => params::collect(&server, policy, binding, request).await,
                Err(why) => Err(why.message),
            };
            let found = match found {
                Ok(found) => found,
                Err(_) if policy.ignore => continue,
                Err(why) => {
                    let why = format!("failed to configure binding: {why}");
                    denied.push((Some(binding.name.clone()), broken(why)));
                    continue;
                }
            };
            for param in found {
                let inputs = match &mut inputs {
                    Some(inputs) => inputs,
                    none => {
                        none.insert(Inputs::of(&server, request, &version, self.0.namespace(request).await?).await?)
                    }
                };
                inputs.params = param;
                let outcome = policy.evaluate(&inputs.scope(&asks, &policy.variables));
                let count = |message: &str, action: &str, took: Duration| {
                    server.metrics.policies.checked(&policy.name, &binding.name, message, action, took);
                };
                outcome.ignored.iter().for_each(|(why, took)| count(why, "allow", *took));
                for denial in outcome.denials {
                    note(policy, binding, &denial);
                    binding.actions.iter().for_each(|a| count(&denial.message, &a.to_lowercase(), denial.took));
                    if binding.actions.iter().any(|a| a == "Deny") {
                        denied.push((Some(binding.name.clone()), denial));
                    }
                }
                for (why, took) in outcome.broken {
                    count(&why, "deny", took);
                    denied.push((Some(binding.name.clone()), broken(why)));
                }
                outcome.annotations.into_iter().for_each(|(key, text)| collect(&mut annotations, key, text));
            }
        }
        for (key, texts) in annotations {
            notes::annotate(&format!("{}/{key}", policy.name), &texts.join(", "));
        }
        Ok(denied)
    }
}

/// Different bindings may have different things to say under one key.
fn collect(annotations: &mut Vec<(String, Vec<String>)>, key: String, mut text: String) {
    let end = (0..=LONGEST_ANNOTATION.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text.truncate(end);
    match annotations.iter_mut().find(|(k, _)| *k == key) {
        Some((_, texts)) if !texts.contains(&text) => texts.push(text),
        Some(_) => {}
        None => annotations.push((key, vec![text])),
    }
}

/// Says what the binding's actions want said.
fn note(policy: &Policy<Rules>, binding: &Binding, denial: &Denial) {
    for action in &binding.actions {
        match action.as_str() {
            "Warn" => notes::warn(&format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.name, binding.name, denial.message
            )),
            "Audit" => {
                let failure = value!([{
                    "message": &denial.message,
                    "policy": &policy.name,
                    "binding": &binding.name,
                    "expressionIndex": denial.place,
                    "validationActions": binding.actions.iter().map(|a| a.as_str()).collect::<Value>(),
                }]);
                notes::annotate(FAILURE_KEY, &json::to_string(&failure));
            }
            _ => {}
        }
    }
}

fn refusal(request: &Request, policy: &str, binding: Option<&str>, denial: &Denial) -> Status {
    let with = binding.map_or(String::new(), |b| format!(" with binding '{b}'"));
    let message = format!("{NAME} '{policy}'{with} denied request: {}", denial.message);
    let mut status = request.forbidden(&message);
    let (reason, code) = match denial.reason.as_str() {
        "Forbidden" => ("Forbidden", 403),
        "Unauthorized" => ("Unauthorized", 401),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    };
    status.reason = reason.into();
    status.code = code;
    status.with_cause("", message, "")
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, request: &Request) -> bool {
        self.0.wants(request)
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let mut first = None;
        for (policy, bindings) in self.0.hooks().iter() {
            // All are asked, since all have warnings and annotations to give.
            for (binding, denial) in self.one(policy, bindings, request).await? {
                first.get_or_insert_with(|| refusal(request, &policy.name, binding.as_deref(), &denial));
            }
        }
        first.map_or(Ok(()), Err)
    }
}
