//! What the health checks look at: whether the store answers, whether logs can be written, what was done at the start.

use canopus_store::Store;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Upstream `--etcd-healthcheck-timeout`.
const PATIENCE: Duration = Duration::from_secs(2);
/// Whoever asks within this time is told what the last one was.
const FRESH: Duration = Duration::from_millis(250);

/// How often it is tried to write to the log, and when a try has taken too long.
const LOG_PERIOD: Duration = Duration::from_secs(60);
const LOG_BLOCKED: Duration = Duration::from_secs(120);

#[derive(Default)]
pub struct Health {
    /// What is done once at the start, by the name of its check, and whether it is done.
    hooks: Mutex<Vec<(&'static str, bool)>>,
    store: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
    log: Log,
}

impl Health {
    /// Announces what is to be done before the server is healthy (upstream's post-start hooks).
    pub fn expect(&self, hooks: &[&'static str]) {
        self.hooks.lock().extend(hooks.iter().map(|name| (*name, false)));
    }

    pub fn finish(&self, hooks: &[&str]) {
        let mut known = self.hooks.lock();
        known.iter_mut().filter(|(name, _)| hooks.contains(name)).for_each(|(_, done)| *done = true);
    }

    pub fn hooks(&self) -> Vec<(&'static str, bool)> {
        self.hooks.lock().clone()
    }

    /// Whether the store answers, and why not. It is asked by one at a time, so that checks are no burden.
    pub async fn store(&self, store: &dyn Store) -> Result<(), String> {
        let mut last = self.store.lock().await;
        if let Some((at, result)) = &*last
            && at.elapsed() < FRESH
        {
            return result.clone();
        }
        let result = match tokio::time::timeout(PATIENCE, store.get("health")).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("context deadline exceeded".to_string()),
        };
        *last = Some((Instant::now(), result.clone()));
        result
    }

    /// Whether what is logged gets out.
    pub fn log(&self) -> Result<(), String> {
        // Who writes to the log holds this lock until the write is done.
        match self.log.good(Instant::now(), || drop(std::io::stderr().lock())) {
            true => Ok(()),
            false => Err("logging blocked".into()),
        }
    }
}

#[derive(Default)]
struct Log(Arc<Mutex<Tries>>);

#[derive(Default)]
struct Tries {
    /// Since when one is under way.
    trying: Option<Instant>,
    last: Option<Instant>,
}

impl Log {
    /// `write` blocks while logging is blocked, so it has a thread of its own: at most one, and rarely.
    fn good(&self, now: Instant, write: impl FnOnce() + Send + 'static) -> bool {
        let mut tries = self.0.lock();
        if let Some(since) = tries.trying {
            return now.saturating_duration_since(since) < LOG_BLOCKED;
        }
        if tries.last.is_some_and(|last| now.saturating_duration_since(last) < LOG_PERIOD) {
            return true;
        }
        let kept = self.0.clone();
        let done = move || {
            write();
            let mut tries = kept.lock();
            tries.last = tries.trying.take();
        };
        if std::thread::Builder::new().name("log-check".into()).stack_size(64 << 10).spawn(done).is_ok() {
            tries.trying = Some(now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_store::{Error, Outcome, Range, Revision, Version, Watch, Write};
    use std::sync::mpsc;

    #[test]
    fn a_blocked_log_is_noticed_and_mends() {
        let (log, start) = (Log::default(), Instant::now());
        let (unblock, blocked) = mpsc::channel::<()>();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(log.good(at(0), move || assert!(blocked.recv().is_err())));
        assert!(log.good(at(119), || panic!("one try at a time")));
        assert!(!log.good(at(121), || panic!("one try at a time")));
        drop(unblock);
        while log.0.lock().trying.is_some() {
            std::thread::yield_now();
        }
        assert!(log.good(at(30), || panic!("it was tried a moment ago")));
    }

    /// Answers nothing but its error.
    struct Broken;

    #[async_trait::async_trait]
    impl Store for Broken {
        async fn commit(&self, _: Write) -> Result<Outcome, Error> {
            Err(Error::Closed)
        }
        async fn get(&self, _: &str) -> Result<(Option<Arc<Version>>, Revision), Error> {
            Err(Error::Failed("disk on fire".into()))
        }
        async fn range(&self, _: &str, _: &str, _: Option<Revision>, _: usize) -> Result<Range, Error> {
            Err(Error::Closed)
        }
        async fn watch(&self, _: &str, _: Revision) -> Result<Watch, Error> {
            Err(Error::Closed)
        }
        async fn compact(&self, _: Revision) -> Result<(), Error> {
            Err(Error::Closed)
        }
        async fn may_compact(&self, _: Revision) -> Result<bool, Error> {
            Err(Error::Closed)
        }
        fn shared(&self) -> bool {
            false
        }
        async fn current(&self) -> Result<Revision, Error> {
            Err(Error::Closed)
        }
        fn revision(&self) -> Revision {
            1
        }
        fn compacted(&self) -> Revision {
            0
        }
    }

    #[tokio::test]
    async fn a_store_that_has_failed_is_not_healthy() {
        let store = canopus_store::memory::MemoryStore::new(Default::default()).unwrap();
        assert_eq!(Health::default().store(&store).await, Ok(()));
        let failed = Err("the store has failed: disk on fire".to_string());
        assert_eq!(Health::default().store(&Broken).await, failed);
    }
}
