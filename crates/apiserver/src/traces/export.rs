//! Spans sent to the collector in batches, by gRPC without TLS, as upstream does.

use super::{Span, otlp};
use crate::outgoing::grpc::{Channel, Place};
use std::time::Duration;
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

pub(super) async fn run(
    endpoint: String,
    instance: String,
    mut queue: mpsc::Receiver<Span>,
    shutdown: CancellationToken,
) {
    let collector = Collector { channel: Channel::new(Place::Tcp(endpoint.clone())), endpoint };
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
    channel: Channel,
}

impl Collector {
    async fn deliver(&self, message: &[u8], count: usize, shutdown: &CancellationToken) {
        let mut pause = Duration::from_secs(1);
        for attempt in 1..=ATTEMPTS {
            let Err(why) = self.channel.call(PATH, message, MAX_ANSWER, PATIENCE).await else { return };
            if attempt == ATTEMPTS || shutdown.is_cancelled() {
                tracing::warn!(%why, count, collector = self.endpoint, "failed to export spans; they are lost");
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => {}
            }
            pause *= 2;
        }
    }
}
