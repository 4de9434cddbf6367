//! Subresources that lead somewhere else: to the node's agent (logs, exec, attach, port-forward) or to whom a pod, a
//! Service or a node proxies (upstream `rest.Connecter`).

use super::stream;
use super::{Body, Call, query};
use crate::admission::{Operation, Options, Request as Admission};
use crate::authz::Attributes;
use crate::node_proxy::{Address, address, checked};
use crate::outgoing::forward::{self, Backend, is_upgrade};
use crate::outgoing::html::Rewrite;
use crate::outgoing::resolve::{Endpoint, Port};
use crate::outgoing::tls::{self, Trust};
use crate::server::Server;
use canopus_api::{Gvr, Result, Status, Target, Value, value};
use canopus_resources::core::pod::connect;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

/// Where a request leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connect {
    Log,
    /// A stream of the pod, by what the node's agent calls it.
    Stream(&'static str),
    Pod,
    Service,
    Node,
}

/// None when the request isn't of that kind.
pub(super) fn of(call: &Call, target: &Target) -> Option<Connect> {
    if !target.gvr.group.is_empty() || target.gvr.version != "v1" {
        return None;
    }
    Some(match (target.gvr.resource.as_str(), target.subresource.as_str()) {
        ("pods", "log") if call.info.verb == "get" => Connect::Log,
        ("pods", "exec") => Connect::Stream("exec"),
        ("pods", "attach") => Connect::Stream("attach"),
        ("pods", "portforward") => Connect::Stream("portForward"),
        ("pods", "proxy") => Connect::Pod,
        ("services", "proxy") => Connect::Service,
        ("nodes", "proxy") => Connect::Node,
        _ => return None,
    })
}

pub(super) async fn answer(
    server: &Arc<Server>,
    call: &Call,
    target: &Target,
    connect: Connect,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    if (target.gvr.resource == "nodes") != target.namespace.is_empty() {
        return Err(Status::no_such_resource());
    }
    match connect {
        Connect::Log => log(server, call, target, request).await,
        Connect::Stream(verb) => streams(server, call, target, verb, request).await,
        _ => proxy(server, call, target, connect, request).await,
    }
}

/// Connecting is admitted like a write of the options.
async fn admit(server: &Server, call: &Call, target: &Target, options: Value) -> Result<()> {
    let served = server.served(&target.gvr)?;
    let mut request = Admission {
        operation: Operation::Connect,
        resource: served.info(),
        subresource: &target.subresource,
        namespace: &target.namespace,
        name: &target.name,
        object: options,
        old: &Value::Null,
        user: &call.user,
        dry_run: false,
        options: Options::None,
        reinvocation: Default::default(),
    };
    let gates = server.gates.get()?;
    gates.admission.admit(&mut request).await?;
    gates.admission.validate(&request).await
}

async fn log(
    server: &Arc<Server>,
    call: &Call,
    target: &Target,
    mut request: Request<Incoming>,
) -> Result<Response<Body>> {
    let pod = pod(server, target).await?;
    let container = connect::container(&pod, &call.query.get("container"))?;
    let address = agent(server, &pod, target).await?;
    let path = pod_path("containerLogs", target, container, request.uri().query().unwrap_or(""));
    let socket = stream::Socket::take(&mut request)?;
    let answer = server.gates.get()?.nodes.forward(&address, &path, request).await?;
    let answer = checked(answer).await?;
    match socket {
        Some(socket) => {
            let way = socket.way();
            socket.copy(answer.into_body(), way)
        }
        None => Ok(answer),
    }
}

async fn streams(
    server: &Arc<Server>,
    call: &Call,
    target: &Target,
    verb: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    if !matches!(call.info.verb.as_str(), "get" | "create") || request.method() == Method::HEAD {
        return Err(Status::method_not_supported(&target.gvr, &call.info.verb));
    }
    if call.info.verb != "create" && server.settings.features.enabled("AuthorizePodWebsocketUpgradeCreatePermission") {
        server.authorize(&Attributes::target(&call.user, "create", target)).await?;
    }
    admit(server, call, target, stream_options(verb, &call.query)?).await?;
    let pod = pod(server, target).await?;
    let container = match verb {
        "portForward" => "",
        _ => connect::container(&pod, &call.query.get("container"))?,
    };
    let address = agent(server, &pod, target).await?;
    let path = pod_path(verb, target, container, request.uri().query().unwrap_or(""));
    if !is_upgrade(request.headers()) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    server.gates.get()?.nodes.forward(&address, &path, request).await
}

