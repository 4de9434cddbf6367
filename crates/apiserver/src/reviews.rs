//! Requests in the form of objects: who am I, may I, is this token good. Answered and forgotten.

use crate::authn;
use crate::authz::chain::aggregate;
use crate::authz::{Attributes, Decision};
use crate::handlers::Written;
use crate::handlers::decode::place_namespace;
use crate::served::Served;
use crate::server::Server;
use crate::user::User;
use canopus_api::selectors::{FieldTerm, Requirement};
use canopus_api::{
    Errors, Field, FieldSelector, Gvk, LabelSelector, Object, Result, Status, Target, Value, WriteOptions, value,
};
use std::sync::Arc;

impl Server {
    pub(crate) async fn review(
        &self,
        user: &User,
        served: &Arc<Served>,
        target: &Target,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        let warnings = self.decode(served, &mut body, options)?;
        let kind = served.info().kind;
        if kind == "LocalSubjectAccessReview" {
            place_namespace(&target.namespace, &mut body)?;
        }
        self.own(served, None, &mut body, "", options).await?;
        let mut errors = Errors::new();
        let bare = without_managed_fields(&body);
        served.resource.validate(&Field::root(&bare), &mut errors);
        if !errors.is_empty() {
            // Upstream does not say of what kind.
            return Err(Status::invalid(&Gvk::new(served.info().group, "", ""), "", errors));
        }
        let spec = &body["spec"];
        let status = match kind {
            "SelfSubjectReview" => value!({"userInfo": user_info(user)}),
            "SelfSubjectAccessReview" => self.access(user, spec).await?,
            "SubjectAccessReview" => self.access(&subject(spec), spec).await?,
            "LocalSubjectAccessReview" => {
                if spec["resourceAttributes"]["namespace"].str() != target.namespace {
                    let message =
                        format!("spec.resourceAttributes.namespace must match namespace: {}", target.namespace);
                    return Err(Status::bad_request(message));
                }
                self.access(&subject(spec), spec).await?
            }
            "SelfSubjectRulesReview" => self.rules(user, spec)?,
            "TokenReview" if spec["token"].is_empty() => {
                return Err(Status::bad_request("token is required for TokenReview in authentication"));
            }
            "TokenReview" => self.token_review(spec).await?,
            _ => return Err(Status::no_such_resource()),
        };
        body.set("status", status);
        // These two are answered with an object of their own.
        match kind {
            "SelfSubjectReview" => body.set("metadata", value!({"creationTimestamp": self.surroundings.now()})),
            "SelfSubjectRulesReview" => {
                body.set("metadata", value!({}));
                body.set("spec", value!({}));
            }
            _ => {}
        }
        let object = Arc::new(Object::from_value(body, &[], 0));
        Ok(Written { object, created: true, warnings })
    }

