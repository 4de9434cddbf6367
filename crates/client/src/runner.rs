//! The loop every controller runs in: take a key, reconcile it, try again when that failed.

use crate::queue::Queue;
use async_trait::async_trait;
use canopus_api::Status;
use compact_str::CompactString;
use std::sync::Arc;
use std::time::{Duration, Instant};
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
                let (mut spent, began) = (Duration::ZERO, Instant::now());
                clocked(&mut spent, work(&queue, &*reconciler, &key)).await;
                match rest(spent, began.elapsed()) {
                    Duration::ZERO => queue.done(&key),
                    rest => {
                        let queue = queue.clone();
                        tokio::spawn(async move {
                            tokio::time::sleep(rest).await;
                            queue.done(&key);
                        });
                    }
                }
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// A key's passes take at most a fifth of a processor: one that is expensive (a set of ten thousand pods) and changes all
/// the time is looked at less often, and sees more changes at once.
const SHARE: u32 = 5;
/// Passes that are cheaper than this may follow each other at once.
const CHEAP: Duration = Duration::from_micros(500);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How long a key rests after a pass that `took` so long, `spent` of it on a processor.
fn rest(spent: Duration, took: Duration) -> Duration {
    if spent < CHEAP { Duration::ZERO } else { (spent * SHARE).saturating_sub(took).min(LONGEST_REST) }
}

/// Adds to `spent` what each poll of `future` takes.
async fn clocked<F: Future>(spent: &mut Duration, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        let began = Instant::now();
        let done = future.as_mut().poll(cx);
        *spent += began.elapsed();
        done
    })
    .await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_expensive_passes_that_did_not_wait_are_followed_by_a_rest() {
        let ms = Duration::from_millis;
        let table = [(ms(0), ms(0), ms(0)), (ms(3), ms(3), ms(12)), (ms(3), ms(8), ms(7)), (ms(3), ms(20), ms(0))];
        for (spent, took, expected) in table {
            assert_eq!(rest(spent, took), expected, "{spent:?} of {took:?}");
        }
        assert_eq!(rest(ms(9000), ms(9000)), LONGEST_REST);
    }
}
