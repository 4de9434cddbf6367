//! Trees as protobuf messages, byte for byte as Go's generated code writes them: fields by number, maps by key, and the
//! zeros of everything that Go does not hold by pointer.

use super::MAGIC;
use super::backwards::{Backwards, LENGTH};
use crate::quantity::Quantity;
use crate::time::Time;
use crate::value::Value;
use canopus_schema::{FieldType, Shape, Type, TypeId, WireField, WireTarget};

/// An object in its envelope; None for a kind that has no messages (a custom resource).
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let ty = type_of(object["apiVersion"].str(), object["kind"].str())?;
    Some(encode_as(ty.get(), object))
}

/// The same for an object whose type is known.
pub fn encode_as(ty: &'static Type, object: &Value) -> Vec<u8> {
    let mut out = Backwards::with_capacity(1024);
    envelope(object["apiVersion"].str(), object["kind"].str(), |out| message(ty, object, out), &mut out);
    out.finish()
}

/// The type of a kind, if its messages are known.
pub fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    let (group, version) = crate::api::split_api_version(api_version);
    let ty = canopus_schema::kind(group, version, kind).or_else(|| super::everywhere(kind))?;
    (!ty.get().wire.is_empty()).then_some(ty)
}

/// A list whose items are encoded one by one: what comes before them, and behind.
pub struct ListFrame {
    pub head: Vec<u8>,
    pub tail: &'static [u8],
}

/// The frame of a list with items that take up `length` bytes, each as [`item`] wrote it.
pub fn list_frame(api_version: &str, kind: &str, meta: &Value, length: usize) -> ListFrame {
    let list_meta = canopus_schema::lookup("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
    let mut out = Backwards::with_capacity(256);
    let mark = out.len();
    if let Some(ty) = list_meta {
        message(ty.get(), meta, &mut out);
    }
    out.close(1, mark);
    out.length_of(2, out.len() + length);
    type_meta(api_version, kind, &mut out);
    out.bytes(MAGIC);
    ListFrame { head: out.finish(), tail: UNKNOWN_TAIL }
}

/// One item of a list, as a field of the list's message.
pub fn item(ty: &'static Type, object: &Value) -> Vec<u8> {
    let mut out = Backwards::with_capacity(1024);
    message(ty, object, &mut out);
    out.close(2, 0);
    out.finish()
}

/// One event of a watch, behind its length (`;stream=watch`). `object` is in its envelope.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Backwards::with_capacity(object.len() + 32);
    out.bytes(object);
    out.close(1, 0);
    out.close(2, 0);
    out.text(1, kind);
    let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
    out.bytes(&length.to_be_bytes());
    out.finish()
}

/// `contentEncoding` and `contentType` of the envelope, which are empty.
const UNKNOWN_TAIL: &[u8] = &[3 << 3 | LENGTH, 0, 4 << 3 | LENGTH, 0];

/// `runtime.Unknown`.
fn envelope(api_version: &str, kind: &str, raw: impl FnOnce(&mut Backwards), out: &mut Backwards) {
    out.bytes(UNKNOWN_TAIL);
    let mark = out.len();
    raw(out);
    out.close(2, mark);
    type_meta(api_version, kind, out);
    out.bytes(MAGIC);
}

fn type_meta(api_version: &str, kind: &str, out: &mut Backwards) {
    let mark = out.len();
    out.text(2, kind);
    out.text(1, api_version);
    out.close(1, mark);
}

fn message(ty: &'static Type, value: &Value, out: &mut Backwards) {
    fields(ty, ty.wire, value, out);
}

