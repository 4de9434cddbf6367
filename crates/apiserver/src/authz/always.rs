//! `AlwaysAllow` and `AlwaysDeny` (upstream `authorizerfactory`).

use super::{Attributes, Authorizer, Decision, Rules};
use crate::user::User;
use canopus_api::value;

pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::Allow(String::new())
    }

    fn rules(&self, _: &User, _: &str) -> Rules {
        Rules {
            resource: vec![value!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})],
            non_resource: vec![value!({"verbs": ["*"], "nonResourceURLs": ["*"]})],
            ..Rules::default()
        }
    }
}

/// Has no opinion, rather: those after it are asked.
pub struct AlwaysDeny;

impl Authorizer for AlwaysDeny {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::NoOpinion("Everything is forbidden.".into())
    }
}
