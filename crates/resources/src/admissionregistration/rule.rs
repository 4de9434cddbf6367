//! `RuleWithOperations`: which requests a webhook or policy is about.

use crate::checks;
use canopus_api::{Errors, Field, Value};
use std::collections::BTreeSet;

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];

/// Fills in what a rule leaves out.
pub fn default(rule: &mut Value) {
    rule.set_default("scope", "*");
}

/// All that is wrong with a rule whose operations may be `operations` (upstream's, sorted).
pub fn validate(rule: &Field, operations: &[&str], errors: &mut Errors) {
    let field = rule.at("operations");
    if checks::required(&field, errors) {
        if alone(&field) {
            errors.invalid(&field, "if '*' is present, must not specify other operations");
        }
        field.items().for_each(|operation| checks::one_of(&operation, operations, errors));
    }
    let groups = rule.at("apiGroups");
    if checks::required(&groups, errors) && alone(&groups) {
        errors.invalid(&groups, "if '*' is present, must not specify other API groups");
    }
    let versions = rule.at("apiVersions");
    if checks::required(&versions, errors) && alone(&versions) {
        errors.invalid(&versions, "if '*' is present, must not specify other API versions");
    }
    for version in versions.items() {
        checks::required(&version, errors);
    }
    resources(&rule.at("resources"), errors);
    checks::optional_one_of(&rule.at("scope"), SCOPES, errors);
}

/// The rule of a webhook.
pub fn validate_any(rule: &Field, errors: &mut Errors) {
    validate(rule, OPERATIONS, errors);
}

/// Whether `*` is there, but not alone as it should be.
fn alone(field: &Field) -> bool {
    let items = field.value.items();
    items.len() > 1 && items.iter().any(|item| item.str() == "*")
}

fn resources(field: &Field, errors: &mut Errors) {
    checks::required(field, errors);
    let mut of_any_part = BTreeSet::new();
    let mut of_any_resource = BTreeSet::new();
    for item in field.items() {
        let text = item.str();
        if !checks::required(&item, errors) {
            continue;
        }
        let Some((resource, part)) = text.split_once('/') else { continue };
        if of_any_part.contains(resource) {
            errors.invalid(&item, format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if of_any_resource.contains(part) {
            errors.invalid(&item, format!("if '*/{part}' is present, must not specify {text}"));
        }
        if part == "*" {
            of_any_part.insert(resource);
        }
        if resource == "*" {
            of_any_resource.insert(part);
        }
    }
    let all: Vec<&str> = field.value.items().iter().map(Value::str).collect();
    if all.len() > 1 && all.contains(&"*/*") {
        errors.invalid(field, "if '*/*' is present, must not specify other resources");
    }
    // As upstream, the last one without a part decides.
    let last_plain = all.iter().rev().find(|r| !r.is_empty() && !r.contains('/'));
    if all.contains(&"*") && last_plain.is_some_and(|r| *r != "*") {
        errors.invalid(field, "if '*' is present, must not specify other resources without subresources");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn what_a_rule_may_say() {
        let cases: &[(&str, Value, &str)] = &[
            ("resources", value!(["pods", "pods/*"]), ""),
            ("resources", value!(["*", "*/status"]), ""),
            (
                "resources",
                value!(["*", "pods"]),
                "if '*' is present, must not specify other resources without subresources",
            ),
            ("resources", value!(["*/*", "pods"]), "if '*/*' is present, must not specify other resources"),
            ("resources", value!(["pods/*", "pods/log"]), "if 'pods/*' is present, must not specify pods/log"),
            ("resources", value!(["*/log", "pods/log"]), "if '*/log' is present, must not specify pods/log"),
            ("resources", value!([]), "rule.resources: Required value"),
            ("apiGroups", value!(["*", "apps"]), "must not specify other API groups"),
            ("apiGroups", value!([""]), ""),
            ("apiVersions", value!([""]), "rule.apiVersions[0]: Required value"),
            ("operations", value!(["*", "CREATE"]), "must not specify other operations"),
            (
                "operations",
                value!(["PATCH"]),
                "supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
            ),
            ("scope", "Namespace".into(), "supported values: \"*\", \"Cluster\", \"Namespaced\""),
        ];
        for (field, given, expected) in cases {
            let mut rule = value!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
            rule.set(field, given);
            default(&mut rule);
            let mut errors = Errors::new();
            validate_any(&Field::root(&value!({"rule": rule})).at("rule"), &mut errors);
            let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            assert!(text.contains(expected) && text.is_empty() == expected.is_empty(), "{field} {given:?}: {text}");
        }
    }
}
