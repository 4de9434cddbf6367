//! Turns a method and a path into what is asked for (upstream `request.RequestInfo`): the one parser of routes.

use canopus_api::{Gvr, Target};
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
    info.verb = verb(method, name, watch_prefix, query).into();
    info
}

fn verb(method: &str, name: &str, watch_prefix: bool, query: &str) -> &'static str {
    match (method, name.is_empty()) {
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        ("GET" | "HEAD", _) if watch_prefix => "watch",
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
}
