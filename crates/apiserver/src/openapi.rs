//! OpenAPI v3: what `kubectl explain` and client-side validation read, as JSON or as messages.

mod gnostic;
mod parameters;
mod paths;
mod render;
pub mod v2;

use crate::catalog::{Table, Version};
use crate::http::resource::RETURNED;
use crate::http::{Body, empty, full, json_response, negotiate, takes_gzip};
use canopus_api::{Map, Result, Status, Value, json, value};
use canopus_resources::InfoOf;
use canopus_schema::TypeId;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use sha2::Digest;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// The documents that were asked for, by path and media type, each with its hash. Documents are large and rarely asked for: each is made
/// when first wanted, and again when what it describes has changed.
#[derive(Default)]
pub struct OpenApi {
    pub v2: v2::Documents,
    made: Mutex<HashMap<String, Document>>,
}

/// Its hash and its bytes.
type Document = (String, Arc<[u8]>);

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
/// What clients may ask for, and what they get. The form with an @ is not a proper media type.
const TYPES: &[(&str, &str)] =
    &[(JSON, JSON), (PROTOBUF, PROTOBUF), ("application/com.github.proto-openapi.spec.v3@v1.0+protobuf", PROTOBUF)];

/// The path of a group version's document under `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

pub fn answer(table: &Table, headers: &HeaderMap, rest: &[&str], hash: &str) -> Result<Response<Body>> {
    let groups = table.groups();
    let mut documents = groups.iter().flat_map(|group| group.versions.iter().map(move |v| (group.name, v)));
    if rest.is_empty() {
        let mut paths = canopus_api::Map::new();
        for (group, version) in documents {
            let path = path_of(group, version.name);
            let url = match version.delegated {
                None => Some(format!("/openapi/v3/{path}?hash={}", hash_of(table, group, version))),
                Some(other) => other.openapi.clone(),
            };
            if let Some(url) = url {
                paths.insert(path, value!({"serverRelativeURL": url}));
            }
        }
        return Ok(json_response(json::to_vec(&value!({"paths": paths}))));
    }
    let path = rest.join("/");
    let found = documents.find(|(group, v)| v.delegated.is_none() && path_of(group, v.name) == path);
    let (group, version) = found.ok_or_else(Status::no_such_resource)?;
    let offered: Vec<&str> = TYPES.iter().map(|(asked, _)| *asked).collect();
    let chosen = negotiate::preferred(headers, &offered).and_then(|i| TYPES.get(i));
    let Some((_, kind)) = chosen else {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        return Ok(response);
    };
    let current = hash_of(table, group, version);
    let etag = format!("\"{current}\"");
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let make = || {
            let text = Described::of(group, version).v3(table.members.cbor);
            match *kind {
                PROTOBUF => pack(&gnostic::v3::document(&json::parse(&text).map_err(io::Error::other)?)),
                _ => pack(&text),
            }
        };
        let document = table.openapi().document(&format!("{path} {kind}"), &current, make);
        let unpacked = document.and_then(|packed| unpacked(headers, &packed));
        let mut response = unpacked.map_err(Status::internal)?;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        response
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    if hash == current {
        // A URL with a hash in it never changes what it says.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(response)
}

/// Documents are kept compressed, as most clients take them.
fn pack(document: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(document)?;
    out.finish()
}

/// A document for a client that takes gzip or does not.
fn unpacked(headers: &HeaderMap, packed: &[u8]) -> io::Result<Response<Body>> {
    if takes_gzip(headers) {
        let mut response = Response::new(full(packed.to_vec()));
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        return Ok(response);
    }
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes)?;
    Ok(Response::new(full(bytes)))
}

/// The version of the API that the documents are about.
const VERSION: &str = "v1.36.2";

/// More documents than this are not remembered.
const REMEMBERED: usize = 256;

