//! The `components/schemas` of an OpenAPI v3 document, as upstream publishes them.

use crate::{Descriptions, Field, FieldType, ListKind, Shape, TypeId};
use std::collections::BTreeMap;

/// Appends the JSON object of all schemas that `roots` need, themselves included.
pub fn openapi_v3_schemas(roots: &[TypeId], out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    openapi_v3_definitions(roots, &mut |name, schema| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        string(name, out);
        out.push(b':');
        out.extend_from_slice(schema);
    });
    out.push(b'}');
}

/// Hands over each schema that `roots` need, as JSON, in the order of their names.
pub fn openapi_v3_definitions(roots: &[TypeId], each: &mut dyn FnMut(&str, &[u8])) {
    let mut needed = BTreeMap::new();
    for root in roots {
        collect(*root, &mut needed);
    }
    let descriptions = Descriptions::inflate();
    let mut json = Vec::with_capacity(4096);
    for (name, ty) in &needed {
        json.clear();
        schema(*ty, &descriptions, &mut json);
        each(name, &json);
    }
}

fn collect(ty: TypeId, needed: &mut BTreeMap<&'static str, TypeId>) {
    if needed.insert(ty.get().name, ty).is_some() {
        return;
    }
    for field in ty.get().fields {
        let mut inner = &field.ty;
        while let FieldType::Array(of) | FieldType::Map(of) = inner {
            inner = of;
        }
        if let FieldType::Ref(of) = inner {
            collect(*of, needed);
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\r' => out.extend_from_slice(b"\\r"),
            c if c < ' ' => out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

fn schema(ty: TypeId, descriptions: &Descriptions, out: &mut Vec<u8>) {
    let ty_id = ty;
    let ty = ty.get();
    let mut texts = descriptions.of(ty_id);
    out.push(b'{');
    if let Some(text) = texts.next().filter(|t| !t.is_empty()) {
        out.extend_from_slice(b"\"description\":");
        string(text, out);
    }
    let shape = match ty.shape {
        Shape::Object | Shape::RawExtension | Shape::FieldsV1 => b"\"type\":\"object\"".as_slice(),
        Shape::Quantity => b"\"oneOf\":[{\"type\":\"string\"},{\"type\":\"number\"}]",
        Shape::IntOrString => b"\"format\":\"int-or-string\",\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]",
        Shape::Time | Shape::MicroTime => b"\"type\":\"string\",\"format\":\"date-time\"",
        // Anything at all: there is nothing to say.
        Shape::Any | Shape::Json => b"",
    };
    if !shape.is_empty() && out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.extend_from_slice(shape);
    if !ty.fields.is_empty() {
        out.extend_from_slice(b",\"properties\":{");
        for (i, (field, text)) in ty.fields.iter().zip(texts).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            string(field.name, out);
            out.push(b':');
            property(field, text, out);
        }
        out.push(b'}');
    }
    // Every object has metadata, yet upstream does not ask for it.
    let asked = |f: &&Field| f.required && !(f.name == "metadata" && ty.kind.is_some());
    let required: Vec<&str> = ty.fields.iter().filter(asked).map(|f| f.name).collect();
    if !required.is_empty() {
        out.extend_from_slice(b",\"required\":");
        strings(&required, out);
    }
    if ty.atomic {
        out.extend_from_slice(b",\"x-kubernetes-map-type\":\"atomic\"");
    }
    if let Some((group, version, kind)) = ty.kind {
        let gvk = format!(
            ",\"x-kubernetes-group-version-kind\":[{{\"group\":\"{group}\",\"kind\":\"{kind}\",\"version\":\"{version}\"}}]"
        );
        out.extend_from_slice(gvk.as_bytes());
    }
    out.push(b'}');
}

fn strings(list: &[&str], out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, text) in list.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(text, out);
    }
    out.push(b']');
}

