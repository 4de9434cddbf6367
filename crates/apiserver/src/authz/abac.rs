//! `ABAC`: policies in a file, one on each line (upstream `pkg/auth/authorizer/abac`): `abac.authorization.kubernetes.io/v1beta1`,
//! or without a version, as they were at first.

use super::{Attributes, Authorizer, Decision, Rules};
use crate::user::{AUTHENTICATED, User};
use canopus_api::{Value, json, value};

const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";

/// What one line allows to whom. An empty user or group says nothing; everything else must fit.
#[derive(Clone, Debug, Default, PartialEq)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    path: String,
}

/// The policies of a file.
#[derive(Debug)]
pub struct Policies(Vec<Policy>);

impl Policies {
    /// `path` is what complaints call it.
    ///
    /// # Errors
    /// The first line that cannot be understood.
    pub fn parse(path: &str, text: &str) -> Result<Policies, String> {
        let (mut policies, mut unversioned) = (Vec::new(), false);
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let bad = |why: String| format!("error reading policy file {path}, line {}: {line}: {why}", at + 1);
            let document = json::parse(line.as_bytes()).map_err(|e| bad(e.to_string()))?;
            let versioned = document["apiVersion"].str() == VERSION && document["kind"].str() == "Policy";
            unversioned |= !versioned;
            policies.push(if versioned { common(&document["spec"]) } else { first(&document) }.map_err(bad)?);
        }
        if unversioned {
            tracing::warn!(path, "the policy file contains unversioned rules");
        }
        Ok(Policies(policies))
    }
}

/// The fields that both versions have.
fn common(policy: &Value) -> Result<Policy, String> {
    let text = |field: &str| match &policy[field] {
        Value::Null => Ok(String::new()),
        value => value.as_str().map(String::from).ok_or_else(|| wrong(field, value)),
    };
    let readonly = match &policy["readonly"] {
        Value::Null => false,
        value => value.as_bool().ok_or_else(|| wrong("readonly", value))?,
    };
    let mut policy = Policy {
        user: text("user")?,
        group: text("group")?,
        readonly,
        api_group: text("apiGroup")?,
        resource: text("resource")?,
        namespace: text("namespace")?,
        path: text("nonResourcePath")?,
    };
    // Everybody is everybody who is known.
    if policy.user == "*" || policy.group == "*" {
        (policy.user, policy.group) = (String::new(), AUTHENTICATED.into());
    }
    Ok(policy)
}

fn wrong(field: &str, value: &Value) -> String {
    format!("json: cannot unmarshal {} into field {field:?}", value.type_name())
}

/// What is left out allows everything.
fn first(document: &Value) -> Result<Policy, String> {
    let mut policy = Policy { api_group: "*".into(), path: String::new(), ..common(document)? };
    if policy.user.is_empty() && policy.group.is_empty() {
        policy.group = AUTHENTICATED.into();
    }
    if policy.namespace.is_empty() && policy.resource.is_empty() {
        policy.path = "*".into();
    }
    for field in [&mut policy.namespace, &mut policy.resource] {
        if field.is_empty() {
            *field = "*".into();
        }
    }
    Ok(policy)
}

fn fits(allowed: &str, asked: &str) -> bool {
    allowed == "*" || allowed == asked
}

impl Policy {
    fn is_for(&self, user: &User) -> bool {
        let known = !self.user.is_empty() || !self.group.is_empty();
        known
            && (self.user.is_empty() || self.user == user.name.as_str())
            && (self.group.is_empty() || user.in_group(&self.group))
    }

    fn allows(&self, asked: &Attributes) -> bool {
        if !self.is_for(asked.user) || self.readonly && !matches!(asked.verb, "get" | "list" | "watch") {
            return false;
        }
        if asked.is_resource {
            return fits(&self.namespace, asked.namespace)
                && fits(&self.resource, asked.resource)
                && fits(&self.api_group, asked.group);
        }
        let below = self.path.ends_with('*') && asked.path.starts_with(self.path.trim_end_matches('*'));
        below || self.path == asked.path
    }

    fn verbs(&self) -> Value {
        if self.readonly { value!(["get", "list", "watch"]) } else { value!(["*"]) }
    }
}

