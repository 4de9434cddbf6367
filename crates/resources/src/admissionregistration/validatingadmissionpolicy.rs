//! ValidatingAdmissionPolicy: expressions that a request must satisfy (KEP-3488).

use super::expressions::{ANNOTATION, CONDITION, Expressions, MESSAGE, Uses};
use super::policy;
use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use canopus_api::{Errors, Field, Time, Value, names};
use std::collections::BTreeSet;

const GROUP: &str = "admissionregistration.k8s.io";
const KIND: &str = "ValidatingAdmissionPolicy";
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION_EXPRESSION: usize = 5 * 1024;

pub struct ValidatingAdmissionPolicy;

static INFO: Info = Info {
    singular: "validatingadmissionpolicy",
    categories: &["api-extensions"],
    namespaced: false,
    generation: true,
    unconditional_update: false,
    subresources: &[Subresource::status(GROUP, "v1", KIND)],
    ..Info::stored(GROUP, "v1", KIND, "validatingadmissionpolicies")
};

impl Resource for ValidatingAdmissionPolicy {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        policy::default(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        crate::strategy::sealed_status(new, old, cx.subresource);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        spec(object, None, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return status(&new.at("status"), errors);
        }
        spec(new, Some(&old["spec"]), errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Validations",
                    "integer",
                    "Validations indicates the number of validation rules defined in this configuration",
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
        vec![name(object), spec["validations"].items().len().into(), kind.into(), age(object, now)]
    }
}

fn spec(object: &Field, old: Option<&Value>, errors: &mut Errors) {
    let spec = object.at("spec");
    let expressions = policy::validate(&spec, old, errors);
    let (validations, annotations) = (spec.at("validations"), spec.at("auditAnnotations"));
    if validations.value.items().is_empty() && annotations.value.items().is_empty() {
        const WHY: &str = "validations or auditAnnotations must contain at least one item";
        errors.required(&validations, WHY);
        errors.required(&annotations, WHY);
        return;
    }
    let params = spec.at("paramKind").is_set();
    for validation in validations.items() {
        self::validation(&validation, &expressions, params, errors);
    }
    let count = annotations.value.items().len();
    if count > MAX_ANNOTATIONS {
        errors.invalid(&annotations, format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations"));
    }
    let policy = object.value["metadata"]["name"].str();
    let mut seen = BTreeSet::new();
    for annotation in annotations.items().take(MAX_ANNOTATIONS) {
        self::annotation(&annotation, policy, &expressions, params, errors);
        if !seen.insert(annotation.value["key"].str()) {
            errors.duplicate(&annotation.at("key"));
        }
    }
}

fn validation(validation: &Field, expressions: &Expressions, params: bool, errors: &mut Errors) {
    let expression = validation.at("expression");
    if expression.str().trim().is_empty() {
        errors.required(&expression, "expression is not specified");
    } else {
        let uses = Uses { params, authorizer: true, patches: false };
        policy::expression(&expression, expression.str(), expressions, uses, CONDITION, errors);
    }
    let message = validation.at("messageExpression");
    if !message.str().is_empty() {
        if message.str().trim().is_empty() {
            errors.invalid(&message, "must be non-empty if specified");
        } else {
            let uses = Uses { params, authorizer: false, patches: false };
            policy::expression(&message, message.str(), expressions, uses, MESSAGE, errors);
        }
    }
    let message = validation.at("message");
    if !message.str().is_empty() && message.str().trim().is_empty() {
        errors.invalid(&message, "must be non-empty if specified");
    } else if message.str().trim().contains(['\n', '\r']) {
        errors.invalid(&message, "must not contain line breaks");
    }
    checks::optional_one_of(&validation.at("reason"), REASONS, errors);
}

fn annotation(annotation: &Field, policy: &str, expressions: &Expressions, params: bool, errors: &mut Errors) {
    let key = annotation.at("key");
    if policy.is_empty() {
        errors.invalid(&key, "requires metadata.name be non-empty");
    } else {
        let full: Value = format!("{policy}/{}", key.str()).into();
        checks::check(&key.with(&full), names::qualified_name, errors);
    }
    let expression = annotation.at("valueExpression");
    let text = expression.str().trim();
    if text.is_empty() {
        errors.required(&expression, "valueExpression is not specified");
    } else if text.len() > MAX_ANNOTATION_EXPRESSION {
        errors.required(&expression, format!("must not exceed {MAX_ANNOTATION_EXPRESSION} bytes in length"));
    } else {
        let uses = Uses { params, authorizer: true, patches: false };
        policy::expression(&expression, text, expressions, uses, ANNOTATION, errors);
    }
}

fn status(status: &Field, errors: &mut Errors) {
    for warning in status.at("typeChecking").at("expressionWarnings").items() {
        checks::required(&warning.at("warning"), errors);
        let place = warning.at("fieldRef");
        if place.str().trim().is_empty() {
            errors.required(&place, "");
        }
    }
}
