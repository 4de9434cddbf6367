//! What the cluster serves: which resource a word on the command line or an object's kind means.

use anyhow::{Result, bail};
use canopus_api::{Gvk, Gvr, Value};
use canopus_client::RemoteApi;
use http::Method;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    pub gvr: Gvr,
    pub kind: Gvk,
    pub namespaced: bool,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
}

impl Resource {
    /// `deployment.apps`, or `pod` for the core group: how messages name an object's type.
    pub fn title(&self) -> String {
        let kind = self.kind.kind.to_lowercase().to_string();
        if self.gvr.group.is_empty() { kind } else { format!("{kind}.{}", self.gvr.group) }
    }

    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

pub struct Discovery {
    /// Groups in the server's order, the preferred version of each first.
    resources: Vec<Resource>,
}

impl Discovery {
    pub async fn fetch(api: &RemoteApi) -> Result<Discovery> {
        let mut resources = Vec::new();
        for path in ["/api", "/apis"] {
            let list = api.call_accepting(Method::GET, path, AGGREGATED, "", Vec::new()).await?;
            if list["kind"].str() != "APIGroupDiscoveryList" {
                bail!("the server does not have aggregated discovery (it is older than Kubernetes 1.30)");
            }
            resources.extend(parse(&list));
        }
        Ok(Discovery { resources })
    }

    #[cfg(test)]
    pub fn of(lists: &[Value]) -> Discovery {
        Discovery { resources: lists.iter().flat_map(parse).collect() }
    }

    /// The resources that a word names: `pods`, `pod`, `po`, `Pod`, `deployments.apps`, `deployments.v1.apps`, or a
    /// category like `all`.
    pub fn named(&self, word: &str) -> Result<Vec<&Resource>> {
        let wanted = word.to_lowercase();
        let ways: [fn(&Resource, &str) -> bool; 4] = [
            |r, word| r.gvr.resource == word,
            |r, word| r.singular == word || r.kind.kind.to_lowercase() == word,
            |r, word| r.short_names.iter().any(|name| name == word),
            |r, word| {
                let Some((name, rest)) = word.split_once('.') else { return false };
                let is = name == r.gvr.resource || name == r.singular || r.short_names.iter().any(|s| s == name);
                let full = format!("{}.{}", r.gvr.version, r.gvr.group);
                is && (rest == r.gvr.group || rest == full || rest == full.trim_end_matches('.'))
            },
        ];
        for is in ways {
            if let Some(found) = self.resources.iter().find(|r| is(r, &wanted)) {
                return Ok(vec![found]);
            }
        }
        let mut of_category: Vec<&Resource> = Vec::new();
        for resource in self.resources.iter().filter(|r| r.categories.contains(&wanted) && r.can("list")) {
            // Other versions of the same are the same objects.
            if !of_category.iter().any(|r| r.gvr.group_resource() == resource.gvr.group_resource()) {
                of_category.push(resource);
            }
        }
        if of_category.is_empty() {
            bail!("the server doesn't have a resource type {word:?}");
        }
        Ok(of_category)
    }

    /// The resource for an object in a file.
    pub fn of_kind(&self, kind: &Gvk) -> Result<&Resource> {
        match self.resources.iter().find(|r| r.kind == *kind) {
            Some(resource) => Ok(resource),
            None => bail!("no matches for kind {:?} in version {:?}", kind.kind.as_str(), kind.api_version().as_str()),
        }
    }
}

fn parse(list: &Value) -> Vec<Resource> {
    let mut resources = Vec::new();
    for group in list["items"].items() {
        let name = group["metadata"]["name"].str();
        for version in group["versions"].items() {
            let found = version["resources"].items().iter();
            resources.extend(found.map(|r| resource(name, version["version"].str(), r)));
        }
    }
    resources
}

fn resource(group: &str, version: &str, r: &Value) -> Resource {
    let strings = |v: &Value| v.items().iter().map(|s| s.str().to_string()).collect();
    let kind = &r["responseKind"];
    let or = |given: &Value, otherwise: &str| -> String {
        if given.str().is_empty() { otherwise.into() } else { given.str().into() }
    };
    Resource {
        gvr: Gvr::new(group, version, r["resource"].str()),
        kind: Gvk::new(&or(&kind["group"], group), &or(&kind["version"], version), kind["kind"].str()),
        namespaced: r["scope"].str() == "Namespaced",
        singular: r["singularResource"].str().into(),
        short_names: strings(&r["shortNames"]),
        categories: strings(&r["categories"]),
        verbs: strings(&r["verbs"]),
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;
    use canopus_api::value;

    /// Pods, services, nodes; deployments; events twice.
    pub fn sample() -> Discovery {
        let r = |plural: &str, kind: &str, scope: &str, short: &[&str], all: bool| {
            value!({
                "resource": plural, "responseKind": {"group": "", "version": "", "kind": kind}, "scope": scope,
                "singularResource": kind.to_lowercase(), "verbs": ["get", "list"],
                "shortNames": short.iter().copied().collect::<Value>(),
                "categories": if all { value!(["all"]) } else { value!([]) },
            })
        };
        let core = value!([
            r("events", "Event", "Namespaced", &["ev"], false),
            r("nodes", "Node", "Cluster", &["no"], false),
            r("pods", "Pod", "Namespaced", &["po"], true),
            r("services", "Service", "Namespaced", &["svc"], true),
        ]);
        let apps = value!([r("deployments", "Deployment", "Namespaced", &["deploy"], true)]);
        let events = value!([r("events", "Event", "Namespaced", &["ev"], false)]);
        let group = |name: &str, resources: Value| value!({"metadata": {"name": name}, "versions": [{"version": "v1", "resources": resources}]});
        Discovery::of(&[
            value!({"items": [group("", core)]}),
            value!({"items": [group("apps", apps), group("events.k8s.io", events)]}),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_resources() {
        let discovery = testing::sample();
        for (word, found) in [
            ("pods", "pods"),
            ("po", "pods"),
            ("Pod", "pods"),
            ("deploy", "deployments.apps"),
            ("deployments.apps", "deployments.apps"),
            ("deployment.v1.apps", "deployments.apps"),
            ("pods.v1", "pods"),
            ("events", "events"),
            ("events.events.k8s.io", "events.events.k8s.io"),
            ("all", "pods services deployments.apps"),
        ] {
            let names: Vec<_> = discovery.named(word).unwrap().iter().map(|r| r.gvr.group_resource()).collect();
            assert_eq!(names.join(" "), found, "{word}");
        }
        let error = discovery.named("foo").unwrap_err().to_string();
        assert_eq!(error, "the server doesn't have a resource type \"foo\"");
    }

    #[test]
    fn kinds_name_resources() {
        let discovery = testing::sample();
        assert_eq!(discovery.of_kind(&Gvk::new("apps", "v1", "Deployment")).unwrap().title(), "deployment.apps");
        let error = discovery.of_kind(&Gvk::new("apps", "v1", "Foo")).unwrap_err().to_string();
        assert_eq!(error, "no matches for kind \"Foo\" in version \"apps/v1\"");
    }
}
