//! ValidatingAdmissionPolicyBinding: where a policy holds, with which parameters, and what comes of it.

use super::policy;
use crate::checks;
use crate::resource::{Column, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value};
use std::collections::BTreeSet;

const GROUP: &str = "admissionregistration.k8s.io";

pub struct ValidatingAdmissionPolicyBinding;

static INFO: Info = Info {
    singular: "validatingadmissionpolicybinding",
    categories: &["api-extensions"],
    namespaced: false,
    generation: true,
    unconditional_update: false,
    ..Info::stored(GROUP, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
};

impl Resource for ValidatingAdmissionPolicyBinding {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        policy::default_match(object, "matchResources");
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        policy::binding(&spec, errors);
        actions(&spec.at("validationActions"), errors);
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        row(object, now)
    }
}

/// Those of both kinds of bindings.
pub(super) const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::new(
        "PolicyName",
        "string",
        "PolicyName indicates the policy definition which the policy binding binded to",
    ),
    Column::new("ParamRef", "string", "ParamRef indicates the param resource which sets the configuration param"),
    Column::AGE,
];

pub(super) fn row(object: &Value, now: Time) -> Vec<Value> {
    let spec = &object["spec"];
    vec![name(object), spec["policyName"].clone(), policy::shown_param_ref(spec).into(), age(object, now)]
}

fn actions(actions: &Field, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for action in actions.items() {
        checks::one_of(&action, &["Audit", "Deny", "Warn"], errors);
        if !seen.insert(action.str()) {
            errors.duplicate(&action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(actions, why);
    }
    if seen.is_empty() {
        errors.required(actions, "at least one validation action is required");
    }
}