/// `PodExecOptions` and the like, as admission sees them.
fn stream_options(verb: &str, query: &query::Query) -> Result<Value> {
    if verb == "portForward" {
        let ports = query.all("ports");
        let ports: Option<Vec<Value>> = ports
            .items()
            .iter()
            .flat_map(|p| p.str().split(','))
            .map(|p| p.parse::<i64>().ok().map(Value::Int))
            .collect();
        let ports = ports.ok_or_else(|| Status::bad_request("ports: not a number"))?;
        let mut options = value!({"apiVersion": "v1", "kind": "PodPortForwardOptions"});
        if !ports.is_empty() {
            options.set("ports", Value::Array(ports));
        }
        return Ok(options);
    }
    let kind = if verb == "exec" { "PodExecOptions" } else { "PodAttachOptions" };
    let mut options = value!({"apiVersion": "v1", "kind": kind});
    for name in ["stdin", "stdout", "stderr", "tty"] {
        if query.flag(name) {
            options.set(name, true);
        }
    }
    if query.has("container") {
        options.set("container", query.get("container"));
    }
    if verb == "exec" {
        options.set("command", query.all("command"));
    }
    Ok(options)
}

async fn pod(server: &Server, target: &Target) -> Result<Arc<Value>> {
    let pod = Target { subresource: "".into(), ..target.clone() };
    Ok(server.get(&pod, None).await?.value())
}

/// The agent of the pod's node.
async fn agent(server: &Server, pod: &Value, target: &Target) -> Result<Address> {
    let node = pod["spec"]["nodeName"].str();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", target.name)));
    }
    let node = server.get(&Target::new(&Gvr::new("", "v1", "nodes"), "", node), None).await?;
    address(&node.value())
}

/// TLS to pods and Services, of whose authorities nobody knows.
static TO_ANYBODY: LazyLock<std::result::Result<Arc<rustls::ClientConfig>, String>> =
    LazyLock::new(|| tls::client_config(&Trust::Anybody, None).map(Arc::new));

async fn proxy(
    server: &Arc<Server>,
    call: &Call,
    target: &Target,
    connect: Connect,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let segments = if connect == Connect::Node { 5 } else { 7 };
    let (prefix, rest) = remainder(request.uri().path(), segments);
    let mut options = value!({"apiVersion": "v1", "kind": match connect {
        Connect::Pod => "PodProxyOptions",
        Connect::Service => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    }});
    if !rest.is_empty() {
        options.set("path", query::decode(&rest, false));
    }
    admit(server, call, target, options).await?;
    let id = Id::parse(&target.name).ok_or_else(|| {
        let singular = target.gvr.resource.trim_end_matches('s');
        Status::bad_request(format!("invalid {singular} request {:?}", target.name.as_str()))
    })?;
    let named = async |plural: &str, namespace: &str| {
        let target = Target::new(&Gvr::new("", "v1", plural), namespace, id.name);
        server.get(&target, None).await.map(|object| object.value())
    };
    let https = id.scheme == "https";
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let upgrade = is_upgrade(request.headers());
    if rest.is_empty() && !upgrade && matches!(*request.method(), Method::GET | Method::HEAD) {
        // Relative links of a page only work below a slash.
        let mut moved = Response::new(super::empty());
        *moved.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let to = HeaderValue::from_str(&format!("{prefix}/{query}"));
        moved.headers_mut().insert(header::LOCATION, to.map_err(Status::internal)?);
        return Ok(moved);
    }
    let path = format!("{}{query}", if rest.is_empty() { "/" } else { &rest });
    let backend = match connect {
        Connect::Pod => to_anybody(pod_endpoint(&*named("pods", &target.namespace).await?, &id)?, https)?,
        Connect::Service => {
            let service = named("services", &target.namespace).await?;
            let port = id.port.parse().map_or(Port::Name(id.port), Port::Number);
            let endpoint = server.outgoing.services().endpoint(&service, port)?;
            allowed(&endpoint.host)?;
            to_anybody(endpoint, https)?
        }
        _ => {
            let to = address(&*named("nodes", "").await?)?;
            allowed(&to.ip.to_string())?;
            let asked = if id.port.is_empty() { to.port } else { port_number(id.port)? };
            if asked == to.port {
                return server.gates.get()?.nodes.forward(&to, &path, request).await;
            }
            to_anybody(Endpoint { host: to.ip.to_string(), port: asked }, https)?
        }
    };
    let requested = call.headers.get(header::HOST).and_then(|v| v.to_str().ok()).map(String::from);
    let requested = requested.or_else(|| request.uri().authority().map(ToString::to_string));
    let links =
        Rewrite { prefix: prefix.clone(), source: backend.authority(), requested: requested.unwrap_or_default() };
    let forwarded = forward::forward(&backend, &path, request, |headers| {
        if let Ok(uri) = HeaderValue::from_str(&format!("{prefix}{rest}")) {
            headers.insert("x-forwarded-uri", uri);
        }
    });
    match forwarded.await {
        Ok(answer) if upgrade => Ok(answer),
        Ok(answer) => Ok(forward::rewrite(answer, &links).await),
        Err(why) if upgrade => Err(Status::internal(format!("error dialing backend: {why}"))),
        Err(why) => Err(Status::unavailable(format!("error trying to reach service: {why}"))),
    }
}

