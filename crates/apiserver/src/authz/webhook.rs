//! Authorization by somebody else, who is asked with a SubjectAccessReview (upstream `plugin/authorizer/webhook`), if the
//! conditions match that say what is his business.

use super::chain::aggregate;
use super::{Attributes, Decision, RemoteAuthorizer, Verdict};
use crate::outgoing::{Destination, Failure};
use crate::remembered::Remembered;
use crate::server::Server;
use async_trait::async_trait;
use canopus_api::selectors::Op;
use canopus_api::{Value, json, value};
use canopus_cel::{
    DeclKind, DeclType, DeclTypes, Env, ListType, ObjectDecl, PER_CALL_LIMIT, Program, Type, Val, issues_text,
};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const GROUP: &str = "authorization.k8s.io";
const REMEMBERED: usize = 8192;
/// Requests that say more about themselves are not kept: they may be meant to fill the memory.
const MAX_SAID: usize = 10_000;

pub struct Options {
    pub name: String,
    /// Of the SubjectAccessReview: v1 or v1beta1.
    pub version: String,
    pub timeout: Duration,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
    /// What is not known is denied; otherwise the next is asked.
    pub deny_on_error: bool,
    pub conditions: Conditions,
}

pub struct Webhook {
    to: Destination,
    options: Options,
    known: Remembered<Vec<u8>, Value>,
}

impl Webhook {
    pub fn new(to: Destination, options: Options) -> Webhook {
        Webhook { to, options, known: Remembered::new(REMEMBERED) }
    }

    fn failed(&self, why: String) -> Verdict {
        let decision = match self.options.deny_on_error {
            true => Decision::Deny(String::new()),
            false => Decision::NoOpinion(String::new()),
        };
        Verdict { decision, error: Some(why) }
    }

    async fn ask(&self, server: &Server, spec: &Value) -> Result<Value, String> {
        let started = Instant::now();
        let version = format!("{GROUP}/{}", self.options.version);
        let mut spec = spec.clone();
        if self.options.version == "v1beta1"
            && let Some(groups) = spec.remove("groups")
        {
            spec.set("group", groups);
        }
        let review = value!({
            "kind": "SubjectAccessReview", "apiVersion": &version, "metadata": {}, "spec": spec, "status": {"allowed": false},
        });
        let answer = server.outgoing.post_until(&self.to, &review, self.options.timeout).await;
        let result = match &answer {
            Ok(_) => "success",
            Err(Failure::Timeout(_)) => "timeout",
            Err(_) => "error",
        };
        let open = answer.is_err() && !self.options.deny_on_error;
        server.metrics.authorization.asked(&self.options.name, result, open, started.elapsed());
        let answer = answer.map_err(|failure| failure.to_string())?;
        if answer["kind"].str() != "SubjectAccessReview" || answer["apiVersion"].str() != version {
            let (kind, said) = (answer["kind"].str(), answer["apiVersion"].str());
            return Err(format!("no kind {kind:?} is registered for version {said:?} in the webhook's answer"));
        }
        Ok(answer["status"].clone())
    }
}

#[async_trait]
impl RemoteAuthorizer for Webhook {
    async fn authorize(&self, server: &Server, attributes: &Attributes<'_>) -> Verdict {
        let spec = spec(attributes);
        match self.options.conditions.hold(server, &self.options.name, &spec) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()).into(),
            Err(why) => return self.failed(why),
        }
        let key = json::to_vec(&spec);
        let status = match self.known.get(&key) {
            Some(known) => known,
            None => match self.ask(server, &spec).await {
                Ok(status) => {
                    let ttl = match status["allowed"].bool() {
                        true => self.options.authorized_ttl,
                        false => self.options.unauthorized_ttl,
                    };
                    if said(attributes) < MAX_SAID {
                        self.known.put(key, status.clone(), ttl);
                    }
                    status
                }
                Err(error) => {
                    tracing::error!(
                        webhook = self.options.name,
                        error,
                        "failed to ask a webhook whether something is authorized"
                    );
                    return self.failed(error);
                }
            },
        };
        let reason = status["reason"].str().to_string();
        match (status["denied"].bool(), status["allowed"].bool()) {
            (true, true) => {
                let error = "webhook subject access review returned both allow and deny response";
                Verdict { decision: Decision::Deny(reason), error: Some(error.into()) }
            }
            (true, false) => Decision::Deny(reason).into(),
            (false, true) => Decision::Allow(reason).into(),
            (false, false) => Decision::NoOpinion(reason).into(),
        }
    }
}

