//! HTTP on one connection, and how long it may take for nothing: the port is open to every pod.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Body;

/// What a client may take that asks for nothing.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub handshake: Duration,
    /// For a request's headers, the first of them too, and between requests.
    pub request: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { handshake: Duration::from_secs(10), request: Duration::from_secs(60) }
    }
}

/// Of one connection, at once.
const MAX_STREAMS: u32 = 100;
const MAX_HEADERS: u32 = 64 << 10;

/// What goes on on a connection.
#[derive(Default)]
struct Activity {
    open: AtomicUsize,
    all: AtomicUsize,
}

/// A request that goes on, its answer's body included.
struct Open(Arc<Activity>);

impl Open {
    fn new(activity: &Arc<Activity>) -> Open {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.all.fetch_add(1, Ordering::Relaxed);
        Open(activity.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// Waits until nobody has asked for anything for so long.
    async fn ceased(&self, patience: Duration) {
        let mut seen = 0;
        loop {
            tokio::time::sleep(patience).await;
            let all = self.all.load(Ordering::Relaxed);
            if all == seen && self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = all;
        }
    }
}

/// Answers requests until the client leaves, asks for nothing, or goes on in another protocol.
pub(super) async fn talk<A, F>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    patience: Patience,
    answer: A,
) where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request| {
        let (open, answer) = (Open::new(&activity), answer(request));
        async move {
            let response = answer.await;
            let keep = move |frame| {
                let _open = &open;
                frame
            };
            // What has a length goes out at once; anything else may go on for as long as the client wishes.
            Ok::<_, Infallible>(match response.body().size_hint().exact() {
                Some(_) => response,
                None => response.map(|body| body.map_frame(keep).boxed_unsync()),
            })
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.request);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .keep_alive_interval(Duration::from_secs(30));
    tokio::select! {
        done = builder.serve_connection_with_upgrades(TokioIo::new(stream), service) => {
            if let Err(error) = done {
                tracing::debug!(%error, "connection failed");
            }
        }
        () = activity.ceased(patience.request) => tracing::debug!("a connection was not used"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    const SOON: Duration = Duration::from_millis(50);

    fn connect() -> DuplexStream {
        let (near, far) = tokio::io::duplex(1 << 16);
        let patience = Patience { handshake: SOON, request: SOON };
        tokio::spawn(talk(far, patience, |_| async {
            tokio::time::sleep(3 * SOON).await;
            text(http::StatusCode::OK, "ok")
        }));
        near
    }

    #[tokio::test]
    async fn who_asks_for_nothing_is_cut_off_and_who_asks_is_answered() {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        const PING: &[u8] = b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678";
        for (what, first, more) in [
            ("nothing", &b""[..], &b""[..]),
            ("half a preface", b"PRI", b""),
            ("headers without end", b"GET /healthz HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n"),
            ("only pings", PREFACE, PING),
        ] {
            let (mut read, mut write) = tokio::io::split(connect());
            write.write_all(first).await.expect("it listens");
            let slow = tokio::spawn(async move {
                while write.write_all(more).await.is_ok() {
                    tokio::time::sleep(SOON / 5).await;
                }
            });
            let mut other = connect();
            other
                .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await
                .expect("it listens");
            let mut said = String::new();
            other.read_to_string(&mut said).await.expect("an answer");
            assert!(said.starts_with("HTTP/1.1 200 OK") && said.ends_with("ok"), "{what}: {said}");
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(30), read.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "{what}");
            slow.abort();
        }
    }
}