impl OpenApi {
    fn document(&self, path: &str, hash: &str, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Arc<[u8]>> {
        if let Some((_, bytes)) = self.made.lock().get(path).filter(|(made, _)| made == hash) {
            return Ok(bytes.clone());
        }
        let bytes: Arc<[u8]> = make()?.into();
        let mut made = self.made.lock();
        if made.len() >= REMEMBERED {
            made.clear();
        }
        made.insert(path.to_string(), (hash.to_string(), bytes.clone()));
        Ok(bytes)
    }
}

/// What a document says follows from the program and the definitions of its resources.
fn hash_of(table: &Table, group: &str, version: &Version) -> String {
    let mut hash = sha2::Sha256::new();
    hash.update(format!("{} {group}/{}", env!("CARGO_PKG_VERSION"), version.name));
    if table.members.cbor {
        hash.update(" cbor");
    }
    for served in &version.resources {
        hash.update(format!(" {} {}", served.info().plural, served.fingerprint));
    }
    hash.finalize().iter().map(|b| format!("{b:02X}")).collect()
}

/// What there is to say of a group version.
struct Described<'a> {
    group: &'a str,
    version: &'a str,
    infos: Vec<&'a InfoOf<'a>>,
    /// Types of the tables, which need others.
    roots: Vec<TypeId>,
    /// Definitions of custom resources.
    custom: Vec<(String, Value)>,
}

impl<'a> Described<'a> {
    fn of(group: &'a str, version: &Version<'a>) -> Described<'a> {
        let infos: Vec<&InfoOf> = version.resources.iter().map(|served| served.info()).collect();
        let mut roots = Vec::new();
        let mut custom = Vec::new();
        for (served, info) in version.resources.iter().zip(&infos) {
            roots.extend(canopus_schema::kind(group, version.name, info.kind));
            roots.extend(canopus_schema::kind(group, version.name, &format!("{}List", info.kind)));
            roots.extend(info.subresources.iter().filter_map(|s| canopus_schema::kind(s.kind.0, s.kind.1, s.kind.2)));
            custom.extend(served.resource.definitions());
        }
        let mut meta = vec!["DeleteOptions", "Patch", "Status", "WatchEvent"];
        if !custom.is_empty() {
            meta.extend(["ListMeta", "ObjectMeta"]);
        }
        roots.extend(meta.into_iter().filter_map(|name| canopus_schema::lookup(&paths::meta(name))));
        Described { group, version: version.name, infos, roots, custom }
    }

    fn types(&self, cbor: bool) -> render::Types {
        render::Types { custom: !self.custom.is_empty(), cbor }
    }

    fn paths(&self) -> impl Iterator<Item = paths::PathItem<'a>> {
        // A namespace is answered too, yet upstream does not say so.
        let returned = |info: &InfoOf| info.plural != "namespaces" && RETURNED.contains(&(info.group, info.plural));
        self.infos.iter().flat_map(move |info| paths::of(info, &returned))
    }

    fn v3(self, cbor: bool) -> Vec<u8> {
        let render = |item: &paths::PathItem| render::v3(item, self.types(cbor), self.group, self.version);
        let all: Map = self.paths().map(|item| (item.path.clone(), render(&item))).collect();
        let info = json::to_string(&value!({"title": "Kubernetes", "version": VERSION}));
        let mut out = format!("{{\"openapi\":\"3.0.0\",\"info\":{info},\"paths\":").into_bytes();
        json::write_map(&all, &mut out);
        out.extend_from_slice(b",\"components\":{\"schemas\":");
        canopus_schema::openapi_v3_schemas(&self.roots, &mut out);
        if !self.custom.is_empty() {
            out.pop();
            for (name, definition) in self.custom {
                out.push(b',');
                json::write(&value!(name), &mut out);
                out.push(b':');
                json::write(&definition, &mut out);
            }
            out.push(b'}');
        }
        out.extend_from_slice(b",\"securitySchemes\":");
        json::write(&v2::security().0, &mut out);
        out.extend_from_slice(b"}}");
        out
    }
}