/// How much the requester has said.
fn said(a: &Attributes) -> usize {
    [a.namespace, a.verb, a.group, a.version, a.resource, a.subresource, a.name, a.path].iter().map(|s| s.len()).sum()
}

/// The spec of a SubjectAccessReview.
fn spec(a: &Attributes) -> Value {
    let mut spec = value!({});
    let mut set = |field: &str, text: &str| {
        if !text.is_empty() {
            spec.set(field, text);
        }
    };
    set("user", &a.user.name);
    set("uid", &a.user.uid);
    if !a.user.groups.is_empty() {
        spec.set("groups", a.user.groups.iter().cloned().collect::<Value>());
    }
    if !a.user.extra.is_empty() {
        let extra = a.user.extra.iter().map(|(k, v)| (k.clone(), v.iter().cloned().collect::<Value>()));
        spec.set("extra", Value::Object(extra.collect()));
    }
    if !a.is_resource {
        spec.set("nonResourceAttributes", value!({"path": a.path, "verb": a.verb}));
        return spec;
    }
    let mut attributes = value!({});
    for (field, text) in [
        ("namespace", a.namespace),
        ("verb", a.verb),
        ("group", a.group),
        ("version", a.version),
        ("resource", a.resource),
        ("subresource", a.subresource),
        ("name", a.name),
    ] {
        if !text.is_empty() {
            attributes.set(field, text);
        }
    }
    for (field, requirements) in [("fieldSelector", field_requirements(a)), ("labelSelector", label_requirements(a))] {
        if !requirements.is_empty() {
            attributes.set(field, value!({"requirements": Value::Array(requirements)}));
        }
    }
    spec.set("resourceAttributes", attributes);
    spec
}

fn field_requirements(a: &Attributes) -> Vec<Value> {
    let requirement = |(key, equal, value): &(_, bool, _)| {
        let operator = if *equal { "In" } else { "NotIn" };
        value!({"key": key, "operator": operator, "values": [value]})
    };
    a.fields.iter().map(requirement).collect()
}

/// Comparisons have no operator there; leaving them out asks for more, which is safe.
fn label_requirements(a: &Attributes) -> Vec<Value> {
    let requirement = |r: &canopus_api::selectors::Requirement| {
        let (operator, values) = match &r.op {
            Op::Equals(value) => ("In", value!([value])),
            Op::NotEquals(value) => ("NotIn", value!([value])),
            Op::In(values) => ("In", values.iter().cloned().collect()),
            Op::NotIn(values) => ("NotIn", values.iter().cloned().collect()),
            Op::Exists => ("Exists", Value::Null),
            Op::DoesNotExist => ("DoesNotExist", Value::Null),
            Op::GreaterThan(_) | Op::LessThan(_) => return None,
        };
        let mut requirement = value!({"key": &r.key, "operator": operator});
        if !values.is_null() {
            requirement.set("values", values);
        }
        Some(requirement)
    };
    a.labels.iter().filter_map(requirement).collect()
}

/// Which requests a webhook is asked about: those for which all expressions hold.
#[derive(Default)]
pub struct Conditions(Vec<Program>);

