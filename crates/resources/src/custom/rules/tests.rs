use super::Rules;
use crate::apiextensions::customresourcedefinition::CustomResourceDefinition;
use crate::resource::Resource;
use canopus_api::{Errors, Field, Value, value};

fn texts(errors: &Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// What is wrong with `new`.
fn broken(schema: &Value, new: Value, old: Option<Value>) -> Vec<String> {
    let mut errors = Errors::new();
    Rules::new(schema).unwrap().validate(&new, old.as_ref(), &mut errors);
    texts(&errors)
}

fn root(rules: Value, spec: Value) -> Value {
    value!({"type": "object", "x-kubernetes-validations": rules, "properties": {"spec": spec}})
}

/// What is wrong with a definition that has the schema.
fn refused(schema: Value) -> Vec<String> {
    let mut definition = value!({"metadata": {"name": "tabs.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "tabs", "kind": "Tab"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }});
    CustomResourceDefinition.default(&mut definition);
    let mut errors = Errors::new();
    CustomResourceDefinition.validate(&Field::root(&definition), &mut errors);
    let base = "spec.versions[0].schema.openAPIV3Schema";
    texts(&errors).into_iter().map(|text| text.replace(base, "…")).collect()
}

fn spec(rule: Value, properties: Value) -> Value {
    root(Value::Null, value!({"type": "object", "x-kubernetes-validations": [rule], "properties": properties}))
}

#[test]
fn a_schema_without_rules_has_none() {
    assert!(Rules::new(&root(Value::Null, value!({"type": "object"}))).is_none());
}

#[test]
fn values_that_break_a_rule() {
    let ints = value!({"x": {"type": "integer"}, "y": {"type": "integer"}, "name": {"type": "string"}});
    let cases = [
        (value!({"rule": "self.x > self.y"}), "spec: Invalid value: failed rule: self.x > self.y"),
        (value!({"rule": "self.x > self.y", "message": "too small"}), "spec: Invalid value: too small"),
        (
            value!({"rule": "self.x > self.y", "messageExpression": "self.x > 0 ? 'x is low' : 'x is lower'", "fieldPath": ".x"}),
            "spec.x: Invalid value: x is low",
        ),
        (
            value!({"rule": "self.x > self.y", "message": "m", "messageExpression": "string(self.x / 0)"}),
            "spec: Invalid value: m",
        ),
        (value!({"rule": "self.x > self.y", "message": "no", "reason": "FieldValueForbidden"}), "spec: Forbidden: no"),
        (
            value!({"rule": "self.name == 'a'"}),
            "spec: Invalid value: \"object\": no such key: name evaluating rule: self.name == 'a'",
        ),
    ];
    for (rule, wanted) in cases {
        let schema = spec(rule, ints.clone());
        assert_eq!(refused(schema.clone()), Vec::<String>::new());
        assert_eq!(broken(&schema, value!({"spec": {"x": 1, "y": 2}}), None), [wanted]);
    }
    let schema = root(value!([{"rule": "self.metadata.name.startsWith('a')"}]), value!({"type": "object"}));
    assert!(broken(&schema, value!({"metadata": {"name": "ab"}}), None).is_empty());
    let wanted = ["<nil>: Invalid value: failed rule: self.metadata.name.startsWith('a')"];
    assert_eq!(broken(&schema, value!({"metadata": {"name": "b"}}), None), wanted);
}

#[test]
fn transitions_are_checked_where_there_was_something() {
    let field = |rule: Value| {
        root(
            Value::Null,
            value!({"type": "object", "properties": {"n": {"type": "integer", "x-kubernetes-validations": [rule]}}}),
        )
    };
    let of = |n: i64| value!({"spec": {"n": n}});
    let schema = field(value!({"rule": "self > oldSelf"}));
    assert!(broken(&schema, of(1), None).is_empty());
    assert!(broken(&schema, of(1), Some(value!({"spec": {}}))).is_empty());
    assert!(broken(&schema, of(2), Some(of(1))).is_empty());
    // Not ratcheted: what it was matters.
    assert_eq!(broken(&schema, of(1), Some(of(1))), ["spec.n: Invalid value: 1: failed rule: self > oldSelf"]);
    let schema = field(value!({"rule": "oldSelf.orValue(0) < self", "optionalOldSelf": true}));
    assert_eq!(broken(&schema, of(0), None).len(), 1);
    assert!(broken(&schema, of(1), None).is_empty());
    assert_eq!(broken(&schema, of(1), Some(of(1))).len(), 1);
}

#[test]
fn what_has_not_changed_may_break_rules() {
    let item = value!({"type": "object", "properties": {"k": {"type": "string"}, "n": {"type": "integer",
        "x-kubernetes-validations": [{"rule": "self > 0"}]}}});
    let list = |extra: Value| {
        let mut list = value!({"type": "array", "items": (item.clone())});
        extra.entries().for_each(|(key, value)| list.set(key, value.clone()));
        root(Value::Null, list)
    };
    let (bad, other) = (value!({"k": "a", "n": 0}), value!({"k": "b", "n": 1}));
    let map = list(value!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}));
    let old = value!({"spec": [bad.clone()]});
    let new = value!({"spec": [other.clone(), bad.clone()]});
    assert!(broken(&map, new.clone(), Some(old.clone())).is_empty());
    let atomic = list(Value::Null);
    assert_eq!(broken(&atomic, new, Some(old.clone())), ["spec[1].n: Invalid value: 0: failed rule: self > 0"]);
    assert!(broken(&atomic, value!({"spec": [bad], "status": 1}), Some(old)).is_empty());
}

#[test]
fn rules_that_are_refused() {
    let ints = value!({"x": {"type": "integer"}});
    let cases: [(Value, Value, &str, &str); 7] = [
        (
            value!({"rule": "self.z == 1"}),
            ints.clone(),
            "….properties[spec].x-kubernetes-validations[0].rule",
            "undefined field 'z'",
        ),
        (
            value!({"rule": "self = 42"}),
            ints.clone(),
            "….properties[spec].x-kubernetes-validations[0].rule",
            "Syntax error",
        ),
        (
            value!({"rule": "self.x"}),
            ints.clone(),
            "….properties[spec].x-kubernetes-validations[0].rule",
            "must evaluate to a bool",
        ),
        (
            value!({"rule": "self.x == 1", "messageExpression": "self.x"}),
            ints.clone(),
            "….properties[spec].x-kubernetes-validations[0].messageExpression",
            "messageExpression must evaluate to a string",
        ),
        (
            value!({"rule": "self.x == 1", "fieldPath": ".y"}),
            ints.clone(),
            "….properties[spec].x-kubernetes-validations[0].fieldPath",
            "must be a valid path",
        ),
        (
            value!({"rule": "self.x == 1", "optionalOldSelf": true}),
            ints.clone(),
            "….properties[spec].x-kubernetes-validations[0].optionalOldSelf",
            "may not be set if oldSelf is not used in rule",
        ),
        (
            value!({"rule": "self.l.all(x, self.l.all(y, x == y))"}),
            value!({"l": {"type": "array", "items": {"type": "string"}}}),
            "….properties[spec].x-kubernetes-validations[0].rule",
            "estimated rule cost exceeds budget by factor of more than 100x",
        ),
    ];
    for (rule, properties, field, text) in cases {
        let found = refused(spec(rule.clone(), properties));
        assert!(found.first().is_some_and(|f| f.starts_with(field) && f.contains(text)), "{rule:?}: {found:#?}");
    }
    let items = value!({"type": "array", "maxItems": 5, "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    let found = refused(root(Value::Null, items));
    let wanted = "oldSelf cannot be used on the uncorrelatable portion of the schema within ….properties[spec]";
    assert!(found[0].ends_with(wanted), "{found:#?}");
}

#[test]
fn a_call_that_costs_too_much_ends_the_evaluation() {
    let large = value!({"l": {"type": "array", "maxItems": 725, "items": {"type": "integer"}}});
    let schema = spec(value!({"rule": "self.l.all(x, self.l.all(y, y == x))"}), large);
    assert!(refused(schema.clone()).is_empty());
    let items: Vec<Value> = vec![Value::Int(1); 725];
    let found = broken(&schema, value!({"spec": {"l": items}}), None);
    assert!(found.len() == 1 && found[0].contains("call cost exceeds limit for rule"), "{found:?}");
}
