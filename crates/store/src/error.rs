use crate::Revision;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a store did not do as asked. Cheap to clone, since a failed store tells everybody.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("revision {requested} has been compacted (up to {compacted})")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("revision {requested} is newer than the store's ({current})")]
    FutureRevision { requested: Revision, current: Revision },
    /// The watcher was too slow for the store's window of events. List, and watch again.
    #[error("the watcher fell behind the store's window of events")]
    Lagged,
    #[error("the {what} has {size} bytes; the limit is {limit}")]
    TooLarge { what: &'static str, size: usize, limit: usize },
    #[error("the key is empty")]
    EmptyKey,
    /// A write or fsync failed. Fatal: nothing further is read or written until the store is opened again.
    #[error("the store has failed: {0}")]
    Failed(Arc<str>),
    /// The store's server can't be reached or doesn't answer. A write may have happened or not.
    #[error("etcd is not available: {0}")]
    Unavailable(Arc<str>),
    /// What stands between the store and its reader can't make out a value, or can't write one, for now.
    #[error("{0}")]
    Unreadable(Arc<str>),
    #[error("{0}")]
    Configuration(Arc<str>),
    #[error("the store is closed")]
    Closed,
    #[error("{} is in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("{} is corrupt: {detail}", path.display())]
    Corrupt { path: PathBuf, detail: String },
    #[error("{} has schema version {found}; this program knows versions up to {known}", path.display())]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("failed to open {}: {detail}", path.display())]
    Open { path: PathBuf, detail: String },
}
