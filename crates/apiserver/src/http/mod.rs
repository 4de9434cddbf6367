//! HTTP: from bytes to handlers and back.

mod accept;
pub(crate) mod body;
mod compress;
mod connect;
mod encode;
mod forms;
mod gather;
mod impersonate;
pub mod limits;
pub(crate) mod negotiate;
mod query;
pub(crate) mod resource;
pub mod serve;
mod stream;
#[cfg(test)]
mod tests;

pub use body::{Body, empty, full};
pub(crate) use compress::accepted as takes_gzip;

use crate::authn::Credentials;
use crate::authz::Attributes;
use crate::notes::{Notes, noting};
use crate::request_info::{self, RequestInfo};
use crate::server::{Server, TokenIssuer};
use crate::user::User;
use crate::{aggregator, discovery, metrics, openapi};
use canopus_api::{Result, Status, Value, json};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

/// One request with everything known about its sender.
pub(crate) struct Call {
    pub user: Arc<User>,
    pub info: RequestInfo,
    pub query: query::Query,
    pub headers: HeaderMap,
}

/// Answers one request. Never fails: errors become Status answers.
pub async fn handle(server: Arc<Server>, certificate: Option<Arc<[u8]>>, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let path = query::decode(request.uri().path(), false);
    let raw_query = request.uri().query().unwrap_or("").to_string();
    let mut info = request_info::parse(request.method().as_str(), &path, &raw_query);
    let query = query::Query::parse(&raw_query);
    info.select(query.field_selector().unwrap_or_default(), query.label_selector().unwrap_or_default());
    let headers = request.headers().clone();
    let notes = Arc::new(Notes::default());
    let answer = match limits::deadline(&info, &query, server.settings.request_timeout) {
        Err(status) => Err(status),
        Ok(deadline) => {
            let work = admitted(server.clone(), certificate, info.clone(), query, request);
            let work = noting(notes.clone(), work);
            in_time(tokio::spawn(work), deadline).await
        }
    };
    let mut response = answer.unwrap_or_else(|status| negotiate::status(&headers, &status));
    resource::warn(&mut response, &notes.take_warnings());
    if info.is_resource && server.catalog.served(&info.target.gvr).is_some() {
        let verb = metric_verb(&info.verb);
        server.metrics.request(verb, &info.target, response.status().as_u16(), started.elapsed());
    }
    response
}

/// Waits for a request's task, a task of its own because neither a client that goes away nor a deadline may stop a
/// write half-way.
async fn in_time(task: JoinHandle<Result<Response<Body>>>, deadline: Option<Duration>) -> Result<Response<Body>> {
    let done = match deadline {
        // Nothing that lasts as long as the client wishes writes; it ends with the client.
        None => AbortOnDropHandle::new(task).await,
        Some(deadline) => match tokio::time::timeout(deadline, task).await {
            Ok(done) => done,
            Err(_) => return Err(Status::timeout("request did not complete within the allotted timeout")),
        },
    };
    done.unwrap_or_else(|panic| {
        tracing::error!(%panic, "a request handler panicked");
        Err(Status::internal("panic while serving the request"))
    })
}

/// Who asks, and is there room?
async fn admitted(
    server: Arc<Server>,
    certificate: Option<Arc<[u8]>>,
    info: RequestInfo,
    query: query::Query,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let headers = request.headers().clone();
    let user = authenticate(&server, &headers, certificate.as_deref())?;
    let user = impersonate::resolve(&server, &user, &headers)?;
    let _turn = server.inflight.enter(&info, &user).await?;
    answer(&server, Call { user, info, query, headers }, request).await
}

fn metric_verb(verb: &str) -> &str {
    match verb {
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "list" => "LIST",
        "watch" => "WATCH",
        _ => "GET",
    }
}

fn authenticate(server: &Server, headers: &HeaderMap, certificate: Option<&[u8]>) -> Result<Arc<User>> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let credentials = Credentials { client_certificate: certificate, authorization };
    for authenticator in &server.gates.get()?.authenticators {
        match authenticator.authenticate(&credentials) {
            Ok(Some(user)) => return Ok(user),
            Ok(None) => {}
            Err(why) => {
                tracing::debug!(%why, "authentication failed");
                return Err(Status::unauthorized());
            }
        }
    }
    if authorization.is_some() {
        return Err(Status::unauthorized());
    }
    Ok(User::anonymous())
}