    async fn access(&self, user: &User, spec: &Value) -> Result<Value> {
        let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let (fields, labels) =
            (Selected::fields(&resource["fieldSelector"]), Selected::labels(&resource["labelSelector"]));
        let attributes = if resource.is_null() {
            Attributes::path(user, other["verb"].str(), other["path"].str())
        } else {
            Attributes {
                is_resource: true,
                group: resource["group"].str(),
                version: Some(resource["version"].str()).filter(|v| !v.is_empty()).unwrap_or("*"),
                resource: resource["resource"].str(),
                subresource: resource["subresource"].str(),
                namespace: resource["namespace"].str(),
                name: resource["name"].str(),
                fields: &fields.requirements,
                labels: &labels.requirements,
                ..Attributes::path(user, resource["verb"].str(), "")
            }
        };
        let mut status = value!({"allowed": false});
        let verdict = self.verdict(&attributes).await?;
        let reason = match verdict.decision {
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
        let wrong = [verdict.error, fields.ignored("fieldSelector"), labels.ignored("labelSelector")];
        let wrong: Vec<String> = wrong.into_iter().flatten().collect();
        if !wrong.is_empty() {
            status.set("evaluationError", wrong.join("; "));
        }
        Ok(status)
    }

    fn rules(&self, user: &User, spec: &Value) -> Result<Value> {
        let namespace = spec["namespace"].str();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let rules = self.gates.get()?.authorizer.rules(user, namespace);
        let mut status = value!({
            "resourceRules": Value::Array(rules.resource),
            "nonResourceRules": Value::Array(rules.non_resource),
            "incomplete": rules.incomplete,
        });
        if let Some(error) = aggregate(&rules.errors) {
            status.set("evaluationError", error);
        }
        Ok(status)
    }

    async fn token_review(&self, spec: &Value) -> Result<Value> {
        let gates = self.gates.get()?;
        let (token, asked) = (spec["token"].str(), &spec["audiences"]);
        let asked: Vec<String> = asked.items().iter().map(|a| a.str().to_string()).collect();
        let good = |user: &User, audiences: Vec<String>| {
            let audiences: Value = audiences.into_iter().collect();
            value!({"authenticated": true, "user": user_info(user), "audiences": audiences})
        };
        let mut why = Vec::new();
        for authenticator in &gates.authenticators {
            let mut answer = authenticator.review(token, &asked);
            if answer.is_err() && authn::caught_up(self, &**authenticator, token).await {
                answer = authenticator.review(token, &asked);
            }
            match answer {
                Ok(None) => {}
                // Who knows of no audiences speaks for the API server's own.
                Ok(Some((user, good_for))) if good_for.is_empty() => {
                    let own = gates.tokens.audiences().iter();
                    let wanted: Vec<String> = own.filter(|a| asked.is_empty() || asked.contains(a)).cloned().collect();
                    if !wanted.is_empty() {
                        return Ok(good(&user, wanted));
                    }
                }
                Ok(Some((user, good_for))) => return Ok(good(&user, good_for)),
                Err(error) => why.push(error.to_string()),
            }
        }
        let asked = if asked.is_empty() { gates.tokens.audiences() } else { &asked };
        for authenticator in &gates.token_authenticators {
            match authenticator.check(self, token, asked).await {
                Ok(None) => {}
                Ok(Some((user, good_for))) => return Ok(good(&user, good_for)),
                Err(error) => why.push(error.to_string()),
            }
        }
        let error = aggregate(&why).unwrap_or_else(|| "invalid bearer token".into());
        Ok(value!({"user": {}, "error": error}))
    }
}

/// What clients have sent: who owns which field is no part of it.
fn without_managed_fields(body: &Value) -> Value {
    let mut bare = body.clone();
    bare.obj_mut("metadata").remove("managedFields");
    bare
}

/// What a review's selector demands. What it says that no authorizer understands is left out, which asks for more.
#[derive(Debug, PartialEq)]
struct Selected<R> {
    requirements: Vec<R>,
    partial: bool,
}

impl<R> Selected<R> {
    fn of<T>(requirements: impl Iterator<Item = Option<T>>) -> Selected<T> {
        let all: Vec<Option<T>> = requirements.collect();
        let partial = all.iter().any(Option::is_none);
        Selected { requirements: all.into_iter().flatten().collect(), partial }
    }

