//! Role: permissions within a namespace.

use super::{GROUP, rule};
use crate::resource::{Info, Resource};
use canopus_api::{Errors, Field, names};

pub struct Role;

static INFO: Info = Info {
    singular: "role",
    name: names::path_segment,
    create_on_update: true,
    ..Info::stored(GROUP, "v1", "Role", "roles")
};

impl Resource for Role {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        rule::validate(&object.at("rules"), true, errors);
    }
}
