//! Turns a method and a path into what is asked for (upstream `request.RequestInfo`): the one parser of routes.

use canopus_api::{FieldSelector, Gvr, LabelSelector, Target, names};
use compact_str::CompactString;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestInfo {
    /// False for `/healthz`, `/api`, `/version` and the like: then only `path` and `verb` (the method in lower case) count.
    pub is_resource: bool,
    pub path: String,
    /// get, list, watch, create, update, patch, delete, deletecollection; for others the method.
    pub verb: CompactString,
    pub target: Target,
    /// What follows a subresource: the path to proxy to.
    pub rest: String,
    /// A watch by the deprecated path, to which selectors do not count in authorization.
    pub watch_path: bool,
    /// Of a list, watch or deletecollection, as far as they can be understood.
    pub fields: FieldSelector,
    pub labels: LabelSelector,
}

impl RequestInfo {
    /// Takes in the selectors. A list or watch of one named object is authorized as such.
    pub fn select(&mut self, fields: FieldSelector, labels: LabelSelector) {
        if self.watch_path || !matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            return;
        }
        if self.verb != "deletecollection"
            && let Some(name) = fields.required("metadata.name").filter(|n| names::path_segment(n).is_empty())
        {
            self.target.name = name.into();
        }
        (self.fields, self.labels) = (fields, labels);
    }
}

/// `method` is an HTTP method in capitals, `path` the decoded path, `query` the raw query.
pub fn parse(method: &str, path: &str, query: &str) -> RequestInfo {
    let mut info =
        RequestInfo { path: path.into(), verb: method.to_ascii_lowercase().into(), ..RequestInfo::default() };
    let parts: Vec<&str> = path.trim_matches('/').split('/').filter(|p| !p.is_empty()).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return info,
    };
    info.is_resource = true;
    // Deprecated watch paths: /api/v1/watch/pods.
    let (watch_prefix, rest) = match rest {
        ["watch", rest @ ..] => (true, rest),
        _ => (false, rest),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, resource, rest @ ..] if !["status", "finalize"].contains(resource) => {
            (*namespace, [&[*resource], rest].concat())
        }
        // The namespace object itself counts as being in the namespace, as upstream has it.
        ["namespaces", name, ..] => (*name, rest.to_vec()),
        _ => ("", rest.to_vec()),
    };
    let mut rest = rest.into_iter();
    let resource = rest.next().unwrap_or("");
    let name = rest.next().unwrap_or("");
    let subresource = rest.next().unwrap_or("");
    info.rest = rest.collect::<Vec<_>>().join("/");
    info.target = Target {
        gvr: Gvr::new(group, version, resource),
        namespace: namespace.into(),
        name: name.into(),
        subresource: subresource.into(),
    };
    info.watch_path = watch_prefix;
    info.verb = if watch_prefix { "watch" } else { verb(method, name, query) }.into();
    info
}

fn verb(method: &str, name: &str, query: &str) -> &'static str {
    match (method, name.is_empty()) {
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        ("GET" | "HEAD", true) if wants_watch(query) => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        _ => "",
    }
}

fn wants_watch(query: &str) -> bool {
    query.split('&').any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        key == "watch" && !["false", "0"].contains(&value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let cases = [
            ("GET", "/api/v1/pods", "", "list||pods||"),
            ("GET", "/api/v1/pods", "watch=true", "watch||pods||"),
            ("GET", "/api/v1/namespaces/a/pods/b", "", "get|a|pods|b|"),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "follow=1", "get|a|pods|b|log"),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "", "create|a|deployments||"),
            ("PUT", "/apis/apps/v1/namespaces/a/deployments/x/scale", "", "update|a|deployments|x|scale"),
            ("GET", "/api/v1/namespaces/a", "", "get|a|namespaces|a|"),
            ("PUT", "/api/v1/namespaces/a/finalize", "", "update|a|namespaces|a|finalize"),
            ("GET", "/api/v1/namespaces", "", "list||namespaces||"),
            ("DELETE", "/api/v1/namespaces/a/pods", "", "deletecollection|a|pods||"),
            ("GET", "/api/v1/watch/namespaces/a/pods", "", "watch|a|pods||"),
            ("GET", "/api/v1/watch/namespaces/a/pods/b", "", "watch|a|pods|b|"),
            ("POST", "/api/v1/watch/pods", "", "watch||pods||"),
            ("PATCH", "/api/v1/nodes/n/status", "", "patch||nodes|n|status"),
        ];
        for (method, path, query, expected) in cases {
            let info = parse(method, path, query);
            let t = &info.target;
            let got = format!("{}|{}|{}|{}|{}", info.verb, t.namespace, t.gvr.resource, t.name, t.subresource);
            assert_eq!(got, expected, "{method} {path}");
            assert!(info.is_resource);
        }
        for path in ["/healthz", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/", "/openapi/v3"] {
            assert!(!parse("GET", path, "").is_resource, "{path}");
        }
    }

    #[test]
    fn a_selector_may_name_an_object() {
        // method, path, query, selector, the name
        let cases = [
            ("GET", "/api/v1/pods", "", "metadata.name=x,spec.nodeName=n", "x"),
            ("GET", "/api/v1/pods", "watch=1", "metadata.name=x", "x"),
            ("GET", "/api/v1/pods", "", "metadata.name!=x", ""),
            ("GET", "/api/v1/pods", "", "metadata.name=..", ""),
            ("DELETE", "/api/v1/namespaces/a/pods", "", "metadata.name=x", ""),
            ("GET", "/api/v1/watch/namespaces/a/pods/b", "", "metadata.name=x", "b"),
            ("GET", "/api/v1/namespaces/a/pods/b", "", "metadata.name=x", "b"),
        ];
        for (method, path, query, selector, name) in cases {
            let mut info = parse(method, path, query);
            info.select(FieldSelector::parse(selector).unwrap(), LabelSelector::everything());
            assert_eq!(info.target.name, name, "{method} {path} {selector}");
        }
    }
}
