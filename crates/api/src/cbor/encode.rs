//! Trees as bytes, in the one way that RFC 8949 calls deterministic (4.2.1): lengths are told before, arguments and floats
//! are as short as they can be, the keys of maps are sorted as they are encoded.

use super::{
    ARRAY, BASE64, BYTES, DOUBLE, FALSE, HALF, MAGIC, MAP, NEGATIVE, NULL, SIMPLE, SINGLE, TAG, TRUE, UNSIGNED,
};
use crate::protobuf::unbase64;
use crate::value::{Map, Value};
use canopus_schema::{FieldType, Type};

/// A body: the value behind the tag that says it is CBOR.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    whole(value, &mut out);
    out
}

/// The same as part of something else. What its kind says is bytes is written as bytes.
fn whole(value: &Value, out: &mut Vec<u8>) {
    let (group, version) = crate::api::split_api_version(value["apiVersion"].str());
    let ty = canopus_schema::kind(group, version, value["kind"].str());
    out.extend_from_slice(MAGIC);
    write(value, ty.map(|ty| ty.get()), out);
}

/// Appends the item that `value`, of type `ty`, is.
pub fn write(value: &Value, ty: Option<&'static Type>, out: &mut Vec<u8>) {
    match (ty, value) {
        (Some(ty), Value::Object(map)) => {
            entries(map, out, |key, value, out| match ty.fields.binary_search_by(|field| field.name.cmp(key)) {
                Ok(at) => field(value, &ty.fields[at].ty, out),
                Err(_) => plain(value, out),
            })
        }
        (_, value) => plain(value, out),
    }
}

fn field(value: &Value, ty: &FieldType, out: &mut Vec<u8>) {
    match (ty, value) {
        (FieldType::Ref(of), value) => write(value, Some(of.get()), out),
        (FieldType::Map(of), Value::Object(map)) => entries(map, out, |_, value, out| field(value, of, out)),
        (FieldType::Array(of), Value::Array(items)) => {
            head(ARRAY, items.len() as u64, out);
            items.iter().for_each(|item| field(item, of, out));
        }
        (FieldType::Bytes, Value::Str(text)) => {
            head(TAG, BASE64, out);
            let bytes = unbase64(text);
            head(BYTES, bytes.len() as u64, out);
            out.extend_from_slice(&bytes);
        }
        (_, value) => plain(value, out),
    }
}

fn plain(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Int(i) if *i < 0 => head(NEGATIVE, !*i as u64, out),
        Value::Int(i) => head(UNSIGNED, *i as u64, out),
        Value::Float(f) => float(*f, out),
        Value::Str(s) => string(s, out),
        Value::Array(items) => {
            head(ARRAY, items.len() as u64, out);
            items.iter().for_each(|item| plain(item, out));
        }
        Value::Object(map) => entries(map, out, |_, value, out| plain(value, out)),
    }
}

fn entries(map: &Map, out: &mut Vec<u8>, write: impl Fn(&str, &Value, &mut Vec<u8>)) {
    head(MAP, map.len() as u64, out);
    let mut entries: Vec<_> = map.iter().collect();
    // They are sorted by what they say, and are to be by how long they are first.
    entries.sort_by_key(|(key, _)| key.len());
    for (key, value) in entries {
        string(key, out);
        write(key, value, out);
    }
}

/// The body of a list as far as its items, of which `count` have to follow, each as [`write`] appends it.
pub fn list_head(api_version: &str, kind: &str, meta: &Value, count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(MAGIC);
    head(MAP, 4, &mut out);
    for (key, text) in [("kind", kind), ("apiVersion", api_version)] {
        string(key, &mut out);
        string(text, &mut out);
    }
    string("metadata", &mut out);
    plain(meta, &mut out);
    string("items", &mut out);
    head(ARRAY, count as u64, &mut out);
    out
}

/// One event of a watch, an item of a sequence (RFC 8742).
pub fn watch_frame(kind: &str, object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(MAGIC);
    head(MAP, 2, &mut out);
    string("type", &mut out);
    string(kind, &mut out);
    string("object", &mut out);
    whole(object, &mut out);
    out
}

fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let bytes = argument.to_be_bytes();
    let (info, used) = match argument {
        0..24 => (bytes[7], 0),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | info);
    out.extend_from_slice(&bytes[8 - used..]);
}

/// As upstream's: as bytes, which nobody has to look through for whether they are text.
fn string(text: &str, out: &mut Vec<u8>) {
    head(BYTES, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn float(float: f64, out: &mut Vec<u8>) {
    let single = float as f32;
    match half(single) {
        // No tree has what JSON cannot say.
        _ if !float.is_finite() => out.push(NULL),
        _ if f64::from(single) != float => {
            out.push(SIMPLE << 5 | DOUBLE);
            out.extend_from_slice(&float.to_be_bytes());
        }
        Some(bits) => {
            out.push(SIMPLE << 5 | HALF);
            out.extend_from_slice(&bits.to_be_bytes());
        }
        None => {
            out.push(SIMPLE << 5 | SINGLE);
            out.extend_from_slice(&single.to_be_bytes());
        }
    }
}

/// The same number in 16 bits, if they are enough for it.
fn half(float: f32) -> Option<u16> {
    let bits = float.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let (exponent, fraction) = ((bits >> 23 & 255) as i32 - 127, bits & 0x7f_ffff);
    match exponent {
        -127 if fraction == 0 => Some(sign),
        -14..=15 if fraction & 0x1fff == 0 => Some(sign | ((exponent + 15) as u16) << 10 | (fraction >> 13) as u16),
        // Less than the smallest with a leading one of its own.
        -24..=-15 => {
            let (whole, shift) = (fraction | 0x80_0000, -1 - exponent);
            (whole.trailing_zeros() as i32 >= shift).then(|| sign | (whole >> shift) as u16)
        }
        _ => None,
    }
}
