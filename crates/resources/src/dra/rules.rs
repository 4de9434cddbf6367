//! Rules that claims, classes and slices share.

use super::selector;
use crate::checks::{self, Seen};
use crate::core::pod::volumes::csi_driver;
use canopus_api::{Errors, Field, Value, names};
use compact_str::CompactString;

/// Names of drivers are made like those of drivers of volumes.
pub fn driver(field: &Field, errors: &mut Errors) {
    csi_driver(field, errors);
}

/// Subdomains with slashes between them.
pub fn pool(field: &Field, errors: &mut Errors) {
    if !checks::required(field, errors) {
        return;
    }
    if field.str().len() > 253 {
        errors.too_long(field, 253);
    }
    for part in field.str().split('/') {
        checks::check(&field.with(&part.into()), names::dns1123_subdomain, errors);
    }
}

/// A label: the name of a device, a request, a counter.
pub fn label(field: &Field, errors: &mut Errors) {
    checks::check(&field.with(&field.str().into()), names::dns1123_label, errors);
}

/// A `[domain/]identifier`: the name of an attribute or a capacity.
pub fn attribute_name(field: &Field, name: &str, errors: &mut Errors) {
    let at = |text: &str, check: &dyn Fn(&Field, &mut Errors), errors: &mut Errors| {
        check(&field.with(&text.into()), errors);
    };
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [id] => at(id, &identifier, errors),
        [domain, id] => {
            match domain.is_empty() {
                true => errors.invalid(&field.with(&"".into()), "the domain must not be empty"),
                false => at(domain, &driver, errors),
            }
            match id.is_empty() {
                true => errors.invalid(&field.with(&"".into()), "the name must not be empty"),
                false => at(id, &identifier, errors),
            }
        }
        // Upstream lets these pass.
        _ => {}
    }
}

/// [`attribute_name`] with a domain.
pub fn full_attribute_name(field: &Field, errors: &mut Errors) {
    attribute_name(field, field.str(), errors);
    if !field.str().contains('/') {
        errors.invalid(field, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

fn identifier(field: &Field, errors: &mut Errors) {
    const MAX: usize = 32;
    if field.str().len() > MAX {
        errors.too_long(field, MAX);
    }
    let word = |b: u8| b == b'_' || b.is_ascii_alphanumeric();
    let text = field.str().as_bytes();
    if !text.iter().all(|b| word(*b)) || text.first().is_none_or(u8::is_ascii_digit) {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.invalid(field, why);
    }
}

/// Whether a list is not too long; the error says so. Longer ones are not looked at.
pub fn fits(list: &Field, most: usize, errors: &mut Errors) -> bool {
    let count = list.value.items().len();
    if count > most {
        errors.too_many(list, count, most);
    }
    count <= most
}

/// Finds items of a list that are there twice, by what `key` says.
pub fn unique(list: &Field, key: impl Fn(&Value) -> CompactString, errors: &mut Errors) {
    let mut seen = Seen::new();
    for item in list.items() {
        let key = key(item.value);
        if !seen.insert(key.clone()) {
            errors.duplicate(&item.with(&key.into()));
        }
    }
}

/// `DeviceSelector`s.
pub fn selectors(list: &Field, errors: &mut Errors) {
    if !fits(list, 32, errors) {
        return;
    }
    for selector in list.items() {
        let cel = selector.at("cel");
        let expression = cel.at("expression");
        if cel.is_unset() {
            errors.required(&cel, "");
        } else if expression.str().len() > selector::MAX_LENGTH {
            errors.too_long(&expression, selector::MAX_LENGTH);
        } else {
            match selector::compile(expression.str()) {
                Err(why) => errors.invalid(&expression, why),
                Ok(program) if program.estimated_cost().max > selector::MAX_COST => {
                    errors.forbidden(&expression, "too complex, exceeds cost limit");
                }
                Ok(_) => {}
            }
        }
    }
}

/// `DeviceConfiguration`: what only the driver understands.
pub fn configuration(config: &Field, errors: &mut Errors) {
    let opaque = config.at("opaque");
    if opaque.is_unset() {
        return errors.required(&opaque, "");
    }
    driver(&opaque.at("driver"), errors);
    raw(&opaque.at("parameters"), 10 * 1024, errors);
}

/// An object of some kind, not too long.
pub fn raw(field: &Field, max: usize, errors: &mut Errors) {
    match field.value {
        Value::Null => errors.required(field, ""),
        Value::Object(_) => {
            if canopus_api::json::to_vec(field.value).len() > max {
                errors.too_long(field, max);
            }
        }
        _ => errors.invalid(&field.with(&"<value omitted>".into()), "must be a valid JSON object"),
    }
}

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// A `DeviceTaint`.
pub fn taint(taint: &Field, errors: &mut Errors) {
    let (key, value) = (taint.at("key"), taint.at("value"));
    checks::check(&key.with(&key.str().into()), names::qualified_name, errors);
    checks::check(&value.with(&value.str().into()), names::label_value, errors);
    checks::required_one_of(&taint.at("effect"), EFFECTS, errors);
}

/// A `DeviceToleration`.
pub fn toleration(toleration: &Field, errors: &mut Errors) {
    let (key, value, effect) = (toleration.at("key"), toleration.at("value"), toleration.at("effect"));
    if !key.str().is_empty() {
        checks::check(&key, names::qualified_name, errors);
    }
    let operator = toleration.at("operator");
    match operator.str() {
        "Exists" if !value.str().is_empty() => errors.invalid(&value, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => checks::check(&value, names::label_value, errors),
        _ => checks::required_one_of(&operator, &["Equal", "Exists"], errors),
    }
    if !effect.str().is_empty() {
        checks::one_of(&effect, EFFECTS, errors);
    }
}

/// The conditions that a binding waits for and those that end it: both or none, and not the same.
pub fn binding(place: &Field, errors: &mut Errors) {
    let (good, bad) = (place.at("bindingConditions"), place.at("bindingFailureConditions"));
    for list in [&good, &bad] {
        if fits(list, 4, errors) {
            list.items().for_each(|item| checks::check(&item, names::qualified_name, errors));
        }
        unique(list, |item| item.str().into(), errors);
    }
    for item in bad.items().filter(|item| good.value.items().contains(item.value)) {
        errors.invalid(&item, "bindingFailureConditions must not overlap with bindingConditions");
    }
    match (good.value.is_empty(), bad.value.is_empty()) {
        (true, false) => errors.invalid(&good, "bindingConditions are required to use bindingFailureConditions"),
        (false, true) => errors.invalid(&bad, "bindingFailureConditions are required to use bindingConditions"),
        _ => {}
    }
}