fn property(field: &Field, text: &str, out: &mut Vec<u8>) {
    let (text, values) = text.split_once('\x01').unwrap_or((text, ""));
    let values: Vec<&str> =
        values.strip_prefix('|').and_then(|v| v.strip_suffix('|')).map_or(Vec::new(), |v| v.split('|').collect());
    out.push(b'{');
    if !text.is_empty() {
        out.extend_from_slice(b"\"description\":");
        string(text, out);
        out.push(b',');
    }
    field_type(&field.ty, out);
    if !values.is_empty() {
        // Of a list, it is the items that take them; its type ends in their closing brace.
        let of_items = matches!(field.ty, FieldType::Array(_)) && out.pop().is_some();
        out.extend_from_slice(b",\"enum\":");
        strings(&values, out);
        if of_items {
            out.push(b'}');
        }
    }
    if let Some(default) = field.default {
        out.extend_from_slice(b",\"default\":");
        out.extend_from_slice(default.as_bytes());
    }
    match field.list {
        ListKind::Map(keys) => {
            out.extend_from_slice(b",\"x-kubernetes-list-type\":\"map\",\"x-kubernetes-list-map-keys\":");
            strings(keys, out);
        }
        ListKind::Set => out.extend_from_slice(b",\"x-kubernetes-list-type\":\"set\""),
        ListKind::Atomic if field.listed && matches!(field.ty, FieldType::Array(_)) => {
            out.extend_from_slice(b",\"x-kubernetes-list-type\":\"atomic\"");
        }
        ListKind::Atomic => {}
    }
    if let Some(atomic) = field.map_atomic {
        out.extend_from_slice(b",\"x-kubernetes-map-type\":");
        string(if atomic { "atomic" } else { "granular" }, out);
    }
    if let Some(key) = field.patch.merge_key {
        out.extend_from_slice(b",\"x-kubernetes-patch-merge-key\":");
        string(key, out);
    }
    let strategies =
        [(field.patch.merge, "merge"), (field.patch.replace, "replace"), (field.patch.retain_keys, "retainKeys")];
    let strategies: Vec<&str> = strategies.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    if !strategies.is_empty() {
        out.extend_from_slice(b",\"x-kubernetes-patch-strategy\":");
        string(&strategies.join(","), out);
    }
    out.push(b'}');
}

/// The type of a list's or map's elements: a reference has no neighbours here.
fn element(ty: &FieldType, out: &mut Vec<u8>) {
    match ty {
        FieldType::Ref(of) => {
            out.extend_from_slice(b"\"$ref\":\"#/components/schemas/");
            out.extend_from_slice(of.get().name.as_bytes());
            out.push(b'"');
        }
        other => field_type(other, out),
    }
}

/// The type part of a property, without braces.
fn field_type(ty: &FieldType, out: &mut Vec<u8>) {
    match ty {
        FieldType::Ref(of) => {
            out.extend_from_slice(b"\"allOf\":[{\"$ref\":\"#/components/schemas/");
            out.extend_from_slice(of.get().name.as_bytes());
            out.extend_from_slice(b"\"}]");
        }
        FieldType::String => out.extend_from_slice(b"\"type\":\"string\""),
        FieldType::Bytes => out.extend_from_slice(b"\"type\":\"string\",\"format\":\"byte\""),
        FieldType::Int32 => out.extend_from_slice(b"\"type\":\"integer\",\"format\":\"int32\""),
        FieldType::Int64 => out.extend_from_slice(b"\"type\":\"integer\",\"format\":\"int64\""),
        FieldType::Double => out.extend_from_slice(b"\"type\":\"number\",\"format\":\"double\""),
        FieldType::Bool => out.extend_from_slice(b"\"type\":\"boolean\""),
        FieldType::Any => out.extend_from_slice(b"\"x-kubernetes-preserve-unknown-fields\":true"),
        FieldType::Array(of) => {
            out.extend_from_slice(b"\"type\":\"array\",\"items\":{");
            element(of, out);
            out.push(b'}');
        }
        FieldType::Map(of) => {
            out.extend_from_slice(b"\"type\":\"object\",\"additionalProperties\":{");
            element(of, out);
            out.push(b'}');
        }
    }
}
