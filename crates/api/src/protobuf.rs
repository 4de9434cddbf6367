//! `application/vnd.kubernetes.protobuf` request bodies as trees, by the tables' field numbers: bounded, nothing trusted.

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
        // Kinds that exist in every group.
        .or_else(|| canopus_schema::lookup(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")))
        .ok_or_else(|| Error::UnknownKind { api_version: api_version.clone(), kind: kind.clone() })?;
    let mut object = message(ty.get(), raw, 0)?;
    object.insert("apiVersion", api_version);
    object.insert("kind", kind);
    Ok(Value::Object(object))
}

enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// The fields of a message, in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
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
            (WireTarget::Field { index, pointer }, data) => {
                let Some(field) = ty.fields.get(*index) else { continue };
                match (&field.ty, data) {
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
        Shape::RawExtension | Shape::FieldsV1 | Shape::Json | Shape::Any => crate::json::parse(raw).unwrap_or_default(),
    })
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;
    use proptest::prelude::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn a_deployment() {
        let meta = [field(1, b"web"), field(2, b""), field(11, &[field(1, b"app"), field(2, b"x")].concat())].concat();
        // replicas is held by pointer: its zero counts; minReadySeconds is not.
        let port = [field(1, b"http"), vec![2 << 3, 0], vec![3 << 3, 80]].concat();
        let container = [field(1, b"c"), field(2, b"i"), field(6, &port)].concat();
        let template = field(2, &field(2, &container));
        let spec = [vec![1 << 3, 0], field(3, &template), vec![5 << 3, 0]].concat();
        let body = envelope("apps/v1", "Deployment", &[field(1, &meta), field(2, &spec)].concat());
        assert_eq!(
            decode(&body).unwrap(),
            value!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "x"}},
                "spec": {"replicas": 0, "template": {"spec": {"containers": [
                    {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}]}]}}},
            })
        );
    }

    #[test]
    fn secrets_are_base64_and_inlined_messages_are_flat() {
        let data = field(2, &[field(1, b"k"), field(2, b"\x00\xff")].concat());
        assert_eq!(decode(&envelope("v1", "Secret", &data)).unwrap()["data"]["k"].str(), "AP8=");
        let volume = [field(1, b"v"), field(2, &field(6, &field(1, b"s")))].concat();
        let pod = envelope("v1", "Pod", &field(2, &field(1, &volume)));
        let decoded = decode(&pod).unwrap();
        assert_eq!(decoded["spec"]["volumes"][0], value!({"name": "v", "secret": {"secretName": "s"}}));
    }

    #[test]
    fn what_is_not_protobuf() {
        assert_eq!(decode(b"{}"), Err(Error::NoPrefix));
        assert!(matches!(decode(&envelope("v1", "Nope", b"")), Err(Error::UnknownKind { .. })));
        assert_eq!(decode(&envelope("v1", "Pod", &[0x0a, 0x7f])), Err(Error::Truncated));
    }

    proptest! {
        #[test]
        fn never_panics(raw in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode(&envelope("v1", "Pod", &raw));
            let _ = decode(&[MAGIC, &raw].concat());
        }
    }
}
