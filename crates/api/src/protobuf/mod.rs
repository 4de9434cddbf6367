//! `application/vnd.kubernetes.protobuf`: messages as trees and back, by the tables' field numbers. Bodies are bounded and
//! not trusted.

mod backwards;
mod encode;
#[cfg(test)]
mod tests;

pub use backwards::Backwards;
pub use encode::{ListFrame, encode, encode_as, item, list_frame, type_of, watch_frame};

use crate::json::MAX_DEPTH;
use crate::quantity::Quantity;
use crate::time::Time;
use crate::value::{Map, Value};
use canopus_schema::{FieldType, Shape, Type, WireField, WireTarget};
use compact_str::CompactString;

/// What every body starts with.
pub const MAGIC: &[u8] = b"k8s\0";

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("proto: provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoPrefix,
    #[error("proto: unexpected end of message")]
    Truncated,
    #[error("proto: illegal wire type or varint")]
    Malformed,
    #[error("proto: message is nested too deeply")]
    TooDeep,
    #[error("proto: invalid UTF-8")]
    NotUtf8,
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
}

/// Decodes a body: an envelope that names a kind, and that kind's message.
pub fn decode(bytes: &[u8]) -> Result<Value, Error> {
    let unknown = bytes.strip_prefix(MAGIC).ok_or(Error::NoPrefix)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(unknown) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(b)) => api_version = text(b)?.into(),
                        (2, Wire::Bytes(b)) => kind = text(b)?.into(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(b)) => raw = b,
            _ => {}
        }
    }
    let (group, version) = crate::api::split_api_version(&api_version);
    let ty = canopus_schema::kind(group, version, &kind)
        .or_else(|| everywhere(&kind))
        .ok_or_else(|| Error::UnknownKind { api_version: api_version.clone(), kind: kind.clone() })?;
    let mut object = message(ty.get(), raw, 0)?;
    object.insert("apiVersion", api_version);
    object.insert("kind", kind);
    Ok(Value::Object(object))
}

/// Kinds that exist in every group.
fn everywhere(kind: &str) -> Option<canopus_schema::TypeId> {
    canopus_schema::lookup(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"))
}

fn json_schema_type() -> Option<&'static Type> {
    canopus_schema::lookup("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").map(|t| t.get())
}

/// What a field holds, as far as the wire tells.
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// The fields of a message, in order.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// For messages that no table knows.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Error::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Malformed)
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], Error> {
        let n = usize::try_from(n).map_err(|_| Error::Truncated)?;
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Wire<'a>), Error> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Error::Malformed)?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Error::Truncated)?)),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(Error::Malformed),
        };
        Ok((number, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), Error>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::NotUtf8)
}

fn message(ty: &'static Type, bytes: &[u8], depth: usize) -> Result<Map, Error> {
    let mut map = Map::new();
    fill(ty, ty.wire, bytes, &mut map, depth)?;
    Ok(map)
}

