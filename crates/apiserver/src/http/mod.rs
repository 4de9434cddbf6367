//! HTTP: from bytes to handlers and back.

mod accept;
pub(crate) mod body;
mod compress;
mod connect;
mod encode;
mod forms;
mod gather;
mod health;
mod impersonate;
pub mod limits;
pub(crate) mod negotiate;
pub(crate) mod query;
mod record;
pub(crate) mod resource;
pub mod serve;
mod stream;
#[cfg(test)]
mod tests;
mod trace;
mod zpages;

pub use body::{Body, empty, full};
pub(crate) use compress::accepted as takes_gzip;

use crate::authz::{Attributes, Decision, forbidden};
use crate::metrics::requests::Key;
use crate::notes::{Notes, noting};
use crate::request_info::{self, RequestInfo};
use crate::server::{Server, TokenIssuer};
use crate::user::User;
use crate::{aggregator, audit, authn, discovery, metrics, notes, openapi};
use canopus_api::{Result, Status, Value, json, value};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

/// The other end of a connection.
#[derive(Default)]
pub struct Peer {
    /// What it has shown in the TLS handshake.
    pub certificates: Vec<CertificateDer<'static>>,
    pub address: Option<IpAddr>,
}

/// One request with everything known about its sender.
pub(crate) struct Call {
    pub user: Arc<User>,
    pub info: RequestInfo,
    pub query: query::Query,
    pub headers: HeaderMap,
}

/// Answers one request. Never fails: errors become Status answers.
pub async fn handle(server: Arc<Server>, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let path = query::decode(request.uri().path(), false);
    let raw_query = request.uri().query().unwrap_or("").to_string();
    let mut info = request_info::parse(request.method().as_str(), &path, &raw_query);
    let query = query::Query::parse(&raw_query);
    info.select(query.field_selector().unwrap_or_default(), query.label_selector().unwrap_or_default());
    let headers = request.headers().clone();
    let dry_run = query.get("dryRun") == "All";
    let id = record::id(&server, &headers);
    let notes = Arc::new(Notes::default());
    let answer = match limits::deadline(&info, &query, server.settings.request_timeout) {
        Err(status) => Err(status),
        Ok(deadline) => {
            let work = admitted(server.clone(), peer, id.clone(), info.clone(), query, request);
            let work = noting(notes.clone(), work);
            in_time(tokio::spawn(work), deadline, &notes).await
        }
    };
    let refused = answer.as_ref().err().cloned();
    let mut response = answer.unwrap_or_else(|status| negotiate::status(&headers, &status, server.cbor));
    if let Ok(id) = http::HeaderValue::from_str(&id) {
        response.headers_mut().insert(record::AUDIT_ID, id);
    }
    resource::warn(&mut response, &notes.take_warnings());
    if let Some(class) = notes.class() {
        limits::classified(&mut response, class);
    }
    if info.is_resource && server.catalog.served(&info.target.gvr).is_some() {
        observed(&server, &info, dry_run, &headers, &response, started.elapsed());
    }
    let response = trace::end(&notes, limits::long_running(&info), response);
    match notes.record() {
        Some(record) => record::finish(record, &notes, limits::long_running(&info), response, refused.as_ref()).await,
        None => response,
    }
}

/// Waits for a request's task, a task of its own because neither a client that goes away nor a deadline may stop a
/// write half-way.
async fn in_time(
    task: JoinHandle<Result<Response<Body>>>,
    deadline: Option<Duration>,
    notes: &Notes,
) -> Result<Response<Body>> {
    let done = match deadline {
        // Nothing that lasts as long as the client wishes writes; it ends with the client.
        None => AbortOnDropHandle::new(task).await,
        Some(deadline) => match tokio::time::timeout(deadline, task).await {
            Ok(done) => done,
            Err(_) => return Err(Status::timeout("request did not complete within the allotted timeout")),
        },
    };
    done.unwrap_or_else(|broken| {
        tracing::error!(%broken, "a request handler panicked");
        notes.panicked(words(broken));
        Err(Status::internal("This request caused apiserver to panic. Look in the logs for details."))
    })
}

/// What a panic said.
fn words(broken: tokio::task::JoinError) -> String {
    let said = broken.try_into_panic().ok();
    let text = said.as_ref().and_then(|said| {
        said.downcast_ref::<&str>().map(ToString::to_string).or_else(|| said.downcast_ref::<String>().cloned())
    });
    text.unwrap_or_else(|| "unknown".into())
}

