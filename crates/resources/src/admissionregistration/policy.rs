//! What the specs of validating and mutating policies, and those of their bindings, have in common.

use super::expressions::{CONDITION, Expressions, Uses};
use super::rule;
use crate::checks;
use canopus_api::{Errors, Field, Value, names};
use canopus_cel::Type;
use std::collections::BTreeSet;

const MAX_CONDITIONS: usize = 64;
/// A policy may do these before it mutates; it cannot mutate what is deleted.
pub(super) const MUTABLE: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];

/// Fills in what a policy leaves out.
pub(super) fn default(policy: &mut Value) {
    if let Some(spec) = policy.get_mut("spec").filter(|s| !s.is_null()) {
        spec.set_default("failurePolicy", "Fail");
    }
    default_match(policy, "matchConstraints");
}

/// Fills in what `matchConstraints` or `matchResources` leave out.
pub(super) fn default_match(object: &mut Value, field: &str) {
    let found = object.get_mut("spec").and_then(|spec| spec.get_mut(field));
    let Some(resources) = found.filter(|m| !m.is_null()) else { return };
    resources.set_default("matchPolicy", "Equivalent");
    resources.set_default("namespaceSelector", Value::object());
    resources.set_default("objectSelector", Value::object());
    for rules in ["resourceRules", "excludeResourceRules"] {
        if let Some(rules) = resources.get_mut(rules).and_then(Value::as_array_mut) {
            rules.iter_mut().for_each(rule::default);
        }
    }
}

/// What both kinds of policies say before they say what they do. The environment in which the rest is to be compiled.
pub(super) fn validate(spec: &Field, old: Option<&Value>, errors: &mut Errors) -> Expressions {
    checks::required_one_of(&spec.at("failurePolicy"), &["Fail", "Ignore"], errors);
    let kind = spec.at("paramKind");
    if kind.is_set() {
        param_kind(&kind, errors);
    }
    let constraints = spec.at("matchConstraints");
    if constraints.is_unset() {
        errors.required(&constraints, "");
    } else {
        match_resources(&constraints, errors);
        let rules = constraints.at("resourceRules");
        if rules.value.is_empty() {
            errors.required(&rules, "");
        }
    }
    // Conditions that do not change may stay, whatever they are, as long as what they see does not change either.
    let same = |field: &str| old.is_some_and(|old| old[field] == *spec.at(field).value);
    if !(same("matchConditions") && same("paramKind")) {
        match_conditions(&spec.at("matchConditions"), kind.is_set(), errors);
    }
    variables(&spec.at("variables"), kind.is_set(), errors)
}

fn param_kind(kind: &Field, errors: &mut Errors) {
    let version = kind.at("apiVersion");
    match version.str().split('/').collect::<Vec<_>>().as_slice() {
        [""] => errors.required(&version, ""),
        [_, _, _, ..] => {
            errors.invalid(&version, format!("unexpected GroupVersion string: {}", version.str()));
        }
        [group, ""] => {
            group_name(&version, group, errors);
            errors.invalid(&version, "version must be specified");
        }
        [v] => version_name(&version, v, errors),
        [group, v] => {
            group_name(&version, group, errors);
            version_name(&version, v, errors);
        }
        [] => {}
    }
    let name = kind.at("kind");
    if checks::required(&name, errors) {
        let why = names::dns1035_label(&name.str().to_lowercase());
        if !why.is_empty() {
            errors.invalid(&name, format!("may have mixed case, but should otherwise match: {}", why.join(",")));
        }
    }
}

fn group_name(field: &Field, group: &str, errors: &mut Errors) {
    let why = names::dns1123_subdomain(group);
    if !group.is_empty() && !why.is_empty() {
        errors.invalid(&field.with(&group.into()), why.join(","));
    }
}

fn version_name(field: &Field, version: &str, errors: &mut Errors) {
    let why = names::dns1035_label(version);
    if !why.is_empty() {
        errors.invalid(&field.with(&version.into()), why.join(","));
    }
}

