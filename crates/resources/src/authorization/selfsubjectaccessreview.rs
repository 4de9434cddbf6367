//! SelfSubjectAccessReview: may I?

use super::attributes;
use crate::resource::{Info, Resource};
use canopus_api::{Errors, Field};

pub struct SelfSubjectAccessReview;

static INFO: Info = Info {
    singular: "selfsubjectaccessreview",
    ..super::review("SelfSubjectAccessReview", "selfsubjectaccessreviews")
};

impl Resource for SelfSubjectAccessReview {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        attributes::validate(&object.at("spec"), errors);
        attributes::empty_metadata(object, &[], "must be empty", errors);
    }
}
