//! Audit events sent to a webhook in batches (upstream `plugin/audit/buffered` over `plugin/audit/webhook`).

use crate::outgoing::{Destination, Failure};
use crate::server::Server;
use canopus_api::{Value, value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// `--audit-webhook-batch-*` and `--audit-webhook-initial-backoff`.
#[derive(Clone, Debug)]
pub struct Options {
    pub buffer: usize,
    pub batch: usize,
    pub wait: Duration,
    pub backoff: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { buffer: 10_000, batch: 400, wait: Duration::from_secs(30), backoff: Duration::from_secs(10) }
    }
}

/// How often a batch is tried (upstream's retry back-off has this many steps, each half as long again).
const ATTEMPTS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(30);
/// At most ten batches a second (upstream's throttle).
const PAUSE: Duration = Duration::from_millis(100);

pub struct Webhook {
    events: mpsc::Sender<Value>,
    dropped: AtomicU64,
}

impl Webhook {
    /// Sends until `shutdown`, then what is left.
    pub fn start(server: &Arc<Server>, to: Destination, options: Options, shutdown: CancellationToken) -> Webhook {
        let (events, queue) = mpsc::channel(options.buffer.max(1));
        let server = Arc::downgrade(server);
        tokio::spawn(send(server, to, options, queue, shutdown));
        Webhook { events, dropped: AtomicU64::new(0) }
    }

    /// Never waits: what does not fit is dropped.
    pub fn send(&self, event: Value) {
        if self.events.try_send(event).is_err() && self.dropped.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::warn!("audit events are dropped: the webhook does not keep up");
        }
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

async fn send(
    server: Weak<Server>,
    to: Destination,
    options: Options,
    mut queue: mpsc::Receiver<Value>,
    shutdown: CancellationToken,
) {
    loop {
        // Nobody is woken before there is something to send.
        let first = tokio::select! {
            first = queue.recv() => first,
            () = shutdown.cancelled() => queue.try_recv().ok(),
        };
        let Some(first) = first else { return };
        let mut batch = vec![first];
        let deadline = Instant::now() + options.wait;
        while batch.len() < options.batch {
            let next = tokio::select! {
                biased;
                next = queue.recv() => next,
                () = tokio::time::sleep_until(deadline) => None,
                () = shutdown.cancelled() => queue.try_recv().ok(),
            };
            match next {
                Some(event) => batch.push(event),
                None => break,
            }
        }
        let Some(server) = server.upgrade() else { return };
        deliver(&server, &to, batch, &options, &shutdown).await;
        if !shutdown.is_cancelled() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn deliver(
    server: &Server,
    to: &Destination,
    batch: Vec<Value>,
    options: &Options,
    shutdown: &CancellationToken,
) {
    let count = batch.len();
    let list = value!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": batch});
    let mut wait = options.backoff;
    for attempt in 1..=ATTEMPTS {
        let failure = match server.outgoing.post(to, &list, PATIENCE).await {
            // What comes back is not looked at.
            Ok(_) | Err(Failure::Answer(_)) => return,
            Err(failure) => failure,
        };
        let final_word = matches!(&failure, Failure::Refused(status) if status.code < 500 && status.code != 429);
        if attempt == ATTEMPTS || final_word || shutdown.is_cancelled() {
            tracing::error!(%failure, count, "failed to send audit events; they are lost");
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
        wait += wait / 2;
    }
}
