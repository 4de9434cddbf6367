//! The empty object of a type, as Go has it.

use super::place::{Schema, all_inner, each_inner};
use crate::value::{Map, Value};
use canopus_schema::{Empty, Field, FieldType, Shape, Type};

/// What an empty Go struct of type `ty` encodes to: structs held by value are there, and fields without `omitempty`.
/// Custom resources have nothing of their own.
pub fn zero(schema: Schema<'_>) -> Value {
    schema.table().map_or_else(Value::object, zero_of)
}

fn zero_of(ty: &'static Type) -> Value {
    let mut out = Map::new();
    for field in ty.fields {
        if let Some(value) = zero_field(field) {
            out.insert(field.name, value);
        }
    }
    Value::Object(out)
}

fn zero_field(field: &'static Field) -> Option<Value> {
    match field.ty {
        FieldType::Ref(id) if id.get().shape == Shape::Object && is_embedded(field) => Some(zero_of(id.get())),
        _ if field.empty == Empty::Written => Some(empty(&field.ty)),
        _ if field.empty == Empty::Null => Some(Value::Null),
        _ => None,
    }
}

/// Whether Go holds the struct by value, so that it is never absent (its table default is `{}`).
pub fn is_embedded(field: &Field) -> bool {
    field.default == Some("{}")
}

/// Adds what Go writes even when nobody set it: structs held by value (`status: {}`, a container's `resources: {}`), and fields
/// without `omitempty` (`status.replicas: 0`, `eventTime: null`).
/// Custom resources have none.
pub fn complete(schema: Schema<'_>, value: &mut Value) {
    if let Some(ty) = schema.table() {
        complete_type(ty, value);
    }
}

fn complete_type(ty: &'static Type, value: &mut Value) {
    // Mostly it is, and what is not touched goes on being shared.
    if is_complete(ty, value) {
        return;
    }
    let Value::Object(map) = value else { return };
    for field in ty.fields {
        if is_embedded(field) {
            let value = map.entry(field.name, Value::object);
            if value.is_null() {
                *value = Value::object();
            }
        } else if field.empty == Empty::Written {
            map.entry(field.name, || empty(&field.ty));
        } else if field.empty == Empty::Null {
            map.entry(field.name, || Value::Null);
        }
    }
    each_inner(ty, map, complete_type);
}

fn is_complete(ty: &'static Type, value: &Value) -> bool {
    let Value::Object(map) = value else { return true };
    let has = |field: &Field| match map.get(field.name) {
        None => false,
        Some(value) => !(value.is_null() && is_embedded(field)),
    };
    let always = |field: &&Field| is_embedded(field) || matches!(field.empty, Empty::Written | Empty::Null);
    ty.fields.iter().filter(always).all(has) && all_inner(ty, map, is_complete)
}

/// What Go writes of a field that nobody set.
fn empty(ty: &FieldType) -> Value {
    match ty {
        FieldType::String => "".into(),
        FieldType::Int32 | FieldType::Int64 | FieldType::Double => Value::Int(0),
        FieldType::Bool => Value::Bool(false),
        FieldType::Ref(id) if id.get().shape == Shape::Quantity => "0".into(),
        FieldType::Ref(id) if id.get().shape == Shape::IntOrString => Value::Int(0),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::deployment;
    use crate::value;

    #[test]
    fn what_go_always_writes_is_there() {
        assert_eq!(
            zero(deployment().into()),
            value!({"metadata": {}, "spec": {"selector": null, "strategy": {},
                "template": {"metadata": {}, "spec": {"containers": null}}}, "status": {}})
        );
        let mut v =
            value!({"spec": {"template": {"spec": {"containers": [{"name": "c"}, {"resources": {"limits": {}}}]}}}});
        complete(deployment().into(), &mut v);
        assert_eq!(
            v,
            value!({"metadata": {}, "status": {}, "spec": {"selector": null, "strategy": {}, "template": {"metadata": {},
                "spec": {"containers": [{"name": "c", "resources": {}}, {"name": "", "resources": {"limits": {}}}]}}}})
        );
    }

    #[test]
    fn pointers_that_are_always_written_are_null() {
        let ty = canopus_schema::kind("networking.k8s.io", "v1", "Ingress").unwrap().get();
        let mut v = value!({"spec": {"defaultBackend": {"resource": {"kind": "K", "name": "n"}}}});
        complete(ty.into(), &mut v);
        let resource = value!({"apiGroup": null, "kind": "K", "name": "n"});
        assert_eq!(v["spec"]["defaultBackend"]["resource"], resource);
    }
}
