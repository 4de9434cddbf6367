//! `/openapi/v2`: everything in one document, as JSON and as gnostic's messages. It is large and rarely asked for: it is made
//! when somebody wants it and kept compressed until what is served changes.

use super::{gnostic, render};
use crate::catalog::Table;
use crate::http::{Body, empty};
use canopus_api::{Map, Value, json, value};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What clients may ask for, and what they get. The form with an @ is not a proper media type, and what they ask for.
const TYPES: &[(&str, &str)] =
    &[(JSON, JSON), ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", PROTOBUF), (PROTOBUF, PROTOBUF)];

/// The documents of one state of what is served, compressed, by media type.
#[derive(Default)]
pub struct Documents {
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    etag: String,
    by_type: BTreeMap<&'static str, Arc<[u8]>>,
}

impl Documents {
    fn get(&self, etag: &str, kind: &'static str, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Arc<[u8]>> {
        // Held while the document is made: who asks at the same time waits instead of making another.
        let mut made = self.made.lock();
        if made.etag != etag {
            *made = Made { etag: etag.to_string(), by_type: BTreeMap::new() };
        }
        if let Some(known) = made.by_type.get(kind) {
            return Ok(known.clone());
        }
        let bytes: Arc<[u8]> = make()?.into();
        made.by_type.insert(kind, bytes.clone());
        Ok(bytes)
    }
}

/// Takes its time when the document has to be made.
pub fn answer(table: &Table, headers: &HeaderMap) -> Response<Body> {
    let offered: Vec<&str> = TYPES.iter().map(|(asked, _)| *asked).collect();
    let chosen = crate::http::negotiate::preferred(headers, &offered);
    let mut response = match chosen.and_then(|i| TYPES.get(i)) {
        Some((_, kind)) => document(table, headers, kind).unwrap_or_else(|error| {
            tracing::error!(%error, "OpenAPI v2 could not be made");
            code(StatusCode::SERVICE_UNAVAILABLE)
        }),
        None => code(StatusCode::NOT_ACCEPTABLE),
    };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn code(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = code;
    response
}

fn document(table: &Table, headers: &HeaderMap, kind: &'static str) -> io::Result<Response<Body>> {
    let etag = etag(table);
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let mut response = if known {
        code(StatusCode::NOT_MODIFIED)
    } else {
        let packed = table.openapi().v2.get(&etag, kind, || match kind {
            PROTOBUF => messages(table),
            _ => text(table),
        })?;
        super::unpacked(headers, &packed)?
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

/// What the document says follows from the documents of v3.
fn etag(table: &Table) -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha512::new();
    for group in &table.groups() {
        for version in group.versions.iter().filter(|v| v.delegated.is_none()) {
            hash.update(super::hash_of(table, group.name, version));
        }
    }
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02X}")).collect();
    format!("\"{hex}\"")
}

/// Hands over every path and then every definition, one by one: as trees, all of them would take up many megabytes.
fn parts(
    table: &Table,
    mut path: impl FnMut(&str, Value) -> io::Result<()>,
    definition: &mut dyn FnMut(&str, Value) -> io::Result<()>,
) -> io::Result<()> {
    let mut roots = Vec::new();
    let mut custom = BTreeMap::new();
    let mut items = BTreeMap::new();
    for group in &table.groups() {
        for version in group.versions.iter().filter(|v| v.delegated.is_none()) {
            let described = super::Described::of(group.name, version);
            for item in described.paths() {
                let rendered = render::v2(&item, described.types(table.members.cbor), group.name, version.name);
                items.insert(item.path.clone(), json::to_vec(&rendered));
            }
            roots.extend(described.roots);
            custom.extend(described.custom);
        }
    }
    for (name, item) in items {
        path(&name, json::parse(&item).unwrap_or_default())?;
    }
    let mut failed = Ok(());
    canopus_schema::openapi_v3_definitions(&roots, &mut |name, schema| {
        if failed.is_ok() {
            failed = definition(name, older(json::parse(schema).unwrap_or_default()));
        }
    });
    failed?;
    custom.into_iter().try_for_each(|(name, schema)| definition(&name, custom_root(schema)))
}

pub fn security() -> (Value, Value) {
    let token = value!({
        "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
    });
    (value!({"BearerToken": token}), value!([{"BearerToken": []}]))
}

fn text(table: &Table) -> io::Result<Vec<u8>> {
    let out = std::cell::RefCell::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let entry = |first: &mut bool, name: &str, value: &Value| {
        let mut line = if std::mem::take(first) { Vec::new() } else { vec![b','] };
        json::write(&name.into(), &mut line);
        line.push(b':');
        json::write(value, &mut line);
        out.borrow_mut().write_all(&line)
    };
    let info = json::to_string(&value!({"title": "Kubernetes", "version": (super::VERSION)}));
    out.borrow_mut().write_all(format!("{{\"swagger\":\"2.0\",\"info\":{info},\"paths\":{{").as_bytes())?;
    let (mut first_path, mut first_definition) = (true, true);
    parts(table, |name, item| entry(&mut first_path, name, &item), &mut |name, schema| {
        if first_definition {
            out.borrow_mut().write_all(b"},\"definitions\":{")?;
        }
        entry(&mut first_definition, name, &schema)
    })?;
    let (definitions, security) = security();
    let tail = format!(
        "}},\"securityDefinitions\":{},\"security\":{}}}",
        json::to_string(&definitions),
        json::to_string(&security)
    );
    let mut out = out.into_inner();
    out.write_all(tail.as_bytes())?;
    out.finish()
}

fn messages(table: &Table) -> io::Result<Vec<u8>> {
    let (mut paths, mut definitions) = (Vec::new(), Vec::new());
    parts(
        table,
        |name, item| {
            paths.extend(gnostic::path(name, &item));
            Ok(())
        },
        &mut |name, schema| {
            definitions.extend(gnostic::definition(name, &schema));
            Ok(())
        },
    )?;
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(&gnostic::head("Kubernetes", super::VERSION))?;
    for (number, part) in [(8, paths), (9, definitions)] {
        out.write_all(&gnostic::part(number, part.len()))?;
        out.write_all(&part)?;
    }
    let (definitions, security) = security();
    out.write_all(&gnostic::tail(&definitions, &security))?;
    out.finish()
}

/// The schema of a custom resource. One that keeps unknown fields names none, not even `metadata`: kubectl would refuse
/// all others.
fn custom_root(mut schema: Value) -> Value {
    if schema["x-kubernetes-preserve-unknown-fields"].bool() {
        let named = |name: &str| matches!(name, "x-kubernetes-group-version-kind" | "x-kubernetes-selectable-fields");
        schema.ensure_object().retain(|name, _| named(name));
        schema.set("type", "object");
    }
    older(schema)
}

/// A schema of v3 as v2 can say it: what it has no words for is left out (upstream `ToStructuralOpenAPIV2`).
fn older(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else { return schema };
    // A reference has no neighbours in v3, so that it is wrapped; in v2 it has.
    let wrapped = schema.get("allOf").and_then(|all| all.items().first()).and_then(|only| only.get("$ref")).cloned();
    if let Some(reference) = wrapped.or_else(|| schema.get("$ref").cloned()) {
        schema.insert("$ref", reference.str().replacen("#/components/schemas/", "#/definitions/", 1));
    }
    let choice = schema.get("oneOf").is_some();
    for gone in ["allOf", "anyOf", "oneOf", "not", "default"] {
        schema.remove(gone);
    }
    if choice && !schema.contains_key("type") {
        // Quantity and IntOrString.
        schema.insert("type", "string");
    }
    let unknown = schema.get("x-kubernetes-preserve-unknown-fields").is_some_and(Value::bool);
    if schema.remove("nullable").is_some_and(|v| v.bool()) {
        ["type", "items", "properties", "additionalProperties"].iter().for_each(|gone| drop(schema.remove(gone)));
    }
    if unknown {
        ["items", "properties"].iter().for_each(|gone| drop(schema.remove(gone)));
        if schema.get("x-kubernetes-embedded-resource").is_some_and(Value::bool) {
            unrequire(&mut schema, |name| !matches!(name, "kind" | "apiVersion"));
        }
    }
    let kind = schema.get("type").map(|kind| kind.str().to_string()).unwrap_or_default();
    if kind == "array" && !schema.contains_key("items") || kind == "object" && unknown {
        schema.remove("type");
    }
    without_nullable(&mut schema);
    for inner in ["items", "additionalProperties"] {
        if let Some(value) = schema.remove(inner) {
            schema.insert(inner, older(value));
        }
    }
    if let Some(Value::Object(properties)) = schema.remove("properties") {
        let properties: Map = properties.into_iter().map(|(name, property)| (name, older(property))).collect();
        schema.insert("properties", properties);
    }
    Value::Object(schema)
}

/// Properties that may be null cannot be required where null cannot be said.
fn without_nullable(schema: &mut Map) {
    let nullable = |property: &Value| property["nullable"].bool();
    if schema.get("additionalProperties").is_some_and(nullable) {
        schema.remove("required");
    } else if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let may_be_null: Vec<String> =
            properties.iter().filter(|(_, property)| nullable(property)).map(|(name, _)| name.to_string()).collect();
        unrequire(schema, |name| !may_be_null.iter().any(|known| known == name));
    }
}

fn unrequire(schema: &mut Map, keep: impl Fn(&str) -> bool) {
    let Some(required) = schema.get("required") else { return };
    let kept: Vec<Value> = required.items().iter().filter(|name| keep(name.str())).cloned().collect();
    if kept.is_empty() {
        schema.remove("required");
    } else {
        schema.insert("required", kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v2_has_no_words_for() {
        for (newer, expected) in [
            (
                value!({"description": "d", "allOf": [{"$ref": "#/components/schemas/a.B"}], "default": {}}),
                value!({"description": "d", "$ref": "#/definitions/a.B"}),
            ),
            (value!({"oneOf": [{"type": "string"}, {"type": "number"}]}), value!({"type": "string"})),
            (
                value!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true}),
                value!({"x-kubernetes-int-or-string": true}),
            ),
            (
                value!({"type": "object", "properties": {"a": {"type": "string"}},
                    "x-kubernetes-preserve-unknown-fields": true}),
                value!({"x-kubernetes-preserve-unknown-fields": true}),
            ),
            (
                value!({"type": "object", "required": ["a", "b"],
                    "properties": {"a": {"type": "string", "nullable": true}, "b": {"type": "array"}}}),
                value!({"type": "object", "required": ["b"], "properties": {"a": {}, "b": {}}}),
            ),
        ] {
            assert_eq!(older(newer), expected);
        }
    }

    #[test]
    fn custom_resources_that_keep_unknown_fields() {
        let gvk = value!([{"group": "g", "version": "v1", "kind": "K"}]);
        let given = value!({"type": "object", "description": "d", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"metadata": {}}, "x-kubernetes-group-version-kind": (gvk.clone())});
        let expected = value!({"type": "object", "x-kubernetes-group-version-kind": gvk});
        assert_eq!(custom_root(given), expected);
        let embedded = value!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-embedded-resource": true, "required": ["kind", "apiVersion", "spec"]});
        assert_eq!(older(embedded)["required"], value!(["spec"]));
    }
}