fn to_anybody(endpoint: Endpoint, https: bool) -> Result<Backend> {
    let tls = match https {
        true => Some(TO_ANYBODY.clone().map_err(Status::internal)?),
        false => None,
    };
    Ok(Backend { server_name: endpoint.host.clone(), endpoint, tls, host: None })
}

/// `name`, `name:port` or `scheme:name:port` (upstream `SplitSchemeNamePort`).
#[derive(Debug, PartialEq)]
struct Id<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl Id<'_> {
    fn parse(text: &str) -> Option<Id<'_>> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        (!name.is_empty() && ["", "http", "https"].contains(&scheme)).then_some(Id { scheme, name, port })
    }
}

fn port_number(text: &str) -> Result<u16> {
    let unknown =
        || Status::unavailable(format!("error trying to reach service: dial tcp: lookup tcp/{text}: unknown port"));
    text.parse().map_err(|_| unknown())
}

/// Where a pod listens: the port asked for, else the first that it declares.
fn pod_endpoint(pod: &Value, id: &Id) -> Result<Endpoint> {
    let declared = || {
        let mut ports = pod["spec"]["containers"].items().iter().filter_map(|c| c["ports"].items().first());
        ports.next().and_then(|p| u16::try_from(p["containerPort"].int()).ok())
    };
    let port = match id.port {
        "" => declared().unwrap_or(if id.scheme == "https" { 443 } else { 80 }),
        asked => port_number(asked)?,
    };
    let ips = pod["status"]["podIPs"].items();
    let host = ips.first().map_or_else(|| pod["status"]["podIP"].str(), |ip| ip["ip"].str());
    allowed(host)?;
    Ok(Endpoint { host: host.into(), port })
}

/// Nobody is let through to this host's own services, nor to link-local ones (Go's `IsGlobalUnicast`).
fn allowed(host: &str) -> Result<()> {
    let good = host.parse::<IpAddr>().is_ok_and(|ip| match ip.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_link_local() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local()),
    });
    if good { Ok(()) } else { Err(Status::bad_request("address not allowed")) }
}

/// A path as it was sent, cut behind so many segments. An encoded slash cuts too, as it did when the path was understood.
fn remainder(path: &str, segments: usize) -> (String, String) {
    let bytes = path.as_bytes();
    let (mut at, mut seen, mut within) = (0, 0, false);
    while at < bytes.len() {
        let slash = match bytes[at] {
            b'/' => 1,
            b'%' if path[at..].get(..3).is_some_and(|s| s.eq_ignore_ascii_case("%2f")) => 3,
            _ => 0,
        };
        if slash > 0 && within {
            if seen == segments {
                return (path[..at].into(), format!("/{}", &path[at + slash..]));
            }
            within = false;
        } else if slash == 0 && !within {
            within = true;
            seen += 1;
        }
        at += slash.max(1);
    }
    (path.into(), String::new())
}

