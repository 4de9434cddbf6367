//! The load generator's HTTP/2 connection: no pool, no parsing, no retries.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use canopus_client::kubeconfig::Config;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpStream;

/// The windows of Go's client, so that flow control is as with real clients.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;

/// One connection, as the user of a kubeconfig. Clones share it.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    origin: Arc<str>,
}

impl Connection {
    pub async fn open(config: &Config, ip: IpAddr, port: u16) -> Result<Connection> {
        let mut tls = config.tls()?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(SocketAddr::new(ip, port)).await?;
        stream.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let stream = connector.connect(ServerName::from(ip), stream).await.context("TLS handshake")?;
        let mut builder = Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.context("HTTP/2 handshake")?;
        tokio::spawn(connection);
        Ok(Connection { sender, origin: format!("https://{}", SocketAddr::new(ip, port)).into() })
    }

    async fn request(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Incoming)> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.origin));
        request = request.header(header::ACCEPT, "application/json").header(header::USER_AGENT, "canopus-bench");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        Ok((response.status(), response.into_body()))
    }

    /// Sends a request and reads the answer, whatever its status.
    pub async fn exchange(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let (status, body) = self.request(method, path, body).await?;
        Ok((status, body.collect().await?.to_bytes()))
    }

    /// A request that must succeed.
    pub async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let shown = method.clone();
        let (status, body) = self.exchange(method, path, body).await?;
        ensure!(status.is_success(), "{shown} {path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    pub async fn get(&mut self, path: &str) -> Result<Bytes> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Reads an answer and forgets it; how many bytes it had.
    pub async fn drain(&mut self, path: &str) -> Result<usize> {
        let mut body = self.stream(path).await?;
        let mut size = 0;
        while let Some(frame) = body.frame().await {
            size += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(size)
    }

    /// The body of an answer as it comes.
    pub async fn stream(&mut self, path: &str) -> Result<Incoming> {
        let (status, body) = self.request(Method::GET, path, Bytes::new()).await?;
        ensure!(status.is_success(), "GET {path}: {status}");
        Ok(body)
    }
}
