//! Binding: gives a pod to a node. `bindings` is the old door; schedulers use `pods/binding`.

use crate::core::pod::bind;
use crate::resource::{Info, Resource, Verb};
use canopus_api::{Errors, Field};

pub struct Binding;

static INFO: Info =
    Info { singular: "binding", stored: false, verbs: Verb::CREATE, ..Info::stored("", "v1", "Binding", "bindings") };

impl Resource for Binding {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        bind::validate(object, errors);
    }
}
