//! Listening: TLS, HTTP/1.1 and HTTP/2 on one port.

use super::gather::Gathered;
use super::{Body, Peer, body, handle};
use crate::server::Server;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long clients may take that keep a connection and ask for nothing.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// To finish the handshake, and to go when they are told to.
    pub handshake: Duration,
    /// To finish a request's headers, the first of them too (upstream's ReadHeaderTimeout).
    pub headers: Duration,
    /// Between requests (upstream's IdleTimeout).
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { handshake: Duration::from_secs(10), headers: Duration::from_secs(32), idle: Duration::from_secs(90) }
    }
}

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
            if let Err(error) = connection(server, acceptor, stream, shutdown, Patience::default()).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    server.closing.cancel();
    connections.close();
    let _ = tokio::time::timeout(Duration::from_secs(2), connections.wait()).await;
}

pub(super) async fn connection(
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    shutdown: CancellationToken,
    patience: Patience,
) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let address = stream.peer_addr().ok().map(|a| a.ip());
    let stream = tokio::time::timeout(patience.handshake, acceptor.accept(stream)).await??;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Peer { certificates: shown.to_vec(), address };
    talk(server, Arc::new(peer), stream, shutdown, patience).await
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What goes on on a connection.
#[derive(Default)]
struct Activity {
    /// Requests that are not over, long answers included.
    open: AtomicUsize,
    /// All there ever were.
    requests: AtomicUsize,
}

/// A request that goes on.
struct Open(Arc<Activity>);

impl Open {
    fn new(activity: &Arc<Activity>) -> Open {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.requests.fetch_add(1, Ordering::Relaxed);
        Open(activity.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// Waits until nothing has gone on for too long. HTTP/2 knows no limit of its own, nor does a connection on which nothing
    /// has been said at all.
    async fn ceased(&self, patience: Patience) {
        let mut seen = 0;
        loop {
            tokio::time::sleep(if seen == 0 { patience.headers } else { patience.idle }).await;
            let requests = self.requests.load(Ordering::Relaxed);
            if requests == seen && self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = requests;
        }
    }
}

async fn answer(server: Arc<Server>, peer: Arc<Peer>, request: Request<Incoming>, open: Open) -> Response<Body> {
    let response = handle(server, peer, request).await;
    // What has a length goes out at once; anything else may go on for as long as the client wishes.
    match response.body().size_hint().exact() {
        Some(_) => response,
        None => body::keeping(response, open),
    }
}

/// HTTP on one connection, until the client or `shutdown` ends it.
pub(super) async fn talk(
    server: Arc<Server>,
    peer: Arc<Peer>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    shutdown: CancellationToken,
    patience: Patience,
) -> Result<(), Failure> {
    let activity = Arc::new(Activity::default());
    let counted = activity.clone();
    let service = service_fn(move |request| {
        let (server, peer, open) = (server.clone(), peer.clone(), Open::new(&counted));
        async move { Ok::<_, Infallible>(answer(server, peer, request, open).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.headers);
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
        done = stream.drive(connection.as_mut()) => return done,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            return stream.drive(connection).await;
        }
        () = activity.ceased(patience) => connection.as_mut().graceful_shutdown(),
    }
    // It may just have begun to ask for something. One that says nothing is not waited for.
    loop {
        match tokio::time::timeout(patience.handshake, stream.drive(connection.as_mut())).await {
            Ok(done) => return done,
            Err(_) if activity.open.load(Ordering::Relaxed) == 0 => return Ok(()),
            Err(_) => {}
        }
    }
}
