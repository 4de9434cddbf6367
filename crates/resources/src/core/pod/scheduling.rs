//! What a pod says about where it may run: selectors, affinity, tolerations, spreading, gates.

use crate::checks::{self, check, label_selector, optional_one_of};
use canopus_api::{Errors, Field, Value, names};
use std::collections::BTreeSet;

/// Everything about scheduling in a pod spec but tolerations.
pub fn affinity(affinity: &Field, errors: &mut Errors) {
    let node = affinity.at("nodeAffinity");
    let required = node.at("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(&required, errors);
    }
    for term in node.at("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&term, errors);
        node_selector_term(&term.at("preference"), false, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.at(kind);
        for term in pods.at("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_affinity_term(&term, errors);
        }
        for term in pods.at("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&term, errors);
            pod_affinity_term(&term.at("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Field, errors: &mut Errors) {
    let weight = term.at("weight");
    if !(1..=100).contains(&weight.int()) {
        errors.invalid(&weight.with(&weight.int().into()), "must be in the range 1-100");
    }
}

/// A `core/v1 NodeSelector`.
pub fn node_selector(selector: &Field, errors: &mut Errors) {
    let terms = selector.at("nodeSelectorTerms");
    if terms.value.is_empty() {
        return errors.required(&terms, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(&term, true, errors);
    }
}

/// A `core/v1 NodeSelectorTerm`. Label values are not checked in preferences, as upstream.
pub fn node_selector_term(term: &Field, check_values: bool, errors: &mut Errors) {
    for requirement in term.at("matchExpressions").items() {
        node_requirement(&requirement, check_values, errors);
    }
    for requirement in term.at("matchFields").items() {
        node_field_requirement(&requirement, errors);
    }
}

fn node_requirement(requirement: &Field, check_values: bool, errors: &mut Errors) {
    let (operator, values) = (requirement.at("operator"), requirement.at("values"));
    let count = values.value.items().len();
    match operator.str() {
        "In" | "NotIn" => {
            if count == 0 {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if count > 0 {
                errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
        }
        "Gt" | "Lt" => {
            if count != 1 {
                errors.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
        }
        other => errors.invalid(&operator.with(&other.into()), "not a valid selector operator"),
    }
    label_key(&requirement.at("key"), errors);
    if check_values {
        values.items().for_each(|value| check(&value, names::label_value, errors));
    }
}

fn label_key(key: &Field, errors: &mut Errors) {
    check(&key.with(&key.str().into()), names::qualified_name, errors);
}

fn node_field_requirement(requirement: &Field, errors: &mut Errors) {
    let (key, operator, values) = (requirement.at("key"), requirement.at("operator"), requirement.at("values"));
    match operator.str() {
        "In" | "NotIn" if values.value.items().len() != 1 => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&values, why);
        }
        "In" | "NotIn" => {}
        other => errors.invalid(&operator.with(&other.into()), "not a valid selector operator"),
    }
    if key.str() == "metadata.name" {
        values.items().for_each(|value| check(&value, names::dns1123_subdomain, errors));
    } else {
        errors.invalid(&key.with(&key.str().into()), "not a valid field selector key");
    }
}

fn pod_affinity_term(term: &Field, errors: &mut Errors) {
    let selector = term.at("labelSelector");
    label_selector(&selector, errors);
    label_selector(&term.at("namespaceSelector"), errors);
    let namespace = term.at("namespace");
    for name in term.value["namespaces"].items() {
        check(&namespace.with(name), names::dns1123_label, errors);
    }
    label_keys(term, selector.value, errors);
    let topology = term.at("topologyKey");
    if topology.str().is_empty() {
        errors.required(&topology, "can not be empty");
    }
    label_key(&topology, errors);
}

/// `matchLabelKeys` and `mismatchLabelKeys` of a term or spread constraint (KEP-3633).
fn label_keys(term: &Field, selector: &Value, errors: &mut Errors) {
    let (matching, mismatching) = (term.at("matchLabelKeys"), term.at("mismatchLabelKeys"));
    for list in [&matching, &mismatching] {
        if list.value.is_empty() {
            continue;
        }
        if selector.is_null() {
            errors.forbidden(list, "must not be specified when labelSelector is not set");
        } else {
            list.items().for_each(|key| check(&key, names::qualified_name, errors));
        }
    }
    // The selector already has the requirements made of these keys: a second one is the author's.
    let mut seen: BTreeSet<&str> = selector["matchLabels"].entries().map(|(k, _)| k.as_str()).collect();
    for expression in selector["matchExpressions"].items() {
        let key = expression["key"].str();
        if let Some(i) = matching.value.items().iter().rposition(|k| k.str() == key).filter(|_| seen.contains(key)) {
            let why = "exists in both matchLabelKeys and labelSelector";
            errors.invalid(&term.index(i).with(&key.into()), why);
        }
        seen.insert(key);
    }
    for key in matching.items().filter(|k| mismatching.value.items().contains(k.value)) {
        errors.invalid(&key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

/// Adds to selectors what `matchLabelKeys` and `mismatchLabelKeys` mean for a pod with these labels.
pub fn apply_label_keys(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let spec = pod.obj_mut("spec");
    if let Some(affinity) = spec.get_mut("affinity") {
        for kind in ["podAffinity", "podAntiAffinity"] {
            let Some(pods) = affinity.get_mut(kind) else { continue };
            for (list, inner) in [
                ("preferredDuringSchedulingIgnoredDuringExecution", "podAffinityTerm"),
                ("requiredDuringSchedulingIgnoredDuringExecution", ""),
            ] {
                for term in pods.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    let term = if inner.is_empty() { Some(term) } else { term.get_mut(inner) };
                    if let Some(term) = term {
                        merge_keys(term, &labels);
                    }
                }
            }
        }
    }
    for constraint in spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut).into_iter().flatten() {
        merge_keys(constraint, &labels);
    }
}

fn merge_keys(term: &mut Value, labels: &Value) {
    let mut added = Vec::new();
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term[list].items() {
            if let Some(value) = labels.get(key.str()) {
                added.push(canopus_api::value!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if let Some(selector) = term.get_mut("labelSelector").filter(|s| !s.is_null() && !added.is_empty()) {
        selector.ensure_object().entry("matchExpressions", || Value::Null).ensure_array().extend(added);
    }
}

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn taint_effect(effect: &Field, errors: &mut Errors) {
    checks::one_of(effect, EFFECTS, errors);
}

/// Checks `tolerations`.
pub fn tolerations(list: &Field, errors: &mut Errors) {
    for toleration in list.items() {
        let (key, operator, effect) = (toleration.at("key"), toleration.at("operator"), toleration.at("effect"));
        let (op, value) = (operator.str(), toleration.value["value"].str());
        if !key.str().is_empty() {
            label_key(&key, errors);
        } else if op != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&operator.with(&op.into()), why);
        }
        if toleration.at("tolerationSeconds").is_set() && effect.str() != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&effect.with(&effect.str().into()), why);
        }
        match op {
            "Equal" | "" => {
                let why = names::label_value(value);
                if !why.is_empty() {
                    errors.invalid(&operator.with(&value.into()), why.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.invalid(&operator.with(&value.into()), "value must be empty when `operator` is 'Exists'");
                }
            }
            // Known, but only with the gate TaintTolerationComparisonOperators, which is off by default.
            "Lt" | "Gt" => errors.not_supported(&operator, &["Equal", "Exists", "Lt", "Gt"]),
            _ => errors.not_supported(&operator, &["Equal", "Exists"]),
        }
        if !effect.str().is_empty() {
            taint_effect(&effect, errors);
        }
    }
}

/// Checks `topologySpreadConstraints`.
pub fn spread(list: &Field, errors: &mut Errors) {
    for (i, constraint) in list.items().enumerate() {
        let (skew, topology) = (constraint.at("maxSkew"), constraint.at("topologyKey"));
        let (action, least) = (constraint.at("whenUnsatisfiable"), constraint.at("minDomains"));
        positive(&skew.with(&skew.int().into()), errors);
        if topology.str().is_empty() {
            errors.required(&topology, "can not be empty");
        }
        checks::one_of(&action, &["DoNotSchedule", "ScheduleAnyway"], errors);
        let same = |other: &Value| {
            ["topologyKey", "whenUnsatisfiable"].iter().all(|f| other[*f].str() == constraint.value[*f].str())
        };
        if list.value.items()[i + 1..].iter().any(same) {
            let pair = format!("{{{}, {}}}", topology.str(), action.str());
            errors.duplicate(&constraint.at("{topologyKey, whenUnsatisfiable}").with(&pair.into()));
        }
        if least.is_set() {
            positive(&least, errors);
            if action.str() != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.str());
                errors.invalid(&least, why);
            }
        }
        optional_one_of(&constraint.at("nodeAffinityPolicy"), &["Honor", "Ignore"], errors);
        optional_one_of(&constraint.at("nodeTaintsPolicy"), &["Honor", "Ignore"], errors);
        let selector = constraint.at("labelSelector");
        label_keys(&constraint, selector.value, errors);
        label_selector(&selector, errors);
    }
}

fn positive(field: &Field, errors: &mut Errors) {
    if field.int() <= 0 {
        errors.invalid(field, "must be greater than zero");
    }
}

/// Checks `schedulingGates`.
pub fn gates(list: &Field, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for gate in list.items() {
        let name: Value = gate.value["name"].str().into();
        let gate = gate.with(&name);
        check(&gate, names::qualified_name, errors);
        if !seen.insert(gate.str().to_owned()) {
            errors.duplicate(&gate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::texts;
    use canopus_api::value;

    fn run(check: fn(&Field, &mut Errors), value: Value) -> Vec<String> {
        let root = value!({"f": value});
        let mut errors = Errors::new();
        check(&Field::root(&root).at("f"), &mut errors);
        texts(&errors)
    }

    #[test]
    fn each_part() {
        type Check = fn(&Field, &mut Errors);
        let cases: Vec<(Check, Value, &[&str])> = vec![
            (
                tolerations,
                value!([{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 3}]),
                &[],
            ),
            (
                tolerations,
                value!([{"value": "x"}]),
                &[
                    r#"f[0].operator: Invalid value: "": operator must be Exists when `key` is empty, which means "match all values and all keys""#,
                ],
            ),
            (
                tolerations,
                value!([{"key": "a", "operator": "Exists", "value": "b", "effect": "No"}]),
                &[
                    r#"f[0].operator: Invalid value: "b": value must be empty when `operator` is 'Exists'"#,
                    r#"f[0].effect: Unsupported value: "No": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute""#,
                ],
            ),
            (
                tolerations,
                value!([{"key": "a", "operator": "Exists", "tolerationSeconds": 1}]),
                &[r#"f[0].effect: Invalid value: "": effect must be 'NoExecute' when `tolerationSeconds` is set"#],
            ),
            (
                spread,
                value!([{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}]),
                &[
                    "f[0].maxSkew: Invalid value: 0: must be greater than zero",
                    "f[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
                ],
            ),
            (gates, value!([{"name": "a/b"}, {"name": "a/b"}]), &[r#"f[1]: Duplicate value: "a/b""#]),
            (
                affinity,
                value!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}),
                &[
                    "f.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            (
                affinity,
                value!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 101, "podAffinityTerm": {"topologyKey": "z", "matchLabelKeys": ["a"]}}]}}),
                &[
                    "f.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
                    "f.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
                ],
            ),
        ];
        for (check, value, expected) in cases {
            assert_eq!(run(check, value), expected);
        }
    }

    #[test]
    fn label_keys_become_requirements() {
        let mut pod = value!({"metadata": {"labels": {"a": "1"}}, "spec": {"topologySpreadConstraints": [
            {"labelSelector": {}, "matchLabelKeys": ["a", "b"]}, {"matchLabelKeys": ["a"]}]}});
        apply_label_keys(&mut pod);
        let constraints = &pod["spec"]["topologySpreadConstraints"];
        assert_eq!(
            constraints[0]["labelSelector"]["matchExpressions"],
            value!([{"key": "a", "operator": "In", "values": ["1"]}])
        );
        assert!(constraints[1]["labelSelector"].is_null());
    }
}
