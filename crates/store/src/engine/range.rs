//! Reading a range, in chunks at a fixed revision, so that a long one holds nobody up.

use super::index::{At, Entry};
use super::{Shared, State};
use crate::{Error, Range, Revision, Version};
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

/// Keys looked at per turn of the read lock.
const CHUNK: usize = 1024;

/// A range being read, chunk by chunk, at a fixed revision.
struct Reading<'a> {
    start: Bound<Arc<str>>,
    end: &'a str,
    revision: Revision,
    limit: usize,
    items: Vec<Option<Arc<Version>>>,
    /// Where in `items` a version is missing that is no longer the key's newest.
    missing: Vec<(usize, Revision)>,
    remaining: u64,
    finished: bool,
}

impl Reading<'_> {
    /// Takes in the next chunk.
    fn chunk(&mut self, state: &State) {
        let start = match &self.start {
            Bound::Included(key) => Bound::Included(&**key),
            Bound::Excluded(key) => Bound::Excluded(&**key),
            Bound::Unbounded => Bound::Unbounded,
        };
        let mut last = None;
        let mut visited = 0;
        for (key, entry) in state.index.range(start, self.end).take(CHUNK) {
            visited += 1;
            last = Some(key);
            self.take(entry);
        }
        self.finished = visited < CHUNK;
        if let Some(key) = last {
            self.start = Bound::Excluded(key.clone());
        }
    }

    fn take(&mut self, entry: &Entry) {
        let full = self.limit != 0 && self.items.len() == self.limit;
        match entry.at(self.revision) {
            At::Absent => {}
            At::Live(_) | At::Past(_) if full => self.remaining += 1,
            At::Live(version) => self.items.push(Some(version.clone())),
            At::Past(revision) => {
                self.missing.push((self.items.len(), revision));
                self.items.push(None);
            }
        }
    }
}

impl Shared {
    /// Reads a range. `Compacted` if compaction overtakes the reading.
    pub(crate) async fn range(
        &self,
        start: &str,
        end: &str,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<Range, Error> {
        let mut reading = Reading {
            start: Bound::Included(start.into()),
            end,
            revision: 0,
            limit,
            items: Vec::new(),
            missing: Vec::new(),
            remaining: 0,
            finished: false,
        };
        {
            let state = self.state.read();
            reading.revision = at.unwrap_or(state.revision);
            state.readable(reading.revision)?;
            reading.chunk(&state);
        }
        loop {
            self.fill(&mut reading).await?;
            if reading.finished {
                break;
            }
            let state = self.state.read();
            state.readable(reading.revision)?;
            reading.chunk(&state);
        }
        let Reading { revision, items, remaining, .. } = reading;
        let items = items.into_iter().flatten().collect();
        Ok(Range { revision, items, more: remaining > 0, remaining })
    }

    /// Reads the versions that a chunk left open.
    async fn fill(&self, reading: &mut Reading<'_>) -> Result<(), Error> {
        if reading.missing.is_empty() {
            return Ok(());
        }
        let missing = std::mem::take(&mut reading.missing);
        let wanted = missing.iter().map(|(_, revision)| *revision).collect();
        let found: HashMap<Revision, Arc<Version>> = self.versions(wanted).await?.into_iter().collect();
        // Checked after the reading, since compaction announces itself before it drops anything.
        self.state.read().readable(reading.revision)?;
        for (i, revision) in missing {
            let Some(version) = found.get(&revision) else {
                return Err(Error::Failed(format!("revision {revision} is missing from the log").into()));
            };
            reading.items[i] = Some(version.clone());
        }
        Ok(())
    }
}