/// Who asks, and is there room?
async fn admitted(
    server: Arc<Server>,
    peer: Arc<Peer>,
    id: String,
    info: RequestInfo,
    query: query::Query,
    mut request: Request<Incoming>,
) -> Result<Response<Body>> {
    let user = match authn::authenticate(&server, request.headers_mut(), &peer.certificates, &info.path).await {
        Ok(user) => user,
        Err(refused) => {
            record::unauthenticated(&server, &peer, &id, &info, &request);
            return Err(refused);
        }
    };
    let wanted = Attributes::of(&user, &info);
    record::begin(&server, &peer, &id, &wanted, &request);
    trace::begin(&server, &peer, &id, &user, &info, &request);
    let impersonated = impersonate::resolve(&server, &wanted, request.headers()).await?;
    impersonate::strip(request.headers_mut());
    let user = match impersonated {
        Some(acting) => {
            notes::record(|record| record.impersonated(&acting.user, acting.constraint));
            acting.user
        }
        None => user,
    };
    let headers = request.headers().clone();
    if !server.settings.priority_and_fairness {
        let _turn = server.inflight.enter(&info, &user).await?;
        return answer(&server, Call { user, info, query, headers }, request).await;
    }
    if limits::long_running(&info) && info.verb != "watch" {
        return answer(&server, Call { user, info, query, headers }, request).await;
    }
    let served = server.catalog.served(&info.target.gvr);
    let cache = served.as_ref().and_then(|served| served.cache().ok());
    let (class, entered) = server.flow.enter(&info, &query, &user, cache.map(|cache| &**cache)).await;
    notes::classified(class);
    match entered {
        // A watch counts until it has begun.
        Ok(_seat) => {
            let _counted = server.inflight.count(&info);
            answer(&server, Call { user, info, query, headers }, request).await
        }
        Err(overload) => Ok(limits::too_many(overload.retry_after)),
    }
}

/// What metrics call a request.
pub(crate) fn metric_key(info: &RequestInfo, dry_run: bool, headers: &HeaderMap) -> Key {
    let target = &info.target;
    let connects = ["attach", "exec", "portforward", "proxy"].contains(&target.subresource.as_str());
    let verb = match info.verb.as_str() {
        _ if connects => "CONNECT",
        "create" => "POST",
        "update" => "PUT",
        "patch" if negotiate::content_type(headers).starts_with("application/apply-patch") => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "list" => "LIST",
        "watch" => "WATCH",
        _ => "GET",
    };
    let scope = match (target.name.is_empty() && info.verb != "create", target.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    Key {
        verb,
        group: target.gvr.group.clone(),
        version: target.gvr.version.clone(),
        resource: target.gvr.resource.clone(),
        subresource: target.subresource.clone(),
        scope,
        dry_run,
    }
}

fn observed(
    server: &Server,
    info: &RequestInfo,
    dry_run: bool,
    headers: &HeaderMap,
    response: &Response<Body>,
    took: Duration,
) {
    let (key, code) = (metric_key(info, dry_run, headers), response.status().as_u16());
    let requests = &server.metrics.requests;
    match code {
        429 => requests.terminated(key.clone(), code),
        504 if took >= server.settings.request_timeout => requests.aborted(key.clone()),
        // One that goes on is counted when it ends.
        101 | 200 if key.verb == "WATCH" => return,
        _ => {}
    }
    requests.done(key, code, took, hyper::body::Body::size_hint(response.body()).exact());
}

async fn answer(server: &Arc<Server>, call: Call, request: Request<Incoming>) -> Result<Response<Body>> {
    let named = call.info.is_resource && call.info.target.name == ".." && call.info.path.ends_with("/..");
    if !named && (call.info.path.contains("/../") || call.info.path.ends_with("/..")) {
        return Err(Status::no_such_resource());
    }
    let attributes = Attributes::of(&call.user, &call.info);
    let decided = server.decide(&attributes).await;
    match decided.inspect_err(|_| notes::annotate("authorization.k8s.io/reason", "internal error"))? {
        Decision::Allow(reason) => audit::decision(true, &reason),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            audit::decision(false, &reason);
            return Err(forbidden(&attributes, &reason));
        }
    }
    // The document of a group version is where the group version is.
    let subject = call.info.path.strip_prefix("/openapi/v3").unwrap_or(&call.info.path);
    if let Some(remote) = server.aggregator.remote(subject) {
        return aggregator::proxy(server, &remote, &call.user, request).await;
    }
    if call.info.is_resource {
        if server.catalog.served(&call.info.target.gvr).is_none() && stranger(server, &call.info.path) {
            return Ok(not_found_page());
        }
        return resource::answer(server, call, request).await;
    }
    if ["/openapi/v2", "/openapi/v2/"].contains(&call.info.path.as_str()) {
        let table = server.catalog.table();
        // It may have to be made, which takes a while.
        let answered = tokio::task::spawn_blocking(move || openapi::v2::answer(&table, &call.headers)).await;
        return answered.map_err(Status::internal);
    }
    let reading = request.method() == http::Method::GET || request.method() == http::Method::HEAD;
    if stranger(server, &call.info.path) {
        return Ok(not_found_page());
    }
    if !reading && ROUTED.iter().any(|root| under(&call.info.path, root)) {
        return Err(Status::method_not_allowed());
    }
    other(server, &call).await
}

