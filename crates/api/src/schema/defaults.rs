//! Defaults that the tables know; those that depend on other fields are the resources'.

use super::place::{default_of, each_inner};
use super::zero::is_embedded;
use crate::value::Value;
use canopus_schema::Type;

/// Sets absent and null fields that have a default in the tables, in `value` and everything below it that is there.
pub fn apply_defaults(ty: &'static Type, value: &mut Value) {
    let Value::Object(map) = value else { return };
    // An empty default only says that the field is never absent; see `complete`.
    for field in ty.fields.iter().filter(|f| f.default.is_some() && !is_embedded(f)) {
        if map.get(field.name).is_none_or(Value::is_null)
            && let Some(default) = default_of(field).filter(|d| !d.is_empty())
        {
            map.insert(field.name, default);
        }
    }
    each_inner(ty, map, apply_defaults);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::deployment;
    use crate::value;

    #[test]
    fn absent_fields_are_set() {
        let with = |ports: Value| value!({"spec": {"template": {"spec": {"containers": [{"ports": ports}]}}}});
        let mut v = with(value!([{"containerPort": 1}, {"containerPort": 2, "protocol": null}, {"protocol": "UDP"}]));
        apply_defaults(deployment(), &mut v);
        let want = value!([{"containerPort": 1, "protocol": "TCP"}, {"containerPort": 2, "protocol": "TCP"}, {"protocol": "UDP"}]);
        assert_eq!(v, with(want));
    }
}
