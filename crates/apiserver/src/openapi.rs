//! OpenAPI v3: what `kubectl explain` and client-side validation read.

use crate::http::{Body, empty, json_response};
use canopus_api::{Result, Status, json, value};
use canopus_resources::{ALL, Info, Verb};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use sha2::Digest;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// The paths under `/openapi/v3/` that have a document: `api/v1`, `apis/apps/v1`.
fn documents() -> BTreeMap<String, (&'static str, &'static str)> {
    ALL.iter()
        .map(|r| r.info())
        .map(|i| {
            let path = if i.group.is_empty() {
                format!("api/{}", i.version)
            } else {
                format!("apis/{}/{}", i.group, i.version)
            };
            (path, (i.group, i.version))
        })
        .collect()
}

/// Documents are large and rarely asked for: each is made when first wanted.
static MADE: LazyLock<Mutex<BTreeMap<String, Arc<Vec<u8>>>>> = LazyLock::new(Mutex::default);

pub fn answer(headers: &HeaderMap, rest: &[&str], hash: &str) -> Result<Response<Body>> {
    let documents = documents();
    if rest.is_empty() {
        let paths: canopus_api::Map = documents
            .keys()
            .map(|path| {
                let url = format!("/openapi/v3/{path}?hash={}", hash_of(path));
                (path.clone(), value!({"serverRelativeURL": url}))
            })
            .collect();
        return Ok(json_response(json::to_vec(&value!({"paths": paths}))));
    }
    let path = rest.join("/");
    let (group, version) = documents.get(&path).copied().ok_or_else(Status::no_such_resource)?;
    let etag = format!("\"{}\"", hash_of(&path));
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let made = MADE.lock().get(&path).cloned();
        let bytes = match made {
            Some(bytes) => bytes,
            None => {
                let bytes = Arc::new(document(group, version));
                MADE.lock().insert(path.clone(), bytes.clone());
                bytes
            }
        };
        json_response(bytes.to_vec())
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    if hash == hash_of(&path) {
        // A URL with a hash in it never changes what it says.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(response)
}

/// The documents only change with the program, so its version and the path identify them.
fn hash_of(path: &str) -> String {
    let hash = sha2::Sha256::digest(format!("{} {path} {}", env!("CARGO_PKG_VERSION"), ALL.len()));
    hash.iter().take(32).map(|b| format!("{b:02X}")).collect()
}

fn document(group: &str, version: &str) -> Vec<u8> {
    let infos: Vec<&Info> = ALL.iter().map(|r| r.info()).filter(|i| (i.group, i.version) == (group, version)).collect();
    let mut roots = Vec::new();
    for info in &infos {
        roots.extend(canopus_schema::kind(group, version, info.kind));
        roots.extend(canopus_schema::kind(group, version, &format!("{}List", info.kind)));
        roots.extend(info.subresources.iter().filter_map(|s| canopus_schema::kind(s.kind.0, s.kind.1, s.kind.2)));
    }
    roots.extend(canopus_schema::lookup("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"));
    roots.extend(canopus_schema::lookup("io.k8s.apimachinery.pkg.apis.meta.v1.Status"));
    let mut out =
        b"{\"openapi\":\"3.0.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":\"v1.36.2\"},\"paths\":".to_vec();
    json::write(&paths(group, version, &infos), &mut out);
    out.extend_from_slice(b",\"components\":{\"schemas\":");
    canopus_schema::openapi_v3_schemas(&roots, &mut out);
    out.extend_from_slice(b"}}");
    out
}

/// The operations: enough for clients to find the kinds and what they can do with them.
fn paths(group: &str, version: &str, infos: &[&Info]) -> canopus_api::Value {
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

fn operation(info: &Info, method: &str, action: &str) -> canopus_api::Value {
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
