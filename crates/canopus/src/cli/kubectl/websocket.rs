//! A WebSocket to the API server that speaks upstream's remote command protocol, `v5.channel.k8s.io`: each message is a
//! channel's number and bytes.

use super::session::Session;
use anyhow::{Context, Result, bail};
use canopus_api::{Status, json};
use http::{Request, Uri, header};
use rustls_pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

pub const PROTOCOL: &str = "v5.channel.k8s.io";
pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
/// The Status at the end.
pub const ERROR: u8 = 3;
pub const RESIZE: u8 = 4;
/// Followed by the number of a channel that has ended.
pub const CLOSE: u8 = 255;

pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Opens a WebSocket to a path below the session's server.
pub async fn connect(session: &Session, path_and_query: &str) -> Result<Socket> {
    let server: Uri = session.config.server.parse().context("failed to understand the server's URL")?;
    if server.scheme_str() != Some("https") {
        bail!("exec needs an https server, not {server}");
    }
    let authority = server.authority().context("the server's URL names no host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_string();
    let failed = || format!("failed to reach {server}");
    let tcp = TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(443))).await.with_context(failed)?;
    tcp.set_nodelay(true).with_context(failed)?;
    let mut tls = session.config.tls().context("failed to use the kubeconfig's credentials")?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host).context("the server's URL names no valid host")?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.with_context(failed)?;
    let prefix = server.path().trim_end_matches('/');
    let mut request = Request::builder()
        .uri(format!("https://{authority}{prefix}{path_and_query}"))
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, generate_key())
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
    if let Some(token) = &session.config.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(()).context("failed to make the request")?;
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            let status = json::parse(body).ok().as_ref().and_then(Status::from_value);
            Err(status
                .unwrap_or_else(|| Status::new(response.status().as_u16(), "", response.status().to_string()))
                .into())
        }
        Err(error) => Err(error).with_context(|| format!("failed to open a WebSocket to {server}")),
    }
}