impl Conditions {
    /// # Errors
    /// Why one does not compile.
    pub fn of<'a>(sources: impl Iterator<Item = &'a str>) -> Result<Conditions, String> {
        sources.map(Conditions::compile).collect::<Result<_, _>>().map(Conditions)
    }

    /// # Errors
    /// Why the expression does not compile, or is no condition.
    pub fn compile(source: &str) -> Result<Program, String> {
        let types = DeclTypes::new([("request".to_string(), request_type().clone())]);
        let env = Env::new().variable("request", request_type().ty()).types(Arc::new(types));
        let program = env.compile(source).map_err(|i| format!("compilation failed: {}", issues_text(&i)))?;
        match program.result() {
            Type::Bool => Ok(program),
            other => Err(format!("must evaluate to bool but got {other}")),
        }
    }

    /// One that does not hold decides, whatever is wrong with others.
    fn hold(&self, server: &Server, name: &str, spec: &Value) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let started = Instant::now();
        let request = whole(spec);
        let mut wrong = Vec::new();
        let mut excluded = false;
        for program in &self.0 {
            let done = program.eval(&[("request", Val::declared(&request, request_type()))], PER_CALL_LIMIT);
            let source = program.source();
            match done.value {
                Ok(Val::Bool(true)) => {}
                Ok(Val::Bool(false)) => {
                    excluded = true;
                    break;
                }
                Ok(other) => wrong.push(format!(
                    "cel evaluation error: expression '{source}' eval result type should be bool but got {}",
                    other.ty()
                )),
                Err(e) => wrong.push(format!("cel evaluation error: expression '{source}' resulted in error: {e}")),
            }
        }
        server.metrics.authorization.matched(name, excluded, !wrong.is_empty(), started.elapsed());
        match aggregate(&wrong) {
            _ if excluded => Ok(false),
            Some(why) => Err(why),
            None => Ok(true),
        }
    }
}

/// What expressions see: every text is there, if only as an empty one.
fn whole(spec: &Value) -> Value {
    let mut request = spec.clone();
    for field in ["user", "uid"] {
        request.set_default(field, "");
    }
    request.set_default("groups", Value::Array(Vec::new()));
    request.set_default("extra", Value::object());
    if let Some(attributes) = request.get_mut("resourceAttributes") {
        for field in ["namespace", "verb", "group", "version", "resource", "subresource", "name"] {
            attributes.set_default(field, "");
        }
    }
    request
}

/// What `request` is.
fn request_type() -> &'static DeclType {
    static TYPE: OnceLock<DeclType> = OnceLock::new();
    TYPE.get_or_init(|| {
        let object = |name: &str, fields: &[(&str, &DeclType)]| {
            let fields = fields.iter().map(|(name, ty)| (name.to_string(), (*ty).clone())).collect();
            let name = format!("kubernetes.{name}");
            DeclType::new(DeclKind::Object(Arc::new(ObjectDecl { name, fields })), 2)
        };
        let list = |of: &DeclType| DeclType::new(DeclKind::List(Arc::new(of.clone()), ListType::Atomic), 2);
        let string = DeclType::new(DeclKind::String, 2);
        let strings = list(&string);
        let extra = DeclType::new(DeclKind::Map(Arc::new(strings.clone())), 2);
        let requirement =
            object("SelectorRequirement", &[("key", &string), ("operator", &string), ("values", &strings)]);
        let requirements = list(&requirement);
        let selector = |name: &str| object(name, &[("rawSelector", &string), ("requirements", &requirements)]);
        let (fields, labels) = (selector("FieldSelectorAttributes"), selector("LabelSelectorAttributes"));
        let mut all: Vec<(&str, &DeclType)> = vec![("fieldSelector", &fields), ("labelSelector", &labels)];
        let texts = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
        all.extend(texts.map(|name| (name, &string)));
        let resource = object("ResourceAttributes", &all);
        let other = object("NonResourceAttributes", &[("path", &string), ("verb", &string)]);
        object(
            "SubjectAccessReviewSpec",
            &[
                ("resourceAttributes", &resource),
                ("nonResourceAttributes", &other),
                ("user", &string),
                ("groups", &strings),
                ("extra", &extra),
                ("uid", &string),
            ],
        )
    })
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
