//! Whether a schema is structural: every field is specified outside of value validation (upstream
//! `apiextensions-apiserver/pkg/apiserver/schema/validation.go`).

use crate::custom::validator::Validator;
use canopus_api::field::Error;
use canopus_api::schema::{self, Schema, Structural};
use canopus_api::{Errors, Field, Value, json, value};

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

pub fn validate(schema: &Field, errors: &mut Errors) {
    let mut found = Errors::new();
    invariants(schema, Level::Root, &mut found);
    complete(schema, schema.value, &mut found);
    let mut sorted: Vec<Error> = found.iter().cloned().collect();
    sorted.sort_by_key(ToString::to_string);
    sorted.dedup();
    sorted.into_iter().for_each(|error| errors.add(error));
}

fn flag(schema: &Field, name: &str) -> bool {
    schema.value[name].bool()
}

fn invariants(schema: &Field, level: Level, errors: &mut Errors) {
    let kind = schema.at("type");
    let items = schema.at("items");
    if kind.str() == "array" && items.value.is_null() {
        errors.required(&items, "must be specified");
    }
    if items.value.as_object().is_some() {
        invariants(&items, Level::Item, errors);
    }
    schema.at("properties").entries().for_each(|(_, property)| invariants(&property, Level::Field, errors));
    let additional = schema.at("additionalProperties");
    if !additional.value.is_null() {
        if level == Level::Root {
            errors.forbidden(&additional, "must not be used at the root");
        }
        if additional.value.as_object().is_some() {
            invariants(&additional, Level::Field, errors);
        }
    }
    extensions(schema, errors);
    values(schema, int_or_string(&schema.value["anyOf"]), int_or_string(&schema.value["allOf"][0]["anyOf"]), errors);
    types(schema, level, errors);
    metadata(schema, level, errors);
}

fn extensions(schema: &Field, errors: &mut Errors) {
    for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if flag(schema, "x-kubernetes-int-or-string") && flag(schema, name) {
            errors.invalid(&schema.at(name), "must be false if x-kubernetes-int-or-string is true");
        }
    }
}

fn types(schema: &Field, level: Level, errors: &mut Errors) {
    let kind = schema.at("type");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let untyped = flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && kind.str() != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        if kind.str().is_empty() { errors.required(&kind, why) } else { errors.invalid(&kind, why) }
    } else if kind.str().is_empty() && !untyped {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.required(&kind, why);
    }
    if embedded && !schema.value["additionalProperties"].is_null() {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.forbidden(&schema.at("additionalProperties"), why);
    }
    if level == Level::Root && !matches!(kind.str(), "" | "object") {
        errors.invalid(&kind, "must be object at the root");
    }
    let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && !preserve && schema.value["properties"].is_empty() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.required(&schema.at("properties"), why);
    }
}

fn metadata(schema: &Field, level: Level, errors: &mut Errors) {
    let checked = level == Level::Root || flag(schema, "x-kubernetes-embedded-resource");
    for (name, property) in schema.at("properties").entries() {
        let kind = property.at("type");
        match name {
            "kind" | "apiVersion" if checked && kind.str() != "string" => errors.invalid(&kind, "must be string"),
            "metadata" => {
                if checked && kind.str() != "object" {
                    errors.invalid(&kind, "must be object");
                }
                let allowed = |name: &str| matches!(name, "name" | "generateName");
                let plain = |(key, value): (&compact_str::CompactString, &Value)| match key.as_str() {
                    "type" | "default" => true,
                    "properties" => value.entries().all(|(name, _)| allowed(name)),
                    _ => value.is_null() || value.is_empty(),
                };
                if level == Level::Root && !property.value.entries().all(plain) {
                    let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
                    errors.forbidden(&property, why);
                }
            }
            _ => {}
        }
    }
}

/// The one `anyOf` that may name types.
fn int_or_string(any_of: &Value) -> bool {
    *any_of == value!([{"type": "integer"}, {"type": "string"}])
}

/// Value validations: junctors, and the pattern.
fn values(schema: &Field, skip_any: bool, skip_first_all: bool, errors: &mut Errors) {
    if !skip_any {
        schema.at("anyOf").items().for_each(|s| nested(&s, false, errors));
    }
    for (i, s) in schema.at("allOf").items().enumerate() {
        nested(&s, skip_first_all && i == 0, errors);
    }
    schema.at("oneOf").items().for_each(|s| nested(&s, false, errors));
    let not = schema.at("not");
    if not.value.as_object().is_some() {
        nested(&not, false, errors);
    }
    let pattern = schema.at("pattern");
    if !pattern.str().is_empty()
        && let Err(why) = regex::Regex::new(pattern.str())
    {
        errors.invalid(&pattern, format!("must be a valid regular expression, but isn't: {why}"));
    }
}

