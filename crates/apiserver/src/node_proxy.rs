//! Requests that end at a node's agent: logs, exec, attach, port-forward, node proxy. Upgraded connections
//! (WebSocket, SPDY) are passed through byte by byte.

use crate::http::Body;
use canopus_api::{Result, Status, Value};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How to reach nodes: TLS that trusts the cluster's CA and shows the API server's client certificate.
pub struct NodeProxy {
    connector: TlsConnector,
}

/// A node's agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    pub ip: IpAddr,
    pub port: u16,
}

/// The agent of a Node object: its InternalIP and kubelet port.
pub fn address(node: &Value) -> Result<Address> {
    let addresses = node["status"]["addresses"].items();
    let name = node["metadata"]["name"].str();
    let by_kind = |kind: &str| {
        let mut of_kind = addresses.iter().filter(|a| a["type"].str() == kind);
        of_kind.find_map(|a| a["address"].str().parse::<IpAddr>().ok())
    };
    let ip = by_kind("InternalIP").or_else(|| by_kind("ExternalIP"));
    let ip = ip.ok_or_else(|| Status::internal(format!("no preferred addresses found for node {name:?}")))?;
    let port = u16::try_from(node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].int()).unwrap_or(0);
    Ok(Address { ip, port: if port == 0 { 10250 } else { port } })
}

impl NodeProxy {
    pub fn new(tls: Arc<rustls::ClientConfig>) -> NodeProxy {
        NodeProxy { connector: TlsConnector::from(tls) }
    }

    /// Sends the request to `path_and_query` on the node and passes its answer back.
    pub async fn forward(
        &self,
        to: &Address,
        path_and_query: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Body>> {
        let failed = |e: &dyn std::fmt::Display| Status::internal(format!("error dialing backend: {e}"));
        let connect = TcpStream::connect((to.ip, to.port));
        let stream = tokio::time::timeout(Duration::from_secs(10), connect).await;
        let stream = stream.map_err(|_| failed(&"i/o timeout"))?.map_err(|e| failed(&e))?;
        let _ = stream.set_nodelay(true);
        let stream = self.connector.connect(ServerName::from(to.ip), stream).await.map_err(|e| failed(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        tokio::spawn(connection.with_upgrades());

        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let outgoing = outgoing(&parts.method, &parts.headers, to, path_and_query, body)?;
        let mut answer = sender.send_request(outgoing).await.map_err(|e| failed(&e))?;
        if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS
            && let Some(client) = upgrade
        {
            let node = hyper::upgrade::on(&mut answer);
            tokio::spawn(async move {
                if let (Ok(client), Ok(node)) = tokio::join!(client, node) {
                    let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
                    // Either side may simply go away; that ends the session, it is no error.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
                }
            });
            let (parts, _) = answer.into_parts();
            return Ok(Response::from_parts(parts, crate::http::empty()));
        }
        let (mut parts, body) = answer.into_parts();
        for hop in [header::CONNECTION, header::TRANSFER_ENCODING] {
            parts.headers.remove(hop);
        }
        Ok(Response::from_parts(parts, body.map_err(Into::into).boxed_unsync()))
    }
}

/// What of a node's refusal is passed on.
const MAX_REFUSAL: usize = 2048;

/// Turns a node's refusal, which is plain text, into the Status that clients understand.
pub async fn checked(answer: Response<Body>) -> Result<Response<Body>> {
    let code = answer.status();
    if code.is_success() {
        return Ok(answer);
    }
    let mut body = answer.into_body();
    let mut said = Vec::new();
    while let Some(Ok(frame)) = body.frame().await
        && said.len() < MAX_REFUSAL
    {
        said.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    said.truncate(MAX_REFUSAL);
    let said = String::from_utf8_lossy(&said);
    Err(match code {
        http::StatusCode::BAD_REQUEST => Status::bad_request(said),
        http::StatusCode::INTERNAL_SERVER_ERROR => Status::internal(said),
        http::StatusCode::NOT_FOUND => Status::new(404, "NotFound", said),
        _ => Status::new(code.as_u16(), "", said),
    })
}

fn outgoing(
    method: &Method,
    headers: &HeaderMap,
    to: &Address,
    path_and_query: &str,
    body: Incoming,
) -> Result<Request<Incoming>> {
    let uri: Uri = path_and_query.parse().map_err(|_| Status::bad_request("the path cannot be proxied"))?;
    let mut request = Request::new(body);
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers.clone();
    let out = request.headers_mut();
    // The client's credentials are for us; the node gets ours by TLS.
    out.remove(header::AUTHORIZATION);
    let host = match to.ip {
        IpAddr::V4(ip) => format!("{ip}:{}", to.port),
        IpAddr::V6(ip) => format!("[{ip}]:{}", to.port),
    };
    out.insert(header::HOST, HeaderValue::from_str(&host).map_err(Status::internal)?);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    #[tokio::test]
    async fn a_refusal_becomes_a_status() {
        let answer = |code: u16| {
            let body: Body = Full::from("not yet").map_err(|never| match never {}).boxed_unsync();
            Response::builder().status(code).body(body).unwrap()
        };
        assert_eq!(checked(answer(200)).await.unwrap().status(), 200);
        for (code, reason) in [(400, "BadRequest"), (404, "NotFound"), (500, "InternalError"), (503, "")] {
            let status = checked(answer(code)).await.unwrap_err();
            assert_eq!((status.code, status.reason.as_str()), (code, reason));
            assert!(status.message.ends_with("not yet"), "{status}");
        }
    }
}
