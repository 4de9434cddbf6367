//! `authorization.k8s.io`: questions about who may do what. The API server answers them with a status.

mod attributes;
pub mod localsubjectaccessreview;
pub mod selfsubjectaccessreview;
pub mod selfsubjectrulesreview;
pub mod subjectaccessreview;

use crate::resource::{Info, Verb};

const fn review(kind: &'static str, plural: &'static str) -> Info {
    Info {
        namespaced: false,
        stored: false,
        verbs: Verb::CREATE,
        ..Info::stored("authorization.k8s.io", "v1", kind, plural)
    }
}
