//! A question that many ask at once, put once.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// An answer holds for everybody who came before its question was put.
#[derive(Default)]
pub(super) struct Rounds {
    put: AtomicU64,
    /// The newest answer, and the number of its question.
    last: Mutex<(u64, u64)>,
}

impl Rounds {
    /// The answer to a question that is put after this call.
    pub(super) async fn next<E, F: Future<Output = Result<u64, E>>>(&self, ask: impl FnOnce() -> F) -> Result<u64, E> {
        let before = self.put.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if last.0 > before {
            return Ok(last.1);
        }
        let number = self.put.fetch_add(1, Ordering::AcqRel) + 1;
        let answer = ask().await?;
        *last = (number, answer);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn who_waits_shares_the_next_answer() {
        let (rounds, gate, asked) =
            (Arc::new(Rounds::default()), Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
        let start = || {
            let (rounds, gate, asked) = (rounds.clone(), gate.clone(), asked.clone());
            tokio::spawn(async move {
                let ask = || async {
                    let number = asked.fetch_add(1, Ordering::AcqRel) + 1;
                    gate.acquire().await.map_err(|_| ())?.forget();
                    Ok::<_, ()>(number)
                };
                rounds.next(ask).await
            })
        };
        let first = start();
        while asked.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        // These come while the first question is out, whose answer is too old for them.
        let late: Vec<_> = (0..5).map(|_| start()).collect();
        tokio::task::yield_now().await;
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(1));
        for one in late {
            assert_eq!(one.await.unwrap(), Ok(2));
        }
    }
}
