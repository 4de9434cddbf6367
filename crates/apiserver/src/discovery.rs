//! What is served: `/api`, `/apis`, each group version, and all at once (aggregated discovery, KEP-3352).

use crate::catalog::{Group, Table, Version};
use crate::http::negotiate::Encoding;
use crate::http::{Body, negotiate, text_response};
use crate::served::Served;
use canopus_api::{Result, Status, Value, json, protobuf, value, yaml};
use canopus_resources::{InfoOf, Verb};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use std::collections::BTreeMap;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_YAML: &str = "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_PROTOBUF: &str =
    "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

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
fn resource_list(group: &str, version: &Version) -> Value {
    let mut resources = Vec::new();
    for served in &version.resources {
        let info = served.info();
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
            entry.set("storageVersionHash", storage_hash(served));
        }
        resources.push(entry);
        for sub in info.subresources {
            let mut entry = value!({
                "name": format!("{}/{}", info.plural, sub.name), "singularName": "", "namespaced": info.namespaced,
                "kind": sub.kind.2, "verbs": verbs(sub.verbs),
            });
            if (sub.kind.0, sub.kind.1) != (group, version.name) {
                entry.set("group", sub.kind.0);
                entry.set("version", sub.kind.1);
            }
            resources.push(entry);
        }
    }
    resources.sort_by(|a, b| a["name"].str().cmp(b["name"].str()));
    let mut list = value!({
        "kind": "APIResourceList", "groupVersion": api_version(group, version.name), "resources": Value::Array(resources),
    });
    // Upstream's oldest group leaves it out.
    if !group.is_empty() {
        list.set("apiVersion", "v1");
    }
    list
}

fn singular(info: &InfoOf) -> String {
    if info.singular.is_empty() { info.kind.to_ascii_lowercase() } else { info.singular.into() }
}

/// Tells clients whether the stored form changed: base64 of a hash of group/version/kind, as upstream.
fn storage_hash(served: &Served) -> String {
    use base64::Engine;
    use sha2::Digest;
    let info = served.stored_as.info();
    let hash = sha2::Sha256::digest(format!("{}/{}/{}", info.group, info.version, info.kind));
    base64::engine::general_purpose::STANDARD.encode(&hash[..8])
}

fn group_value(group: &Group) -> Value {
    let entry = |v: &Version| value!({"groupVersion": api_version(group.name, v.name), "version": v.name});
    let versions: Vec<Value> = group.versions.iter().map(entry).collect();
    value!({"name": group.name, "preferredVersion": versions[0].clone(), "versions": versions})
}

fn group_list(groups: &[Group]) -> Value {
    let groups = groups.iter().filter(|group| !group.name.is_empty());
    value!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.map(group_value).collect::<Value>()})
}

/// `APIGroupDiscoveryList` of the core group or of all others.
fn aggregated(groups: &[Group], core: bool, discovery_version: &str) -> Value {
    let groups = groups.iter().filter(|group| group.name.is_empty() == core);
    let items = groups.map(|group| {
        let versions = group.versions.iter().map(|version| match version.delegated {
            Some(delegated) => delegated.discovery.clone(),
            None => {
                let resources: Value = version.resources.iter().map(|s| aggregated_resource(s)).collect();
                value!({"version": version.name, "freshness": "Current", "resources": resources})
            }
        });
        let metadata = if core { value!({}) } else { value!({"name": group.name}) };
        value!({"metadata": metadata, "versions": versions.collect::<Value>()})
    });
    value!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{discovery_version}"),
        "metadata": {}, "items": items.collect::<Value>(),
    })
}

