//! A device as its driver describes it.

use super::rules::{attribute_name, binding, fits, label, taint, unique};
use crate::checks;
use crate::core::pod::amounts::is_native;
use crate::core::pod::scheduling::node_selector;
use crate::semantic;
use canopus_api::{Errors, Field, Quantity, Value, names};

const LISTS: &[&str] = &["bools", "ints", "strings", "versions"];
const SCALARS: &[&str] = &["bool", "int", "string", "version"];
const MAX_VALUE: usize = 64;

/// Whether it has what makes slices hold fewer devices.
pub fn is_large(device: &Value) -> bool {
    let lists = |attribute: &Value| LISTS.iter().any(|kind| !attribute[*kind].is_null());
    !device["taints"].is_empty()
        || !device["consumesCounters"].is_empty()
        || device["attributes"].entries().any(|(_, attribute)| lists(attribute))
}

pub fn validate(device: &Field, old: Option<&Value>, per_device: bool, errors: &mut Errors) {
    label(&device.at("name"), errors);
    let (attributes, capacities) = (device.at("attributes"), device.at("capacity"));
    let total = attributes.value.entries().count() + capacities.value.entries().count();
    if total > 32 {
        errors.invalid(&device.with(&total.into()), "the total number of attributes and capacities must not exceed 32");
    }
    let size = |attribute: &Value| LISTS.iter().map(|kind| attribute[*kind].items().len()).sum::<usize>().max(1);
    let values = attributes.value.entries().map(|(_, attribute)| size(attribute)).sum::<usize>();
    if values > 48 {
        errors.invalid(&device.with(&values.into()), "the total number of attribute values must not exceed 48");
    }
    for (name, one) in attributes.entries() {
        attribute_name(&attributes, name, errors);
        attribute(&one, errors);
    }
    let shared = device.value["allowMultipleAllocations"].bool();
    for (name, one) in capacities.entries() {
        attribute_name(&capacities, name, errors);
        capacity(&one, shared, errors);
    }
    let taints = device.at("taints");
    let same = old.is_some_and(|old| semantic::equal(&old["taints"], taints.value));
    if !same && fits(&taints, 16, errors) {
        taints.items().for_each(|one| taint(&one, errors));
    }
    let consumed = device.at("consumesCounters");
    if fits(&consumed, 2, errors) {
        for one in consumed.items() {
            if checks::required(&one.at("counterSet"), errors) {
                label(&one.at("counterSet"), errors);
            }
            counters(&one.at("counters"), errors);
        }
        unique(&consumed, |one| one["counterSet"].str().into(), errors);
    }
    nodes(device, per_device, errors);
    binding(device, errors);
    mappings(device, errors);
}

/// Counters by name, of a set or what a device takes of one.
pub fn counters(map: &Field, errors: &mut Errors) {
    const MOST: usize = 32;
    if !checks::required(map, errors) {
        return;
    }
    let count = map.value.entries().count();
    if count > MOST {
        return errors.too_many(map, count, MOST);
    }
    for (name, _) in map.value.entries() {
        label(&map.with(&name.into()), errors);
    }
}

