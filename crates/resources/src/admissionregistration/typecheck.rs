//! Type checking of validating policies: what is wrong with their expressions if the objects they are about look as their
//! schemas say (KEP-3488, upstream `validating/typechecking.go`). It warns and changes nothing of what a policy does.

use super::expressions::{Expressions, Uses};
use super::typed;
use canopus_api::{Gvk, Value, value};
use canopus_cel::DeclType;
use std::collections::BTreeSet;

/// At most so many kinds are looked at.
const MAX_TYPES: usize = 10;

/// A resource that is served, and where its schema is.
pub struct Served<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub plural: &'a str,
    pub singular: &'a str,
    pub kind: &'a str,
    /// The schema of a custom resource; built-in kinds have theirs in the table.
    pub schema: Option<&'a Value>,
}

impl Served<'_> {
    fn gvk(&self) -> (&str, &str, &str) {
        (self.group, self.version, self.kind)
    }

    fn declared(&self) -> Option<DeclType> {
        match self.schema {
            Some(schema) => typed::custom(schema, self.kind),
            None => typed::built_in(&Gvk::new(self.group, self.version, self.kind)),
        }
    }
}

/// `status.typeChecking.expressionWarnings` of a policy.
pub fn warnings(policy: &Value, served: &[Served]) -> Vec<Value> {
    let spec = &policy["spec"];
    let kinds = kinds(spec, served);
    let param = &spec["paramKind"];
    let params = served.iter().find(|s| {
        let (group, version) = split(param["apiVersion"].str());
        !param.is_null() && s.gvk() == (group, version, param["kind"].str())
    });
    let params = params.and_then(|s| s.declared());
    let uses = Uses { params: !param.is_null(), authorizer: true, patches: false };
    let environments: Vec<(String, Expressions)> = kinds
        .iter()
        .filter_map(|kind| {
            let mut expressions = Expressions::typed(kind.declared()?, params.clone());
            for variable in spec["variables"].items() {
                // What does not compile has any type.
                let _ = expressions.compile_variable(variable["name"].str(), variable["expression"].str(), uses);
            }
            Some((format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind), expressions))
        })
        .collect();
    let mut warnings = Vec::new();
    let mut check = |place: String, expression: &str| {
        let found = environments.iter().filter_map(|(kind, expressions)| {
            let issues = expressions.issues(expression, uses)?;
            Some(format!("{kind}: {issues}\n"))
        });
        let found: Vec<String> = found.collect();
        if !found.is_empty() {
            warnings.push(value!({"fieldRef": place, "warning": (found.join("\n"))}));
        }
    };
    for (i, validation) in spec["validations"].items().iter().enumerate() {
        check(format!("spec.validations[{i}].expression"), validation["expression"].str());
        let message = validation["messageExpression"].str();
        if !message.is_empty() {
            check(format!("spec.validations[{i}].messageExpression"), message);
        }
    }
    warnings
}

fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The kinds that the rules of a policy name, sorted. Rules with wildcards name none.
fn kinds<'a, 'b>(spec: &Value, served: &'a [Served<'b>]) -> Vec<&'a Served<'b>> {
    let mut found: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    'rules: for rule in spec["matchConstraints"]["resourceRules"].items() {
        let (Some(groups), Some(versions)) = (plain(&rule["apiGroups"]), plain(&rule["apiVersions"])) else { continue };
        let mut resources: Vec<&str> = rule["resources"].items().iter().map(Value::str).collect();
        resources.retain(|resource| !resource.contains(['*', '/']));
        resources.sort_unstable();
        let mut count = 0;
        for group in &groups {
            for version in &versions {
                for resource in &resources {
                    for named in served.iter().filter(|s| is_named(s, group, version, resource)) {
                        found.insert(named.gvk());
                        count += 1;
                        if count == MAX_TYPES {
                            break 'rules;
                        }
                    }
                }
            }
        }
    }
    found.iter().filter_map(|gvk| served.iter().find(|s| s.gvk() == *gvk)).collect()
}

/// The words of a list, sorted; None if one is a wildcard.
fn plain(list: &Value) -> Option<Vec<&str>> {
    let mut words: Vec<&str> = list.items().iter().map(Value::str).collect();
    words.sort_unstable();
    (!words.iter().any(|word| word.contains('*'))).then_some(words)
}

