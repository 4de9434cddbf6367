//! OpenAPI v3 as `openapi.v3.Document` messages (gnostic's `OpenAPIv3.proto`).

use super::Kind::{
    Any, Anys, Bool, Double, Int, Message, Named, NamedReferable, Own, Referable, Referables, Text, Texts,
};
use super::{Field, field, message, named_referable, referable};
use canopus_api::Value;
use canopus_api::protobuf::Backwards;

static SCHEMA: [Field; 34] = [
    Field(1, "nullable", Bool),
    Field(3, "readOnly", Bool),
    Field(4, "writeOnly", Bool),
    Field(6, "externalDocs", Message(super::EXTERNAL_DOCS)),
    Field(7, "example", Any),
    Field(8, "deprecated", Bool),
    Field(9, "title", Text),
    Field(10, "multipleOf", Double),
    Field(11, "maximum", Double),
    Field(12, "exclusiveMaximum", Bool),
    Field(13, "minimum", Double),
    Field(14, "exclusiveMinimum", Bool),
    Field(15, "maxLength", Int),
    Field(16, "minLength", Int),
    Field(17, "pattern", Text),
    Field(18, "maxItems", Int),
    Field(19, "minItems", Int),
    Field(20, "uniqueItems", Bool),
    Field(21, "maxProperties", Int),
    Field(22, "minProperties", Int),
    Field(23, "required", Texts),
    Field(24, "enum", Anys),
    Field(25, "type", Text),
    Field(26, "allOf", Referables(&SCHEMA)),
    Field(27, "oneOf", Referables(&SCHEMA)),
    Field(28, "anyOf", Referables(&SCHEMA)),
    Field(29, "not", Message(&SCHEMA)),
    Field(30, "items", Own(items)),
    Field(31, "properties", NamedReferable(&SCHEMA)),
    Field(32, "additionalProperties", Own(additional_properties)),
    Field(33, "default", Own(default)),
    Field(34, "description", Text),
    Field(35, "format", Text),
    Field(36, "", Any),
];

const MEDIA_TYPE: &[Field] = &[Field(1, "schema", Referable(&SCHEMA)), Field(2, "example", Any)];

const PARAMETER: &[Field] = &[
    Field(1, "name", Text),
    Field(2, "in", Text),
    Field(3, "description", Text),
    Field(4, "required", Bool),
    Field(5, "deprecated", Bool),
    Field(10, "schema", Referable(&SCHEMA)),
];

const REQUEST_BODY: &[Field] =
    &[Field(1, "description", Text), Field(2, "content", Named(MEDIA_TYPE)), Field(3, "required", Bool)];

const RESPONSE: &[Field] = &[Field(1, "description", Text), Field(3, "content", Named(MEDIA_TYPE))];

const OPERATION: &[Field] = &[
    Field(1, "tags", Texts),
    Field(2, "summary", Text),
    Field(3, "description", Text),
    Field(5, "operationId", Text),
    Field(6, "parameters", Referables(PARAMETER)),
    Field(7, "requestBody", Referable(REQUEST_BODY)),
    Field(8, "responses", Own(responses)),
    Field(10, "deprecated", Bool),
    Field(13, "", Any),
];

const PATH_ITEM: &[Field] = &[
    Field(2, "summary", Text),
    Field(3, "description", Text),
    Field(4, "get", Message(OPERATION)),
    Field(5, "put", Message(OPERATION)),
    Field(6, "post", Message(OPERATION)),
    Field(7, "delete", Message(OPERATION)),
    Field(8, "options", Message(OPERATION)),
    Field(9, "head", Message(OPERATION)),
    Field(10, "patch", Message(OPERATION)),
    Field(13, "parameters", Referables(PARAMETER)),
    Field(14, "", Any),
];

const SECURITY_SCHEME: &[Field] =
    &[Field(1, "type", Text), Field(2, "description", Text), Field(3, "name", Text), Field(4, "in", Text)];

const COMPONENTS: &[Field] =
    &[Field(1, "schemas", NamedReferable(&SCHEMA)), Field(7, "securitySchemes", NamedReferable(SECURITY_SCHEME))];

const DOCUMENT: &[Field] = &[
    Field(1, "openapi", Text),
    Field(2, "info", Message(&[Field(1, "title", Text), Field(2, "description", Text), Field(6, "version", Text)])),
    Field(4, "paths", Named(PATH_ITEM)),
    Field(5, "components", Message(COMPONENTS)),
];

fn items(value: &Value, out: &mut Backwards) {
    field(1, |out| referable(&SCHEMA, value, out), out);
}

fn additional_properties(value: &Value, out: &mut Backwards) {
    match value.as_bool() {
        Some(allowed) => out.number(2, allowed.into()),
        None => field(1, |out| referable(&SCHEMA, value, out), out),
    }
}

/// Objects and lists are no defaults here.
fn default(value: &Value, out: &mut Backwards) {
    match value {
        Value::Int(number) => out.double(1, *number as f64),
        Value::Float(number) => out.double(1, *number),
        Value::Bool(flag) => out.number(2, (*flag).into()),
        Value::Str(text) => out.text(3, text),
        _ => {}
    }
}

fn responses(value: &Value, out: &mut Backwards) {
    named_referable(2, RESPONSE, value, out);
}

/// A whole document.
pub fn document(document: &Value) -> Vec<u8> {
    let mut out = Backwards::with_capacity(64 << 10);
    message(DOCUMENT, document, &mut out);
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    fn schema(value: Value) -> Vec<u8> {
        let mut out = Backwards::with_capacity(64);
        referable(&SCHEMA, &value, &mut out);
        out.finish()
    }

    #[test]
    fn schemas() {
        for (tree, expected) in [
            (value!({"$ref": "#/x"}), &b"\x12\x05\x0a\x03#/x"[..]),
            (value!({"type": "string", "default": ""}), b"\x0a\x0e\xca\x01\x06string\x8a\x02\x02\x1a\x00"),
            (value!({"default": {}}), b"\x0a\x03\x8a\x02\x00"),
            (value!({"items": {"$ref": "y"}}), b"\x0a\x0a\xf2\x01\x07\x0a\x05\x12\x03\x0a\x01y"),
            (value!({"properties": {"a": {}}}), b"\x0a\x0c\xfa\x01\x09\x0a\x07\x0a\x01a\x12\x02\x0a\x00"),
            (value!({"additionalProperties": true}), b"\x0a\x05\x82\x02\x02\x10\x01"),
            (value!({"x-a": 1}), b"\x0a\x0e\xa2\x02\x0b\x0a\x03x-a\x12\x04\x12\x021\n"),
        ] {
            assert_eq!(schema(tree.clone()), expected, "{tree:?}");
        }
    }
}