async fn answer(server: &Arc<Server>, call: Call, request: Request<Incoming>) -> Result<Response<Body>> {
    if call.info.path.contains("/../") || call.info.path.ends_with("/..") {
        return Err(Status::no_such_resource());
    }
    server.authorize(&Attributes::of(&call.user, &call.info))?;
    // The document of a group version is where the group version is.
    let subject = call.info.path.strip_prefix("/openapi/v3").unwrap_or(&call.info.path);
    if let Some(remote) = server.aggregator.remote(subject) {
        return aggregator::proxy(server, &remote, &call.user, request).await;
    }
    if call.info.is_resource {
        return resource::answer(server, call, request).await;
    }
    if ["/openapi/v2", "/openapi/v2/"].contains(&call.info.path.as_str()) {
        let table = server.catalog.table();
        // It may have to be made, which takes a while.
        let answered = tokio::task::spawn_blocking(move || openapi::v2::answer(&table, &call.headers)).await;
        return answered.map_err(Status::internal);
    }
    if request.method() != http::Method::GET && request.method() != http::Method::HEAD {
        return Err(Status::method_not_supported(&canopus_api::Gvr::default(), &call.info.verb));
    }
    other(server, &call)
}

/// Paths that are not about resources.
fn other(server: &Arc<Server>, call: &Call) -> Result<Response<Body>> {
    let path = call.info.path.trim_end_matches('/');
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", rest @ ..] => Ok(health(server, parts[0], rest, call.query.has("verbose"))),
        ["version"] => Ok(json_response(json::to_vec(&discovery::version()))),
        ["metrics"] => {
            let mut text = String::new();
            server.metrics.render(&mut text);
            server.metrics.webhooks.render(&mut text);
            metrics::render_inflight(server.inflight.current(), &mut text);
            metrics::render_features(&server.settings.features, &mut text);
            Ok(text_response(StatusCode::OK, "text/plain; version=0.0.4", text.into_bytes()))
        }
        ["api" | "apis", ..] => discovery::answer(&server.catalog.table(), &call.headers, &parts),
        [".well-known", "openid-configuration"] => published(server, "application/json", |t| t.openid_configuration()),
        ["openid", "v1", "jwks"] => published(server, "application/jwk-set+json", |t| t.jwks()),
        ["openapi", "v3", rest @ ..] => {
            openapi::answer(&server.catalog.table(), &call.headers, rest, &call.query.get("hash"))
        }
        [""] => Ok(json_response(json::to_vec(&discovery::root_paths(&server.catalog.table())))),
        _ => Err(Status::no_such_resource()),
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

/// `/readyz?verbose` and friends, in upstream's format.
fn health(server: &Server, endpoint: &str, rest: &[&str], verbose: bool) -> Response<Body> {
    let ready = server.ready.load(Ordering::Acquire);
    let checks = [
        ("ping", true),
        ("log", true),
        ("etcd", true),
        ("poststarthook/rbac/bootstrap-roles", ready),
        ("shutdown", !server.closing.is_cancelled()),
    ];
    // Only readiness depends on it that the server is about to stop.
    let checks = &checks[..if endpoint == "readyz" { 5 } else { 4 }];
    let failed = |(_, good): &(&str, bool)| !good && endpoint != "livez";
    if !rest.is_empty() {
        let name = rest.join("/");
        return match checks.iter().find(|(n, _)| *n == name) {
            Some(check) if failed(check) => {
                text_response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", b"not finished".to_vec())
            }
            Some(_) => text_response(StatusCode::OK, "text/plain; charset=utf-8", b"ok".to_vec()),
            None => text_response(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", b"404 page not found\n".to_vec()),
        };
    }
    let bad = checks.iter().any(failed);
    let mut text = String::new();
    if verbose || bad {
        for check in checks {
            let line = if failed(check) {
                format!("[-]{} failed: reason withheld\n", check.0)
            } else {
                format!("[+]{} ok\n", check.0)
            };
            text += &line;
        }
        text += &format!("{endpoint} check {}\n", if bad { "failed" } else { "passed" });
    } else {
        text += "ok";
    }
    let code = if bad { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    text_response(code, "text/plain; charset=utf-8", text.into_bytes())
}

pub(crate) fn json_response(bytes: Vec<u8>) -> Response<Body> {
    text_response(StatusCode::OK, "application/json", bytes)
}

pub(crate) fn text_response(code: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache, private"));
    response
}
