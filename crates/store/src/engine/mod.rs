//! The engine that SQLite and memory stores share: what is in memory, and how it is read.
//!
//! One thread commits (see [`commit`]). Everybody else only reads [`State`], which changes once per commit group and
//! only after the group is durable, so that nobody sees half a group or what a crash could take back.

mod commit;
mod expiry;
mod index;
#[cfg(test)]
mod model;
mod queue;
mod range;
mod registry;
#[cfg(test)]
mod tests;
mod watcher;
mod window;

use crate::log::{History, Log, Record};
use crate::{Error, Event, Outcome, Range, Revision, Store, Version, Watch, Write};
use async_trait::async_trait;
use commit::{Committer, Job, Request};
use index::Index;
use parking_lot::{Mutex, RwLock};
use queue::Queue;
use registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, oneshot};
pub(crate) use watcher::{SlotProgress, Watcher};
use window::Window;

/// Tells the time, in Unix milliseconds. Only expiry depends on it.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The host's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64))
}

/// What a store accepts and keeps at hand.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest key, in bytes.
    pub key: usize,
    /// The longest value, in bytes.
    pub value: usize,
    /// How many of the newest events stay in memory for watchers, and about how many bytes they may hold.
    pub window_events: usize,
    pub window_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { key: 4 << 10, value: 3 << 20, window_events: 1 << 16, window_bytes: 8 << 20 }
    }
}

impl Limits {
    pub(crate) fn check_key(&self, key: &str) -> Result<(), Error> {
        match key.len() {
            0 => Err(Error::EmptyKey),
            size if size > self.key => Err(Error::TooLarge { what: "key", size, limit: self.key }),
            _ => Ok(()),
        }
    }

    pub(crate) fn check(&self, write: &Write) -> Result<(), Error> {
        self.check_key(&write.key)?;
        match &write.change {
            crate::Change::Put { value, .. } if value.len() > self.value => {
                Err(Error::TooLarge { what: "value", size: value.len(), limit: self.value })
            }
            _ => Ok(()),
        }
    }
}

/// Why a store has failed whose commit thread did.
const PANICKED: &str = "the commit thread panicked";

/// What is in memory.
pub(crate) struct State {
    index: Index,
    window: Window,
    revision: Revision,
    compacted: Revision,
    /// Why there is nothing to be had any more: `Failed` or `Closed`.
    over: Option<Error>,
}

impl State {
    fn usable(&self) -> Result<(), Error> {
        self.over.clone().map_or(Ok(()), Err)
    }

    fn readable(&self, revision: Revision) -> Result<(), Error> {
        self.usable()?;
        if revision > self.revision {
            return Err(Error::FutureRevision { requested: revision, current: self.revision });
        }
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        Ok(())
    }
}

/// Locks are taken in the order of the fields.
pub(crate) struct Shared {
    registry: Mutex<Registry>,
    state: RwLock<State>,
    history: Arc<dyn History>,
    limits: Limits,
    /// The newest revision that is known to exist, if that is more than the state's: events have yet to come here.
    ahead: AtomicU64,
    /// Something has been published; for those who wait for what is ahead.
    arrived: Notify,
}

impl Shared {
    fn new(state: State, history: Arc<dyn History>, limits: Limits) -> Shared {
        let registry = Mutex::new(Registry::default());
        let state = RwLock::new(state);
        Shared { registry, state, history, limits, ahead: AtomicU64::new(0), arrived: Notify::new() }
    }

    /// The window and watches of a store whose history is made elsewhere. There is no index: the keys are there too.
    pub(crate) fn following(revision: Revision, history: Arc<dyn History>, limits: Limits) -> Arc<Shared> {
        let window = Window::new(revision, limits.window_events, limits.window_bytes);
        let state = State { index: Index::default(), window, revision, compacted: 0, over: None };
        Arc::new(Shared::new(state, history, limits))
    }

    pub(crate) fn usable(&self) -> Result<(), Error> {
        self.state.read().usable()
    }

    /// Up to where events have been published.
    pub(crate) fn revision(&self) -> Revision {
        self.state.read().revision
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.state.read().compacted
    }

