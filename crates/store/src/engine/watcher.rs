//! A watch: a cursor into the window or, while it is older than that, into the log.

use super::Shared;
use super::index::At;
use crate::log::Scan;
use crate::watch::{Progress, ProgressSource, WatchSource};
use crate::{Error, Event, Revision, Version, prefix_end};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// What a watcher has yet to see.
#[derive(Clone, Copy, PartialEq)]
enum Pending {
    /// Nothing: it is current with the store, and stays so until a commit marks it.
    Nothing,
    /// What is in the window from the group of this number on.
    Window(u64),
    /// What is in the log from this revision on.
    Log(Revision),
}

struct Position {
    pending: Pending,
    /// The consumer has dealt with everything up to here, at least.
    done: Revision,
    /// The last group went out up to this revision, and the consumer hasn't come back since.
    in_hand: Option<Revision>,
    closed: bool,
}

/// Where the commit thread finds a watcher.
pub(crate) struct Slot {
    pub(crate) prefix: Arc<str>,
    /// The first revision to deliver.
    pub(crate) from: Revision,
    position: Mutex<Position>,
    /// There is something to see.
    pub(crate) news: Notify,
    /// The consumer came back.
    returned: Notify,
}

impl Slot {
    pub(crate) fn new(prefix: &str, from: Revision) -> Slot {
        let position = Position { pending: Pending::Nothing, done: 0, in_hand: None, closed: false };
        Slot {
            prefix: prefix.into(),
            from,
            position: Mutex::new(position),
            news: Notify::new(),
            returned: Notify::new(),
        }
    }

    /// Group `number`, which begins at `first`, concerns this watcher. Returns whether it must be woken. The caller
    /// holds the state's write lock.
    pub(crate) fn mark(&self, number: u64, first: Revision) -> bool {
        let mut position = self.position.lock();
        if position.pending != Pending::Nothing {
            return false;
        }
        position.pending = Pending::Window(number);
        if position.in_hand.is_none() {
            position.done = first - 1;
        }
        true
    }

    /// Wakes everybody who waits on this watch.
    pub(crate) fn wake_all(&self) {
        self.news.notify_one();
        self.returned.notify_waiters();
    }
}

pub(crate) struct Watcher {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    end: Arc<str>,
    ended: bool,
}

/// What one look at the window gave.
enum Look {
    Group(Arc<[Event]>),
    Log(Revision),
    Nothing,
}

impl Watcher {
    pub(crate) fn start(shared: &Arc<Shared>, prefix: &str, from: Revision) -> Result<Watcher, Error> {
        let from = from.max(1);
        // Nothing happened at revision 1, the empty store's.
        let slot = Arc::new(Slot::new(prefix, from.max(2)));
        let mut registry = shared.registry.lock();
        let state = shared.state.read();
        state.usable()?;
        if from <= state.compacted {
            return Err(Error::Compacted { requested: from, compacted: state.compacted });
        }
        let from = slot.from;
        {
            let mut position = slot.position.lock();
            position.done = (from - 1).min(state.revision);
            position.pending = if from > state.revision {
                Pending::Nothing
            } else if state.window.reaches(from) {
                Pending::Window(state.window.number(from))
            } else {
                Pending::Log(from)
            };
        }
        registry.insert(&slot);
        drop(state);
        drop(registry);
        Ok(Watcher { shared: shared.clone(), slot, end: prefix_end(prefix).into(), ended: false })
    }

    /// The consumer is back: what it had in hand is dealt with.
    fn acknowledge(&self) {
        let mut position = self.slot.position.lock();
        if let Some(revision) = position.in_hand.take() {
            position.done = position.done.max(revision);
            drop(position);
            self.slot.returned.notify_waiters();
        }
    }

    /// Takes the next group from the window.
    fn look(&self) -> Result<Look, Error> {
        let state = self.shared.state.read();
        let mut position = self.slot.position.lock();
        let mut number = match position.pending {
            Pending::Nothing => {
                state.usable()?;
                return Ok(Look::Nothing);
            }
            Pending::Log(revision) if !state.window.reaches(revision) => {
                state.usable()?;
                return Ok(Look::Log(revision));
            }
            Pending::Log(revision) => state.window.number(revision),
            Pending::Window(number) => number,
        };
        let end = state.window.end();
        while number < end {
            let group = state.window.get(number).ok_or(Error::Lagged)?;
            number += 1;
            if let Some(events) = self.select(&group.events) {
                position.pending = if number < end { Pending::Window(number) } else { Pending::Nothing };
                position.in_hand = Some(group.last());
                return Ok(Look::Group(events));
            }
        }
        position.pending = Pending::Nothing;
        state.usable()?;
        drop(position);
        drop(state);
        // Whoever waits for this watch to be current may find that it now is.
        self.slot.returned.notify_waiters();
        Ok(Look::Nothing)
    }

    fn wants(&self, event: &Event) -> bool {
        event.revision >= self.slot.from && event.key.starts_with(&*self.slot.prefix)
    }

