//! RoleBinding: who has a role in a namespace.

use super::{GROUP, binding};
use crate::resource::{Column, Context, Info, Resource};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct RoleBinding;

static INFO: Info = Info {
    singular: "rolebinding",
    name: names::path_segment,
    create_on_update: true,
    ..Info::stored(GROUP, "v1", "RoleBinding", "rolebindings")
};

impl Resource for RoleBinding {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        binding::default(object);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        binding::validate(object, &["Role", "ClusterRole"], true, errors);
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
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn bound() -> Value {
        value!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "d"}]})
    }

    #[test]
    fn subjects_and_roles() {
        assert_eq!(create(&RoleBinding, bound()), Vec::<String>::new());
        let bad = value!({"roleRef": {"kind": "Pod", "name": "a/b"}, "subjects": [
            {"kind": "ServiceAccount", "name": "S", "apiGroup": "x"}, {"kind": "Robot", "name": "r"}, {"kind": "User", "apiGroup": "x"}]});
        assert_eq!(
            create(&RoleBinding, bad),
            [
                "roleRef.kind: Unsupported value: \"Pod\": supported values: \"Role\", \"ClusterRole\"",
                "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
                "subjects[0].name: Invalid value: \"S\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"\"",
                "subjects[1].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                "subjects[2].name: Required value",
                "subjects[2].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
            ]
        );
    }

    #[test]
    fn the_role_stays() {
        let mut new = bound();
        new.set_path(&["roleRef", "name"], "edit");
        assert_eq!(
            update(&RoleBinding, "", bound(), new),
            [
                "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"edit\"}: cannot change roleRef"
            ]
        );
        assert_eq!(cells(&RoleBinding, &bound()), ["b", "ClusterRole/view", "<unknown>", "u", "g", "d/s"]);
    }
}
