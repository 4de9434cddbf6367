//! Requests that end at a node's agent: logs, exec, attach, port-forward, node proxy. Upgraded connections
//! (WebSocket, SPDY) are passed through byte by byte.

use crate::http::Body;
use crate::outgoing::forward::{Backend, forward};
use crate::outgoing::resolve::Endpoint;
use canopus_api::{Result, Status, Value};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::net::IpAddr;
use std::sync::Arc;

/// How to reach nodes: TLS that trusts the cluster's CA and shows the API server's client certificate.
pub struct NodeProxy {
    tls: Arc<rustls::ClientConfig>,
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
        NodeProxy { tls }
    }

    /// Sends the request to `path_and_query` on the node and passes its answer back.
    pub async fn forward(
        &self,
        to: &Address,
        path_and_query: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Body>> {
        let backend = Backend {
            endpoint: Endpoint { host: to.ip.to_string(), port: to.port },
            tls: Some(self.tls.clone()),
            server_name: to.ip.to_string(),
            host: None,
        };
        let backend = Backend { host: Some(backend.authority()), ..backend };
        let answer = forward(&backend, path_and_query, request, |_| {}).await;
        answer.map_err(|why| Status::internal(format!("error dialing backend: {why}")))
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
