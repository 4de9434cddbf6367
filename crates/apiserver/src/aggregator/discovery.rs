//! What an extension server serves, in the form of aggregated discovery (KEP-3352).

use super::Remote;
use super::availability::get;
use crate::server::Server;
use canopus_api::{Value, json, value};
use std::collections::BTreeMap;

/// An `APIVersionDiscovery` out of the server's own `APIResourceList`.
pub async fn fetch(server: &Server, remote: &Remote) -> Result<Value, String> {
    let answer = get(server, remote, &remote.path()).await?;
    if !answer.status().is_success() {
        return Err(format!("bad status: {}", answer.status().as_u16()));
    }
    let list = json::parse(answer.body()).map_err(|e| e.to_string())?;
    Ok(version_discovery(&remote.group, &remote.version, &list))
}

/// Where the server says that the OpenAPI v3 document of its group version is; old ones have none.
pub async fn openapi(server: &Server, remote: &Remote) -> Option<String> {
    let answer = get(server, remote, "/openapi/v3").await.ok().filter(|a| a.status().is_success())?;
    let index = json::parse(answer.body()).ok()?;
    let path = remote.path();
    let own = format!("/openapi/v3{path}");
    let url = index["paths"][path.trim_start_matches('/')]["serverRelativeURL"].str();
    // Anything else would lead somewhere else.
    (url == own || url.starts_with(&format!("{own}?"))).then(|| url.to_string())
}

/// What is told of a server that has never answered.
pub fn unknown(version: &str) -> Value {
    value!({"version": version, "freshness": "Stale", "resources": []})
}

/// Turns `APIResourceList` into `APIVersionDiscovery` (upstream `ConvertGroupVersionIntoToDiscovery`).
fn version_discovery(group: &str, version: &str, list: &Value) -> Value {
    let kind = |r: &Value| {
        let or = |field: &str, otherwise: &str| {
            let said = r[field].str();
            if said.is_empty() { otherwise.to_string() } else { said.to_string() }
        };
        value!({"group": or("group", group), "version": or("version", version), "kind": r["kind"].str()})
    };
    let mut resources: BTreeMap<&str, Value> = BTreeMap::new();
    let (parts, own): (Vec<&Value>, Vec<&Value>) =
        list["resources"].items().iter().partition(|r| r["name"].str().contains('/'));
    for r in own {
        let mut entry = value!({
            "resource": r["name"].str(), "responseKind": kind(r),
            "scope": if r["namespaced"].bool() { "Namespaced" } else { "Cluster" },
            "singularResource": r["singularName"].str(), "verbs": r["verbs"].clone(),
        });
        for field in ["shortNames", "categories"] {
            if !r[field].is_empty() {
                entry.set(field, &r[field]);
            }
        }
        resources.insert(r["name"].str(), entry);
    }
    for r in parts {
        let Some((resource, part)) = r["name"].str().split_once('/') else { continue };
        // A subresource may come without its resource, whose scope then is all that is known.
        let entry = resources.entry(resource).or_insert_with(|| {
            value!({"resource": resource, "scope": if r["namespaced"].bool() { "Namespaced" } else { "Cluster" },
                "singularResource": "", "verbs": []})
        });
        let part = value!({"subresource": part, "responseKind": kind(r), "verbs": r["verbs"].clone()});
        entry.ensure_object().entry("subresources", || Value::Array(Vec::new())).ensure_array().push(part);
    }
    value!({"version": version, "freshness": "Current", "resources": resources.into_values().collect::<Value>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_aggregated() {
        let list = value!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["update"], "singularName": ""},
            {"name": "fischers", "singularName": "", "namespaced": false, "kind": "Fischer", "group": "other", "version": "v2", "verbs": []},
        ]});
        let found = version_discovery("wardle.example.com", "v1", &list);
        assert_eq!(
            found["resources"][0]["responseKind"],
            value!({"group": "other", "version": "v2", "kind": "Fischer"})
        );
        let flunders = &found["resources"][1];
        assert_eq!((flunders["scope"].str(), &flunders["shortNames"]), ("Namespaced", &value!(["fl"])));
        assert_eq!(flunders["subresources"][0]["subresource"].str(), "status");
        assert_eq!(flunders["responseKind"]["group"].str(), "wardle.example.com");
    }
}
