//! SelfSubjectRulesReview: what may I do in a namespace?

use crate::resource::{Info, Resource};

pub struct SelfSubjectRulesReview;

static INFO: Info =
    Info { singular: "selfsubjectrulesreview", ..super::review("SelfSubjectRulesReview", "selfsubjectrulesreviews") };

/// The answer (400) to a review without `spec.namespace`: upstream doesn't count this as validation.
pub const NO_NAMESPACE: &str = "no namespace on request";

impl Resource for SelfSubjectRulesReview {
    fn info(&self) -> &'static Info {
        &INFO
    }
}
