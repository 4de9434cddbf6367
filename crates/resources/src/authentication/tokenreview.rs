//! TokenReview: whose token is this? The API server authenticates it and answers with its status.

use crate::resource::{Info, Resource};

pub struct TokenReview;

static INFO: Info = Info { singular: "tokenreview", ..super::review("TokenReview", "tokenreviews") };

/// The answer (400) to a review without a token: upstream doesn't count this as validation.
pub const NO_TOKEN: &str = "token is required for TokenReview in authentication";

impl Resource for TokenReview {
    fn info(&self) -> &'static Info {
        &INFO
    }
}
