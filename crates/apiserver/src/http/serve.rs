//! Listening: TLS, HTTP/1.1 and HTTP/2 on one port.

use super::gather::Gathered;
use super::{Peer, handle};
use crate::server::Server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A client that does not finish its handshake in this time is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So is one that does not finish its headers in upstream's ReadHeaderTimeout.
const HEADERS: Duration = Duration::from_secs(32);
/// Upstream's http2-max-streams-per-connection.
const MAX_STREAMS: u32 = 100;

/// Serves until `shutdown`; connections then get a graceful close and a moment to finish.
pub async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to be closed.
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => break,
        };
        let (server, acceptor, shutdown) = (server.clone(), acceptor.clone(), shutdown.clone());
        connections.spawn(async move {
            if let Err(error) = connection(server, acceptor, stream, shutdown).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    server.closing.cancel();
    connections.close();
    let _ = tokio::time::timeout(Duration::from_secs(2), connections.wait()).await;
}

async fn connection(
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    shutdown: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let address = stream.peer_addr().ok().map(|a| a.ip());
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Peer { certificates: shown.to_vec(), address };
    talk(server, Arc::new(peer), stream, shutdown).await
}

/// HTTP on one connection, until the client or `shutdown` ends it.
pub(super) async fn talk(
    server: Arc<Server>,
    peer: Arc<Peer>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    shutdown: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let service = service_fn(move |request| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(handle(server, peer, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(1 << 20)
        .keep_alive_interval(Duration::from_secs(30));
    let stream = Gathered::new(stream);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream.clone()), service);
    tokio::pin!(connection);
    tokio::select! {
        done = stream.drive(connection.as_mut()) => done,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            stream.drive(connection).await
        }
    }
}
