//! What Go's decoding into typed structs and encoding again does to an object, besides losing its comments.

use super::place::find_field;
use crate::quantity::Quantity;
use crate::time::Time;
use crate::value::Value;
use canopus_schema::{Empty, FieldType, Shape, Type};
use std::fmt::Write;

/// More unknown fields than this are dropped without being reported.
const MAX_REPORTED: usize = 100;

/// Drops unknown fields and nulls, drops what is empty where Go leaves that out, writes quantities and times in their
/// canonical form. Returns the paths of unknown fields (`spec.containers[0].foo`), at most 100.
///
/// `value` must have passed `check`. Names are case-sensitive.
pub fn prune(ty: &'static Type, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    object(ty, value, &Path::Root, &mut unknown);
    unknown
}

/// Where the walk is; rendered only for an unknown field.
pub(super) enum Path<'a> {
    Root,
    Name(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    pub(super) fn render(&self, out: &mut String) {
        match self {
            Path::Root => {}
            Path::Name(parent, name) => {
                parent.render(out);
                let dot = if out.is_empty() { "" } else { "." };
                let _ = write!(out, "{dot}{name}");
            }
            Path::Index(parent, i) => {
                parent.render(out);
                let _ = write!(out, "[{i}]");
            }
        }
    }
}

fn object(ty: &'static Type, value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) {
    let Value::Object(map) = value else { return };
    map.retain(|name, value| match find_field(ty, name) {
        None => {
            if unknown.len() < MAX_REPORTED {
                let mut out = String::new();
                Path::Name(path, name).render(&mut out);
                unknown.push(out);
            }
            false
        }
        Some(_) if value.is_null() => false,
        Some(field) => {
            place(&field.ty, value, &Path::Name(path, name), unknown);
            field.empty != Empty::Omitted || !is_empty(&field.ty, value) || is_managed_fields(name, path)
        }
    });
}

/// `managedFields: []` is a wish (no more tracking) that the field manager has to see.
fn is_managed_fields(name: &str, path: &Path<'_>) -> bool {
    name == "managedFields" && matches!(path, Path::Name(Path::Root, "metadata"))
}

fn place(ty: &'static FieldType, value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) {
    match (ty, &mut *value) {
        (FieldType::Ref(id), _) => shape(id.get(), value, path, unknown),
        (FieldType::Array(item), Value::Array(items)) => {
            for (i, value) in items.iter_mut().enumerate() {
                element(item, value, &Path::Index(path, i), unknown);
            }
        }
        (FieldType::Map(item), Value::Object(map)) => {
            for (key, value) in map.iter_mut() {
                element(item, value, &Path::Name(path, key), unknown);
            }
        }
        _ => {}
    }
}

/// In lists and maps a null is the zero value of its type.
fn element(ty: &'static FieldType, value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) {
    if value.is_null() {
        *value = match ty {
            FieldType::String | FieldType::Bytes => "".into(),
            FieldType::Int32 | FieldType::Int64 | FieldType::Double => Value::Int(0),
            FieldType::Bool => Value::Bool(false),
            FieldType::Ref(id) if id.get().shape == Shape::Object => Value::object(),
            FieldType::Ref(id) if id.get().shape == Shape::Quantity => "0".into(),
            _ => Value::Null,
        };
    }
    place(ty, value, path, unknown);
}

fn shape(ty: &'static Type, value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) {
    match ty.shape {
        Shape::Object => object(ty, value, path, unknown),
        Shape::Quantity => canonical_quantity(value),
        Shape::Time => canonical_time(value, Time::rfc3339),
        Shape::MicroTime => canonical_time(value, Time::rfc3339_micro),
        Shape::IntOrString | Shape::RawExtension | Shape::Any | Shape::Json | Shape::FieldsV1 => {}
    }
}

/// What Go's `omitempty` leaves out.
fn is_empty(ty: &FieldType, value: &Value) -> bool {
    match ty {
        FieldType::Array(_) | FieldType::Map(_) | FieldType::String | FieldType::Bytes => value.is_empty(),
        FieldType::Bool => *value == Value::Bool(false),
        FieldType::Int32 | FieldType::Int64 => *value == Value::Int(0),
        FieldType::Double | FieldType::Ref(_) | FieldType::Any => false,
    }
}

fn canonical_quantity(value: &mut Value) {
    if let Some(quantity) = Quantity::from_value(value) {
        let text = quantity.to_string();
        if value.as_str() != Some(text.as_str()) {
            *value = text.into();
        }
    }
}

fn canonical_time(value: &mut Value, write: fn(Time) -> String) {
    if let Some(time) = value.as_str().and_then(Time::parse) {
        let text = write(time);
        if value.as_str() != Some(text.as_str()) {
            *value = text.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::deployment;
    use crate::value;

    #[test]
    fn unknown_fields_go_and_are_named() {
        let mut v = value!({"nope": 1, "Metadata": {}, "metadata": {"labels": {"any": "x"}, "x": {}},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "foo": 1}]}}}});
        let unknown = prune(deployment(), &mut v);
        assert_eq!(unknown, ["Metadata", "metadata.x", "nope", "spec.template.spec.containers[1].foo"]);
        assert_eq!(
            v,
            value!({"metadata": {"labels": {"any": "x"}},
                "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}}})
        );
    }

    #[test]
    fn normalises_like_a_round_trip_through_go() {
        let mut v = value!({
            "metadata": {"creationTimestamp": null, "labels": {}, "finalizers": [], "annotations": {"a": null}},
            "spec": {"paused": false,
                "template": {"spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}, null]}}},
            "status": {"conditions": [{"type": "A", "status": "", "lastUpdateTime": "2024-01-02T03:04:05.678+01:00"}]}});
        assert_eq!(prune(deployment(), &mut v), [""; 0]);
        assert_eq!(
            v,
            value!({"metadata": {"annotations": {"a": ""}},
                "spec": {"template": {"spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}, {}]}}},
                "status": {"conditions": [{"type": "A", "status": "", "lastUpdateTime": "2024-01-02T02:04:05Z"}]}})
        );
        let mut v =
            value!({"metadata": {"managedFields": []}, "spec": {"template": {"metadata": {"managedFields": []}}}});
        prune(deployment(), &mut v);
        assert_eq!(v, value!({"metadata": {"managedFields": []}, "spec": {"template": {"metadata": {}}}}));
        let mut v = value!({"spec": {"template": {"spec": {"containers": [
            {"resources": {"limits": {"cpu": "0.1", "memory": "1024Ki", "n": 2, "x": null}}}]}}}});
        prune(deployment(), &mut v);
        let limits = &v["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
        assert_eq!(*limits, value!({"cpu": "100m", "memory": "1Mi", "n": "2", "x": "0"}));
    }
}
