//! Defaults that the tables know; those that depend on other fields are the resources'.

use super::place::default_of;
use crate::value::Value;
use canopus_schema::{FieldType, Shape, Type};

/// Sets absent and null fields that have a default in the tables, in `value` and everything below it that is there.
pub fn apply_defaults(ty: &'static Type, value: &mut Value) {
    let Value::Object(map) = value else { return };
    for field in ty.fields {
        match map.get_mut(field.name) {
            Some(Value::Null) | None => {
                // An empty default only says that the field is never absent; see `complete`.
                if let Some(default) = default_of(field).filter(|d| !d.is_empty()) {
                    map.insert(field.name, default);
                }
            }
            Some(value) => default_place(&field.ty, value),
        }
    }
}

fn default_place(ty: &'static FieldType, value: &mut Value) {
    match (ty, value) {
        (FieldType::Ref(id), value) if id.get().shape == Shape::Object => apply_defaults(id.get(), value),
        (FieldType::Array(item), Value::Array(items)) => items.iter_mut().for_each(|v| default_place(item, v)),
        (FieldType::Map(item), Value::Object(map)) => map.values_mut().for_each(|v| default_place(item, v)),
        _ => {}
    }
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
