//! What Go's decoder does for built-in types, done for custom resources by their structural schema: unknown fields are
//! pruned, nulls that mean nothing dropped, metadata (embedded objects' too) brought into form, defaults filled in.

use super::check::check;
use super::prune::{Path, prune as prune_type};
use super::structural::{Additional, Structural, object_meta};
use crate::value::Value;

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];
/// More unknown fields than this are dropped without being reported.
const MAX_REPORTED: usize = 100;

/// Decodes the object `value` in place. Answers the paths of unknown fields that were dropped.
///
/// # Errors
/// Metadata or the name of a kind that is of a wrong type.
pub(super) fn decode(root: &Structural, value: &mut Value) -> Result<Vec<String>, String> {
    let mut unknown = metadata(value, &Path::Root)?;
    let mut dropped = Vec::new();
    prune(value, Some(root), &Path::Root, &mut dropped);
    dropped.sort();
    unknown.append(&mut dropped);
    drop_nulls(value, root);
    let mut embedded = Vec::new();
    coerce(value, Some(root), &Path::Root, &mut embedded)?;
    embedded.sort();
    unknown.append(&mut embedded);
    unknown.truncate(MAX_REPORTED);
    Ok(unknown)
}

/// Checks an object's metadata, drops what it does not have, and answers the paths of that.
fn metadata(object: &mut Value, path: &Path<'_>) -> Result<Vec<String>, String> {
    let (Some(meta), Some(ty)) = (object.get_mut("metadata"), object_meta()) else { return Ok(Vec::new()) };
    check(ty, meta).map_err(|problem| problem.0)?;
    if meta.is_null() {
        object.remove("metadata");
        return Ok(Vec::new());
    }
    let mut prefix = String::new();
    Path::Name(path, "metadata").render(&mut prefix);
    let reset = meta.get("managedFields").is_some_and(|fields| fields.items().is_empty());
    let found = prune_type(ty, meta);
    // `managedFields: []` is a wish that the field manager has to see.
    if reset && matches!(path, Path::Root) {
        meta.set("managedFields", Value::Array(Vec::new()));
    }
    Ok(found.into_iter().map(|field| format!("{prefix}.{field}")).collect())
}

fn prune(value: &mut Value, schema: Option<&Structural>, path: &Path<'_>, unknown: &mut Vec<String>) {
    if let Some(schema) = schema.filter(|s| s.preserve) {
        return keep(value, schema, path, unknown);
    }
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let below = Path::Name(path, name);
            let Some(schema) = schema else {
                report(&below, unknown);
                return false;
            };
            if schema.embedded && META.contains(&name) {
                return true;
            }
            match (schema.properties.get(name), &schema.additional) {
                (Some(schema), _) => prune(value, Some(schema), &below, unknown),
                (None, Additional::Unset | Additional::Bool(false)) => {
                    if !META.contains(&name) || !matches!(path, Path::Root) {
                        report(&below, unknown);
                    }
                    return false;
                }
                (None, additional) => prune(value, additional.schema(), &below, unknown),
            }
            true
        }),
        Value::Array(items) => {
            let schema = schema.and_then(|s| s.items.as_deref());
            for (i, item) in items.iter_mut().enumerate() {
                prune(item, schema, &Path::Index(path, i), unknown);
            }
        }
        _ => {}
    }
}

/// A node that preserves what it does not know; what it knows is pruned below.
fn keep(value: &mut Value, schema: &Structural, path: &Path<'_>, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                if schema.embedded && META.contains(&name.as_str()) {
                    continue;
                }
                let below = Path::Name(path, name);
                match (schema.properties.get(name), &schema.additional) {
                    (Some(schema), _) => prune(value, Some(schema), &below, unknown),
                    (None, Additional::Unset) => {}
                    (None, additional) => prune(value, additional.schema(), &below, unknown),
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.items.as_deref() else { return };
            for (i, item) in items.iter_mut().enumerate() {
                keep(item, schema, &Path::Index(path, i), unknown);
            }
        }
        _ => {}
    }
}

fn report(path: &Path<'_>, unknown: &mut Vec<String>) {
    if unknown.len() < MAX_REPORTED {
        let mut out = String::new();
        path.render(&mut out);
        unknown.push(out);
    }
}

/// Drops nulls of fields that are not nullable and have no default, which takes their place.
fn drop_nulls(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let below = schema.properties.get(name).or(schema.additional.schema());
            let Some(below) = below else { return true };
            if value.is_null() && !below.nullable && below.default.is_none() && schema.properties.get(name).is_some() {
                return false;
            }
            drop_nulls(value, below);
            true
        }),
        Value::Array(items) => {
            if let Some(schema) = schema.items.as_deref() {
                items.iter_mut().for_each(|item| drop_nulls(item, schema));
            }
        }
        _ => {}
    }
}