impl Authorizer for Policies {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        match self.0.iter().any(|policy| policy.allows(attributes)) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion("No policy matched.".into()),
        }
    }

    fn rules(&self, user: &User, namespace: &str) -> Rules {
        let mut rules = Rules::default();
        for policy in self.0.iter().filter(|p| p.is_for(user) && fits(&p.namespace, namespace)) {
            if !policy.resource.is_empty() {
                rules.resource.push(value!({
                    "verbs": policy.verbs(),
                    "apiGroups": [policy.api_group.as_str()],
                    "resources": [policy.resource.as_str()],
                }));
            }
            if !policy.path.is_empty() {
                rules.non_resource.push(value!({"verbs": policy.verbs(), "nonResourceURLs": [policy.path.as_str()]}));
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::{Gvr, Target};

    fn policies(lines: &[&str]) -> Result<Policies, String> {
        Policies::parse("p.jsonl", &lines.join("\n"))
    }

    /// A line in the current version.
    fn line(spec: &str) -> String {
        format!(r#"{{"apiVersion": "{VERSION}", "kind": "Policy", "spec": {spec}}}"#)
    }

    /// Whether a request of `user`, who is in the group `team`, is allowed: `verb /path` or `verb group/resource namespace`.
    fn allowed(policies: &Policies, user: &str, request: &str) -> bool {
        let user = match user {
            "" => User::anonymous(),
            name => User::new(name, &["team"]),
        };
        let words: Vec<&str> = request.split(' ').collect();
        let decision = match words[..] {
            [verb, path] if path.starts_with('/') => policies.authorize(&Attributes::path(&user, verb, path)),
            [verb, resource, ref namespace @ ..] => {
                let (group, resource) = resource.split_once('/').unwrap_or(("", resource));
                let namespace = namespace.first().copied().unwrap_or_default();
                let target = Target::new(&Gvr::new(group, "v1", resource), namespace, "");
                policies.authorize(&Attributes::target(&user, verb, &target))
            }
            _ => panic!("{request}"),
        };
        decision == Decision::Allow(String::new())
    }

    #[test]
    fn who_may_what() {
        let known = r#"{"user": "*", "namespace": "*", "resource": "*", "apiGroup": "*", "nonResourcePath": "*"}"#;
        let reader = r#"{"user": "bob", "namespace": "caribou", "resource": "pods", "readonly": true}"#;
        let team = r#"{"group": "team", "namespace": "*", "resource": "*", "apiGroup": "apps"}"#;
        let paths = r#"{"group": "system:unauthenticated", "nonResourcePath": "/api*", "readonly": true}"#;
        let both = r#"{"user": "bob", "group": "others", "namespace": "*", "resource": "*", "apiGroup": "*"}"#;
        let nobody = r#"{"namespace": "*", "resource": "*", "apiGroup": "*", "nonResourcePath": "*"}"#;
        for (spec, user, request, expected) in [
            (known, "bob", "delete apps/deployments x", true),
            (known, "bob", "post /foo", true),
            (known, "", "get /foo", false),
            (reader, "bob", "watch pods caribou", true),
            (reader, "bob", "deletecollection pods caribou", false),
            (reader, "bob", "get pods other", false),
            (reader, "bob", "get pods", false),
            (reader, "bob", "get apps/pods caribou", false),
            (reader, "bob", "get /pods", false),
            (reader, "amy", "get pods caribou", false),
            (team, "amy", "create apps/deployments x", true),
            (team, "amy", "create deployments x", false),
            (paths, "", "get /apis/apps", true),
            (paths, "", "get /version", false),
            (paths, "", "post /api", false),
            (paths, "", "get pods", false),
            (both, "bob", "get pods", false),
            (nobody, "bob", "get pods", false),
        ] {
            let policies = policies(&["# a comment", "", &line(spec)]).unwrap();
            assert_eq!(allowed(&policies, user, request), expected, "{user}: {request}\n{spec}");
        }
    }

    #[test]
    fn without_a_version() {
        for (text, user, request, expected) in [
            ("{}", "bob", "delete apps/deployments x", true),
            ("{}", "bob", "post /foo", true),
            ("{}", "", "get /foo", false),
            (r#"{"readonly": true}"#, "bob", "create pods x", false),
            (r#"{"user": "amy", "resource": "pods"}"#, "amy", "create pods x", true),
            (r#"{"user": "amy", "resource": "pods"}"#, "amy", "get /foo", false),
            (r#"{"user": "amy", "namespace": "x"}"#, "amy", "create batch/jobs x", true),
            (r#"{"user": "amy", "namespace": "x"}"#, "bob", "create batch/jobs x", false),
        ] {
            assert_eq!(allowed(&policies(&[text]).unwrap(), user, request), expected, "{user}: {request}\n{text}");
        }
    }

    #[test]
    fn what_is_no_policy() {
        let error = policies(&["# one", r#"{"user": "a""#]).unwrap_err();
        assert!(error.starts_with(r#"error reading policy file p.jsonl, line 2: {"user": "a": "#), "{error}");
        for bad in [r#"{"user": 5}"#, r#"{"readonly": "yes"}"#, &line(r#"{"resource": ["pods"]}"#)] {
            assert!(policies(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn rules_of_a_user() {
        let policies = policies(&[
            &line(r#"{"user": "bob", "namespace": "x", "resource": "pods", "readonly": true}"#),
            &line(r#"{"user": "bob", "namespace": "y", "resource": "secrets"}"#),
            &line(r#"{"user": "bob", "namespace": "*", "nonResourcePath": "/healthz"}"#),
            &line(r#"{"user": "amy", "namespace": "*", "resource": "*"}"#),
        ]);
        let rules = policies.unwrap().rules(&User::new("bob", &[]), "x");
        let pods = value!({"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]});
        assert_eq!(rules.resource, [pods]);
        assert_eq!(rules.non_resource, [value!({"verbs": ["*"], "nonResourceURLs": ["/healthz"]})]);
    }
}
