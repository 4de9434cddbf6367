//! SelfSubjectReview: who am I? The API server answers with `status.userInfo`.

use crate::resource::{Info, Resource};

pub struct SelfSubjectReview;

static INFO: Info = Info { singular: "selfsubjectreview", ..super::review("SelfSubjectReview", "selfsubjectreviews") };

impl Resource for SelfSubjectReview {
    fn info(&self) -> &'static Info {
        &INFO
    }
}
