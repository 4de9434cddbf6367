//! LocalSubjectAccessReview: may they, in this namespace? For those who may ask about their own namespace only.

use super::attributes;
use crate::resource::{Info, Resource};
use canopus_api::{Errors, Field};

pub struct LocalSubjectAccessReview;

static INFO: Info = Info {
    singular: "localsubjectaccessreview",
    namespaced: true,
    ..super::review("LocalSubjectAccessReview", "localsubjectaccessreviews")
};

impl Resource for LocalSubjectAccessReview {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        attributes::validate(&spec, errors);
        attributes::subject(&spec, errors);
        attributes::empty_metadata(object, &["namespace"], "must be empty except for namespace", errors);
        let (resource, other) = (spec.at("resourceAttributes"), spec.at("nonResourceAttributes"));
        let namespace = resource.at("namespace");
        if resource.is_set() && namespace.str() != object.value["metadata"]["namespace"].str() {
            errors.invalid(&namespace.with(&namespace.str().into()), "must match metadata.namespace");
        }
        if other.is_set() {
            errors.invalid(&other, "disallowed on this kind of request");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::create;
    use canopus_api::{Value, value};

    #[test]
    fn questions_stay_in_the_namespace() {
        let cases: &[(Value, &[&str])] = &[
            (
                value!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "a"}}}),
                &[],
            ),
            (
                value!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "b"}}}),
                &["spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace"],
            ),
            (
                value!({"spec": {"user": "u", "nonResourceAttributes": {}}}),
                &["spec.nonResourceAttributes: Invalid value: {}: disallowed on this kind of request"],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&LocalSubjectAccessReview, object.clone()), *expected);
        }
    }
}