fn aggregated_resource(served: &Served) -> Value {
    let info = served.info();
    let custom = served.schema().table().is_none();
    let kind = |(group, version, kind): (&str, &str, &str)| {
        // Upstream's built-in resources leave out what follows from where they are.
        let (group, version) =
            if !custom && (group, version) == (info.group, info.version) { ("", "") } else { (group, version) };
        value!({"group": group, "version": version, "kind": kind})
    };
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

/// An answer that is the same for as long as a table is current, and its etag.
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

/// Everything that discovery says about one table.
pub struct Discovery {
    /// Aggregated, of the core group and of all others.
    core: Fixed,
    groups: Fixed,
    list: Value,
    /// By `group` and by `group/version`.
    group: BTreeMap<String, Value>,
    resources: BTreeMap<String, Value>,
}

impl Discovery {
    pub fn of(groups: &[Group]) -> Discovery {
        let mut group = BTreeMap::new();
        let mut resources = BTreeMap::new();
        for each in groups {
            let mut value = group_value(each);
            value.set("kind", "APIGroup");
            value.set("apiVersion", "v1");
            group.insert(each.name.to_string(), value);
            for version in each.versions.iter().filter(|v| v.delegated.is_none()) {
                resources.insert(format!("{}/{}", each.name, version.name), resource_list(each.name, version));
            }
        }
        Discovery {
            core: Fixed::new(&aggregated(groups, true, "v2")),
            groups: Fixed::new(&aggregated(groups, false, "v2")),
            list: group_list(groups),
            group,
            resources,
        }
    }
}

/// `parts` is the path: `["apis", "apps", "v1"]`.
pub fn answer(table: &Table, headers: &HeaderMap, parts: &[&str]) -> Result<Response<Body>> {
    let known = table.discovery();
    if let ["api" | "apis"] = parts
        && let Some(encoding) = negotiate::aggregated(headers)
    {
        return Ok(fixed(headers, encoding, if parts[0] == "api" { &known.core } else { &known.groups }));
    }
    let core;
    let value = match parts {
        ["api"] => {
            core = value!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
            });
            Some(&core)
        }
        ["api", version] => known.resources.get(&format!("/{version}")),
        ["apis"] => Some(&known.list),
        ["apis", group] if !group.is_empty() => known.group.get(*group),
        ["apis", group, version] if !group.is_empty() => known.resources.get(&format!("{group}/{version}")),
        _ => None,
    };
    let value = value.ok_or_else(Status::no_such_resource)?;
    Ok(negotiate::respond(
        negotiate::accept(headers, "", negotiate::Offer::plain(table.members.cbor))?,
        StatusCode::OK,
        value,
    ))
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
            // CBOR is never chosen: upstream has none of it.
            Encoding::Json | Encoding::Cbor => (AGGREGATED, answer.bytes.clone()),
            Encoding::Yaml => (AGGREGATED_YAML, yaml::to_yaml(&value()).into_bytes()),
            Encoding::Protobuf => (AGGREGATED_PROTOBUF, protobuf::encode(&value()).unwrap_or_default()),
        };
        text_response(StatusCode::OK, kind, bytes)
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
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

/// The paths there are of groups and documents.
pub fn root_paths(table: &Table) -> Vec<String> {
    let mut paths = vec!["/api".to_string(), "/api/v1".into(), "/apis".into()];
    for group in table.groups().iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{}", group.name, v.name)));
    }
    paths.extend(["/.well-known/openid-configuration", "/openid/v1/jwks"].map(String::from));
    paths.extend(["/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/version"].map(String::from));
    paths
}

#[cfg(test)]
#[path = "discovery/ga_tests.rs"]
mod ga_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_resource_is_discoverable_both_ways() {
        let runtime_config = crate::runtime_config::RuntimeConfig::parse(["api/all=true"]).unwrap();
        let settings = crate::Settings { runtime_config, ..Default::default() };
        let server = crate::testing::server_with(settings).await;
        let table = server.catalog.table();
        let text = json::to_string(&aggregated(&table.groups(), true, "v2"))
            + &json::to_string(&aggregated(&table.groups(), false, "v2"));
        for resource in canopus_resources::ALL.iter().filter(|r| r.info().gate.is_empty()) {
            let info = resource.info();
            let list = &table.discovery().resources[&format!("{}/{}", info.group, info.version)];
            assert!(list["resources"].items().iter().any(|r| r["name"].str() == info.plural), "{}", info.plural);
            assert!(text.contains(&format!("\"resource\":\"{}\"", info.plural)), "{}", info.plural);
        }
    }
}