fn fields(ty: &'static Type, wire: &[WireField], value: &Value, out: &mut Backwards) {
    for WireField { number, target } in wire.iter().rev() {
        match target {
            WireTarget::Inline(inner) => {
                let mark = out.len();
                fields(ty, inner, value, out);
                out.close(*number, mark);
            }
            WireTarget::Field { index, pointer, boxed } => {
                let Some(field) = ty.fields.get(*index) else { continue };
                let value = value.at(field.name);
                match &field.ty {
                    FieldType::Array(of) if *boxed => {
                        if !value.is_null() {
                            single(*number, &FieldType::Array(of), value, out);
                        }
                    }
                    FieldType::Array(of) => {
                        for item in value.items().iter().rev() {
                            single(*number, of, item, out);
                        }
                    }
                    FieldType::Map(of) => {
                        for (key, value) in value.as_object().into_iter().flat_map(|m| m.iter().rev()) {
                            let mark = out.len();
                            single(2, of, value, out);
                            out.text(1, key);
                            out.close(*number, mark);
                        }
                    }
                    // Bytes are a slice, absent when nil.
                    FieldType::Bytes if value.is_null() => {}
                    _ if *pointer && value.is_null() => {}
                    of => single(*number, of, value, out),
                }
            }
        }
    }
}

/// One field that is there, whatever its value.
fn single(number: u32, ty: &FieldType, value: &Value, out: &mut Backwards) {
    match ty {
        FieldType::String => out.text(number, value.str()),
        FieldType::Bool => out.number(number, value.bool().into()),
        FieldType::Int32 | FieldType::Int64 => out.number(number, value.int()),
        FieldType::Double => {
            let float = match value {
                Value::Float(f) => *f,
                other => other.int() as f64,
            };
            out.double(number, float);
        }
        FieldType::Bytes => {
            // A nil value of a map.
            if !value.is_null() {
                let mark = out.len();
                out.bytes(&super::unbase64(value.str()));
                out.close(number, mark);
            }
        }
        FieldType::Ref(of) => {
            let mark = out.len();
            reference(of.get(), value, out);
            out.close(number, mark);
        }
        // A list inside a map or list, or a boxed one, is a message with `items`.
        FieldType::Array(of) => {
            let mark = out.len();
            for item in value.items().iter().rev() {
                single(1, of, item, out);
            }
            out.close(number, mark);
        }
        FieldType::Map(_) | FieldType::Any => {}
    }
}

fn reference(ty: &'static Type, value: &Value, out: &mut Backwards) {
    match ty.shape {
        Shape::Object => message(ty, value, out),
        Shape::Time | Shape::MicroTime => {
            if let Some(Time(micros)) = Time::parse(value.str()) {
                let micros_left = if ty.shape == Shape::Time { 0 } else { micros.rem_euclid(1_000_000) };
                out.number(2, micros_left * 1000);
                out.number(1, micros.div_euclid(1_000_000));
            }
        }
        Shape::Quantity => match value {
            Value::Str(text) => out.text(1, text),
            Value::Null => out.text(1, "0"),
            number => match Quantity::from_value(number) {
                Some(quantity) => out.text(1, &quantity.to_string()),
                None => out.text(1, "0"),
            },
        },
        Shape::IntOrString => {
            out.text(3, value.str());
            out.number(2, value.int());
            out.number(1, value.as_str().is_some().into());
        }
        Shape::RawExtension | Shape::FieldsV1 => {
            if !value.is_null() {
                raw_json(value, out);
            }
        }
        Shape::Json => match ty.name.rsplit('.').next() {
            Some("JSONSchemaPropsOrArray") => {
                if let Some(schemas) = value.as_array() {
                    schemas.iter().rev().for_each(|schema| json_schema(2, schema, out));
                } else {
                    json_schema(1, value, out);
                }
            }
            Some("JSONSchemaPropsOrBool") => {
                if value.as_object().is_some() {
                    json_schema(2, value, out);
                }
                // One that has a schema allows what the schema does.
                out.number(1, value.as_bool().unwrap_or(true).into());
            }
            Some("JSONSchemaPropsOrStringArray") => {
                if let Some(names) = value.as_array() {
                    names.iter().rev().for_each(|name| out.text(2, name.str()));
                } else {
                    json_schema(1, value, out);
                }
            }
            _ => raw_json(value, out),
        },
        Shape::Any => raw_json(value, out),
    }
}

fn raw_json(value: &Value, out: &mut Backwards) {
    let mark = out.len();
    out.bytes(&crate::json::to_vec(value));
    out.close(1, mark);
}

fn json_schema(number: u32, schema: &Value, out: &mut Backwards) {
    if let Some(ty) = super::json_schema_type() {
        let mark = out.len();
        message(ty, schema, out);
        out.close(number, mark);
    }
}
