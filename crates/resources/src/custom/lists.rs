//! Lists that their schema calls sets or maps have no item twice.

use canopus_api::field::{Error, Kind};
use canopus_api::schema::{List, Structural};
use canopus_api::{Errors, Value, json};
use std::collections::HashSet;

pub fn validate(object: &Value, schema: &Structural, errors: &mut Errors) {
    walk(object, schema, "", errors);
}

fn walk(value: &Value, schema: &Structural, path: &str, errors: &mut Errors) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter() {
                let (below, named) = match schema.properties.get(name) {
                    Some(below) => (Some(below), true),
                    None => (schema.additional.schema(), false),
                };
                let Some(below) = below else { continue };
                let at = match (path, named) {
                    ("", _) => name.to_string(),
                    (path, true) => format!("{path}.{name}"),
                    (path, false) => format!("{path}[{name}]"),
                };
                walk(value, below, &at, errors);
            }
        }
        Value::Array(items) => {
            duplicates(items, schema, path, errors);
            let Some(below) = schema.items.as_deref() else { return };
            for (i, item) in items.iter().enumerate() {
                walk(item, below, &format!("{path}[{i}]"), errors);
            }
        }
        _ => {}
    }
}

fn duplicates(items: &[Value], schema: &Structural, path: &str, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, item) in items.iter().enumerate() {
        let key = match &schema.list {
            List::Atomic => return,
            List::Set => json::to_string(item),
            List::Map(keys) => {
                let parts: canopus_api::Map =
                    keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect();
                json::to_string(&Value::Object(parts))
            }
        };
        if !seen.insert(key.clone()) {
            let field = format!("{path}[{i}]");
            errors.add(Error { kind: Kind::Duplicate, field, value: key, detail: String::new() });
        }
    }
}