fn fill(ty: &'static Type, wire: &[WireField], bytes: &[u8], map: &mut Map, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    for field in Fields(bytes) {
        let (number, data) = field?;
        let Some(known) = wire.iter().find(|w| w.number == number) else { continue };
        match (&known.target, data) {
            (WireTarget::Inline(inner), Wire::Bytes(b)) => fill(ty, inner, b, map, depth + 1)?,
            (WireTarget::Inline(_), _) => return Err(Error::Malformed),
            (WireTarget::Field { index, pointer, boxed }, data) => {
                let Some(field) = ty.fields.get(*index) else { continue };
                match (&field.ty, data) {
                    (FieldType::Array(_), data) if *boxed => {
                        map.insert(field.name, value(&field.ty, data, depth)?);
                    }
                    (FieldType::Array(of), data) => {
                        let item = value(of, data, depth)?;
                        map.entry(field.name, || Value::Array(Vec::new())).ensure_array().push(item);
                    }
                    (FieldType::Map(of), Wire::Bytes(b)) => {
                        let (key, inner) = entry(of, b, depth)?;
                        map.entry(field.name, Value::object).ensure_object().insert(key, inner);
                    }
                    (of, data) => {
                        let inner = value(of, data, depth)?;
                        // Go writes zeros of everything it does not hold by pointer; in JSON they would not be there.
                        let said = *pointer || !zero(of, &inner);
                        if said {
                            map.insert(field.name, inner);
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

fn zero(ty: &FieldType, value: &Value) -> bool {
    match ty {
        // A struct held by value: nothing in it, nothing said.
        FieldType::Ref(_) => value.is_null() || value.as_object().is_some_and(Map::is_empty),
        _ => value.is_empty(),
    }
}

fn value(ty: &'static FieldType, data: Wire, depth: usize) -> Result<Value, Error> {
    Ok(match (ty, data) {
        (FieldType::String, Wire::Bytes(b)) => text(b)?.into(),
        (FieldType::Bytes, Wire::Bytes(b)) => base64(b).into(),
        (FieldType::Bool, Wire::Varint(n)) => (n != 0).into(),
        (FieldType::Int32 | FieldType::Int64, Wire::Varint(n)) => Value::Int(n.cast_signed()),
        (FieldType::Double, Wire::Fixed64(n)) => Value::Float(f64::from_bits(n)),
        (FieldType::Ref(of), Wire::Bytes(b)) => reference(of.get(), b, depth)?,
        // A list inside a map or list is a message with `items` (ExtraValue, Verbs).
        (FieldType::Array(of), Wire::Bytes(b)) => {
            let mut items = Vec::new();
            for field in Fields(b) {
                if let (1, data) = field? {
                    items.push(value(of, data, depth + 1)?);
                }
            }
            Value::Array(items)
        }
        (FieldType::Any, _) => Value::Null,
        _ => return Err(Error::Malformed),
    })
}

fn entry(of: &'static FieldType, bytes: &[u8], depth: usize) -> Result<(CompactString, Value), Error> {
    let (mut key, mut inner) = (CompactString::default(), None);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(b)) => key = text(b)?.into(),
            (2, data) => inner = Some(value(of, data, depth + 1)?),
            _ => {}
        }
    }
    let absent = || match of {
        FieldType::String | FieldType::Bytes => "".into(),
        _ => Value::Null,
    };
    Ok((key, inner.unwrap_or_else(absent)))
}

fn reference(ty: &'static Type, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let mut varints = [0i64; 4];
    let mut raw: &[u8] = &[];
    if !matches!(ty.shape, Shape::Object) {
        for field in Fields(bytes) {
            match field? {
                (number @ 1..=3, Wire::Varint(n)) => varints[number as usize] = n.cast_signed(),
                (_, Wire::Bytes(b)) => raw = b,
                _ => {}
            }
        }
    }
    Ok(match ty.shape {
        Shape::Object => Value::Object(message(ty, bytes, depth + 1)?),
        Shape::Time | Shape::MicroTime => {
            // Go's zero time is written as its seconds before 1970, or as nothing at all.
            if bytes.is_empty() || varints[1] <= -62_135_596_800 {
                return Ok(Value::Null);
            }
            let time = Time(varints[1].saturating_mul(1_000_000).saturating_add(varints[2] / 1000));
            if ty.shape == Shape::Time { time.rfc3339().into() } else { time.rfc3339_micro().into() }
        }
        Shape::Quantity => match Quantity::parse(text(raw)?) {
            Ok(quantity) => quantity.into(),
            Err(_) => text(raw)?.into(),
        },
        Shape::IntOrString if varints[1] == 0 => Value::Int(i64::from(varints[2] as i32)),
        Shape::IntOrString => text(raw)?.into(),
        Shape::Json if ty.name.contains(".JSONSchemaPropsOr") => json_schema_or(ty, bytes, depth)?,
        Shape::RawExtension | Shape::FieldsV1 | Shape::Json | Shape::Any => crate::json::parse(raw).unwrap_or_default(),
    })
}

/// `JSONSchemaPropsOrArray`, `…OrBool` and `…OrStringArray`, whose messages have what JSON tells apart by its type.
fn json_schema_or(ty: &'static Type, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let Some(schema) = json_schema_type() else { return Ok(Value::Null) };
    let (mut single, mut many, mut allows) = (Value::Null, Vec::new(), None);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(n)) => allows = Some(n != 0),
            (1, Wire::Bytes(b)) => single = message(schema, b, depth + 1)?.into(),
            (2, Wire::Bytes(b)) => many.push(b),
            _ => {}
        }
    }
    let names = ty.name.ends_with("OrStringArray");
    let props = |b: &&[u8]| if names { Ok(text(b)?.into()) } else { message(schema, b, depth + 1).map(Value::from) };
    Ok(match (allows, single) {
        (Some(allows), _) => match many.first() {
            Some(b) => props(b)?,
            None => allows.into(),
        },
        (None, Value::Null) => many.iter().map(props).collect::<Result<Vec<Value>, Error>>()?.into(),
        (None, single) => single,
    })
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[(n >> (18 - 6 * i) & 63) as usize] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

/// What is not of the alphabet is passed over: stored objects were checked when they came.
pub(crate) fn unbase64(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut n) = (0u32, 0);
    for digit in text.bytes().filter_map(digit) {
        bits = bits << 6 | digit;
        n += 6;
        if n >= 8 {
            n -= 8;
            out.push((bits >> n) as u8);
        }
    }
    out
}

fn digit(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}
