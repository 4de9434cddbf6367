//! Requests in the form of objects: who am I, may I, is this token good. Answered and forgotten.

use crate::authz::{Attributes, Decision};
use crate::handlers::Written;
use crate::server::{Served, Server};
use crate::user::User;
use canopus_api::{Errors, Field, Object, Result, Status, Target, Value, WriteOptions, value};
use std::sync::Arc;

impl Server {
    pub(crate) fn review(
        &self,
        user: &User,
        served: &Arc<Served>,
        target: &Target,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        let warnings = self.decode(served, &mut body, options)?;
        let mut errors = Errors::new();
        served.resource.validate(&Field::root(&body), &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&served.info.gvk(), "", errors));
        }
        let status = match served.info.plural {
            "selfsubjectreviews" => value!({"userInfo": user_info(user)}),
            "selfsubjectaccessreviews" => self.decide(user, &body["spec"])?,
            "subjectaccessreviews" => self.decide(&subject(&body["spec"]), &body["spec"])?,
            "localsubjectaccessreviews" => {
                if body["spec"]["resourceAttributes"]["namespace"].str() != target.namespace {
                    let message =
                        format!("spec.resourceAttributes.namespace must match namespace: {}", target.namespace);
                    return Err(Status::bad_request(message));
                }
                self.decide(&subject(&body["spec"]), &body["spec"])?
            }
            "selfsubjectrulesreviews" => self.rules(user, &body["spec"])?,
            "tokenreviews" => self.token_review(&body["spec"])?,
            _ => return Err(Status::no_such_resource()),
        };
        body.set("status", status);
        body.set("metadata", value!({}));
        let object = Arc::new(Object::from_value(body, &[], 0));
        Ok(Written { object, created: true, warnings })
    }

    fn decide(&self, user: &User, spec: &Value) -> Result<Value> {
        let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let attributes = if resource.is_null() {
            Attributes {
                user,
                verb: other["verb"].str(),
                is_resource: false,
                path: other["path"].str(),
                group: "",
                version: "",
                resource: "",
                subresource: "",
                namespace: "",
                name: "",
            }
        } else {
            Attributes {
                user,
                verb: resource["verb"].str(),
                is_resource: true,
                group: resource["group"].str(),
                version: resource["version"].str(),
                resource: resource["resource"].str(),
                subresource: resource["subresource"].str(),
                namespace: resource["namespace"].str(),
                name: resource["name"].str(),
                path: "",
            }
        };
        let mut status = value!({"allowed": false});
        let reason = match self.gates.get()?.authorizer.authorize(&attributes) {
            Decision::Allow(reason) => {
                status.set("allowed", true);
                reason
            }
            Decision::Deny(reason) => {
                status.set("denied", true);
                reason
            }
            Decision::NoOpinion(reason) => reason,
        };
        if !reason.is_empty() {
            status.set("reason", reason);
        }
        Ok(status)
    }

    fn rules(&self, user: &User, spec: &Value) -> Result<Value> {
        let rules = self.gates.get()?.authorizer.rules(user, spec["namespace"].str()).unwrap_or_default();
        Ok(value!({
            "resourceRules": Value::Array(rules.resource),
            "nonResourceRules": Value::Array(rules.non_resource),
            "incomplete": false,
        }))
    }

    fn token_review(&self, spec: &Value) -> Result<Value> {
        let audiences: Vec<String> = spec["audiences"].items().iter().map(|a| a.str().to_string()).collect();
        let mut why = String::new();
        for authenticator in &self.gates.get()?.authenticators {
            match authenticator.review(spec["token"].str(), &audiences) {
                Ok(None) => {}
                Ok(Some((user, good_for))) => {
                    let good_for: Value = good_for.into_iter().collect();
                    return Ok(value!({"authenticated": true, "user": user_info(&user), "audiences": good_for}));
                }
                Err(error) => why = error.to_string(),
            }
        }
        let mut status = value!({"user": {}});
        if !why.is_empty() {
            status.set("error", why);
        }
        Ok(status)
    }
}

fn subject(spec: &Value) -> User {
    let strings = |v: &Value| v.items().iter().map(|s| s.str().into()).collect();
    User {
        name: spec["user"].str().into(),
        uid: spec["uid"].str().into(),
        groups: strings(&spec["groups"]),
        extra: spec["extra"].entries().map(|(k, v)| (k.clone(), strings(v))).collect(),
    }
}

/// `authentication.k8s.io/v1 UserInfo`.
pub fn user_info(user: &User) -> Value {
    let mut info = value!({"username": &user.name});
    if !user.uid.is_empty() {
        info.set("uid", &user.uid);
    }
    if !user.groups.is_empty() {
        info.set("groups", user.groups.iter().cloned().collect::<Value>());
    }
    if !user.extra.is_empty() {
        let extra = user.extra.iter().map(|(k, v)| (k.clone(), v.iter().cloned().collect::<Value>()));
        info.set("extra", Value::Object(extra.collect()));
    }
    info
}
