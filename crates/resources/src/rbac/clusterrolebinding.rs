//! ClusterRoleBinding: who has a role everywhere.

use super::{GROUP, binding};
use crate::resource::{Column, Context, Info, Resource};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct ClusterRoleBinding;

static INFO: Info = Info {
    singular: "clusterrolebinding",
    namespaced: false,
    name: names::path_segment,
    create_on_update: true,
    ..Info::stored(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings")
};

impl Resource for ClusterRoleBinding {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        binding::default(object);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        binding::validate(object, &["ClusterRole"], false, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
        binding::validate_update(new, old, errors);
    }

    fn columns(&self) -> &'static [Column] {
        binding::COLUMNS
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        binding::row(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::create;
    use canopus_api::value;

    #[test]
    fn service_accounts_need_a_namespace_and_roles_are_cluster_roles() {
        let object =
            value!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}]});
        assert_eq!(
            create(&ClusterRoleBinding, object),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[0].namespace: Required value",
            ]
        );
    }
}
