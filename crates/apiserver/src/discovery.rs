//! What is served: `/api`, `/apis`, each group version, and all at once (aggregated discovery, KEP-3352).

use crate::http::negotiate::Encoding;
use crate::http::{Body, negotiate, text_response};
use canopus_api::{Result, Status, Value, json, protobuf, value, yaml};
use canopus_resources::{ALL, Info, Verb};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use std::sync::LazyLock;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_YAML: &str = "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_PROTOBUF: &str =
    "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Group priorities as upstream orders them: the core group, then these, then the rest by name.
const ORDER: &[&str] = &["apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io"];

/// (group, its versions), in the order discovery lists them.
fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for resource in ALL {
        let info = resource.info();
        match groups.iter_mut().find(|(g, _)| *g == info.group) {
            Some((_, versions)) if versions.contains(&info.version) => {}
            Some((_, versions)) => versions.push(info.version),
            None => groups.push((info.group, vec![info.version])),
        }
    }
    groups.sort_by_key(|(g, _)| ORDER.iter().position(|o| o == g).unwrap_or(ORDER.len()));
    groups
}

fn members(group: &str, version: &str) -> impl Iterator<Item = &'static Info> {
    ALL.iter().map(|r| r.info()).filter(move |i| (i.group, i.version) == (group, version))
}

fn verbs(verbs: &[Verb]) -> Value {
    verbs.iter().map(|v| v.name()).collect()
}

fn strings(list: &[&str]) -> Value {
    list.iter().copied().collect()
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// `APIResourceList` of one group version.
fn resource_list(group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for info in members(group, version) {
        let mut entry = value!({
            "name": info.plural, "singularName": singular(info), "namespaced": info.namespaced, "kind": info.kind,
            "verbs": verbs(info.verbs),
        });
        if !info.short_names.is_empty() {
            entry.set("shortNames", strings(info.short_names));
        }
        if !info.categories.is_empty() {
            entry.set("categories", strings(info.categories));
        }
        if info.stored {
            entry.set("storageVersionHash", storage_hash(info));
        }
        resources.push(entry);
        for sub in info.subresources {
            let mut entry = value!({
                "name": format!("{}/{}", info.plural, sub.name), "singularName": "", "namespaced": info.namespaced,
                "kind": sub.kind.2, "verbs": verbs(sub.verbs),
            });
            if (sub.kind.0, sub.kind.1) != (group, version) {
                entry.set("group", sub.kind.0);
                entry.set("version", sub.kind.1);
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return None;
    }
    resources.sort_by(|a, b| a["name"].str().cmp(b["name"].str()));
    Some(value!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version),
        "resources": Value::Array(resources),
    }))
}

fn singular(info: &Info) -> String {
    if info.singular.is_empty() { info.kind.to_ascii_lowercase() } else { info.singular.into() }
}

/// Tells clients whether the stored form changed: base64 of a hash of group/version/kind, as upstream.
fn storage_hash(info: &Info) -> String {
    use base64::Engine;
    use sha2::Digest;
    let hash = sha2::Sha256::digest(format!("{}/{}/{}", info.group, info.version, info.kind));
    base64::engine::general_purpose::STANDARD.encode(&hash[..8])
}

fn group_value(group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> =
        versions.iter().map(|v| value!({"groupVersion": api_version(group, v), "version": *v})).collect();
    value!({"name": group, "preferredVersion": versions[0].clone(), "versions": versions})
}

fn group_list() -> Value {
    let groups = groups().into_iter().filter(|(g, _)| !g.is_empty());
    value!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.map(|(g, v)| group_value(g, &v)).collect::<Value>()})
}

/// `APIGroupDiscoveryList` of the core group or of all others.
fn aggregated(core: bool) -> Value {
    let groups = groups().into_iter().filter(|(g, _)| g.is_empty() == core);
    let items = groups.map(|(group, versions)| {
        let versions = versions.into_iter().map(|version| {
            let mut resources: Vec<Value> = members(group, version).map(aggregated_resource).collect();
            resources.sort_by(|a, b| a["resource"].str().cmp(b["resource"].str()));
            value!({"version": version, "freshness": "Current", "resources": resources})
        });
        value!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions.collect::<Value>()})
    });
    value!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items.collect::<Value>(),
    })
}

