//! One revisioned keyspace: compare-and-swap writes, ranges at a revision, watches without gaps, TTLs and compaction.
//!
//! [`Store`] is the boundary; [`sqlite::SqliteStore`] is the built-in implementation and [`memory::MemoryStore`] its
//! twin without a disk. Both are the same engine (an in-memory index, a bounded window of events, group commit) over a
//! different log. [`etcd::EtcdStore`] keeps nothing but the window of events: the rest is etcd's. The store knows no kinds: a key is a string, a value is bytes.
//!
//! Revisions count as in etcd: an empty store is at revision 1, every write, deletions too, gets the next one.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod engine;
mod error;
pub mod etcd;
#[cfg(test)]
mod history;
mod log;
pub mod memory;
pub mod sqlite;
mod types;
mod watch;

pub use engine::{Clock, Limits, system_clock};
pub use error::Error;
pub use types::{Change, Event, Expect, Facts, Outcome, Range, Revision, Version, Write, prefix_end};
pub use watch::{Progress, ProgressSource, Watch, WatchSource};

use async_trait::async_trait;
use std::sync::Arc;

/// The store as the API server sees it. Every method may be called from many tasks at once.
///
/// Once a write or an fsync has failed, every call answers [`Error::Failed`]: what is on disk is then unknown until the
/// store is opened again.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes one key if its current state is what `write.expect` says. Returns only when the outcome is durable.
    /// Dropping the future doesn't take the write back.
    ///
    /// Deleting an absent key is a conflict whose `current` is `None`.
    async fn commit(&self, write: Write) -> Result<Outcome, Error>;

    /// The current version of `key` and the store's revision, linearizable.
    async fn get(&self, key: &str) -> Result<(Option<Arc<Version>>, Revision), Error>;

    /// The keys in `start..end` in order, as of revision `at`, or now, linearizably. An empty `end` means "to the last
    /// key"; [`prefix_end`] makes the end of a prefix. `limit` 0 means all.
    async fn range(&self, start: &str, end: &str, at: Option<Revision>, limit: usize) -> Result<Range, Error>;

    /// Follows the keys under `prefix` (empty: all) from revision `from`, which is the first one delivered. It may lie in
    /// the future. [`Error::Compacted`] if it is not newer than the compacted revision.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error>;

    /// Whether this key's value should be written again although it has not changed.
    async fn stale(&self, _key: &str) -> Result<bool, Error> {
        Ok(false)
    }

    /// Forgets what was superseded or deleted at or before `up_to`; reads at `up_to` itself still work. A revision that
    /// is compacted already is no error.
    async fn compact(&self, up_to: Revision) -> Result<(), Error>;

    /// Whether it is this process's turn to compact up to there. Several that share a store take turns: to be asked
    /// once per interval of compaction.
    async fn may_compact(&self, up_to: Revision) -> Result<bool, Error>;

    /// Whether other processes may read and write it too.
    fn shared(&self) -> bool;

    /// The newest committed revision, linearizable: no write that was acknowledged before this call, to whomever, has a
    /// newer one.
    async fn current(&self) -> Result<Revision, Error>;

    /// The newest committed revision as far as this process knows; others who share the store may have written since.
    fn revision(&self) -> Revision;

    /// The newest compacted revision, 0 if there is none: the oldest one that can be read is the greater of this and 1.
    fn compacted(&self) -> Revision;
}
