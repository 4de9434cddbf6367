//! The newest version of every key, and what older revisions readers may still ask for.

use crate::log::Record;
use crate::{Revision, Version};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// An older state of a key. Only its revision is kept: the value is in the window or in the log.
#[derive(Clone, Copy)]
struct Past {
    revision: Revision,
    deleted: bool,
}

pub(crate) struct Entry {
    /// Of the newest state. Beside the version, not in it, so that counting keys doesn't touch every version.
    revision: Revision,
    /// The newest state; `None`: deleted, and kept until compaction gets there.
    latest: Option<Arc<Version>>,
    /// Ascending.
    older: Vec<Past>,
}

/// A key's state at some revision.
pub(crate) enum At<'a> {
    Absent,
    Live(&'a Arc<Version>),
    /// It existed, as written at this revision.
    Past(Revision),
}

/// A record that nobody can read any more once the store is compacted to `at`.
pub(crate) struct Garbage {
    pub(crate) at: Revision,
    pub(crate) revision: Revision,
    pub(crate) key: Arc<str>,
}

#[derive(Default)]
pub(crate) struct Index {
    entries: BTreeMap<Arc<str>, Entry>,
}

impl Entry {
    /// The key's state as of `revision`.
    pub(crate) fn at(&self, revision: Revision) -> At<'_> {
        if self.revision <= revision {
            return self.latest.as_ref().map_or(At::Absent, At::Live);
        }
        let newer = self.older.partition_point(|past| past.revision <= revision);
        match newer.checked_sub(1).map(|i| self.older[i]) {
            Some(Past { revision, deleted: false }) => At::Past(revision),
            _ => At::Absent,
        }
    }
}

impl Index {
    /// The live version of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Version>> {
        self.entries.get(key)?.latest.as_ref()
    }

    /// The key as the index holds it, so that its versions share one string.
    pub(crate) fn key(&self, key: &str) -> Option<&Arc<str>> {
        self.entries.get_key_value(key).map(|(key, _)| key)
    }

    /// The key's state as of `revision`.
    pub(crate) fn at(&self, key: &str, revision: Revision) -> At<'_> {
        self.entries.get(key).map_or(At::Absent, |entry| entry.at(revision))
    }

    /// The keys from `start` on, before `end` (empty: no end).
    pub(crate) fn range<'a>(
        &'a self,
        start: Bound<&str>,
        end: &str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> + use<'a> {
        let from = match start {
            Bound::Included(key) | Bound::Excluded(key) => key,
            Bound::Unbounded => "",
        };
        // BTreeMap panics on a range that is upside down.
        let empty = !end.is_empty() && from >= end;
        let end = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        (!empty).then(|| self.entries.range::<str, _>((start, end))).into_iter().flatten()
    }

    /// Makes `record` its key's newest state.
    pub(crate) fn apply(&mut self, record: &Record) {
        let Record { revision, version: latest, .. } = record.clone();
        match self.entries.get_mut(&record.key) {
            Some(entry) => {
                entry.older.push(Past { revision: entry.revision, deleted: entry.latest.is_none() });
                (entry.revision, entry.latest) = (revision, latest);
            }
            None => {
                self.entries.insert(record.key.clone(), Entry { revision, latest, older: Vec::new() });
            }
        }
    }

    /// Forgets a state that compaction drops.
    pub(crate) fn forget(&mut self, garbage: &Garbage) {
        let Some(entry) = self.entries.get_mut(&garbage.key) else { return };
        if entry.revision == garbage.revision {
            // Only a deletion becomes garbage while it is its key's newest state.
            self.entries.remove(&garbage.key);
            return;
        }
        if let Ok(i) = entry.older.binary_search_by_key(&garbage.revision, |past| past.revision) {
            entry.older.remove(i);
        }
        if entry.older.is_empty() {
            entry.older = Vec::new();
        }
    }
}

impl Garbage {
    /// What becomes garbage when `revision` replaces `previous`; a deletion is garbage itself.
    pub(crate) fn of(
        revision: Revision,
        key: &Arc<str>,
        deleted: bool,
        previous: Option<Revision>,
    ) -> impl Iterator<Item = Garbage> {
        let itself = deleted.then_some(revision);
        let key = key.clone();
        previous.into_iter().chain(itself).map(move |old| Garbage { at: revision, revision: old, key: key.clone() })
    }
}