fn aggregated_resource(info: &'static Info) -> Value {
    let kind = |(group, version, kind): (&str, &str, &str)| value!({"group": group, "version": version, "kind": kind});
    let mut entry = value!({
        "resource": info.plural, "responseKind": kind((info.group, info.version, info.kind)),
        "scope": if info.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": singular(info), "verbs": verbs(info.verbs),
    });
    if !info.short_names.is_empty() {
        entry.set("shortNames", strings(info.short_names));
    }
    if !info.categories.is_empty() {
        entry.set("categories", strings(info.categories));
    }
    let mut subresources: Vec<Value> = info
        .subresources
        .iter()
        .map(|s| value!({"subresource": s.name, "responseKind": kind(s.kind), "verbs": verbs(s.verbs)}))
        .collect();
    if !subresources.is_empty() {
        subresources.sort_by(|a, b| a["subresource"].str().cmp(b["subresource"].str()));
        entry.set("subresources", Value::Array(subresources));
    }
    entry
}

/// An answer that never changes while the process lives, and its etag.
struct Fixed {
    bytes: Vec<u8>,
    etag: String,
}

impl Fixed {
    fn new(value: &Value) -> Fixed {
        use sha2::Digest;
        let bytes = json::to_vec(value);
        let hash = sha2::Sha512::digest(&bytes);
        let etag = hash.iter().map(|b| format!("{b:02X}")).collect();
        Fixed { bytes, etag }
    }
}

static CORE: LazyLock<Fixed> = LazyLock::new(|| Fixed::new(&aggregated(true)));
static GROUPS: LazyLock<Fixed> = LazyLock::new(|| Fixed::new(&aggregated(false)));

/// `parts` is the path: `["apis", "apps", "v1"]`.
pub fn answer(headers: &HeaderMap, parts: &[&str]) -> Result<Response<Body>> {
    if let ["api" | "apis"] = parts
        && let Some(encoding) = negotiate::aggregated(headers)
    {
        return Ok(fixed(headers, encoding, if parts[0] == "api" { &CORE } else { &GROUPS }));
    }
    let value = match parts {
        ["api"] => value!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        }),
        ["api", version] => resource_list("", version).ok_or_else(Status::no_such_resource)?,
        ["apis"] => group_list(),
        ["apis", group] => {
            let (group, versions) =
                groups().into_iter().find(|(g, _)| g == group && !g.is_empty()).ok_or_else(Status::no_such_resource)?;
            let mut value = group_value(group, &versions);
            value.set("kind", "APIGroup");
            value.set("apiVersion", "v1");
            value
        }
        ["apis", group, version] => resource_list(group, version).ok_or_else(Status::no_such_resource)?,
        _ => return Err(Status::no_such_resource()),
    };
    Ok(negotiate::respond(negotiate::accept(headers, "", negotiate::Offer::PLAIN)?, StatusCode::OK, &value))
}

fn fixed(headers: &HeaderMap, encoding: Encoding, answer: &Fixed) -> Response<Body> {
    let etag = format!("\"{}\"", answer.etag);
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(crate::http::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let value = || json::parse(&answer.bytes).unwrap_or_default();
        let (kind, bytes) = match encoding {
            Encoding::Json => (AGGREGATED, answer.bytes.clone()),
            Encoding::Yaml => (AGGREGATED_YAML, yaml::to_yaml(&value()).into_bytes()),
            Encoding::Protobuf => (AGGREGATED_PROTOBUF, protobuf::encode(&value()).unwrap_or_default()),
        };
        text_response(StatusCode::OK, kind, bytes)
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// `/version`: the version of the API that is served.
pub fn version() -> Value {
    value!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35", "gitVersion": format!("v1.36.2+canopus-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

/// `/`: the paths there are.
pub fn root_paths() -> Value {
    let mut paths = vec!["/api".to_string(), "/api/v1".into(), "/apis".into()];
    for (group, versions) in groups().into_iter().filter(|(g, _)| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
    }
    paths.extend(["/.well-known/openid-configuration", "/openid/v1/jwks"].map(String::from));
    paths.extend(["/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"].map(String::from));
    paths.sort();
    value!({"paths": paths})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_discoverable_both_ways() {
        let text = json::to_string(&aggregated(true)) + &json::to_string(&aggregated(false));
        for resource in ALL {
            let info = resource.info();
            let list = resource_list(info.group, info.version).unwrap();
            assert!(list["resources"].items().iter().any(|r| r["name"].str() == info.plural), "{}", info.plural);
            assert!(text.contains(&format!("\"resource\":\"{}\"", info.plural)), "{}", info.plural);
        }
    }
}