/// Below a junctor nothing is specified that isn't a value validation.
fn nested(schema: &Field, skip_any: bool, errors: &mut Errors) {
    values(schema, skip_any, false, errors);
    let items = schema.at("items");
    if items.value.as_object().is_some() {
        nested(&items, false, errors);
    }
    for (name, property) in schema.at("properties").entries() {
        nested(&property, false, errors);
        if name == "metadata" {
            errors.forbidden(&property, "must not be specified in a nested context");
        }
    }
    let forbidden = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    for (name, why) in forbidden {
        let field = schema.at(name);
        let empty = field.value.is_null() || *field.value == Value::Bool(false) || *field.value == Value::from("");
        if !empty {
            errors.forbidden(&field, why);
        }
    }
}

/// Whatever a junctor speaks of is specified outside of it as well.
fn complete(schema: &Field, specified: &Value, errors: &mut Errors) {
    for list in ["allOf", "anyOf", "oneOf"] {
        schema.at(list).items().for_each(|junctor| within(&junctor, specified, errors));
    }
    within(&schema.at("not"), specified, errors);
    for (_, property) in schema.at("properties").entries() {
        complete(&property, property.value, errors);
    }
    for inner in [schema.at("items"), schema.at("additionalProperties")] {
        if inner.value.as_object().is_some() {
            complete(&inner, inner.value, errors);
        }
    }
}

fn within(junctor: &Field, specified: &Value, errors: &mut Errors) {
    if junctor.value.as_object().is_none() {
        return;
    }
    for (name, property) in junctor.at("properties").entries() {
        match specified["properties"].get(name) {
            Some(below) => within(&property, below, errors),
            None => missing(junctor, &format!("properties[{name}]"), errors),
        }
    }
    let items = junctor.at("items");
    if items.value.as_object().is_some() {
        match &specified["items"] {
            Value::Null => missing(junctor, "items", errors),
            below => within(&items, below, errors),
        }
    }
    for list in ["allOf", "anyOf", "oneOf"] {
        junctor.at(list).items().for_each(|inner| within(&inner, specified, errors));
    }
    within(&junctor.at("not"), specified, errors);
}

/// Upstream names the place where it should be specified.
fn missing(junctor: &Field, what: &str, errors: &mut Errors) {
    let path = junctor.path();
    let outside = ["allOf", "anyOf", "oneOf", "not"].iter().filter_map(|j| path.find(&format!(".{j}"))).min();
    let base = &path[..outside.unwrap_or(path.len())];
    let inner = &path[outside.unwrap_or(path.len())..];
    let below: String = inner
        .split('.')
        .filter(|step| !step.is_empty() && !["allOf", "anyOf", "oneOf", "not"].iter().any(|j| step.starts_with(j)))
        .map(|step| format!(".{step}"))
        .collect();
    let (field, detail) = (format!("{base}{below}.{what}"), format!("because it is defined in {path}.{what}"));
    errors.add(Error { kind: canopus_api::field::Kind::Required, field, value: String::new(), detail });
}

/// Whether defaults are what their own schema demands, with nothing that would be pruned.
pub fn defaults(schema: &Field, errors: &mut Errors) {
    for (_, property) in schema.at("properties").entries() {
        default(&property, errors);
    }
}

fn default(schema: &Field, errors: &mut Errors) {
    let field = schema.at("default");
    if !field.value.is_null() {
        // As if it were a whole object's only field.
        let holder = Structural::root(&value!({"type": "object", "properties": {"x": (schema.value.clone())}}));
        let mut pruned = value!({"x": (field.value.clone())});
        match schema::decode(Schema::Custom(&holder), &mut pruned) {
            Ok(unknown) if unknown.is_empty() => {
                let mut whole = pruned["x"].clone();
                if let Some(inner) = holder.properties.get("x") {
                    schema::apply_structural_defaults(inner, &mut whole);
                }
                Validator::new(schema.value).validate(&whole, None, &field.path(), errors);
            }
            Ok(_) => errors.invalid(&field, "must not have unknown fields"),
            Err(why) => {
                errors.invalid(&field, format!("must be valid metadata: {why} ({})", json::to_string(field.value)))
            }
        }
    }
    for (_, property) in schema.at("properties").entries() {
        default(&property, errors);
    }
    for inner in [schema.at("items"), schema.at("additionalProperties")] {
        if inner.value.as_object().is_some() {
            default(&inner, errors);
        }
    }
}
