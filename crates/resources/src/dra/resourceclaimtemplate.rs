//! ResourceClaimTemplate: what the claims look like that are made for pods.

use super::request;
use crate::checks;
use crate::core::pod::claim_template;
use crate::resource::{Column, Context, Info, Resource, age, name};
use canopus_api::{Errors, Field, Time, Value};

pub struct ResourceClaimTemplate;

static INFO: Info = Info {
    singular: "resourceclaimtemplate",
    ..Info::stored("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
};

impl Resource for ResourceClaimTemplate {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").and_then(|template| template.get_mut("spec")) {
            request::default(spec);
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        claim_template::metadata(&spec.at("metadata"), errors);
        request::spec(&spec.at("spec"), errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
        checks::immutable(&new.at("spec"), &old["spec"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::AGE] }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), age(object, now)]
    }
}