/// The node agent's path: upstream's kubelet API, with its parameter names.
fn pod_path(verb: &str, target: &Target, container: &str, query: &str) -> String {
    let mut path = format!("/{verb}/{}/{}", target.namespace, target.name);
    if !container.is_empty() {
        path += &format!("/{container}");
    }
    let renamed = query.split('&').filter(|p| !p.is_empty() && !p.starts_with("container=")).map(|pair| {
        match pair.split_once('=').unwrap_or((pair, "")) {
            _ if verb == "containerLogs" => pair.to_string(),
            ("ports", v) if verb == "portForward" => format!("port={v}"),
            ("stdin", v) => format!("input={}", flag(v)),
            ("stdout", v) => format!("output={}", flag(v)),
            ("stderr", v) => format!("error={}", flag(v)),
            ("tty", v) => format!("tty={}", flag(v)),
            _ => pair.to_string(),
        }
    });
    let query = renamed.collect::<Vec<_>>().join("&");
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

fn flag(value: &str) -> &'static str {
    if ["1", "true", ""].contains(&value) { "1" } else { "0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_paths_use_the_agents_parameter_names() {
        let target = Target::new(&Gvr::new("", "v1", "pods"), "ns", "p").subresource("exec");
        let path = pod_path("exec", &target, "c", "command=ls&command=-l&container=c&stdin=true&stdout=true&tty=false");
        assert_eq!(path, "/exec/ns/p/c?command=ls&command=-l&input=1&output=1&tty=0");
        assert_eq!(pod_path("containerLogs", &target, "c", "follow=true"), "/containerLogs/ns/p/c?follow=true");
        assert_eq!(pod_path("portForward", &target, "", "ports=80,81"), "/portForward/ns/p?port=80,81");
    }

    #[test]
    fn what_is_proxied_keeps_its_path() {
        let cases = [
            ("/api/v1/namespaces/n/pods/p/proxy", "/api/v1/namespaces/n/pods/p/proxy", ""),
            ("/api/v1/namespaces/n/pods/p/proxy/", "/api/v1/namespaces/n/pods/p/proxy", "/"),
            ("/api/v1/namespaces/n/pods/p/proxy/a//b%20c/", "/api/v1/namespaces/n/pods/p/proxy", "/a//b%20c/"),
            ("//api/v1//namespaces/n/pods/p/proxy//a", "//api/v1//namespaces/n/pods/p/proxy", "//a"),
            ("/api/v1/namespaces/n/pods%2Fp/proxy%2fa%2Fb", "/api/v1/namespaces/n/pods%2Fp/proxy", "/a%2Fb"),
        ];
        for (path, prefix, rest) in cases {
            assert_eq!(remainder(path, 7), (prefix.to_string(), rest.to_string()), "{path}");
        }
        assert_eq!(remainder("/api/v1/nodes/n/proxy/x", 5).1, "/x");
    }

    #[test]
    fn names_with_schemes_and_ports() {
        let id = |scheme, name, port| Some(Id { scheme, name, port });
        assert_eq!(Id::parse("p"), id("", "p", ""));
        assert_eq!(Id::parse("p:80"), id("", "p", "80"));
        assert_eq!(Id::parse("https:p:web"), id("https", "p", "web"));
        assert_eq!(Id::parse("https:p:"), id("https", "p", ""));
        for bad in ["", ":80", "ftp:p:1", "a:b:c:d"] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn where_a_pod_listens() {
        let pod = |ip: &str| {
            value!({
                "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]},
                "status": {"podIP": ip, "podIPs": [{"ip": ip}]},
            })
        };
        let at = |ip: &str, id: &str| {
            let found = pod_endpoint(&pod(ip), &Id::parse(id).unwrap());
            found.map(|e| format!("{}:{}", e.host, e.port)).unwrap_or_else(|status| status.message)
        };
        assert_eq!(at("10.0.0.1", "p"), "10.0.0.1:8080");
        assert_eq!(at("10.0.0.1", "https:p:443"), "10.0.0.1:443");
        assert_eq!(at("fd00::1", "p:1"), "fd00::1:1");
        assert!(at("10.0.0.1", "p:web").ends_with("lookup tcp/web: unknown port"));
        for ip in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0", "224.0.0.1", ""] {
            assert_eq!(at(ip, "p"), "address not allowed", "{ip}");
        }
    }

    #[test]
    fn what_admission_sees_of_a_stream() {
        let query = query::Query::parse("stdin=true&stdout=1&tty=false&command=a&command=b&container=c");
        let expected = value!({"apiVersion": "v1", "kind": "PodExecOptions", "stdin": true, "stdout": true,
            "command": ["a", "b"], "container": "c"});
        assert_eq!(stream_options("exec", &query).unwrap(), expected);
        let ports = stream_options("portForward", &query::Query::parse("ports=80,81")).unwrap();
        assert_eq!(ports["ports"], value!([80, 81]));
    }
}