    fn select(&self, events: &Arc<[Event]>) -> Option<Arc<[Event]>> {
        match events.iter().filter(|event| self.wants(event)).count() {
            0 => None,
            all if all == events.len() => Some(events.clone()),
            _ => Some(events.iter().filter(|event| self.wants(event)).cloned().collect()),
        }
    }

    /// Reads the next stretch of the log, from revision `from` on. `None` if it holds nothing for this watcher.
    async fn read_log(&self, from: Revision) -> Result<Option<Arc<[Event]>>, Error> {
        let to = self.shared.state.read().revision;
        let scan = Scan { from, to, start: self.slot.prefix.clone(), end: self.end.clone() };
        let scanned = self.shared.history.scan(scan).await?;
        let mut events = scanned.events;
        let complete = self.fill_previous(&mut events).await?;
        let state = self.shared.state.read();
        state.usable()?;
        // Checked after the reading, since compaction announces itself before it drops anything.
        if from <= state.compacted {
            return Err(Error::Compacted { requested: from, compacted: state.compacted });
        }
        if !complete {
            return Err(Error::Failed(format!("revisions before {from} are missing from the log").into()));
        }
        let mut position = self.slot.position.lock();
        position.pending = Pending::Log(scanned.covered + 1);
        if events.is_empty() {
            position.done = scanned.covered;
            return Ok(None);
        }
        position.in_hand = Some(scanned.covered);
        Ok(Some(events.into()))
    }

    /// Looks up what each of `events` replaced. Returns whether all of it was there.
    async fn fill_previous(&self, events: &mut [Event]) -> Result<bool, Error> {
        let mut wanted: Vec<(usize, Revision)> = Vec::new();
        let mut known: HashMap<Revision, Arc<Version>> = HashMap::new();
        {
            let state = self.shared.state.read();
            for (i, event) in events.iter().enumerate() {
                match state.index.at(&event.key, event.revision - 1) {
                    At::Live(version) => {
                        known.insert(version.mod_revision, version.clone());
                        wanted.push((i, version.mod_revision));
                    }
                    At::Past(revision) => wanted.push((i, revision)),
                    At::Absent => {}
                }
                if let Some(version) = &event.version {
                    known.insert(event.revision, version.clone());
                }
            }
        }
        let missing = wanted.iter().map(|(_, revision)| *revision).filter(|revision| !known.contains_key(revision));
        for (revision, version) in self.shared.versions(missing.collect()).await? {
            known.insert(revision, version);
        }
        let mut complete = true;
        for (i, revision) in wanted {
            events[i].previous = known.get(&revision).cloned();
            complete &= events[i].previous.is_some();
        }
        Ok(complete)
    }

    pub(crate) fn slot_progress(&self) -> SlotProgress {
        SlotProgress { shared: self.shared.clone(), slot: self.slot.clone() }
    }

    async fn advance(&mut self) -> Result<Arc<[Event]>, Error> {
        self.acknowledge();
        loop {
            match self.look()? {
                Look::Group(events) => return Ok(events),
                Look::Log(from) => {
                    if let Some(events) = self.read_log(from).await? {
                        return Ok(events);
                    }
                }
                Look::Nothing => self.slot.news.notified().await,
            }
        }
    }
}

#[async_trait]
impl WatchSource for Watcher {
    async fn next(&mut self) -> Option<Result<Arc<[Event]>, Error>> {
        if self.ended {
            return None;
        }
        let next = self.advance().await;
        self.ended = next.is_err();
        match next {
            Err(Error::Closed) => None,
            next => Some(next),
        }
    }

    fn revision(&self) -> Revision {
        let state = self.shared.state.read();
        let position = self.slot.position.lock();
        match position.pending {
            Pending::Nothing => state.revision,
            _ => position.done.max(position.in_hand.unwrap_or(0)),
        }
    }

    fn progress(&self) -> Progress {
        Progress::new(Arc::new(self.slot_progress()))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.registry.lock().remove(&self.slot);
        self.slot.position.lock().closed = true;
        self.slot.returned.notify_waiters();
    }
}

pub(crate) struct SlotProgress {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
}

#[async_trait]
impl ProgressSource for SlotProgress {
    fn revision(&self) -> Revision {
        let state = self.shared.state.read();
        let position = self.slot.position.lock();
        match (position.pending, position.in_hand) {
            (Pending::Nothing, None) => state.revision,
            _ => position.done,
        }
    }

    async fn reached(&self, revision: Revision) -> Result<(), Error> {
        let current = self.shared.newest();
        if revision > current {
            return Err(Error::FutureRevision { requested: revision, current });
        }
        loop {
            let (returned, arrived) = (self.slot.returned.notified(), self.shared.arrived.notified());
            tokio::pin!(returned, arrived);
            returned.as_mut().enable();
            arrived.as_mut().enable();
            let ahead = revision > self.shared.revision();
            if self.revision() >= revision {
                return Ok(());
            }
            self.shared.state.read().usable()?;
            if self.slot.position.lock().closed {
                return Err(Error::Closed);
            }
            tokio::select! {
                () = returned => {}
                () = arrived, if ahead => {}
            }
        }
    }
}