/// `matchConstraints` and `matchResources`.
pub(super) fn match_resources(resources: &Field, errors: &mut Errors) {
    checks::required_one_of(&resources.at("matchPolicy"), &["Equivalent", "Exact"], errors);
    for name in ["namespaceSelector", "objectSelector"] {
        let selector = resources.at(name);
        if selector.is_unset() {
            errors.required(&selector, "");
        } else {
            checks::label_selector(&selector, errors);
        }
    }
    for rules in ["resourceRules", "excludeResourceRules"] {
        for named in resources.at(rules).items() {
            let mut seen = BTreeSet::new();
            for name in named.at("resourceNames").items() {
                checks::check(&name, names::path_segment, errors);
                if !seen.insert(name.str()) {
                    errors.duplicate(&name);
                }
            }
            rule::validate_any(&named, errors);
        }
    }
}

/// Operations that a mutation cannot be made of.
pub(super) fn mutable_operations(resources: &Field, errors: &mut Errors) {
    let rules = resources.at("resourceRules");
    let operations = rules.at("operations");
    for rule in rules.value.items() {
        for operation in rule["operations"].items().iter().filter(|o| !MUTABLE.contains(&o.str())) {
            errors.not_supported(&operations.with(operation), MUTABLE);
        }
    }
}

/// `matchConditions` of policies and webhooks: names and expressions.
pub fn match_conditions(conditions: &Field, params: bool, errors: &mut Errors) {
    let count = conditions.value.items().len();
    if count > MAX_CONDITIONS {
        errors.too_many(conditions, count, MAX_CONDITIONS);
    }
    let expressions = Expressions::plain();
    let uses = Uses { params, authorizer: true, patches: false };
    let mut seen = BTreeSet::new();
    for condition in conditions.items().take(MAX_CONDITIONS) {
        let expression = condition.at("expression");
        if expression.str().trim().is_empty() {
            errors.required(&expression, "");
        } else if let Err(why) = expressions.compile(expression.str().trim(), uses, CONDITION) {
            errors.invalid(&expression, why);
        }
        let name = condition.at("name");
        checks::required_check(&name, names::qualified_name, errors);
        let known = condition.value["name"].str();
        if !known.is_empty() && !seen.insert(known) {
            errors.duplicate(&name);
        }
    }
}

fn variables(variables: &Field, params: bool, errors: &mut Errors) -> Expressions {
    let mut expressions =
        if variables.value.items().is_empty() { Expressions::plain() } else { Expressions::composed() };
    let uses = Uses { params, authorizer: true, patches: false };
    for variable in variables.items() {
        let (name, expression) = (variable.at("name"), variable.at("expression"));
        if name.str().trim().is_empty() {
            errors.required(&name, "name is not specified");
        } else if !is_identifier(name.str()) {
            errors.invalid(&name, "must be a valid CEL identifier");
        }
        if expression.str().trim().is_empty() {
            errors.required(&expression, "expression is not specified");
        } else if let Err(why) = expressions.compile_variable(name.str(), expression.str(), uses) {
            errors.invalid(&expression, why);
        }
    }
    expressions
}

fn is_identifier(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && canopus_cel::escape(name).is_some_and(|escaped| escaped == name || name.contains("__"))
}

/// An expression of a policy that must yield one of `returns`.
pub(super) fn expression(
    field: &Field,
    text: &str,
    expressions: &Expressions,
    uses: Uses,
    returns: &[Type],
    errors: &mut Errors,
) {
    if let Err(why) = expressions.compile(text, uses, returns) {
        errors.invalid(field, why);
    }
}

/// The spec of a binding but for what it does.
pub(super) fn binding(spec: &Field, errors: &mut Errors) {
    checks::required_check(&spec.at("policyName"), names::dns1123_subdomain, errors);
    let params = spec.at("paramRef");
    if params.is_set() {
        param_ref(&params, errors);
    }
    let resources = spec.at("matchResources");
    if resources.is_set() {
        match_resources(&resources, errors);
    }
}

