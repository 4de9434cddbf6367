//! What a request's trace says about it, with upstream's names (otelhttp's and `endpoints/handlers`).

use super::{Body, Call, Peer, body};
use crate::notes::{self, Notes};
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::traces::{Attribute, Attributes, Ending, Part};
use crate::user::User;
use http::{HeaderMap, Request, Response, Version, header};

/// Begins the request's trace, if it is to be traced.
pub fn begin<B>(server: &Server, peer: &Peer, id: &str, user: &User, info: &RequestInfo, request: &Request<B>) {
    let Some(traces) = server.traces.get() else { return };
    let name = name(request.method().as_str(), info);
    let Some(trace) = traces.begin(user, request.headers(), name) else { return };
    trace.describe(attributes(peer, id, request));
    notes::traced(trace);
}

/// `GET /api/v1/namespaces/{:namespace}/pods/{:name}`.
fn name(method: &str, info: &RequestInfo) -> String {
    if !info.is_resource {
        return method.into();
    }
    let target = &info.target;
    let mut path = match target.gvr.group.as_str() {
        "" => "/api".to_string(),
        group => format!("/apis/{group}"),
    };
    path += &format!("/{}", target.gvr.version);
    if !target.namespace.is_empty() {
        path += "/namespaces/{:namespace}";
    }
    path += &format!("/{}", target.gvr.resource);
    if !target.name.is_empty() {
        path += "/{:name}";
    }
    if !target.subresource.is_empty() {
        path += &format!("/{}", target.subresource);
    }
    format!("{method} {path}")
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
}

fn attributes<B>(peer: &Peer, id: &str, request: &Request<B>) -> Attributes {
    let (uri, headers) = (request.uri(), request.headers());
    let host = uri.authority().map_or_else(|| text(headers, header::HOST), |a| a.as_str());
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<i64>().ok()),
        _ => (host, None),
    };
    let version = match request.version() {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    let target = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut all: Attributes = vec![
        ("server.address", host.into()),
        ("http.request.method", request.method().as_str().into()),
        ("url.scheme", "https".into()),
        ("url.path", uri.path().into()),
        ("network.protocol.version", version.into()),
        ("http.target", target.into()),
        ("audit-id", id.into()),
    ];
    all.extend(port.filter(|p| *p != 443).map(|p| ("server.port", p.into())));
    if let Some(address) = peer.address {
        let address = address.to_string();
        let forwarded = headers.get("x-forwarded-for").and_then(|v| v.to_str().ok());
        let client = forwarded.and_then(|f| f.split(',').next()).unwrap_or(&address);
        all.push(("client.address", client.into()));
        all.push(("network.peer.address", Attribute::Text(address)));
    }
    let agent = text(headers, header::USER_AGENT);
    if !agent.is_empty() {
        all.push(("user_agent.original", agent.into()));
    }
    all
}

/// Ends the trace with the answer; that of a watch or the like when its last byte has gone out.
pub fn end(notes: &Notes, long_running: bool, response: Response<Body>) -> Response<Body> {
    let Some(trace) = notes.trace() else { return response };
    let code = response.status().as_u16();
    trace.describe(vec![("http.response.status_code", i64::from(code).into())]);
    if long_running && code < 400 {
        return body::keeping(response, Ending(trace.clone()));
    }
    if let Some(size) = hyper::body::Body::size_hint(response.body()).exact().filter(|size| *size > 0) {
        trace.describe(vec![("http.response.body.size", i64::try_from(size).unwrap_or(i64::MAX).into())]);
    }
    trace.end(code >= 500);
    response
}

/// The part of the request that its handler is.
pub fn handler(call: &Call) -> Option<Part> {
    let name = match call.info.verb.as_str() {
        "create" => "Create",
        "update" => "Update",
        "patch" => "Patch",
        "delete" | "deletecollection" => "Delete",
        "get" => "Get",
        "list" => "List",
        "watch" if call.query.get("sendInitialEvents") == "true" => "WatchList",
        _ => return None,
    };
    notes::part(name, || {
        let target = &call.info.target;
        let scope = match (target.name.is_empty() && call.info.verb != "create", target.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        let agent = text(&call.headers, header::USER_AGENT);
        let all = [
            ("accept", text(&call.headers, header::ACCEPT)),
            ("api-group", target.gvr.group.as_str()),
            ("api-version", target.gvr.version.as_str()),
            ("name", target.name.as_str()),
            ("subresource", target.subresource.as_str()),
            ("namespace", target.namespace.as_str()),
            ("resource", target.gvr.resource.as_str()),
            ("scope", scope),
            ("url", call.info.path.as_str()),
            ("user-agent", agent),
            ("verb", call.info.verb.as_str()),
        ];
        all.into_iter().map(|(key, text)| (key, text.into())).collect()
    })
}

#[cfg(test)]
mod tests {
    use crate::request_info::parse;

    #[test]
    fn names() {
        for (method, path, expected) in [
            ("GET", "/api/v1/namespaces/a/pods/b/log", "GET /api/v1/namespaces/{:namespace}/pods/{:name}/log"),
            (
                "POST",
                "/apis/apps/v1/namespaces/a/deployments",
                "POST /apis/apps/v1/namespaces/{:namespace}/deployments",
            ),
            ("GET", "/api/v1/nodes", "GET /api/v1/nodes"),
            ("GET", "/healthz", "GET"),
        ] {
            assert_eq!(super::name(method, &parse(method, path, "")), expected);
        }
    }
}
