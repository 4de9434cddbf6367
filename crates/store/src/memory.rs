//! A store without a disk: for tests and simulation.

use crate::engine::{Backed, Clock, Engine, Limits, system_clock};
use crate::log::{History, Log, Record, SCAN_BYTES, SCAN_RECORDS, Scan, Scanned};
use crate::{Error, Event, Revision};
use async_trait::async_trait;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The engine over a log in memory. What it acknowledges lasts as long as it does.
pub struct MemoryStore(Engine);

impl MemoryStore {
    /// A store on the host's clock, with a commit thread of its own.
    pub fn new(limits: Limits) -> Result<MemoryStore, Error> {
        let log = MemoryLog::default();
        Ok(MemoryStore(Engine::start(log.clone(), Arc::new(log), limits, system_clock())?))
    }

    /// A deterministic store: no thread, no timer. Every call finishes its work before it returns; keys expire when
    /// [`expire`](MemoryStore::expire) is called and in the course of later writes.
    pub fn simulated(limits: Limits, clock: Clock) -> Result<MemoryStore, Error> {
        let log = MemoryLog::default();
        Ok(MemoryStore(Engine::inline(log.clone(), Arc::new(log), limits, clock)?))
    }

    /// Deletes what has expired by the simulation's clock; returns when the next key expires, in Unix milliseconds.
    /// A store with a thread does this by itself, and answers `None`.
    pub fn expire(&self) -> Option<u64> {
        self.0.expire()
    }
}

impl Backed for MemoryStore {
    fn engine(&self) -> &Engine {
        &self.0
    }
}

/// Clones share the records.
#[derive(Clone, Default)]
pub(crate) struct MemoryLog(Arc<RwLock<Inner>>);

#[derive(Default)]
struct Inner {
    records: BTreeMap<Revision, Record>,
    compacted: Revision,
}

impl Log for MemoryLog {
    fn compacted(&self) -> Revision {
        self.0.read().compacted
    }

    fn replay(&mut self, visit: &mut dyn FnMut(Record) -> Result<(), Error>) -> Result<(), Error> {
        self.0.read().records.values().try_for_each(|record| visit(record.clone()))
    }

    fn append(&mut self, group: &[Event]) -> Result<(), Error> {
        let mut inner = self.0.write();
        for Event { revision, key, version, .. } in group {
            let record = Record { revision: *revision, key: key.clone(), version: version.clone() };
            inner.records.insert(*revision, record);
        }
        Ok(())
    }

    fn compact(&mut self, up_to: Revision, drop: &[Revision]) -> Result<(), Error> {
        let mut inner = self.0.write();
        inner.compacted = up_to;
        for revision in drop {
            inner.records.remove(revision);
        }
        Ok(())
    }

    fn tidy(&mut self) -> Result<bool, Error> {
        Ok(false)
    }

    fn between_groups(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

#[async_trait]
impl History for MemoryLog {
    async fn fetch(&self, revisions: Vec<Revision>) -> Result<Vec<Record>, Error> {
        let inner = self.0.read();
        Ok(revisions.iter().filter_map(|revision| inner.records.get(revision).cloned()).collect())
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, Error> {
        let inner = self.0.read();
        let mut events = Vec::new();
        let mut bytes = 0;
        for record in inner.records.range(scan.from..=scan.to).map(|(_, record)| record) {
            if *record.key < *scan.start || (!scan.end.is_empty() && record.key >= scan.end) {
                continue;
            }
            bytes += record.version.as_ref().map_or(0, |version| version.value.len());
            events.push(record.clone().into_event());
            if events.len() >= SCAN_RECORDS || bytes >= SCAN_BYTES {
                return Ok(Scanned { covered: record.revision, events });
            }
        }
        Ok(Scanned { events, covered: scan.to })
    }
}
