//! MutatingWebhookConfiguration: who is asked before something is written.

use super::webhook;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value};

pub struct MutatingWebhookConfiguration;

static INFO: Info = Info {
    singular: "mutatingwebhookconfiguration",
    categories: &["api-extensions"],
    namespaced: false,
    generation: true,
    unconditional_update: false,
    ..Info::stored(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    )
};

impl Resource for MutatingWebhookConfiguration {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        webhook::default(object, true);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        webhook::validate(object, None, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        webhook::validate(new, Some(old), errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Webhooks",
                    "integer",
                    "Webhooks indicates the number of webhooks registered in this configuration",
                ),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), object["webhooks"].items().len().into(), age(object, now)]
    }
}
