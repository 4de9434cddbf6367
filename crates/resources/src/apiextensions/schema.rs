//! What the `openAPIV3Schema` of a version may say, beyond being structural.

use super::{expressions, structural};
use crate::custom::fieldpath;
use canopus_api::{Errors, Field, Value};

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const META: &[&str] = &["metadata", "kind", "apiVersion"];
/// With a status subresource the root has nothing but these, so that the status can be checked by itself.
const AT_ROOT: &[&str] = &[
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
const AT_ROOT_NAMES: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations]";
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// All that is wrong with the schema at the root.
pub fn validate(schema: &Field, status: bool, errors: &mut Errors) {
    if status {
        root_with_status(schema, errors);
    }
    if schema.value["nullable"].bool() {
        errors.forbidden(&schema.at("nullable"), "nullable cannot be true at the root");
    }
    let before = errors.len();
    structural::validate(schema, errors);
    if errors.len() == before {
        structural::defaults(schema, errors);
    }
    node(schema, &Place { root: true, ..Place::default() }, errors);
    // What rules say of a broken schema helps nobody.
    if errors.len() == before {
        expressions::validate(schema, errors);
    }
}

fn root_with_status(schema: &Field, errors: &mut Errors) {
    let kind = schema.at("type");
    if !kind.str().is_empty() && kind.str() != "object" {
        let why =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return errors.invalid(&kind, why);
    }
    let other = |(name, value): (&compact_str::CompactString, &Value)| {
        !AT_ROOT.contains(&name.as_str()) && !value.is_null() && *value != Value::Bool(false)
    };
    if schema.value.entries().any(other) {
        let why = format!(
            "only {AT_ROOT_NAMES} fields are allowed at the root of the schema if the status subresource is enabled"
        );
        errors.invalid(schema, why);
    }
}

/// Does something with a schema and all below it.
pub fn each(schema: &Value, visit: &mut impl FnMut(&Value)) {
    if schema.as_object().is_none() {
        return;
    }
    visit(schema);
    for list in ["allOf", "anyOf", "oneOf"] {
        schema[list].items().iter().for_each(|s| each(s, visit));
    }
    for one in ["items", "not", "additionalProperties"] {
        each(&schema[one], visit);
    }
    for (_, property) in schema["properties"].entries() {
        each(property, visit);
    }
}

/// Where a node is, as far as it matters for what it may say.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    inside_meta: bool,
    no_defaults: Option<String>,
}

