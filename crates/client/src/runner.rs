//! The loop every controller runs in: take a key, reconcile it, try again when that failed.

use crate::queue::Queue;
use async_trait::async_trait;
use canopus_api::Status;
use compact_str::CompactString;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// `namespace/name`, or `name`.
pub type Key = CompactString;

/// Splits a key into namespace ("" for cluster-scoped) and name.
pub fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Look again after this long even if nothing changes.
    After(Duration),
}

/// Brings one key's world to what its object says. Level-triggered: gets a key, never an event; must be idempotent.
/// After a write it waits until its views have seen it ([`crate::Informer::reached`]) before it returns.
#[async_trait]
pub trait Reconcile: Send + Sync + 'static {
    /// The controller's name, for logs.
    fn name(&self) -> &'static str;
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status>;
}

/// Works through `queue` with `workers` tasks until `shutdown`.
pub async fn run(queue: Arc<Queue<Key>>, workers: usize, reconciler: Arc<dyn Reconcile>, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    for _ in 0..workers {
        let (queue, reconciler, shutdown) = (queue.clone(), reconciler.clone(), shutdown.clone());
        tasks.spawn(async move {
            loop {
                let key = tokio::select! {
                    key = queue.next() => key,
                    () = shutdown.cancelled() => return,
                };
                work(&queue, &*reconciler, &key).await;
                queue.done(&key);
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn work(queue: &Queue<Key>, reconciler: &dyn Reconcile, key: &Key) {
    match reconciler.reconcile(key).await {
        Ok(Outcome::Done) => queue.forget_failures(key),
        Ok(Outcome::After(delay)) => {
            queue.forget_failures(key);
            queue.add_after(key.clone(), delay);
        }
        Err(error) => {
            // A conflict is how optimistic concurrency works; anything else that lasts is worth a look.
            if error.is_conflict() || queue.failures(key) < 3 {
                tracing::debug!(controller = reconciler.name(), %key, %error, "reconcile failed");
            } else {
                tracing::warn!(controller = reconciler.name(), %key, %error, "reconcile keeps failing");
            }
            queue.add_failed(key.clone());
        }
    }
}