    fn ignored(&self, field: &str) -> Option<String> {
        let partially = if self.requirements.is_empty() { "" } else { "partially " };
        self.partial.then(|| format!("spec.resourceAttributes.{field} {partially}ignored due to parse error"))
    }
}

impl Selected<FieldTerm> {
    fn fields(selector: &Value) -> Selected<FieldTerm> {
        let raw = selector["rawSelector"].str();
        if !raw.is_empty() {
            let parsed = FieldSelector::parse(raw).map(|s| s.terms);
            return Selected { partial: parsed.is_err(), requirements: parsed.unwrap_or_default() };
        }
        Self::of(selector["requirements"].items().iter().map(|r| {
            let equal = match r["operator"].str() {
                "In" => true,
                "NotIn" => false,
                _ => return None,
            };
            match r["values"].items() {
                [value] => Some((r["key"].str().into(), equal, value.str().into())),
                _ => None,
            }
        }))
    }
}

impl Selected<Requirement> {
    fn labels(selector: &Value) -> Selected<Requirement> {
        let raw = selector["rawSelector"].str();
        if !raw.is_empty() {
            let parsed = LabelSelector::parse(raw).map(|s| s.requirements().to_vec());
            return Selected { partial: parsed.is_err(), requirements: parsed.unwrap_or_default() };
        }
        Self::of(selector["requirements"].items().iter().map(|r| {
            let known = matches!(r["operator"].str(), "In" | "NotIn" | "Exists" | "DoesNotExist");
            let one = value!({"matchExpressions": [r.clone()]});
            let parsed = LabelSelector::from_value(&one).ok().filter(|_| known)?;
            parsed.requirements().first().cloned()
        }))
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

/// The user whom a UserInfo describes.
pub fn of_user_info(info: &Value) -> User {
    let strings = |v: &Value| v.items().iter().map(|s| s.str().into()).collect();
    User {
        name: info["username"].str().into(),
        uid: info["uid"].str().into(),
        groups: strings(&info["groups"]),
        extra: info["extra"].entries().map(|(k, v)| (k.clone(), strings(v))).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::tokens::StaticTokens;
    use crate::server::Gates;

    #[tokio::test]
    async fn who_knows_of_no_audiences_speaks_for_this_server() {
        let server = crate::testing::server().await;
        let gates = Gates::clone(&*server.gates.get().unwrap());
        let own = gates.tokens.audiences()[0].clone();
        let known = Arc::new(StaticTokens(vec![("secret".into(), User::new("ann", &[]))]));
        server.gates.set(Gates { authenticators: vec![known], ..gates });
        for (audiences, good_for) in
            [(value!([]), value!([&own])), (value!([&own, "other"]), value!([&own])), (value!(["other"]), Value::Null)]
        {
            let status = server.token_review(&value!({"token": "secret", "audiences": audiences})).await.unwrap();
            assert_eq!((&status["audiences"], status["authenticated"].bool()), (&good_for, !good_for.is_null()));
        }
    }

    #[test]
    fn selectors_of_reviews() {
        let node = |op: &str, values: Value| value!({"key": "spec.nodeName", "operator": op, "values": values});
        let term = |equal: bool| ("spec.nodeName".into(), equal, "n".into());
        let partly = "spec.resourceAttributes.fieldSelector partially ignored due to parse error";
        let wholly = "spec.resourceAttributes.fieldSelector ignored due to parse error";
        let cases: [(Value, Vec<FieldTerm>, &str); 6] = [
            (Value::Null, vec![], ""),
            (value!({"rawSelector": "spec.nodeName=n"}), vec![term(true)], ""),
            (value!({"rawSelector": "spec.nodeName"}), vec![], wholly),
            (value!({"requirements": [node("NotIn", value!(["n"]))]}), vec![term(false)], ""),
            (
                value!({"requirements": [node("In", value!(["n"])), node("Exists", value!([]))]}),
                vec![term(true)],
                partly,
            ),
            (value!({"requirements": [node("In", value!(["n", "m"]))]}), vec![], wholly),
        ];
        for (selector, terms, ignored) in cases {
            let got = Selected::fields(&selector);
            assert_eq!(got.ignored("fieldSelector").unwrap_or_default(), ignored, "{selector:?}");
            assert_eq!(got.requirements, terms, "{selector:?}");
        }
        let labels = value!({"requirements": [{"key": "a", "operator": "In", "values": ["x"]}, {"key": "b", "operator": "Gt", "values": ["1"]}]});
        let got = Selected::labels(&labels);
        assert!(got.partial);
        assert_eq!((got.requirements.len(), got.requirements[0].key.as_str()), (1, "a"));
    }
}
