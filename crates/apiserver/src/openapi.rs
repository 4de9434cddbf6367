//! OpenAPI v3: what `kubectl explain` and client-side validation read.

use crate::catalog::{Table, Version};
use crate::http::{Body, empty, json_response};
use canopus_api::{Result, Status, json, value};
use canopus_resources::{InfoOf, Verb};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use sha2::Digest;
use std::collections::HashMap;
use std::sync::Arc;

/// The documents that were asked for, by path, each with its hash. Documents are large and rarely asked for: each is made
/// when first wanted, and again when what it describes has changed.
#[derive(Default)]
pub struct OpenApi {
    made: Mutex<HashMap<String, Document>>,
}

/// Its hash and its bytes.
type Document = (String, Arc<Vec<u8>>);

/// The path of a group version's document under `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

pub fn answer(table: &Table, headers: &HeaderMap, rest: &[&str], hash: &str) -> Result<Response<Body>> {
    let groups = table.groups();
    let mut documents = groups.iter().flat_map(|group| group.versions.iter().map(move |v| (group.name, v)));
    if rest.is_empty() {
        let mut paths = canopus_api::Map::new();
        for (group, version) in documents.filter(|(_, v)| v.delegated.is_none()) {
            let path = path_of(group, version.name);
            let url = format!("/openapi/v3/{path}?hash={}", hash_of(group, version));
            paths.insert(path, value!({"serverRelativeURL": url}));
        }
        return Ok(json_response(json::to_vec(&value!({"paths": paths}))));
    }
    let path = rest.join("/");
    let found = documents.find(|(group, v)| v.delegated.is_none() && path_of(group, v.name) == path);
    let (group, version) = found.ok_or_else(Status::no_such_resource)?;
    let current = hash_of(group, version);
    let etag = format!("\"{current}\"");
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        json_response(table.openapi().document(&path, &current, || document(group, version)).to_vec())
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    if hash == current {
        // A URL with a hash in it never changes what it says.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(response)
}

/// More documents than this are not remembered.
const REMEMBERED: usize = 256;

impl OpenApi {
    fn document(&self, path: &str, hash: &str, make: impl FnOnce() -> Vec<u8>) -> Arc<Vec<u8>> {
        if let Some((_, bytes)) = self.made.lock().get(path).filter(|(made, _)| made == hash) {
            return bytes.clone();
        }
        let bytes = Arc::new(make());
        let mut made = self.made.lock();
        if made.len() >= REMEMBERED {
            made.clear();
        }
        made.insert(path.to_string(), (hash.to_string(), bytes.clone()));
        bytes
    }
}

/// What a document says follows from the program and the definitions of its resources.
fn hash_of(group: &str, version: &Version) -> String {
    let mut hash = sha2::Sha256::new();
    hash.update(format!("{} {group}/{}", env!("CARGO_PKG_VERSION"), version.name));
    for served in &version.resources {
        hash.update(format!(" {} {}", served.info().plural, served.fingerprint));
    }
    hash.finalize().iter().map(|b| format!("{b:02X}")).collect()
}

fn document(group: &str, version: &Version) -> Vec<u8> {
    let infos: Vec<&InfoOf> = version.resources.iter().map(|served| served.info()).collect();
    let mut roots = Vec::new();
    let mut custom = Vec::new();
    for (served, info) in version.resources.iter().zip(&infos) {
        roots.extend(canopus_schema::kind(group, version.name, info.kind));
        roots.extend(canopus_schema::kind(group, version.name, &format!("{}List", info.kind)));
        roots.extend(info.subresources.iter().filter_map(|s| canopus_schema::kind(s.kind.0, s.kind.1, s.kind.2)));
        custom.extend(served.resource.definitions());
    }
    let meta = |name: &str| canopus_schema::lookup(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"));
    roots.extend(meta("DeleteOptions"));
    roots.extend(meta("Status"));
    if !custom.is_empty() {
        roots.extend(["ObjectMeta", "ListMeta"].into_iter().filter_map(meta));
    }
    let mut out =
        b"{\"openapi\":\"3.0.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":\"v1.36.2\"},\"paths\":".to_vec();
    json::write(&paths(group, version.name, &infos), &mut out);
    out.extend_from_slice(b",\"components\":{\"schemas\":");
    canopus_schema::openapi_v3_schemas(&roots, &mut out);
    if !custom.is_empty() {
        out.pop();
        for (name, definition) in custom {
            out.push(b',');
            json::write(&value!(name), &mut out);
            out.push(b':');
            json::write(&definition, &mut out);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"}}");
    out
}

/// The operations: enough for clients to find the kinds and what they can do with them.
fn paths(group: &str, version: &str, infos: &[&InfoOf]) -> canopus_api::Value {
    let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let mut paths = canopus_api::Value::object();
    for info in infos {
        let scope = if info.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{base}{scope}/{}", info.plural);
        for verb in info.verbs {
            let (path, method, action) = match verb {
                Verb::Create => (collection.clone(), "post", "post"),
                Verb::List => (collection.clone(), "get", "list"),
                Verb::DeleteCollection => (collection.clone(), "delete", "deletecollection"),
                Verb::Get => (format!("{collection}/{{name}}"), "get", "get"),
                Verb::Update => (format!("{collection}/{{name}}"), "put", "put"),
                Verb::Patch => (format!("{collection}/{{name}}"), "patch", "patch"),
                Verb::Delete => (format!("{collection}/{{name}}"), "delete", "delete"),
                Verb::Watch => continue,
            };
            let operation = operation(info, method, action);
            paths.obj_mut(&path).insert(method, operation);
        }
    }
    paths
}

fn operation(info: &InfoOf, method: &str, action: &str) -> canopus_api::Value {
    let parameters = [
        ("dryRun", matches!(action, "post" | "put" | "patch" | "delete" | "deletecollection")),
        ("fieldManager", matches!(action, "post" | "put" | "patch")),
        ("fieldValidation", matches!(action, "post" | "put" | "patch")),
    ];
    let parameters = parameters
        .iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| value!({"name": *name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}));
    value!({
        "operationId": format!("{method}{}{}", info.kind, action),
        "parameters": parameters.collect::<canopus_api::Value>(),
        "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": info.group, "kind": info.kind, "version": info.version},
    })
}
