//! OpenAPI schemas, as custom resources have them, to declared types.

use crate::decl::{DeclKind, DeclType, ListType, ObjectDecl};
use crate::escape::escape;
use canopus_api::{Value, value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The largest request, which bounds everything without a bound of its own.
const REQUEST: u64 = 3 * 1024 * 1024;
/// No string in a request is longer.
const LONGEST_STRING: u64 = REQUEST - 2;

/// The type of what a structural schema describes; None if expressions cannot see it (`x-kubernetes-preserve-unknown-
/// fields` without properties and the like). `name` is what its own object type is called, and begins the names of those
/// within. `root`: whether it is a whole object, with `apiVersion`, `kind` and `metadata` though the schema leaves them out.
pub fn declare(schema: &Value, name: &str, root: bool) -> Option<DeclType> {
    if schema.at("x-kubernetes-int-or-string").bool() {
        return Some(DeclType::new(DeclKind::Dyn, 1).with_max(max_length(schema).map_or(LONGEST_STRING, |m| m * 4)));
    }
    let kind = match schema.at("type").str() {
        "" if root => "object",
        other => other,
    };
    match kind {
        "array" => {
            let items = schema.get("items")?;
            let of = declare(items, &format!("{name}.@idx"), embedded(items))?;
            let max = count(schema, "maxItems").unwrap_or((REQUEST - 2) / (of.min_serialized + 1));
            Some(DeclType::new(DeclKind::List(Arc::new(of), list_type(schema)), 2).with_max(max))
        }
        "object" => object(schema, name, root),
        "string" => Some(string(schema)),
        "boolean" => Some(DeclType::new(DeclKind::Bool, 4)),
        "number" => Some(DeclType::new(DeclKind::Double, 1)),
        "integer" => Some(DeclType::new(DeclKind::Int, 1)),
        _ => None,
    }
}

fn list_type(schema: &Value) -> ListType {
    match schema.at("x-kubernetes-list-type").str() {
        "set" => ListType::Set,
        "map" => {
            let keys = schema.at("x-kubernetes-list-map-keys").as_array().unwrap_or(&[]);
            ListType::Map(keys.iter().map(|k| k.str().to_string()).collect())
        }
        _ => ListType::Atomic,
    }
}

fn embedded(schema: &Value) -> bool {
    schema.at("x-kubernetes-embedded-resource").bool()
}

fn count(schema: &Value, key: &str) -> Option<u64> {
    schema.at(key).as_i64().map(|n| u64::try_from(n).unwrap_or(0))
}

fn max_length(schema: &Value) -> Option<u64> {
    count(schema, "maxLength")
}

fn object(schema: &Value, name: &str, root: bool) -> Option<DeclType> {
    if let Some(values @ Value::Object(_)) = schema.get("additionalProperties") {
        let of = declare(values, &format!("{name}.@prop"), embedded(values))?;
        let max = count(schema, "maxProperties").unwrap_or((REQUEST - 2) / (of.min_serialized + 6));
        return Some(DeclType::new(DeclKind::Map(Arc::new(of)), 2).with_max(max));
    }
    let mut properties = schema.at("properties").clone();
    if root {
        for key in ["kind", "apiVersion"] {
            properties.set(key, value!({ "type": "string" }));
        }
        let text = value!({ "type": "string" });
        properties.set(
            "metadata",
            value!({ "type": "object", "properties": { "name": text.clone(), "generateName": text } }),
        );
    }
    let required = |field: &str| schema.at("required").as_array().unwrap_or(&[]).iter().any(|r| r.str() == field);
    let mut fields = BTreeMap::new();
    let mut smallest = 2;
    if let Value::Object(properties) = &properties {
        for (field, property) in properties.iter() {
            let Some(ty) = declare(property, &format!("{name}.{field}"), embedded(property)) else { continue };
            if required(field) && property.get("default").is_none() {
                smallest += field.len() as u64 + ty.min_serialized + 4;
            }
            if let Some(field) = escape(field) {
                fields.insert(field, ty);
            }
        }
    }
    Some(DeclType::new(DeclKind::Object(Arc::new(ObjectDecl { name: name.into(), fields })), smallest))
}

fn string(schema: &Value) -> DeclType {
    match schema.at("format").str() {
        "byte" => DeclType::new(DeclKind::Bytes, 2).with_max(max_length(schema).unwrap_or(LONGEST_STRING)),
        "duration" => DeclType::new(DeclKind::Duration, 3).with_max(32),
        "date" => DeclType::new(DeclKind::Date, 12).with_max(12),
        "date-time" => DeclType::new(DeclKind::Timestamp, 21).with_max(32),
        _ => {
            let values = schema.at("enum").as_array().unwrap_or(&[]);
            let max = match max_length(schema) {
                Some(max) => max.saturating_mul(4),
                None if !values.is_empty() => values.iter().map(|v| v.str().len() as u64).max().unwrap_or(0),
                None => LONGEST_STRING,
            };
            DeclType::new(DeclKind::String, 2).with_max(max)
        }
    }
}