/// Exactly one value, or one list of values.
fn attribute(attribute: &Field, errors: &mut Errors) {
    let set = |kinds: &[&str]| kinds.iter().filter(|kind| !attribute.value[**kind].is_null()).count();
    let count = set(SCALARS) + set(LISTS);
    text(&attribute.at("string"), errors);
    version(&attribute.at("version"), errors);
    for kind in LISTS {
        let list = attribute.at(kind);
        if list.is_set() && list.value.is_empty() {
            errors.invalid(&list, "must not be empty if specified");
        }
        match *kind {
            "strings" => list.items().for_each(|one| text(&one, errors)),
            "versions" => list.items().for_each(|one| version(&one, errors)),
            _ => {}
        }
    }
    match count {
        0 => errors.invalid(&attribute.with(&"".into()), "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(attribute, "exactly one value must be specified"),
    }
}

fn text(field: &Field, errors: &mut Errors) {
    if field.str().len() > MAX_VALUE {
        errors.too_long(field, MAX_VALUE);
    }
}

fn version(field: &Field, errors: &mut Errors) {
    if field.is_set() && !is_semver(field.str()) {
        errors.invalid(field, "must be a string compatible with semver.org spec 2.0.0");
    }
    text(field, errors);
}

/// `1.2.3-rc.1+build.5`, as semver.org has it.
pub fn is_semver(text: &str) -> bool {
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let numeric = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let parts: Vec<&str> = core.split('.').collect();
    parts.len() == 3
        && parts.into_iter().all(number)
        && before.is_none_or(|b| b.split('.').all(|part| word(part) && (!numeric(part) || number(part))))
        && build.is_none_or(|b| b.split('.').all(word))
}

fn capacity(capacity: &Field, shared: bool, errors: &mut Errors) {
    let policy = capacity.at("requestPolicy");
    if policy.is_unset() {
        return;
    }
    if !shared {
        return errors.forbidden(&policy, "allowMultipleAllocations must be true");
    }
    let (values, range) = (policy.at("validValues"), policy.at("validRange"));
    let most = amount(&capacity.value["value"]);
    let default = policy.at("default");
    match (!values.value.is_empty(), range.is_set()) {
        (true, true) => {
            let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            errors.forbidden(&policy, why);
        }
        (true, false) if default.is_unset() => errors.required(&default, "required when validValues is defined"),
        (true, false) => valid_values(&values, amount(default.value), most, errors),
        (false, true) if default.is_unset() => errors.required(&default, "required when validRange is defined"),
        (false, true) => valid_range(&range, amount(default.value), most, errors),
        (false, false) => {}
    }
}

fn amount(value: &Value) -> Quantity {
    Quantity::from_value(value).unwrap_or_default()
}

fn valid_values(values: &Field, default: Quantity, most: Quantity, errors: &mut Errors) {
    let amounts: Vec<Quantity> = values.value.items().iter().map(amount).collect();
    for i in 1..amounts.len() {
        if amounts[i - 1] > amounts[i] {
            errors.invalid(&values.index(i).with(&amounts[i].into()), "values must be sorted in ascending order");
        }
    }
    if fits(values, 10, errors) {
        for (option, amount) in values.items().zip(&amounts) {
            if *amount > most {
                let why = format!("option is larger than capacity value: {most}");
                errors.invalid(&option.with(&(*amount).into()), why);
            }
        }
        unique(values, |value| amount(value).value().to_string().into(), errors);
    }
    if !amounts.contains(&default) {
        errors.invalid(&values.with(&default.into()), "default value is not valid according to the requestPolicy");
    }
}

fn valid_range(range: &Field, default: Quantity, most: Quantity, errors: &mut Errors) {
    let (min_at, max_at, step_at) = (range.at("min"), range.at("max"), range.at("step"));
    if min_at.is_unset() {
        return errors.required(&min_at, "required when validRange is defined");
    }
    let (min, max, step) = (amount(min_at.value), amount(max_at.value), amount(step_at.value));
    let wrong = |is: bool, at: &Field, shown: Quantity, why: String, errors: &mut Errors| {
        if is {
            errors.invalid(&at.with(&shown.into()), why);
        }
    };
    wrong(min > most, &min_at, min, format!("min is larger than capacity value: {most}"), errors);
    wrong(default < min, &min_at, default, format!("default is less than min: {min}"), errors);
    if max_at.is_set() {
        wrong(min > max, &max_at, min, format!("min is larger than max: {max}"), errors);
        wrong(max > most, &max_at, max, format!("max is larger than capacity value: {most}"), errors);
        wrong(default > max, &max_at, default, format!("default is more than max: {max}"), errors);
    }
    if step_at.is_set() {
        let added = min.plus(step);
        let why = format!("one step {added} is larger than capacity value: {most}");
        wrong(added > most, &step_at, step, why, errors);
        let off = |value: Quantity| step.value() == 0 || (value.value() - min.value()) % step.value() != 0;
        let why = format!("value is not a multiple of a given step ({step}) from ({min})");
        wrong(off(default), &step_at, default, why.clone(), errors);
        wrong(max_at.is_set() && off(max), &step_at, max, why, errors);
    }
}

/// From which nodes the device can be reached, where each device says so itself.
fn nodes(device: &Field, per_device: bool, errors: &mut Errors) {
    let (node, nodes, all) = (device.at("nodeName"), device.at("nodeSelector"), device.at("allNodes"));
    if !per_device {
        if node.is_set() || nodes.is_set() || all.is_set() {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.invalid(&device.with(&Value::Null), why);
        }
        return;
    }
    let mut set = Vec::new();
    if node.is_set() {
        if node.str().is_empty() {
            errors.invalid(&node, "must not be empty");
        } else {
            set.push("`nodeName`");
            checks::check(&node, names::dns1123_subdomain, errors);
        }
    }
    if nodes.is_set() {
        set.push("`nodeSelector`");
        node_selector(&nodes, errors);
    }
    match all.value.as_bool() {
        Some(true) => set.push("`allNodes`"),
        Some(false) => errors.invalid(&all, "must be either unset or set to true"),
        None => {}
    }
    let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match set.len() {
        0 => errors.required(device, why),
        1 => {}
        _ => errors.invalid(&device.with(&format!("{{{}}}", set.join(", ")).into()), why),
    }
}

/// What of a node's resources the device stands for.
fn mappings(device: &Field, errors: &mut Errors) {
    let mappings = device.at("nodeAllocatableResourceMappings");
    for (resource, mapping) in mappings.entries() {
        if !is_native(resource) {
            errors.invalid(&mapping.with(&resource.into()), "must be a node allocatable resource name");
        }
        let (factor, key) = (mapping.at("allocationMultiplier"), mapping.at("capacityKey"));
        if factor.is_unset() && key.is_unset() {
            let why = "at least one of allocationMultiplier or capacityKey must be set";
            errors.invalid(&mapping.with(&"".into()), why);
        }
        let times = amount(factor.value);
        if factor.is_set() && (times.is_negative() || times.is_zero()) {
            errors.invalid(&factor.with(&times.into()), "must be positive");
        }
        if key.is_set() && key.str().is_empty() {
            errors.invalid(&key, "capacityKey must not be an empty string");
        } else if key.is_set() && device.value["capacity"].get(key.str()).is_none() {
            errors.not_found(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions() {
        let good = ["0.0.0", "1.2.3", "1.2.3-rc.1", "1.2.3-x-y.0a+b.001"];
        let bad = ["1", "1.2", "01.2.3", "1.2.3-01", "1.2.3-", "1.2.3+", "v1.2.3"];
        assert!(good.iter().all(|v| super::is_semver(v)));
        assert!(!bad.iter().any(|v| super::is_semver(v)));
    }
}