/// Brings the metadata of embedded objects into form.
fn coerce(
    value: &mut Value,
    schema: Option<&Structural>,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let Some(schema) = schema else { return Ok(()) };
    let root = matches!(path, Path::Root);
    if schema.embedded && value.as_object().is_some() {
        for name in ["apiVersion", "kind"] {
            if value.get(name).is_some_and(|v| v.as_str().is_none()) {
                return Err(wrong(&Path::Name(path, name), value.at(name), "must be a string"));
            }
        }
        if !root {
            let bad = value.at("metadata").clone();
            let found = metadata(value, path).map_err(|why| wrong(&Path::Name(path, "metadata"), &bad, &why))?;
            unknown.extend(found);
        }
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                let below = schema.properties.get(name).or(schema.additional.schema());
                coerce(value, below, &Path::Name(path, name), unknown)?;
            }
            Ok(())
        }
        Value::Array(items) => {
            let schema = schema.items.as_deref();
            items.iter_mut().enumerate().try_for_each(|(i, v)| coerce(v, schema, &Path::Index(path, i), unknown))
        }
        _ => Ok(()),
    }
}

fn wrong(path: &Path<'_>, value: &Value, why: &str) -> String {
    let mut out = String::new();
    path.render(&mut out);
    format!("{out}: Invalid value: {}: {why}", crate::json::to_string(value))
}

/// Fills in the defaults of absent fields and of nulls that are not allowed.
pub fn apply_structural_defaults(schema: &Structural, value: &mut Value) {
    if !schema.has_defaults {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in schema.properties.iter() {
                let Some(default) = &property.default else { continue };
                if map.get(name).is_none_or(|v| v.is_null() && !property.nullable) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                match (schema.properties.get(name), schema.additional.schema()) {
                    (Some(property), _) => apply_structural_defaults(property, value),
                    (None, Some(additional)) => default_element(additional, value),
                    (None, None) => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.items.as_deref() {
                items.iter_mut().for_each(|item| default_element(schema, item));
            }
        }
        _ => {}
    }
}

fn default_element(schema: &Structural, value: &mut Value) {
    if value.is_null() && !schema.nullable {
        *value = schema.default.clone().unwrap_or_default();
    }
    apply_structural_defaults(schema, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    fn schema() -> Structural {
        Structural::root(&value!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 3},
                "color": {"type": "string"},
                "maybe": {"type": "string", "nullable": true},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string", "default": "y"}}}},
                "items": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            }},
        }}))
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let mut object = value!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "nope": 1, "labels": {}},
            "spec": {"size": 1, "b": 2, "any": {"x": {"y": 1}, "known": {"a": "1", "b": 2}}, "labels": {"k": {"x": "1", "z": 1}},
                "items": [{"a": "1"}, {"b": 1}], "color": null, "maybe": null,
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "creationTimestamp": null, "foo": 1}, "spec": {"a": 1}}},
            "status": {}});
        let unknown = decode(&schema(), &mut object).unwrap();
        assert_eq!(
            unknown,
            [
                "metadata.nope",
                "spec.any.known.b",
                "spec.b",
                "spec.items[1].b",
                "spec.labels.k.z",
                "status",
                "spec.pod.metadata.foo"
            ]
        );
        assert_eq!(
            object,
            value!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"},
                "spec": {"size": 1, "any": {"x": {"y": 1}, "known": {"a": "1"}}, "labels": {"k": {"x": "1"}},
                    "items": [{"a": "1"}, {}], "maybe": null,
                    "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"a": 1}}}})
        );
        let mut bad = value!({"metadata": {"labels": {"a": 1}}});
        assert!(decode(&schema(), &mut bad).unwrap_err().contains("cannot unmarshal number"));
        let mut bad = value!({"spec": {"pod": {"kind": 1}}});
        assert_eq!(decode(&schema(), &mut bad).unwrap_err(), "spec.pod.kind: Invalid value: 1: must be a string");
    }

    #[test]
    fn defaults_replace_what_is_absent() {
        let mut object = value!({"spec": {"size": null, "labels": {"a": {}, "b": {"x": "z"}}}});
        apply_structural_defaults(&schema(), &mut object);
        assert_eq!(object, value!({"spec": {"size": 3, "labels": {"a": {"x": "y"}, "b": {"x": "z"}}}}));
        let mut none = value!({"metadata": {}});
        apply_structural_defaults(&schema(), &mut none);
        assert_eq!(none, value!({"metadata": {}}));
    }
}