    /// The newest revision that is known to exist.
    pub(crate) fn newest(&self) -> Revision {
        self.revision().max(self.ahead.load(Ordering::Acquire))
    }

    /// Takes note that `revision` exists; returns the newest one known.
    pub(crate) fn learn(&self, revision: Revision) -> Revision {
        self.ahead.fetch_max(revision, Ordering::AcqRel).max(revision).max(self.revision())
    }

    /// Takes note of a compaction.
    pub(crate) fn compacted_to(&self, revision: Revision) {
        let mut state = self.state.write();
        state.compacted = state.compacted.max(revision);
        let dropped = state.window.trim(revision);
        drop(state);
        drop(dropped);
    }

    /// Nobody can tell what happened up to `revision`: every watch of any of it has lagged.
    pub(crate) fn lose(&self, revision: Revision) {
        let registry = self.registry.lock();
        let mut wake: Vec<Arc<watcher::Slot>> = registry.all().filter(|slot| slot.from <= revision).cloned().collect();
        let mut state = self.state.write();
        let first = state.revision + 1;
        let (number, dropped) = state.window.lose(revision);
        state.revision = state.revision.max(revision);
        wake.retain(|slot| slot.mark(number, first));
        drop(state);
        drop(registry);
        drop(dropped);
        for slot in wake {
            slot.news.notify_one();
        }
        self.arrived.notify_waiters();
    }

    /// Makes a durable group visible, to readers all at once, and wakes the watchers that it concerns.
    pub(crate) fn publish(&self, records: &[Record], events: Arc<[Event]>) {
        let mut registry = self.registry.lock();
        let mut wake = registry.matching(&events);
        let evicted;
        {
            let mut state = self.state.write();
            for record in records {
                state.index.apply(record);
            }
            let first = events[0].revision;
            state.revision = events[events.len() - 1].revision;
            let (number, dropped) = state.window.push(events);
            evicted = dropped;
            wake.retain(|slot| slot.mark(number, first));
        }
        drop(registry);
        drop(evicted);
        for slot in wake {
            slot.news.notify_one();
        }
        self.arrived.notify_waiters();
    }

    /// Ends everything: from now on every call answers `why`.
    pub(crate) fn end(&self, why: Error) {
        let registry = self.registry.lock();
        let mut state = self.state.write();
        if state.over.is_none() {
            state.over = Some(why);
        }
        drop(state);
        registry.all().for_each(|slot| slot.wake_all());
        self.arrived.notify_waiters();
    }

    /// The versions written at these revisions, without those that compaction has dropped.
    async fn versions(&self, revisions: Vec<Revision>) -> Result<Vec<(Revision, Arc<Version>)>, Error> {
        let mut found = Vec::with_capacity(revisions.len());
        let mut missing = Vec::new();
        if revisions.is_empty() {
            return Ok(found);
        }
        {
            let state = self.state.read();
            for revision in revisions {
                match state.window.version(revision) {
                    Some(version) => found.push((revision, version.clone())),
                    None => missing.push(revision),
                }
            }
        }
        if !missing.is_empty() {
            missing.sort_unstable();
            let records = self.history.fetch(missing).await?;
            found.extend(records.into_iter().filter_map(|record| Some((record.revision, record.version?))));
        }
        Ok(found)
    }
}

/// Who runs the committer.
enum Driver {
    /// A thread of its own, fed by a queue.
    Thread { queue: Arc<Queue>, thread: Mutex<Option<std::thread::JoinHandle<()>>> },
    /// Whoever writes, in place: deterministic, for simulation.
    Inline(Mutex<Box<dyn commit::Commit>>),
}

/// A store over some log.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    driver: Driver,
}

impl Engine {
    /// Replays `log` and starts the commit thread.
    pub(crate) fn start(
        log: impl Log,
        history: Arc<dyn History>,
        limits: Limits,
        clock: Clock,
    ) -> Result<Engine, Error> {
        let (shared, committer) = Committer::load(log, history, limits, clock)?;
        let queue = Arc::new(Queue::default());
        let thread = std::thread::Builder::new()
            .name("store-commit".into())
            .spawn({
                let queue = queue.clone();
                move || committer.run(&queue)
            })
            .map_err(|error| Error::Failed(format!("failed to start the commit thread: {error}").into()))?;
        Ok(Engine { shared, driver: Driver::Thread { queue, thread: Mutex::new(Some(thread)) } })
    }