/// What upstream's router knows; elsewhere any method will do.
const ROUTED: [&str; 5] = ["/api", "/apis", "/version", "/openid/v1/jwks", "/.well-known/openid-configuration"];

fn under(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether the path leads to a group that nobody serves, which upstream's router knows as little as any other path.
fn stranger(server: &Server, path: &str) -> bool {
    let group = path.strip_prefix("/apis/").and_then(|rest| rest.split('/').next()).unwrap_or("");
    !group.is_empty() && !server.catalog.table().groups().iter().any(|known| known.name == group)
}

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Paths that are not about resources.
async fn other(server: &Arc<Server>, call: &Call) -> Result<Response<Body>> {
    let path = call.info.path.trim_end_matches('/');
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", rest @ ..] => Ok(health::answer(server, parts[0], rest, &call.query).await),
        ["version"] => Ok(json_response(json::to_vec(&discovery::version()))),
        ["metrics"] => Ok(text_response(StatusCode::OK, METRICS, metrics::text(server).into_bytes())),
        ["metrics", "slis"] => Ok(text_response(StatusCode::OK, METRICS, health::metrics(server).await.into_bytes())),
        ["debug", "api_priority_and_fairness", name] => {
            let details = call.query.has("includeRequestDetails");
            let dump =
                server.flow.dump(name, details, server.surroundings.now()).ok_or_else(Status::no_such_resource)?;
            Ok(text_response(StatusCode::OK, TEXT, dump.into_bytes()))
        }
        ["api" | "apis", ..] => discovery::answer(&server.catalog.table(), &call.headers, &parts),
        [".well-known", "openid-configuration"] => published(server, "application/json", |t| t.openid_configuration()),
        ["openid", "v1", "jwks"] => published(server, "application/jwk-set+json", |t| t.jwks()),
        ["openapi", "v3", rest @ ..] => {
            openapi::answer(&server.catalog.table(), &call.headers, rest, &call.query.get("hash"))
        }
        [""] => Ok(json_response(json::to_vec(&value!({"paths": zpages::paths(server)})))),
        [name] => match zpages::Page::find(server, name) {
            Some(page) => zpages::answer(server, &call.headers, page),
            None => Ok(not_found_page()),
        },
        _ => Ok(not_found_page()),
    }
}

/// What relying parties need to check service-account tokens by themselves.
fn published(server: &Server, kind: &'static str, document: fn(&dyn TokenIssuer) -> Value) -> Result<Response<Body>> {
    let document = document(&*server.gates.get()?.tokens);
    let mut response = text_response(StatusCode::OK, kind, json::to_vec(&document));
    let hour = http::HeaderValue::from_static("public, max-age=3600");
    response.headers_mut().insert(header::CACHE_CONTROL, hour);
    Ok(response)
}

pub(crate) fn json_response(bytes: Vec<u8>) -> Response<Body> {
    text_response(StatusCode::OK, "application/json", bytes)
}

/// Text for people, and what is sent with it so that nobody takes it for something else.
const TEXT: &str = "text/plain; charset=utf-8";

fn not_found_page() -> Response<Body> {
    text_response(StatusCode::NOT_FOUND, TEXT, b"404 page not found\n".to_vec())
}

pub(crate) fn text_response(code: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache, private"));
    if kind == TEXT || code == StatusCode::FORBIDDEN {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    }
    response
}