fn param_ref(params: &Field, errors: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (params.at("name"), params.at("selector"));
    if !name.str().is_empty() {
        checks::check(&name, names::path_segment, errors);
        if selector.is_set() {
            errors.forbidden(&name, EXCLUSIVE);
        }
    }
    if selector.is_set() {
        checks::label_selector(&selector, errors);
        if !name.str().is_empty() {
            errors.forbidden(&selector, EXCLUSIVE);
        }
    }
    if name.str().is_empty() && selector.is_unset() {
        errors.required(params, "one of name or selector must be specified");
    }
    checks::required_one_of(&params.at("parameterNotFoundAction"), &["Allow", "Deny"], errors);
}

/// What `kubectl get` shows of a policy's parameters.
pub(super) fn shown_param_kind(spec: &Value) -> String {
    match &spec["paramKind"] {
        Value::Null => "<unset>".into(),
        kind => format!("{}/{}", kind["apiVersion"].str(), kind["kind"].str()),
    }
}

/// What `kubectl get` shows of a binding's parameters.
pub(super) fn shown_param_ref(spec: &Value) -> String {
    let params = &spec["paramRef"];
    match (params["name"].str(), params["namespace"].str()) {
        ("", _) if params["selector"].is_null() => "<unset>".into(),
        ("", _) => canopus_api::json::to_string(&params["selector"]),
        (name, "") => name.into(),
        (name, namespace) => format!("{namespace}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::mutatingadmissionpolicy::MutatingAdmissionPolicy;
    use super::super::mutatingadmissionpolicybinding::MutatingAdmissionPolicyBinding;
    use super::super::validatingadmissionpolicy::ValidatingAdmissionPolicy;
    use super::super::validatingadmissionpolicybinding::ValidatingAdmissionPolicyBinding;
    use crate::Resource;
    use crate::testing::{create, update};
    use canopus_api::{Value, value};

    fn object(kind: &dyn Resource, spec: Value, change: (&[&str], Value)) -> Value {
        let mut object = value!({"metadata": {"name": "p"}, "spec": spec});
        object.obj_mut("spec");
        let path: Vec<&str> = ["spec"].iter().chain(change.0).copied().collect();
        if !change.0.is_empty() {
            object.set_path(&path, change.1);
        }
        kind.default(&mut object);
        object
    }

    fn constraints() -> Value {
        value!({"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]},
        ]})
    }

    fn validating() -> Value {
        value!({"matchConstraints": constraints(), "validations": [{"expression": "true"}]})
    }

    fn mutating() -> Value {
        value!({"matchConstraints": constraints(), "reinvocationPolicy": "Never", "mutations": [
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/a'}]"}},
        ]})
    }

    #[test]
    fn what_is_left_out() {
        let policy = object(&ValidatingAdmissionPolicy, validating(), (&[], Value::Null));
        let spec = &policy["spec"];
        assert_eq!(spec["failurePolicy"].str(), "Fail");
        assert_eq!(spec["matchConstraints"]["matchPolicy"].str(), "Equivalent");
        assert_eq!(spec["matchConstraints"]["resourceRules"][0]["scope"].str(), "*");
        assert_eq!(create(&ValidatingAdmissionPolicy, policy), Vec::<String>::new());
        let policy = object(&MutatingAdmissionPolicy, mutating(), (&[], Value::Null));
        assert_eq!(create(&MutatingAdmissionPolicy, policy), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_policy() {
        let both = "validations or auditAnnotations must contain at least one item";
        let cases: Vec<(&[&str], Value, String)> = vec![
            (&["failurePolicy"], "Maybe".into(), "supported values: \"Fail\", \"Ignore\"".into()),
            (&["matchConstraints"], Value::Null, "spec.matchConstraints: Required value".into()),
            (&["matchConstraints", "resourceRules"], value!([]), "resourceRules: Required value".into()),
            (&["validations"], value!([]), format!("spec.validations: Required value: {both}")),
            (
                &["paramKind"],
                value!({"apiVersion": "a/b/c", "kind": "K"}),
                "unexpected GroupVersion string: a/b/c".into(),
            ),
            (&["paramKind"], value!({"apiVersion": "v1"}), "spec.paramKind.kind: Required value".into()),
            (&["variables"], value!([{"name": "1a", "expression": "1"}]), "must be a valid CEL identifier".into()),
            (&["validations"], value!([{"expression": "variables.a"}]), "undeclared reference to 'variables'".into()),
            (&["validations"], value!([{"expression": "params.a"}]), "undeclared reference to 'params'".into()),
            (
                &["validations"],
                value!([{"expression": "true", "messageExpression": "authorizer.path('/').check('get').reason()"}]),
                "undeclared reference to 'authorizer'".into(),
            ),
            (
                &["validations"],
                value!([{"expression": "true", "reason": "Other"}]),
                "supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"".into(),
            ),
            (
                &["auditAnnotations"],
                value!([{"key": "k", "valueExpression": "1"}]),
                "must evaluate to one of [string null_type] but got int".into(),
            ),
            (
                &["matchConditions"],
                value!([{"name": "a", "expression": "object.x + 'a'"}]),
                "must evaluate to bool but got".into(),
            ),
        ];
        for (path, given, expected) in cases {
            let policy = object(&ValidatingAdmissionPolicy, validating(), (path, given));
            let errors = create(&ValidatingAdmissionPolicy, policy);
            assert!(errors.iter().any(|e| e.contains(&expected)), "{path:?}: {errors:?}");
        }
        let wrong = value!([{"patchType": "ApplyConfiguration", "jsonPatch": {"expression": "[]"}}]);
        let errors =
            create(&MutatingAdmissionPolicy, object(&MutatingAdmissionPolicy, mutating(), (&["mutations"], wrong)));
        assert_eq!(
            errors,
            [
                "spec.mutations[0].applyConfiguration: Required value: must be specified when patchType is ApplyConfiguration",
                "spec.mutations[0].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is ApplyConfiguration"
            ]
        );
        let mut rules = constraints();
        rules.set(
            "resourceRules",
            value!([
                {"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]},
            ]),
        );
        let policy = object(&MutatingAdmissionPolicy, mutating(), (&["matchConstraints"], rules));
        let errors = create(&MutatingAdmissionPolicy, policy);
        assert!(errors.iter().any(|e| e.contains("Unsupported value: \"DELETE\"")), "{errors:?}");
    }

    #[test]
    fn conditions_that_do_not_change_may_stay() {
        let mut spec = validating();
        spec.set("matchConditions", value!([{"name": "a", "expression": "gone()"}]));
        let old = object(&ValidatingAdmissionPolicy, spec, (&[], Value::Null));
        let mut new = old.clone();
        new.set_path(&["spec", "failurePolicy"], "Ignore");
        assert_eq!(update(&ValidatingAdmissionPolicy, "", old, new), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_binding() {
        let fine = || value!({"policyName": "p", "validationActions": ["Deny"]});
        let cases: Vec<(&[&str], Value, &str)> = vec![
            (&[], Value::Null, ""),
            (&["policyName"], "".into(), "spec.policyName: Required value"),
            (&["validationActions"], value!([]), "at least one validation action is required"),
            (&["validationActions"], value!(["Deny", "Warn"]), "must not contain both Deny and Warn"),
            (&["paramRef"], value!({"parameterNotFoundAction": "Deny"}), "one of name or selector must be specified"),
            (&["paramRef"], value!({"name": "a"}), "parameterNotFoundAction: Required value"),
            (
                &["paramRef"],
                value!({"name": "a", "selector": {}, "parameterNotFoundAction": "Deny"}),
                "name and selector are mutually exclusive",
            ),
        ];
        for (path, given, expected) in cases {
            let binding = object(&ValidatingAdmissionPolicyBinding, fine(), (path, given));
            let errors = create(&ValidatingAdmissionPolicyBinding, binding);
            let fits =
                if expected.is_empty() { errors.is_empty() } else { errors.iter().any(|e| e.contains(expected)) };
            assert!(fits, "{path:?}: {errors:?}");
        }
        let binding = object(&MutatingAdmissionPolicyBinding, value!({"policyName": "p"}), (&[], Value::Null));
        assert_eq!(create(&MutatingAdmissionPolicyBinding, binding), Vec::<String>::new());
    }
}
