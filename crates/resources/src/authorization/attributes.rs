//! What a question about access may ask.

use canopus_api::{Errors, Field, names};

/// Exactly one of resourceAttributes and nonResourceAttributes, with sound selectors.
pub fn validate(spec: &Field, errors: &mut Errors) {
    let (resource, other) = (spec.at("resourceAttributes"), spec.at("nonResourceAttributes"));
    if resource.is_set() && other.is_set() {
        errors.invalid(&other, "cannot be specified in combination with resourceAttributes");
    }
    if resource.is_unset() && other.is_unset() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.invalid(&resource, why);
    }
    for (name, labels) in [("fieldSelector", false), ("labelSelector", true)] {
        selector(&resource.at(name), labels, errors);
    }
}

/// Somebody must be asked about.
pub fn subject(spec: &Field, errors: &mut Errors) {
    let user = spec.at("user");
    if user.str().is_empty() && spec.value["groups"].is_empty() {
        errors.invalid(&user.with(&"".into()), "at least one of user or group must be specified");
    }
}

/// Nothing in the metadata but what `but` names, and managedFields.
pub fn empty_metadata(object: &Field, but: &[&str], why: &str, errors: &mut Errors) {
    let meta = object.at("metadata");
    let allowed = |key: &str| key == "managedFields" || but.contains(&key);
    if meta.value.entries().any(|(key, value)| !allowed(key) && !value.is_empty()) {
        errors.invalid(&meta, why);
    }
}

fn selector(selector: &Field, labels: bool, errors: &mut Errors) {
    if selector.is_unset() {
        return;
    }
    let (raw, requirements) = (selector.at("rawSelector"), selector.at("requirements"));
    match (raw.str().is_empty(), requirements.value.is_empty()) {
        (false, false) => errors.invalid(&raw, "may not specified at the same time as requirements"),
        (true, true) => {
            let why = format!("when {} is specified, requirements or rawSelector is required", selector.path());
            errors.required(&requirements, why);
        }
        _ => {}
    }
    requirements.items().for_each(|item| requirement(&item, labels, errors));
}

/// Operators that aren't known are left to authorizers that know more.
fn requirement(item: &Field, labels: bool, errors: &mut Errors) {
    let (key, values) = (item.at("key"), item.at("values"));
    if !labels && key.str().is_empty() {
        errors.required(&key, "must be specified");
    }
    match item.value["operator"].str() {
        "In" | "NotIn" if values.value.is_empty() => {
            errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.value.is_empty() => {
            errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        _ => {}
    }
    if labels {
        let shown = key.str().into();
        crate::checks::check(&key.with(&shown), names::qualified_name, errors);
        values.items().for_each(|value| crate::checks::check(&value, names::label_value, errors));
    }
}
