//! Objects within custom resources (`x-kubernetes-embedded-resource`): they have an apiVersion and a kind, and metadata that
//! could be some object's.

use crate::{checks, metadata};
use canopus_api::field::{Error, Kind};
use canopus_api::schema::Structural;
use canopus_api::{Errors, Field, Value, names};

/// What is wrong with those below the root.
pub fn validate(object: &Value, root: &Structural, errors: &mut Errors) {
    below(object, root, "", errors);
}

fn walk(value: &Value, schema: &Structural, path: &str, errors: &mut Errors) {
    if schema.embedded && value.as_object().is_some() {
        check(value, path, errors);
    }
    below(value, schema, path, errors);
}

fn below(value: &Value, schema: &Structural, path: &str, errors: &mut Errors) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter() {
                let Some(schema) = schema.properties.get(name).or(schema.additional.schema()) else { continue };
                let at = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                walk(value, schema, &at, errors);
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.items.as_deref() else { return };
            for (i, item) in items.iter().enumerate() {
                walk(item, schema, &format!("{path}[{i}]"), errors);
            }
        }
        _ => {}
    }
}

fn check(value: &Value, path: &str, errors: &mut Errors) {
    let mut add = |kind: Kind, field: &str, value: &str, detail: String| {
        errors.add(Error { kind, field: format!("{path}.{field}"), value: format!("{value:?}"), detail });
    };
    for field in ["apiVersion", "kind"] {
        match value.get(field).and_then(Value::as_str) {
            None => add(Kind::Required, field, "", String::new()),
            Some("") => add(Kind::Invalid, field, "", "must not be empty".into()),
            Some(_) => {}
        }
    }
    let kind = value["kind"].str();
    let why = names::dns1035_label(&kind.to_ascii_lowercase());
    if !kind.is_empty() && !why.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", why.join(","));
        add(Kind::Invalid, "kind", kind, detail);
    }
    let version = value["apiVersion"].str();
    if version.matches('/').count() > 1 {
        add(Kind::Invalid, "apiVersion", version, format!("unexpected GroupVersion string: {version}"));
    }
    let mut found = Errors::new();
    let root = Field::root(value);
    let meta = root.at("metadata");
    checks::labels(&meta.at("labels"), &mut found);
    checks::annotations(&meta.at("annotations"), &mut found);
    metadata::owners(&meta.at("ownerReferences"), &mut found);
    for error in found.iter() {
        errors.add(Error { field: format!("{path}.{}", error.field), ..error.clone() });
    }
}
