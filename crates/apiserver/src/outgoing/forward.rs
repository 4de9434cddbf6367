//! Passing a client's request on, with its stream and its upgrade (upstream `proxy.UpgradeAwareHandler`).

use super::html::Rewrite;
use super::pool::{Io, connect};
use super::resolve::Endpoint;
use crate::http::{Body, body, empty, full};
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, BodyStream};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

/// How long a backend gets to take up a connection.
const DIAL: Duration = Duration::from_secs(10);
/// Pages that are longer keep their links.
const MAX_PAGE: usize = 4 << 20;

/// Headers of one connection only (RFC 9110, 7.6.1), as upstream's reverse proxy knows them.
const HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Who gets the request.
pub struct Backend {
    pub endpoint: Endpoint,
    pub tls: Option<Arc<ClientConfig>>,
    /// What the certificate must say.
    pub server_name: String,
    /// The Host header; None: the client's own.
    pub host: Option<String>,
}

impl Backend {
    pub fn authority(&self) -> String {
        let Endpoint { host, port } = &self.endpoint;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// Whether the client wants to speak another protocol on this connection.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let tokens = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    tokens.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Sends the request to `path_and_query` at the backend and answers what comes back; an upgraded connection is passed
/// through byte by byte. The client's credentials stay here; `edit` may add others.
///
/// # Errors
/// Why the backend cannot be reached, in the words of upstream's HTTP client.
pub async fn forward(
    to: &Backend,
    path_and_query: &str,
    request: Request<Incoming>,
    edit: impl FnOnce(&mut HeaderMap),
) -> Result<Response<Body>, String> {
    let dialing = connect(&to.endpoint, to.tls.as_ref(), &to.server_name);
    let timed_out = || format!("dial tcp {}: i/o timeout", to.authority());
    let stream = tokio::time::timeout(DIAL, dialing).await.map_err(|_| timed_out())??;
    let (mut parts, body) = request.into_parts();
    let client = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let upgrade = is_upgrade(&parts.headers) && client.is_some();
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = path_and_query.parse::<Uri>().map_err(|e| e.to_string())?;
    *outgoing.headers_mut() = parts.headers;
    let headers = outgoing.headers_mut();
    clean(headers, upgrade);
    let authority = parts.uri.authority().map(ToString::to_string);
    if let Some(host) = to.host.clone().or(authority) {
        headers.insert(header::HOST, HeaderValue::from_str(&host).map_err(|e| e.to_string())?);
    }
    edit(headers);
    let answer = exchange(stream, outgoing).await?;
    match (answer.status(), client) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(client)) if upgrade => Ok(switch(client, answer)),
        (status, _) if upgrade && status.as_u16() < 400 => {
            Err(format!("invalid upgrade response: status code {}", status.as_u16()))
        }
        _ => {
            let (mut parts, body) = answer.into_parts();
            HOP.iter().for_each(|hop| drop(parts.headers.remove(hop)));
            Ok(Response::from_parts(parts, body.map_err(Into::into).boxed_unsync()))
        }
    }
}

async fn exchange(stream: Box<dyn Io>, request: Request<Incoming>) -> Result<Response<Incoming>, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(|e| match std::error::Error::source(&e) {
        Some(cause) => cause.to_string(),
        None if e.is_incomplete_message() => "EOF".into(),
        None => e.to_string(),
    })
}

/// Takes out what is meant for this server only.
fn clean(headers: &mut HeaderMap, upgrade: bool) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .filter(|name| name != "upgrade")
        .collect();
    let protocol = headers.get(header::UPGRADE).cloned().filter(|_| upgrade);
    let for_us = |name: &HeaderName| {
        let name = name.as_str();
        HOP.iter().any(|hop| hop == name)
            || named.iter().any(|n| n == name)
            || name == "authorization"
            || name.starts_with("impersonate-")
            || ["x-remote-user", "x-remote-group", "x-remote-uid"].contains(&name)
            || name.starts_with("x-remote-extra-")
    };
    let out: Vec<HeaderName> = headers.keys().filter(|name| for_us(name)).cloned().collect();
    out.iter().for_each(|name| drop(headers.remove(name)));
    if let Some(protocol) = protocol {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

fn switch(client: hyper::upgrade::OnUpgrade, mut answer: Response<Incoming>) -> Response<Body> {
    let backend = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        if let (Ok(client), Ok(backend)) = tokio::join!(client, backend) {
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            // Either side may simply go away; that ends the session, it is no error.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
        }
    });
    let (parts, _) = answer.into_parts();
    Response::from_parts(parts, empty())
}

