//! A request for somebody else's group version, passed on (upstream `handler_proxy`).

use super::Remote;
use crate::http::{Body, full};
use crate::outgoing::forward::{Backend, forward, is_upgrade};
use crate::server::Server;
use crate::user::User;
use canopus_api::{Result, Status};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::time::Duration;

/// Discovery is asked by every client, so nobody waits long for it.
const DISCOVERY: Duration = Duration::from_secs(5);

pub async fn proxy(
    server: &Server,
    remote: &Remote,
    user: &User,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    if !remote.available {
        return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable"));
    }
    let crate::outgoing::Place::Service { namespace, name, port } = &remote.to.place else {
        return Err(Status::internal("an APIService without a Service"));
    };
    let endpoint = match server.outgoing.services().resolve(namespace, name, *port) {
        Ok(endpoint) => endpoint,
        Err(why) => {
            tracing::warn!(apiservice = remote.name, %why, "no endpoint for an APIService");
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable"));
        }
    };
    let tls = match &remote.tls {
        Ok(tls) => Some(tls.clone()),
        Err(why) => return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, why)),
    };
    let backend = Backend { endpoint, tls, server_name: remote.to.server_name(), host: None };
    let backend = Backend { host: Some(backend.authority()), ..backend };
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_string();
    let segments = request.uri().path().split('/').filter(|part| !part.is_empty()).count();
    let upgrade = is_upgrade(request.headers());
    let passed_on = forward(&backend, &path, request, |headers| identify(headers, user));
    let answer = match segments {
        3 => tokio::time::timeout(DISCOVERY, passed_on).await.unwrap_or(Err("context deadline exceeded".into())),
        _ => passed_on.await,
    };
    match answer {
        Ok(answer) if answer.status().is_redirection() && answer.headers().contains_key(header::LOCATION) => {
            let why = "the backend attempted to redirect this request, which is not permitted";
            Ok(plain(StatusCode::BAD_GATEWAY, why))
        }
        Ok(answer) => Ok(answer),
        Err(why) if upgrade => Ok(plain(StatusCode::SERVICE_UNAVAILABLE, &format!("error dialing backend: {why}"))),
        Err(why) => {
            let why = format!("error trying to reach service: {why}");
            Ok(plain(StatusCode::SERVICE_UNAVAILABLE, &why))
        }
    }
}

/// Text as Go's `http.Error` writes it.
fn plain(code: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(format!("{text}\n")));
    *response.status_mut() = code;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Says in headers who asks (upstream `transport.SetAuthProxyHeaders`). What a client says itself is gone already.
pub(super) fn identify(headers: &mut HeaderMap, user: &User) {
    let mut add = |name: &str, text: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(text.as_bytes())) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    user.groups.iter().for_each(|group| add("x-remote-group", group));
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        values.iter().for_each(|value| add(&name, value));
    }
}

/// A key as a header's name: what may not be in one, and `%`, is percent-encoded.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(byte as char),
            b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~' => {
                out.push(byte as char);
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_in_headers() {
        let user = User {
            name: "ann".into(),
            uid: "7".into(),
            groups: vec!["a".into(), "b".into()],
            extra: vec![("example.com/key%".into(), vec!["x".into(), "y".into()])],
        };
        let mut headers = HeaderMap::new();
        identify(&mut headers, &user);
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("x-remote-user"), all("x-remote-uid")), (vec!["ann"], vec!["7"]));
        assert_eq!(all("x-remote-group"), ["a", "b"]);
        assert_eq!(all("x-remote-extra-example.com%2fkey%25"), ["x", "y"]);
    }
}
