//! SubjectAccessReview: may they?

use super::attributes;
use crate::resource::{Info, Resource};
use canopus_api::{Errors, Field};

pub struct SubjectAccessReview;

static INFO: Info =
    Info { singular: "subjectaccessreview", ..super::review("SubjectAccessReview", "subjectaccessreviews") };

impl Resource for SubjectAccessReview {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        attributes::validate(&spec, errors);
        attributes::subject(&spec, errors);
        attributes::empty_metadata(object, &[], "must be empty", errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::create;
    use canopus_api::{Value, value};

    #[test]
    fn questions() {
        let cases: &[(Value, &[&str])] = &[
            (value!({"spec": {"user": "u", "resourceAttributes": {"verb": "get"}}}), &[]),
            (
                value!({"metadata": {"name": "x"}, "spec": {}}),
                &[
                    "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
                    "spec.user: Invalid value: \"\": at least one of user or group must be specified",
                    "metadata: Invalid value: {\"name\":\"x\"}: must be empty",
                ],
            ),
            (
                value!({"spec": {"groups": ["g"], "nonResourceAttributes": {"path": "/"}, "resourceAttributes": {
                    "fieldSelector": {}, "labelSelector": {"rawSelector": "a", "requirements": [{"key": "a", "operator": "In"}]}}}}),
                &[
                    "spec.nonResourceAttributes: Invalid value: {\"path\":\"/\"}: cannot be specified in combination with resourceAttributes",
                    "spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
                    "spec.resourceAttributes.labelSelector.rawSelector: Invalid value: \"a\": may not specified at the same time as requirements",
                    "spec.resourceAttributes.labelSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                ],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&SubjectAccessReview, object.clone()), *expected);
        }
    }
}
