//! Spans sent to the collector in batches, by gRPC without TLS, as upstream does.

use super::{Span, otlp};
use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// OpenTelemetry's defaults for batches.
const BATCH: usize = 512;
const WAIT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);
/// A batch is tried so often.
const ATTEMPTS: u32 = 3;
const MAX_ANSWER: usize = 64 << 10;

type Sender = SendRequest<Full<Bytes>>;

pub(super) async fn run(
    endpoint: String,
    instance: String,
    mut queue: mpsc::Receiver<Span>,
    shutdown: CancellationToken,
) {
    let mut collector = Collector { endpoint, connection: None };
    loop {
        // Nobody is woken before there is something to send.
        let first = tokio::select! {
            first = queue.recv() => first,
            () = shutdown.cancelled() => queue.try_recv().ok(),
        };
        let Some(first) = first else { return };
        let mut batch = vec![first];
        let deadline = Instant::now() + WAIT;
        while batch.len() < BATCH {
            let next = tokio::select! {
                biased;
                next = queue.recv() => next,
                () = tokio::time::sleep_until(deadline) => None,
                () = shutdown.cancelled() => queue.try_recv().ok(),
            };
            match next {
                Some(span) => batch.push(span),
                None => break,
            }
        }
        collector.deliver(&otlp::request(&instance, &batch), batch.len(), &shutdown).await;
    }
}

struct Collector {
    endpoint: String,
    connection: Option<Sender>,
}

impl Collector {
    async fn deliver(&mut self, message: &[u8], count: usize, shutdown: &CancellationToken) {
        let mut pause = Duration::from_secs(1);
        for attempt in 1..=ATTEMPTS {
            let why = match tokio::time::timeout(PATIENCE, self.export(message)).await {
                Ok(Ok(())) => return,
                Ok(Err(why)) => why,
                Err(_) => "it took too long".to_string(),
            };
            self.connection = None;
            if attempt == ATTEMPTS || shutdown.is_cancelled() {
                tracing::warn!(why, count, collector = self.endpoint, "failed to export spans; they are lost");
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => {}
            }
            pause *= 2;
        }
    }

    async fn connection(&mut self) -> Result<Sender, String> {
        if let Some(sender) = self.connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = TcpStream::connect(self.endpoint.as_str()).await.map_err(|e| e.to_string())?;
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|e| e.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the collector of traces ended");
            }
        });
        self.connection = Some(sender.clone());
        Ok(sender)
    }

    /// One call of gRPC.
    async fn export(&mut self, message: &[u8]) -> Result<(), String> {
        let mut sender = self.connection().await?;
        let mut frame = BytesMut::with_capacity(message.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).map_err(|e| e.to_string())?);
        frame.put_slice(message);
        let uri: Uri = format!("http://{}{PATH}", self.endpoint).parse().map_err(|e| format!("{e}"))?;
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame.freeze()))
            .map_err(|e| e.to_string())?;
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
        let status = |headers: &http::HeaderMap| {
            let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_string);
            text("grpc-status").map(|code| (code, text("grpc-message").unwrap_or_default()))
        };
        // One that has nothing else to say says it at once.
        match status(&head.headers).or_else(|| body.trailers().and_then(status)) {
            Some((code, _)) if code == "0" => Ok(()),
            Some((code, message)) => Err(format!("status {code}: {message}")),
            None => Err(format!("HTTP status {}", head.status)),
        }
    }
}
