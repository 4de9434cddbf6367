//! `authentication.k8s.io`: questions about who somebody is.

pub mod selfsubjectreview;
pub mod tokenrequest;
pub mod tokenreview;

use crate::resource::{Info, Verb};

const fn review(kind: &'static str, plural: &'static str) -> Info {
    Info {
        namespaced: false,
        stored: false,
        verbs: Verb::CREATE,
        ..Info::stored("authentication.k8s.io", "v1", kind, plural)
    }
}