    /// Replays `log`; there is no thread, each call does its work before it first yields.
    pub(crate) fn inline(
        log: impl Log,
        history: Arc<dyn History>,
        limits: Limits,
        clock: Clock,
    ) -> Result<Engine, Error> {
        let (shared, committer) = Committer::load(log, history, limits, clock)?;
        Ok(Engine { shared, driver: Driver::Inline(Mutex::new(Box::new(committer))) })
    }

    fn submit(&self, request: Request) {
        match &self.driver {
            Driver::Thread { queue, .. } => queue.push(request),
            Driver::Inline(committer) => committer.lock().handle(request),
        }
    }

    /// Deletes what has expired; returns when the next key will, in Unix milliseconds. For inline engines, which have
    /// no timer.
    pub(crate) fn expire(&self) -> Option<u64> {
        match &self.driver {
            Driver::Thread { .. } => None,
            Driver::Inline(committer) => committer.lock().expire(),
        }
    }

    /// What happened to a request whose answer never came: the store was closed, or the commit thread is gone, which
    /// may not have been noted yet.
    fn lost(&self) -> Error {
        let closed = matches!(&self.driver, Driver::Thread { queue, .. } if queue.is_closed());
        let over = self.shared.state.read().over.clone();
        over.unwrap_or_else(|| if closed { Error::Closed } else { Error::Failed(PANICKED.into()) })
    }

    /// Finishes what was begun, then refuses everything. Idempotent.
    pub(crate) fn close(&self) {
        if let Driver::Thread { queue, thread } = &self.driver {
            queue.close();
            if let Some(thread) = thread.lock().take() {
                // A panic over there has been reported as a failure of the store already.
                let _ = thread.join();
            }
        }
        self.shared.end(Error::Closed);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

/// The stores that are an engine under another name.
pub(crate) trait Backed: Send + Sync + 'static {
    fn engine(&self) -> &Engine;
}

#[async_trait]
impl<T: Backed> Store for T {
    async fn commit(&self, write: Write) -> Result<Outcome, Error> {
        let engine = self.engine();
        engine.shared.limits.check(&write)?;
        let (reply, answer) = oneshot::channel();
        engine.submit(Request::Write(Job { write, reply }));
        answer.await.unwrap_or_else(|_| Err(engine.lost()))
    }

    async fn get(&self, key: &str) -> Result<(Option<Arc<Version>>, Revision), Error> {
        let shared = &self.engine().shared;
        shared.limits.check_key(key)?;
        let state = shared.state.read();
        state.usable()?;
        Ok((state.index.get(key).cloned(), state.revision))
    }

    async fn range(&self, start: &str, end: &str, at: Option<Revision>, limit: usize) -> Result<Range, Error> {
        let shared = &self.engine().shared;
        loop {
            match shared.range(start, end, at, limit).await {
                // Compaction has overtaken a reading that never asked for an old revision: begin again at the new one.
                Err(Error::Compacted { .. }) if at.is_none() => {}
                range => return range,
            }
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error> {
        Ok(Watch::new(Watcher::start(&self.engine().shared, prefix, from)?))
    }

    async fn compact(&self, up_to: Revision) -> Result<(), Error> {
        let engine = self.engine();
        let (reply, answer) = oneshot::channel();
        engine.submit(Request::Compact { up_to, reply });
        answer.await.unwrap_or_else(|_| Err(engine.lost()))
    }

    async fn may_compact(&self, _: Revision) -> Result<bool, Error> {
        Ok(true)
    }

    fn shared(&self) -> bool {
        false
    }

    async fn current(&self) -> Result<Revision, Error> {
        let state = self.engine().shared.state.read();
        state.usable()?;
        Ok(state.revision)
    }

    fn revision(&self) -> Revision {
        self.engine().shared.revision()
    }

    fn compacted(&self) -> Revision {
        self.engine().shared.compacted()
    }
}
