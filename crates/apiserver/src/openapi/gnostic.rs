//! OpenAPI v2 as `openapi.v2.Document` messages (gnostic's `OpenAPIv2.proto`), the only form that client-go asks for; and how
//! trees become such messages by tables, for [`v3`] too.

pub mod v3;

use canopus_api::protobuf::Backwards;
use canopus_api::{Value, yaml};

/// One field of a message: its number, its name in JSON, and how it is written.
struct Field(u32, &'static str, Kind);

enum Kind {
    Text,
    Bool,
    Int,
    Double,
    /// A list of strings.
    Texts,
    /// Any JSON, as YAML.
    Any,
    Anys,
    Message(&'static [Field]),
    Messages(&'static [Field]),
    /// An object with names of the writer's choice: `additional_properties` of names and messages.
    Named(&'static [Field]),
    /// A message, or a reference to one that is defined elsewhere (v3).
    Referable(&'static [Field]),
    Referables(&'static [Field]),
    NamedReferable(&'static [Field]),
    Own(fn(&Value, &mut Backwards)),
}
use Kind::{
    Any, Anys, Bool, Double, Int, Message, Messages, Named, NamedReferable, Own, Referable, Referables, Text, Texts,
};

static SCHEMA: [Field; 29] = [
    Field(1, "$ref", Text),
    Field(2, "format", Text),
    Field(3, "title", Text),
    Field(4, "description", Text),
    Field(5, "default", Any),
    Field(6, "multipleOf", Double),
    Field(7, "maximum", Double),
    Field(8, "exclusiveMaximum", Bool),
    Field(9, "minimum", Double),
    Field(10, "exclusiveMinimum", Bool),
    Field(11, "maxLength", Int),
    Field(12, "minLength", Int),
    Field(13, "pattern", Text),
    Field(14, "maxItems", Int),
    Field(15, "minItems", Int),
    Field(16, "uniqueItems", Bool),
    Field(17, "maxProperties", Int),
    Field(18, "minProperties", Int),
    Field(19, "required", Texts),
    Field(20, "enum", Anys),
    Field(21, "additionalProperties", Own(additional_properties)),
    Field(22, "type", Own(type_item)),
    Field(23, "items", Own(items)),
    Field(24, "allOf", Messages(&SCHEMA)),
    Field(25, "properties", Named(&SCHEMA)),
    Field(27, "readOnly", Bool),
    Field(29, "externalDocs", Message(EXTERNAL_DOCS)),
    Field(30, "example", Any),
    Field(31, "", Any),
];

const EXTERNAL_DOCS: &[Field] = &[Field(1, "description", Text), Field(2, "url", Text)];

const BODY: &[Field] = &[
    Field(1, "description", Text),
    Field(2, "name", Text),
    Field(3, "in", Text),
    Field(4, "required", Bool),
    Field(5, "schema", Message(&SCHEMA)),
];

const QUERY: &[Field] = &[
    Field(1, "required", Bool),
    Field(2, "in", Text),
    Field(3, "description", Text),
    Field(4, "name", Text),
    Field(6, "type", Text),
    Field(20, "uniqueItems", Bool),
];

const PATH: &[Field] = &[
    Field(1, "required", Bool),
    Field(2, "in", Text),
    Field(3, "description", Text),
    Field(4, "name", Text),
    Field(5, "type", Text),
    Field(19, "uniqueItems", Bool),
];

const RESPONSE: &[Field] = &[Field(1, "description", Text), Field(2, "schema", Own(schema_item))];

const OPERATION: &[Field] = &[
    Field(1, "tags", Texts),
    Field(2, "summary", Text),
    Field(3, "description", Text),
    Field(5, "operationId", Text),
    Field(6, "produces", Texts),
    Field(7, "consumes", Texts),
    Field(8, "parameters", Messages(PARAMETER)),
    Field(9, "responses", Own(responses)),
    Field(10, "schemes", Texts),
    Field(11, "deprecated", Bool),
    Field(13, "", Any),
];

/// A parameter is one of several messages: `parameter` writes it whole.
const PARAMETER: &[Field] = &[Field(1, "", Own(parameter))];

const PATH_ITEM: &[Field] = &[
    Field(2, "get", Message(OPERATION)),
    Field(3, "put", Message(OPERATION)),
    Field(4, "post", Message(OPERATION)),
    Field(5, "delete", Message(OPERATION)),
    Field(6, "options", Message(OPERATION)),
    Field(7, "head", Message(OPERATION)),
    Field(8, "patch", Message(OPERATION)),
    Field(9, "parameters", Messages(PARAMETER)),
];

/// Writes the fields of `of` that `value` has. A field without a name stands for all extensions (`x-…`), or for the whole.
fn message(of: &[Field], value: &Value, out: &mut Backwards) {
    for Field(number, name, kind) in of.iter().rev() {
        if name.is_empty() {
            match kind {
                Own(write) => field(*number, |out| write(value, out), out),
                _ => extensions(*number, value, out),
            }
            continue;
        }
        let Some(value) = value.get(name) else { continue };
        match kind {
            Text if !value.str().is_empty() => out.text(*number, value.str()),
            Text => {}
            Bool if value.bool() => out.number(*number, 1),
            Bool => {}
            Int => out.number(*number, value.int()),
            Double => out.double(*number, if let Value::Float(f) = value { *f } else { value.int() as f64 }),
            Texts => value.items().iter().rev().for_each(|text| out.text(*number, text.str())),
            Any => field(*number, |out| any(value, out), out),
            Anys => value.items().iter().rev().for_each(|value| field(*number, |out| any(value, out), out)),
            Message(inner) => field(*number, |out| message(inner, value, out), out),
            Messages(inner) => {
                value.items().iter().rev().for_each(|value| field(*number, |out| message(inner, value, out), out));
            }
            Named(inner) => field(*number, |out| named(1, inner, value, out), out),
            Referable(inner) => field(*number, |out| referable(inner, value, out), out),
            Referables(inner) => {
                value.items().iter().rev().for_each(|value| field(*number, |out| referable(inner, value, out), out));
            }
            NamedReferable(inner) => field(*number, |out| named_referable(1, inner, value, out), out),
            Own(write) => field(*number, |out| write(value, out), out),
        }
    }
}

fn field(number: u32, write: impl FnOnce(&mut Backwards), out: &mut Backwards) {
    let mark = out.len();
    write(out);
    out.close(number, mark);
}

fn named(number: u32, of: &[Field], value: &Value, out: &mut Backwards) {
    for (name, value) in value.as_object().into_iter().flat_map(|map| map.iter().rev()) {
        entry(number, name, |out| message(of, value, out), out);
    }
}

fn named_referable(number: u32, of: &[Field], value: &Value, out: &mut Backwards) {
    for (name, value) in value.as_object().into_iter().flat_map(|map| map.iter().rev()) {
        entry(number, name, |out| referable(of, value, out), out);
    }
}

/// An `…OrReference` message.
fn referable(of: &[Field], value: &Value, out: &mut Backwards) {
    match value.get("$ref") {
        Some(reference) => field(2, |out| out.text(1, reference.str()), out),
        None => field(1, |out| message(of, value, out), out),
    }
}

/// A `Named…` message.
fn entry(number: u32, name: &str, value: impl FnOnce(&mut Backwards), out: &mut Backwards) {
    field(
        number,
        |out| {
            field(2, value, out);
            out.text(1, name);
        },
        out,
    );
}

fn any(value: &Value, out: &mut Backwards) {
    out.text(2, &yaml::to_yaml(value));
}

fn extensions(number: u32, value: &Value, out: &mut Backwards) {
    let entries = value.as_object().into_iter().flat_map(|map| map.iter().rev());
    for (name, value) in entries.filter(|(name, _)| name.starts_with("x-")) {
        entry(number, name, |out| any(value, out), out);
    }
}

fn additional_properties(value: &Value, out: &mut Backwards) {
    match value.as_bool() {
        Some(allowed) => out.number(2, allowed.into()),
        None => field(1, |out| message(&SCHEMA, value, out), out),
    }
}

fn type_item(value: &Value, out: &mut Backwards) {
    match value.as_str() {
        Some(text) => out.text(1, text),
        None => value.items().iter().rev().for_each(|text| out.text(1, text.str())),
    }
}

fn items(value: &Value, out: &mut Backwards) {
    field(1, |out| message(&SCHEMA, value, out), out);
}

fn schema_item(value: &Value, out: &mut Backwards) {
    field(1, |out| message(&SCHEMA, value, out), out);
}

fn responses(value: &Value, out: &mut Backwards) {
    for (code, response) in value.as_object().into_iter().flat_map(|map| map.iter().rev()) {
        entry(1, code, |out| field(1, |out| message(RESPONSE, response, out), out), out);
    }
}

fn parameter(value: &Value, out: &mut Backwards) {
    match value["in"].str() {
        "body" => field(1, |out| message(BODY, value, out), out),
        "path" => field(2, |out| field(4, |out| message(PATH, value, out), out), out),
        _ => field(2, |out| field(3, |out| message(QUERY, value, out), out), out),
    }
}

/// A named definition, as a field of `Definitions`.
pub fn definition(name: &str, schema: &Value) -> Vec<u8> {
    let mut out = Backwards::with_capacity(4096);
    entry(1, name, |out| message(&SCHEMA, schema, out), &mut out);
    out.finish()
}

/// A path, as a field of `Paths`.
pub fn path(name: &str, item: &Value) -> Vec<u8> {
    let mut out = Backwards::with_capacity(8192);
    entry(2, name, |out| message(PATH_ITEM, item, out), &mut out);
    out.finish()
}

/// What comes before `length` bytes of one of a document's parts: paths (8) or definitions (9).
pub fn part(number: u32, length: usize) -> Vec<u8> {
    let mut out = Backwards::with_capacity(16);
    out.length_of(number, length);
    out.finish()
}

/// A document's beginning.
pub fn head(title: &str, version: &str) -> Vec<u8> {
    let mut out = Backwards::with_capacity(64);
    field(
        2,
        |out| {
            out.text(2, version);
            out.text(1, title);
        },
        &mut out,
    );
    out.text(1, "2.0");
    out.finish()
}

/// And its end: how clients show who they are.
pub fn tail(security_definitions: &Value, security: &Value) -> Vec<u8> {
    const API_KEY: &[Field] =
        &[Field(1, "type", Text), Field(2, "name", Text), Field(3, "in", Text), Field(4, "description", Text)];
    let mut out = Backwards::with_capacity(256);
    field(
        13,
        |out| {
            for (name, value) in security_definitions.as_object().into_iter().flat_map(|map| map.iter().rev()) {
                entry(1, name, |out| field(2, |out| message(API_KEY, value, out), out), out);
            }
        },
        &mut out,
    );
    for requirement in security.items().iter().rev() {
        field(
            12,
            |out| {
                for (name, _) in requirement.as_object().into_iter().flat_map(|map| map.iter().rev()) {
                    entry(1, name, |_| {}, out);
                }
            },
            &mut out,
        );
    }
    out.finish()
}