/// Makes redirects and the links of pages lead through the proxy, and drops what the backend says about other origins.
pub async fn rewrite(answer: Response<Body>, to: &Rewrite) -> Response<Body> {
    let (mut parts, page) = answer.into_parts();
    for name in ["credentials", "headers", "methods", "origin"] {
        parts.headers.remove(format!("access-control-allow-{name}"));
    }
    if let Some(location) = parts.headers.get(header::LOCATION).and_then(|v| v.to_str().ok()) {
        if let Some(Ok(through)) = to.link(location).map(|l| HeaderValue::from_str(&l)) {
            parts.headers.insert(header::LOCATION, through);
        }
        return Response::from_parts(parts, page);
    }
    let text = |name| parts.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("");
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    let gzip = match text(header::CONTENT_ENCODING) {
        "" => false,
        "gzip" => true,
        _ => return Response::from_parts(parts, page),
    };
    if kind != "text/html" {
        return Response::from_parts(parts, page);
    }
    match whole(page).await {
        Ok(bytes) => {
            let bytes = rewritten(&bytes, gzip, to).map_or(bytes, Bytes::from);
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, full(bytes))
        }
        Err(page) => Response::from_parts(parts, page),
    }
}

/// None when it is no text, or too much of it.
fn rewritten(bytes: &[u8], gzip: bool, to: &Rewrite) -> Option<Vec<u8>> {
    if !gzip {
        return Some(to.page(std::str::from_utf8(bytes).ok()?).into_bytes());
    }
    let mut plain = String::new();
    let read = GzDecoder::new(bytes).take(MAX_PAGE as u64).read_to_string(&mut plain).ok()?;
    if read >= MAX_PAGE {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(to.page(&plain).as_bytes()).ok()?;
    encoder.finish().ok()
}

/// A body read to its end; or, when it is too long or breaks off, as it came.
async fn whole(body: Body) -> Result<Bytes, Body> {
    let mut frames = BodyStream::new(body);
    let mut read = BytesMut::new();
    while let Some(frame) = frames.next().await {
        match frame {
            Ok(frame) => read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Err(error) => {
                let rest = futures::stream::iter([Ok(read.freeze()), Err(error)]);
                return Err(body::try_stream(rest));
            }
        }
        if read.len() > MAX_PAGE {
            let rest = frames.filter_map(|frame| async move { frame.map(|f| f.into_data().ok()).transpose() });
            return Err(body::try_stream(futures::stream::iter([Ok(read.freeze())]).chain(rest)));
        }
    }
    Ok(read.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_this_server_stays_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("connection", "Upgrade, X-Hop"),
            ("upgrade", "websocket"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("impersonate-user", "root"),
            ("x-remote-user", "root"),
            ("x-remote-extra-a", "b"),
            ("cookie", "a=b"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        assert!(is_upgrade(&headers));
        let mut upgraded = headers.clone();
        clean(&mut upgraded, true);
        let mut names: Vec<&str> = upgraded.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["connection", "cookie", "upgrade"]);
        clean(&mut headers, false);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["cookie"]);
    }

    fn to() -> Rewrite {
        Rewrite { prefix: "/p/proxy".into(), source: "10.0.0.1:80".into(), requested: "api".into() }
    }

    #[tokio::test]
    async fn pages_and_redirects_lead_through_the_proxy() {
        let page = |kind: &str, text: &str| {
            Response::builder().header("content-type", kind).body(full(text.to_string())).unwrap()
        };
        let text = async |answer: Response<Body>| {
            String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
        };
        let html = rewrite(page("text/html; charset=utf-8", "<a href=\"/x\">"), &to()).await;
        assert_eq!(text(html).await, "<a href=\"/p/proxy/x\">");
        let plain = rewrite(page("text/plain", "<a href=\"/x\">"), &to()).await;
        assert_eq!(text(plain).await, "<a href=\"/x\">");
        let long = "x".repeat(MAX_PAGE + 10) + "<a href=\"/x\">";
        assert_eq!(text(rewrite(page("text/html", &long), &to()).await).await, long);
        let mut moved = page("text/html", "");
        moved.headers_mut().insert("location", HeaderValue::from_static("http://10.0.0.1:80/y"));
        assert_eq!(rewrite(moved, &to()).await.headers()["location"], "/p/proxy/y");
    }

    #[test]
    fn a_compressed_page() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"<a href=/x>").unwrap();
        let changed = rewritten(&encoder.finish().unwrap(), true, &to()).unwrap();
        let mut text = String::new();
        GzDecoder::new(&changed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "<a href=/p/proxy/x>");
    }
}
