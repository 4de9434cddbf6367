//! Stores that are wrong now and then.

use crate::memory::MemoryStore;
use crate::{Error, Expect, Outcome, Range, Revision, Store, Version, Watch, Write};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Plant {
    /// A read answers what the read before it saw.
    StaleReads,
    /// A write is acknowledged and not done.
    LostWrites,
    /// A compare-and-swap doesn't compare.
    BlindSwaps,
}

pub(super) struct Planted {
    store: MemoryStore,
    plant: Plant,
    calls: AtomicU64,
    seen: Mutex<HashMap<String, Option<Arc<Version>>>>,
}

impl Planted {
    pub(super) fn new(store: MemoryStore, plant: Plant) -> Planted {
        Planted { store, plant, calls: AtomicU64::new(0), seen: Mutex::default() }
    }

    fn strikes(&self, plant: Plant) -> bool {
        plant == self.plant && self.calls.fetch_add(1, Ordering::AcqRel) % 20 == 19
    }
}

#[async_trait]
impl Store for Planted {
    async fn commit(&self, mut write: Write) -> Result<Outcome, Error> {
        if self.strikes(Plant::LostWrites) && write.expect == Expect::Anything {
            let (found, revision) = self.store.get(&write.key).await?;
            return Ok(Outcome::Committed { revision, version: found.clone(), previous: found });
        }
        if self.strikes(Plant::BlindSwaps) {
            write.expect = Expect::Anything;
        }
        self.store.commit(write).await
    }

    async fn get(&self, key: &str) -> Result<(Option<Arc<Version>>, Revision), Error> {
        let (found, revision) = self.store.get(key).await?;
        let before = self.seen.lock().insert(key.into(), found.clone());
        Ok((before.filter(|_| self.strikes(Plant::StaleReads)).unwrap_or(found), revision))
    }

    async fn range(&self, start: &str, end: &str, at: Option<Revision>, limit: usize) -> Result<Range, Error> {
        self.store.range(start, end, at, limit).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error> {
        self.store.watch(prefix, from).await
    }

    async fn compact(&self, up_to: Revision) -> Result<(), Error> {
        self.store.compact(up_to).await
    }

    async fn may_compact(&self, up_to: Revision) -> Result<bool, Error> {
        self.store.may_compact(up_to).await
    }

    fn shared(&self) -> bool {
        false
    }

    async fn current(&self) -> Result<Revision, Error> {
        self.store.current().await
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn compacted(&self) -> Revision {
        self.store.compacted()
    }
}
