//! The narrow waist between engine and disk.

use crate::{Error, Event, Revision, Version};
use async_trait::async_trait;
use std::sync::Arc;

/// One write as the log remembers it.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) revision: Revision,
    pub(crate) key: Arc<str>,
    /// `None`: deleted.
    pub(crate) version: Option<Arc<Version>>,
}

/// A durable log. Only the commit thread calls it. An error from any method is fatal to the store.
pub(crate) trait Log: Send + 'static {
    /// The compacted revision as stored.
    fn compacted(&self) -> Revision;
    /// Hands every record out, in order of revision.
    fn replay(&mut self, visit: &mut dyn FnMut(Record) -> Result<(), Error>) -> Result<(), Error>;
    /// Stores a group of writes, all or none; returns when they are durable.
    fn append(&mut self, group: &[Event]) -> Result<(), Error>;
    /// One step of compaction to `up_to`: drops these records. Need not be durable, but must not overtake an append.
    fn compact(&mut self, up_to: Revision, drop: &[Revision]) -> Result<(), Error>;
    /// One step of housekeeping, in an idle moment. Returns whether there is more to do.
    fn tidy(&mut self) -> Result<bool, Error>;
    /// What must be done now and then even under load, between two groups.
    fn between_groups(&mut self) -> Result<(), Error>;
    /// Compaction has ended.
    fn compacted_all(&mut self) {}
}

/// Which records a [`History::scan`] wants: `from..=to`, with keys in `start..end` (empty: no end).
#[derive(Clone)]
pub(crate) struct Scan {
    pub(crate) from: Revision,
    pub(crate) to: Revision,
    pub(crate) start: Arc<str>,
    pub(crate) end: Arc<str>,
}

/// What a scan found, and the last revision that it covers. What the events replaced is filled in from the index if the
/// log doesn't tell.
pub(crate) struct Scanned {
    pub(crate) events: Vec<Event>,
    pub(crate) covered: Revision,
}

impl Record {
    pub(crate) fn into_event(self) -> Event {
        Event { revision: self.revision, key: self.key, version: self.version, previous: None }
    }
}

/// A scan stops after this many records or bytes, so that a reader of old history costs bounded memory.
pub(crate) const SCAN_RECORDS: usize = 512;
pub(crate) const SCAN_BYTES: usize = 8 << 20;

/// Reads what the log remembers and the engine has forgotten. Any task calls it.
#[async_trait]
pub(crate) trait History: Send + Sync {
    /// These records, in this order, without those that compaction has dropped. `revisions` ascend.
    async fn fetch(&self, revisions: Vec<Revision>) -> Result<Vec<Record>, Error>;
    /// The first records of a scan, in order of revision.
    async fn scan(&self, scan: Scan) -> Result<Scanned, Error>;
}
