//! MutatingAdmissionPolicy: expressions that say how a request's object is to be changed (KEP-3962).

use super::expressions::{Expressions, Uses, apply_configuration, json_patch};
use super::policy;
use crate::checks;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value};

const GROUP: &str = "admissionregistration.k8s.io";

pub struct MutatingAdmissionPolicy;

static INFO: Info = Info {
    singular: "mutatingadmissionpolicy",
    categories: &["api-extensions"],
    namespaced: false,
    generation: true,
    unconditional_update: false,
    ..Info::stored(GROUP, "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies")
};

impl Resource for MutatingAdmissionPolicy {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        policy::default(object);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        spec(&object.at("spec"), None, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        spec(&new.at("spec"), Some(&old["spec"]), errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Mutations",
                    "integer",
                    "Mutation indicates the number of mutations rules defined in this configuration",
                ),
                Column::new(
                    "ParamKind",
                    "string",
                    "ParamKind specifies the kind of resources used to parameterize this policy",
                ),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let spec = &object["spec"];
        let kind = policy::shown_param_kind(spec);
        vec![name(object), spec["mutations"].items().len().into(), kind.into(), age(object, now)]
    }
}

fn spec(spec: &Field, old: Option<&Value>, errors: &mut Errors) {
    let expressions = policy::validate(spec, old, errors);
    policy::mutable_operations(&spec.at("matchConstraints"), errors);
    let mutations = spec.at("mutations");
    if mutations.value.items().is_empty() {
        errors.required(&mutations, "mutations must contain at least one item");
    }
    for mutation in mutations.items() {
        self::mutation(&mutation, &expressions, spec.at("paramKind").is_set(), errors);
    }
    checks::required_one_of(&spec.at("reinvocationPolicy"), &["IfNeeded", "Never"], errors);
}

fn mutation(mutation: &Field, expressions: &Expressions, params: bool, errors: &mut Errors) {
    let kind = mutation.at("patchType");
    let (json, apply) = (mutation.at("jsonPatch"), mutation.at("applyConfiguration"));
    let (wanted, other, returns) = match kind.str() {
        "" => return errors.required(&kind, ""),
        "JSONPatch" => (&json, &apply, json_patch()),
        "ApplyConfiguration" => (&apply, &json, apply_configuration()),
        _ => return errors.not_supported(&kind, &["ApplyConfiguration", "JSONPatch"]),
    };
    if wanted.is_unset() {
        errors.required(wanted, format!("must be specified when patchType is {}", kind.str()));
    } else {
        let expression = wanted.at("expression");
        let text = expression.str().trim();
        if text.is_empty() {
            errors.required(&expression, "");
        } else {
            let uses = Uses { params, authorizer: true, patches: true };
            policy::expression(&expression, text, expressions, uses, &[returns], errors);
        }
    }
    if other.is_set() {
        let name = if kind.str() == "JSONPatch" { "{applyConfiguration}" } else { "{jsonPatch}" };
        errors.invalid(&other.with(&name.into()), format!("must not be specified when patchType is {}", kind.str()));
    }
}