/// As upstream's mapper finds kinds: the group without a name stands for any.
fn is_named(served: &Served, group: &str, version: &str, resource: &str) -> bool {
    let resource = resource.to_lowercase();
    (group.is_empty() || served.group == group)
        && served.version == version
        && (served.plural == resource || served.singular == resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in() -> Vec<Served<'static>> {
        let infos = crate::ALL.iter().map(|r| r.info()).filter(|i| i.stored && i.storage.is_none());
        infos
            .map(|i| Served {
                group: i.group,
                version: i.version,
                plural: i.plural,
                singular: i.singular,
                kind: i.kind,
                schema: None,
            })
            .collect()
    }

    fn policy(group: &str, resource: &str, expressions: &[&str]) -> Value {
        let validations = expressions.iter().map(|e| value!({"expression": *e})).collect::<Value>();
        value!({"spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}]},
            "validations": validations,
        }})
    }

    fn told(policy: &Value, served: &[Served]) -> Vec<(String, String)> {
        let told = warnings(policy, served);
        told.iter().map(|w| (w["fieldRef"].str().to_string(), w["warning"].str().to_string())).collect()
    }

    #[test]
    fn built_in_kinds() {
        let served = built_in();
        let cases: &[(&str, &str, &str, &str)] = &[
            ("apps", "deployments", "object.spec.replicas > 1", ""),
            ("apps", "deployment", "object.spec.template.spec.containers.all(c, c.name != '')", ""),
            ("apps", "deployments", "oldObject.metadata.creationTimestamp < timestamp('2020-01-01T00:00:00Z')", ""),
            ("apps", "deployments", "object.spec.strategy.rollingUpdate.maxSurge == 3", ""),
            ("*", "deployments", "object.nope", ""),
            ("apps", "*", "object.nope", ""),
            ("apps", "deployments/scale", "object.nope", ""),
            (
                "apps",
                "deployments",
                "object.spec.replicas > '1'",
                "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n",
            ),
            (
                "",
                "configmaps",
                "object.spec == request.nope",
                "/v1, Kind=ConfigMap: ERROR: <input>:1:7: undefined field 'spec'\n | object.spec == request.nope\n | ......^\nERROR: <input>:1:23: undefined field 'nope'\n | object.spec == request.nope\n | ......................^\n",
            ),
            (
                "apps",
                "deployments",
                "params.data.x == '1'",
                "apps/v1, Kind=Deployment: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.data.x == '1'\n | ^\n",
            ),
        ];
        for (group, resource, expression, expected) in cases {
            let found = told(&policy(group, resource, &[expression]), &served);
            let expected: Vec<_> = (!expected.is_empty())
                .then(|| ("spec.validations[0].expression".into(), (*expected).into()))
                .into_iter()
                .collect();
            assert_eq!(found, expected, "{expression}");
        }
    }

    #[test]
    fn several_kinds_messages_params_and_variables() {
        let mut policy = policy("apps", "deployments", &["variables.replicas == params.data.replicas"]);
        policy.set_path(&["spec", "paramKind"], value!({"apiVersion": "v1", "kind": "ConfigMap"}));
        policy.set_path(&["spec", "variables"], value!([{"name": "replicas", "expression": "object.spec.replicas"}]));
        let rules = policy.get_mut("spec").unwrap().get_mut("matchConstraints").unwrap();
        rules.set(
            "resourceRules",
            value!([
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["statefulsets", "deployments"]},
                {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]},
            ]),
        );
        let found = told(&policy, &built_in());
        assert_eq!(found.len(), 1);
        // The variable is of any type for pods, which have no replicas.
        let kinds = ["apps/v1, Kind=Deployment: ", "apps/v1, Kind=StatefulSet: "];
        for (text, kind) in found[0].1.split("\n\n").zip(kinds) {
            assert!(text.starts_with(kind), "{text}");
            assert!(text.contains("found no matching overload for '_==_' applied to '(int, string)'"), "{text}");
        }
        assert_eq!(found[0].1.matches("ERROR").count(), 2);
    }

    #[test]
    fn custom_kinds() {
        let schema = value!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"replicas": {"type": "integer"}}}}});
        let served = [Served {
            group: "a.b",
            version: "v1",
            plural: "crons",
            singular: "cron",
            kind: "Cron",
            schema: Some(&schema),
        }];
        let wrong = ["object.spec.replicas > '1'", "object.spec.retries < 1"];
        let right = ["object.spec.replicas > 1", "object.metadata.labels['a'] == object.kind"];
        assert_eq!(told(&policy("a.b", "crons", &right), &served), Vec::new());
        let found = told(&policy("a.b", "crons", &wrong), &served);
        assert!(found[0].1.contains("'_>_' applied to '(int, string)'"), "{found:?}");
        assert!(found[1].1.contains("undefined field 'retries'"), "{found:?}");
        assert_eq!(found[1].0, "spec.validations[1].expression");
    }
}
