//! MutatingAdmissionPolicyBinding: where a mutation is made, and with which parameters.

use super::policy;
use super::validatingadmissionpolicybinding::{COLUMNS, row};
use crate::resource::{Column, Info, Resource};
use canopus_api::{Errors, Field, Time, Value};

const GROUP: &str = "admissionregistration.k8s.io";

pub struct MutatingAdmissionPolicyBinding;

static INFO: Info = Info {
    singular: "mutatingadmissionpolicybinding",
    categories: &["api-extensions"],
    namespaced: false,
    generation: true,
    unconditional_update: false,
    ..Info::stored(GROUP, "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
};

impl Resource for MutatingAdmissionPolicyBinding {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        policy::default_match(object, "matchResources");
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        policy::binding(&spec, errors);
        policy::mutable_operations(&spec.at("matchResources"), errors);
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        row(object, now)
    }
}
