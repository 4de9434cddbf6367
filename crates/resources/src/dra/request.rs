//! What a claim asks for: requests, constraints between their devices, configuration.

use super::rules::{configuration, fits, full_attribute_name, label, selectors, toleration, unique};
use crate::checks;
use canopus_api::{Errors, Field, Value, names};

/// Exactly one device where nothing else is said.
pub fn default(spec: &mut Value) {
    let requests = spec.get_mut("devices").and_then(|d| d.get_mut("requests")).and_then(Value::as_array_mut);
    for request in requests.into_iter().flatten() {
        if let Some(exactly) = request.get_mut("exactly").filter(|e| !e.is_null()) {
            count(exactly);
        }
        for one in request.get_mut("firstAvailable").and_then(Value::as_array_mut).into_iter().flatten() {
            count(one);
        }
    }
}

fn count(request: &mut Value) {
    if request["allocationMode"].is_empty() {
        request.set("allocationMode", "ExactCount");
    }
    if request["allocationMode"].str() == "ExactCount" && request["count"].int() == 0 {
        request.set("count", 1);
    }
}

/// The names that a claim's requests have: `gpu`, and `gpu/big` of its alternatives.
pub fn names_of(devices: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for request in devices["requests"].items() {
        let name = request["name"].str();
        all.push(name.to_string());
        all.extend(request["firstAvailable"].items().iter().map(|one| format!("{name}/{}", one["name"].str())));
    }
    all
}

/// `ResourceClaimSpec`.
pub fn spec(spec: &Field, errors: &mut Errors) {
    let devices = spec.at("devices");
    let known = names_of(devices.value);
    let (requests, constraints, config) = (devices.at("requests"), devices.at("constraints"), devices.at("config"));
    if fits(&requests, 32, errors) {
        requests.items().for_each(|one| request(&one, errors));
        unique(&requests, |one| one["name"].str().into(), errors);
    }
    if fits(&constraints, 32, errors) {
        constraints.items().for_each(|one| constraint(&one, &known, errors));
    }
    if fits(&config, 32, errors) {
        for one in config.items() {
            references(&one.at("requests"), &known, errors);
            configuration(&one, errors);
        }
    }
}

fn request(request: &Field, errors: &mut Errors) {
    label(&request.at("name"), errors);
    let (exactly, first) = (request.at("exactly"), request.at("firstAvailable"));
    match (exactly.is_set(), !first.value.is_empty()) {
        (false, false) => errors.required(request, "exactly one of `exactly` or `firstAvailable` is required"),
        (true, true) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(&request.with(&Value::Null), why);
        }
        (true, false) => device(&exactly, errors),
        (false, true) => {
            if fits(&first, 8, errors) {
                for one in first.items() {
                    label(&one.at("name"), errors);
                    device(&one, errors);
                }
                unique(&first, |one| one["name"].str().into(), errors);
            }
        }
    }
}

fn device(request: &Field, errors: &mut Errors) {
    checks::required_check(&request.at("deviceClassName"), names::dns1123_subdomain, errors);
    selectors(&request.at("selectors"), errors);
    let (mode, count) = (request.at("allocationMode"), request.at("count"));
    match mode.str() {
        "All" if count.int() != 0 => {
            errors.invalid(&count, "must not be specified when allocationMode is 'All'");
        }
        "All" => {}
        "ExactCount" if count.int() <= 0 => {
            errors.invalid(&count.with(&count.int().into()), "must be greater than zero");
        }
        "ExactCount" => {}
        _ => checks::one_of(&mode, &["All", "ExactCount"], errors),
    }
    let tolerations = request.at("tolerations");
    if fits(&tolerations, 16, errors) {
        tolerations.items().for_each(|one| toleration(&one, errors));
    }
}

fn constraint(constraint: &Field, known: &[String], errors: &mut Errors) {
    references(&constraint.at("requests"), known, errors);
    let (same, distinct) = (constraint.at("matchAttribute"), constraint.at("distinctAttribute"));
    if same.is_set() {
        full_attribute_name(&same, errors);
    } else if distinct.is_set() {
        full_attribute_name(&distinct, errors);
    } else {
        let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        errors.required(constraint, why);
    }
}

/// A list of names of requests.
pub fn references(list: &Field, known: &[String], errors: &mut Errors) {
    if fits(list, 32, errors) {
        list.items().for_each(|name| reference(&name, known, errors));
        unique(list, |name| name.str().into(), errors);
    }
}

/// The name of a request, or of one of its alternatives.
pub fn reference(name: &Field, known: &[String], errors: &mut Errors) {
    const UNKNOWN: &str =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.str().split('/').collect();
    if parts.len() > 2 {
        return errors.invalid(name, UNKNOWN);
    }
    parts.iter().for_each(|part| label(&name.with(&(*part).into()), errors));
    if !known.iter().any(|known| known == name.str()) {
        errors.invalid(&name.with(&name.str().into()), UNKNOWN);
    }
}