fn node(schema: &Field, place: &Place, errors: &mut Errors) {
    if schema.value.as_object().is_none() {
        return;
    }
    keywords(schema, place, errors);
    let inner = Place { root: false, ..place.clone() };
    let additional = schema.at("additionalProperties");
    if !additional.value.is_null() {
        let open = additional.value.as_bool() == Some(true);
        if !schema.value["properties"].is_empty() && !open {
            errors.forbidden(&additional, "additionalProperties and properties are mutual exclusive");
        }
        let mut below = inner.clone();
        if place.inside_meta {
            below.no_defaults = Some("inside additionalProperties applying to object metadata".into());
        }
        node(&additional, &below, errors);
    }
    for (name, property) in schema.at("properties").entries() {
        let mut below = inner.clone();
        let meta = META.contains(&name);
        if meta && (place.root || schema.value["x-kubernetes-embedded-resource"].bool()) {
            below.inside_meta = true;
            if place.root {
                below.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        node(&property, &below, errors);
    }
    node(&schema.at("not"), &inner, errors);
    for list in ["allOf", "oneOf", "anyOf"] {
        schema.at(list).items().for_each(|s| node(&s, &inner, errors));
    }
    node(&schema.at("items"), &inner, errors);
    extensions(schema, errors);
    map_keys(schema, errors);
    schema.at("x-kubernetes-validations").items().for_each(|rule| self::rule(&rule, schema.value, errors));
}

fn keywords(schema: &Field, place: &Place, errors: &mut Errors) {
    let kind = schema.at("type");
    if kind.str() == "null" {
        errors.forbidden(&kind, "type cannot be set to null, use nullable as an alternative");
    } else if !kind.str().is_empty() && !TYPES.contains(&kind.str()) {
        errors.not_supported(&kind, TYPES);
    }
    let default = schema.at("default");
    if let Some(reason) = place.no_defaults.as_ref().filter(|_| !default.value.is_null()) {
        errors.forbidden(&default, format!("must not be set {reason}"));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let field = schema.at(name);
        if !field.value.is_null() && !field.value.is_empty() {
            errors.forbidden(&field, format!("{name} is not supported"));
        }
    }
    if schema.value["items"].as_array().is_some() {
        errors.forbidden(&schema.at("items"), "items must be a schema object and not an array");
    }
    if place.inside_meta && schema.value["x-kubernetes-embedded-resource"].bool() {
        errors.forbidden(&schema.at("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
    }
    if schema.value["uniqueItems"].bool() {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&schema.at("uniqueItems"), why);
    }
    let preserve = schema.at("x-kubernetes-preserve-unknown-fields");
    if preserve.value.as_bool() == Some(false) {
        errors.invalid(&preserve, "must be true or undefined");
    }
}

fn extensions(schema: &Field, errors: &mut Errors) {
    let kind = schema.at("type");
    for (name, wanted, supported) in [
        ("x-kubernetes-map-type", "object", ["atomic", "granular"].as_slice()),
        ("x-kubernetes-list-type", "array", &["atomic", "set", "map"]),
    ] {
        let extension = schema.at(name);
        if extension.value.is_null() {
            continue;
        }
        let why = format!("must be {wanted} if {name} is specified");
        match kind.str() {
            "" => errors.required(&kind, why),
            other if other != wanted => errors.invalid(&kind, why),
            _ => {}
        }
        if !supported.contains(&extension.str()) {
            errors.not_supported(&extension, supported);
        }
    }
    let item = schema.at("items");
    if schema.value["x-kubernetes-list-type"].str() == "set" && kind.str() == "array" {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let (list, map) = (item.at("x-kubernetes-list-type"), item.at("x-kubernetes-map-type"));
        match item.value["type"].str() {
            "array" if !matches!(list.str(), "" | "atomic") => errors.invalid(&list, why),
            "object" if map.str() != "atomic" => errors.invalid(&map, why),
            _ => {}
        }
    }
}

fn map_keys(schema: &Field, errors: &mut Errors) {
    let (list, keys, item) =
        (schema.at("x-kubernetes-list-type"), schema.at("x-kubernetes-list-map-keys"), schema.at("items"));
    if !keys.value.items().is_empty() && list.str() != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        if list.value.is_null() { errors.required(&list, why) } else { errors.invalid(&list, why) }
    }
    if matches!(list.str(), "set" | "map") && item.value["nullable"].bool() {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {}", list.str());
        errors.forbidden(&item.at("nullable"), why);
    }
    if list.str() != "map" {
        return;
    }
    if keys.value.items().is_empty() {
        errors.required(&keys, "must not be empty if x-kubernetes-list-type is map");
    }
    if item.value.is_null() {
        return errors.required(&item, "must have a schema if x-kubernetes-list-type is map");
    }
    if item.value["type"].str() != "object" {
        return errors.invalid(&item.at("type"), "must be object if parent array's x-kubernetes-list-type is map");
    }
    let mut seen = Vec::new();
    for key in keys.value.items().iter().map(Value::str) {
        if seen.contains(&key) {
            errors.invalid(&keys, "must not contain duplicate entries");
        }
        seen.push(key);
        let properties = item.at("properties");
        let Some((_, property)) = properties.entries().find(|(name, _)| *name == key) else {
            errors.invalid(&keys, "entries must all be names of item properties");
            continue;
        };
        if matches!(property.value["type"].str(), "array" | "object") {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(&property.at("type"), why);
        }
        let required = item.value["required"].items().iter().any(|r| r.str() == key);
        if !required && property.value["default"].is_null() {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&property.at("default"), why);
        }
        if property.value["nullable"].bool() {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&property.at("nullable"), why);
        }
    }
}

fn rule(rule: &Field, schema: &Value, errors: &mut Errors) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    let (text, message) = (rule.at("rule"), rule.at("message"));
    let (trimmed, said) = (text.str().trim(), message.str().trim());
    if trimmed.is_empty() {
        errors.required(&text, "rule is not specified");
    } else if !message.str().is_empty() && said.is_empty() {
        errors.invalid(&message, "must be non-empty if specified");
    } else if breaks(said) {
        errors.invalid(&message, "must not contain line breaks");
    } else if breaks(trimmed) && said.is_empty() {
        errors.required(&message, "message must be specified if rule contains line breaks");
    }
    let expression = rule.at("messageExpression");
    if !expression.str().is_empty() && expression.str().trim().is_empty() {
        errors.required(&expression, "messageExpression must be non-empty if specified");
    }
    let reason = rule.at("reason");
    if !reason.value.is_null() && !REASONS.contains(&reason.str()) {
        errors.not_supported(&reason, REASONS);
    }
    let path = rule.at("fieldPath");
    if !path.str().is_empty() && path.str().trim().is_empty() {
        errors.invalid(&path, "must be non-empty if specified");
    }
    if breaks(path.str()) {
        errors.invalid(&path, "must not contain line breaks");
    }
    if !path.str().is_empty() && fieldpath::normalize(path.str(), schema).is_none() {
        errors.invalid(&path, "must be a valid path");
    }
}
