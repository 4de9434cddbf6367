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
        .uri(format!("wss://{authority}{prefix}{path_and_query}"))
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

#[cfg(test)]
#[expect(clippy::result_large_err, reason = "tungstenite's signature")]
pub mod testing {
    use super::*;
    use canopus_client::kubeconfig::Config;
    use futures::{SinkExt, StreamExt};
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

    type Upgrade = fn(&Request, Response) -> Result<Response, ErrorResponse>;

    /// A session with a server that takes one WebSocket, or refuses it, and then says `messages`.
    pub async fn session(upgrade: Upgrade, messages: Vec<Vec<u8>>) -> Session {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let tls = rustls::ServerConfig::builder().with_no_client_auth();
        let tls = tls.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let stream = TlsAcceptor::from(Arc::new(tls)).accept(tcp).await.unwrap();
            let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, upgrade).await else { return };
            for message in messages {
                socket.send(Message::Binary(message.into())).await.unwrap();
            }
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
        });
        let config =
            Config { server, ca: made.cert.pem().into_bytes(), namespace: "default".into(), ..Config::default() };
        Session::new(config, None).unwrap()
    }

    pub fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        assert_eq!(request.headers()[header::SEC_WEBSOCKET_PROTOCOL], PROTOCOL);
        assert_eq!(request.uri(), "/exec?command=x");
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL.parse().unwrap());
        Ok(response)
    }

    #[tokio::test]
    async fn messages_arrive() {
        let session = session(agree, vec![b"\x01hello".to_vec()]).await;
        let mut socket = connect(&session, "/exec?command=x").await.unwrap();
        let message = socket.next().await.unwrap().unwrap();
        assert_eq!(&message.into_data()[..], b"\x01hello");
    }

    #[tokio::test]
    async fn a_refusal_is_the_servers_status() {
        let refuse: Upgrade = |_, _| {
            let status = Status::bad_request("container c not found in pod p").to_value();
            Err(Response::builder().status(400).body(Some(json::to_string(&status))).unwrap())
        };
        let session = session(refuse, Vec::new()).await;
        let error = connect(&session, "/exec?command=x").await.unwrap_err();
        let status = error.downcast::<Status>().unwrap();
        assert_eq!((status.code, status.message.as_str()), (400, "container c not found in pod p"));
    }
}
